"""Lines of a chatty command through the journal (parsed, redacted, kept), against `cat` into a file."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from _measure import asked, heading, in_turns, table

from homeport.doors.journal import FileJournal
from homeport.doors.shell import LocalShell
from homeport.model.ports import Job


def main() -> None:
    options = asked("lines through the journal", (100_000,), (1_000_000,))
    heading("a command's output lines through the journal")
    for count in options.sizes:
        with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
            text = Path(folder) / "lines"
            text.write_text("".join(f"[build] compiling module number {n:>12} ok\n" for n in range(count)))
            steps = {
                "journal": lambda f=folder, t=text: through(f, t),
                "cat into a file": lambda f=folder, t=text: piped(f, t),
            }
            took = in_turns(steps, options.times)
            table(f"{count:,} lines of 49 bytes", took, "journal")
            print(f"  {count / took['journal']:,.0f} lines/s kept")


def through(folder: str, text: Path) -> None:
    journal = FileJournal(f"{folder}/{time.time_ns()}.jsonl", "20260101t000000-0000", lambda line: line)
    try:
        job = Job(command=["cat", str(text)], cwd=folder, env={"PATH": "/usr/bin:/bin"}, label="build", timeout=600)
        LocalShell().job(job, lambda stream, line: journal.line(stream, line, "site"))
        journal.sync()
    finally:
        journal.close()
        Path(journal.path).unlink()


def piped(folder: str, text: Path) -> None:
    with open(f"{folder}/out", "wb") as out, subprocess.Popen(["cat", str(text)], stdout=subprocess.PIPE) as first:
        subprocess.run(["cat"], stdin=first.stdout, stdout=out, check=True)


if __name__ == "__main__":
    main()
