"""What the measurements share: a small world with a live folder, commands in turns, a table of ratios.

Every figure is the median of whole processes run in turns with their peer, so a busy machine slows both.
Nothing here fails because a clock said so.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

HOMEPORT = str(Path(sys.executable).parent / "homeport")
FILES_PER_FOLDER = 50
ROWS = os.environ.get("HOMEPORT_BENCH_ROWS")
"""Where the rows of the table in docs/benchmarks.md are collected, when somebody asked for them (`./dev bench all`)."""
_heading: list[str] = []
Step = Callable[[], None]


def asked(what: str, sizes: tuple[int, ...] = (500, 10_000), full: tuple[int, ...] = (100_000,)) -> argparse.Namespace:
    """The arguments every measurement takes; `sizes` and `times` are set on what is returned."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--full", action="store_true", help=f"also {', '.join(f'{n:,}' for n in full)}: takes minutes")
    parser.add_argument("--sizes", help="sizes instead of those, with commas between them")
    parser.add_argument("--times", type=int, default=3, help="rounds; the median counts (3)")
    found = parser.parse_args()
    found.sizes = tuple(int(n) for n in found.sizes.split(",")) if found.sizes else sizes + (full if found.full else ())
    return found


def in_turns(steps: Mapping[str, Step], times: int, before: Mapping[str, Step] | None = None) -> dict[str, float]:
    """Median seconds of each step. All are run once unmeasured, then in turns; `before` is not measured."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(times + 1):
        for name, step in steps.items():
            if before and name in before:
                before[name]()
            began = time.perf_counter()
            step()
            if number:
                took[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def heading(what: str) -> None:
    """The measurement with its machine and date."""
    _heading[:] = [what]
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    load = os.getloadavg()[0]
    print(f"\n{what}\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {model or platform.machine()}, "
          f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load {load:.1f}")  # fmt: skip


def table(case: str, took: Mapping[str, float], subject: str) -> None:
    """Ratios first: below 1.00 the peer is slower than homeport."""
    case_told = False
    print(f"\n{case}: {subject} {took[subject] * 1000:,.0f} ms")
    for name, seconds in took.items():
        if name != subject:
            print(f"  {took[subject] / seconds:6.2f} x {name:<46} {seconds * 1000:9,.0f} ms")
            own = f"{subject}: {took[subject] * 1000:,.0f} ms" if not case_told else ""
            row("" if case_told else case, f"{took[subject] / seconds:.2f} x {name}", own, f"{seconds * 1000:,.0f} ms")
            case_told = True
    sys.stdout.flush()


def row(case: str, ratio: str, own: str, peer: str) -> None:
    """One row of the table: the measurement's name is told once."""
    if ROWS is None:
        return
    work = _heading.pop() if _heading else ""
    with open(ROWS, "a", encoding="utf-8") as rows:
        print(f"| {work} | {case} | {ratio} | {own} | {peer} |", file=rows)


def run(*argv: str, cwd: str | Path | None = None, env: Mapping[str, str] | None = None,
        ok: tuple[int, ...] = (0,)) -> str:  # fmt: skip
    """What a command printed; raises SystemExit with its errors when its status is another than those in `ok`."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode not in ok:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class World:
    """An origin, a clone to work in, a live folder `live/site` and homeport's state, all below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.origin, self.clone = root / "origin.git", root / "clone"
        self.live, self.state = root / "live", root / "state"
        self.live.mkdir()
        host = root / "host.toml"
        host.write_text(f'name = "host-1"\nenvironments = ["production"]\nroots = ["{root}"]\nunits = ["*"]\n')
        self.env = {
            "PATH": os.pathsep.join([str(Path(HOMEPORT).parent), os.environ["PATH"]]), "HOME": str(root),
            "LANG": "C.UTF-8", "PM2_HOME": str(root / "pm2"), "HOMEPORT_STATE": str(self.state),
            "HOMEPORT_HOST_FILE": str(host), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
        }  # fmt: skip
        run("git", "init", "-q", "--bare", "-b", "main", str(self.origin), env=self.env)
        run("git", "clone", "-q", str(self.origin), str(self.clone), env=self.env)
        for key, value in (("user.name", "Ada Example"), ("user.email", "ada@example.com"), ("gc.auto", "0")):
            self.git("config", key, value)
        self.git("checkout", "-q", "-B", "main")

    def git(self, *args: str, cwd: Path | None = None) -> str:
        return run("git", *args, cwd=cwd or self.clone, env=self.env)

    def homeport(self, *args: str, ok: tuple[int, ...] = (0,)) -> str:
        return run(HOMEPORT, *args, cwd=self.clone, env=self.env, ok=ok)

    def push(self, message: str = "change") -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        self.git("push", "-q", "origin", "main")

    def configure(self, service: str = "") -> None:
        (self.clone / "homeport.toml").write_text(
            '[project]\nname = "site"\n\n[environments.production]\nbranch = "main"\n\n'
            f'[services.site]\nsource = "site"\ntarget = "{self.live}/site"\n{service}'
        )

    def files(self, count: int) -> None:
        """That many small files (about 0.5 to 8 kB) below `site`."""
        for number in range(count):
            folder = self.clone / f"site/part{number // 1000}/{number // FILES_PER_FOLDER % 20}"
            if number % FILES_PER_FOLDER == 0:
                folder.mkdir(parents=True, exist_ok=True)
            (folder / f"page{number}.txt").write_text(f"page {number}\n" * (50 + number % 500))

    def change_one(self) -> None:
        """Another content for one page, in the clone only."""
        (self.clone / "site/part0/0/page7.txt").write_text(f"changed at {time.time_ns()}\n")


@contextmanager
def world() -> Iterator[World]:
    """Below $TMPDIR; removed in the end, with the pm2 daemon that was started in it."""
    root = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    made = World(root)
    try:
        yield made
    finally:
        if (root / "pm2").exists():
            subprocess.run(["pm2", "kill"], env=made.env, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
