"""`homeport status` and `--version` without a network, against a bare interpreter and git."""

from __future__ import annotations

import sys

from _measure import HOMEPORT, asked, heading, in_turns, run, table, world


def main() -> None:
    options = asked("homeport status", (500,), ())
    heading("homeport status, no network")
    for count in options.sizes:
        with world() as here:
            here.configure()
            here.files(count)
            here.push()
            here.homeport("deploy")
            steps = {
                "homeport status": lambda h=here: run(HOMEPORT, "status", cwd=h.clone, env=h.env),
                "homeport --version": lambda h=here: run(HOMEPORT, "--version", cwd=h.clone, env=h.env),
                "python -c pass": lambda: run(sys.executable, "-c", "pass"),
                "git log -1": lambda h=here: h.git("log", "-1", "--format=%H"),
            }
            table(f"{count:,} files", in_turns(steps, max(options.times, 9)), "homeport status")


if __name__ == "__main__":
    main()
