"""Lines of a chatty command through the journal (parsed, redacted, kept), against `cat` into a file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import asked, heading, in_turns, table

from homeport.doors.journal import FileJournal
from homeport.doors.shell import LocalShell
from homeport.flow.work import OutputLines
from homeport.model.ports import Job

BARE = {"PATH": "/usr/bin:/bin"}
PRINTS = "import sys\nfor n in range(int(sys.argv[1])): print(f'[build] compiling module number {n:>12} ok')"
"""A build that prints its lines as it goes."""


def main() -> None:
    options = asked("lines through the journal", (100_000,), (1_000_000,))
    heading("a command's output lines through the journal")
    for count in options.sizes:
        with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
            text = Path(folder) / "lines"
            text.write_text("".join(f"[build] compiling module number {n:>12} ok\n" for n in range(count)))
            kinds = {"printed one by one": [sys.executable, "-c", PRINTS, str(count)], "out of a file": ["cat", str(text)]}
            for kind, source in kinds.items():
                steps = {
                    "journal": lambda f=folder, s=source: through(f, s),
                    "cat into a file": lambda f=folder, s=source: piped(f, s),
                }
                took = in_turns(steps, options.times)
                table(f"{count:,} lines of 49 bytes, {kind}", took, "journal")
                print(f"  {count / took['journal']:,.0f} lines/s kept")


def through(folder: str, source: list[str]) -> None:
    journal = FileJournal(f"{folder}/{time.time_ns()}.jsonl", "20260101t000000-0000", lambda line: line)
    try:
        job = Job(command=source, cwd=folder, env=BARE, label="build", timeout=600)
        LocalShell().job(job, OutputLines(journal, "site"))
        journal.sync()
    finally:
        journal.close()
        Path(journal.path).unlink()


def piped(folder: str, source: list[str]) -> None:
    with open(f"{folder}/out", "wb") as out, subprocess.Popen(source, env=BARE, stdout=subprocess.PIPE) as first:
        subprocess.run(["cat"], stdin=first.stdout, stdout=out, check=True)


if __name__ == "__main__":
    main()
