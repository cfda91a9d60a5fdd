"""A converge tick with nothing to do, at 1 and at 50 services, against the one fetch that it takes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from _measure import World, asked, heading, in_turns, run, table, world

GOAL = 0.5
"""Seconds at 50 services (DESIGN section 12), with one fetch."""


def main() -> None:
    options = asked("a converge tick with nothing to do", sizes=(1, 50), full=(500,))
    heading("homeport converge with nothing to do, whole process")
    for count in options.sizes:
        with world() as here:
            prepare(here, count)
            here.homeport("converge")
            steps = {
                "homeport converge": lambda: _tick(here),
                "git fetch": lambda: _fetch(here),
                "a bare interpreter": _bare,
            }
            took = in_turns(steps, options.times)
            table(f"{count} services, {fetches(here)} fetch", took, "homeport converge")
            print(f"  above the fetch {(took['homeport converge'] - took['git fetch']) * 1000:,.0f} ms")


def prepare(here: World, count: int) -> None:
    """That many services, each with a live folder of one file, deployed."""
    text = '[project]\nname = "site"\n\n[environments.production]\nbranch = "main"\n'
    for number in range(count):
        text += f'\n[services.s{number}]\nsource = "s{number}"\ntarget = "{here.live}/s{number}"\n'
        (here.clone / f"s{number}").mkdir()
        (here.clone / f"s{number}/a.txt").write_text("a\n")
    (here.clone / "homeport.toml").write_text(text)
    here.push()
    here.homeport("converge")


def fetches(here: World) -> int:
    """How often one tick calls `git fetch`, counted by a git that writes down how it is called."""
    shim, log = here.root / "shim", here.root / "calls"
    shim.mkdir()
    (shim / "git").write_text(f'#!/bin/sh\necho " $* " >> {log}\nexec {shutil.which("git")} "$@"\n')
    (shim / "git").chmod(0o755)
    before = here.env["PATH"]
    here.env["PATH"] = f"{shim}{os.pathsep}{before}"
    here.homeport("converge")
    here.env["PATH"] = before
    return sum(" fetch " in line for line in log.read_text().splitlines())


def _tick(here: World) -> None:
    here.homeport("converge")


def _fetch(here: World) -> None:
    mirror = next(Path(here.state).glob("*/repo.git"))
    run("git", f"--git-dir={mirror}", "fetch", "--quiet", "--prune", "--no-tags", str(here.origin),
        "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", env=here.env)  # fmt: skip


def _bare() -> None:
    run(sys.executable, "-c", "pass")


if __name__ == "__main__":
    main()
