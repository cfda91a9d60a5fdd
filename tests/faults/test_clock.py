"""A clock that is wrong, or jumps while a deploy runs: order, holds and durations stay right."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.harness import Host
from tests.faults.test_callers import reads_until, waiting_build

pytestmark = pytest.mark.timeout(300)


WRONG = """\
import sys, time
right = time.time
def wrong():
    with open({file!r}) as file:
        return right() + float(file.read() or 0) * 86400
time.time = wrong
if "homeport" in " ".join(sys.orig_argv):
    from datetime import UTC, datetime
    from homeport.doors.clock import SystemClock
    def now(self):
        return datetime.fromtimestamp(wrong(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    SystemClock.now = now
"""


@pytest.fixture
def clock(host: Host) -> Iterator[Path]:
    """A file that says by how many days the clock of everything is wrong that this host starts."""
    file, folder = host.world.root / "clock", host.world.root / "wrong"
    file.write_text("0")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(WRONG.format(file=str(file)))
    host.world.more["PYTHONPATH"] = str(folder)
    yield file
    file.write_text("0")
    del host.world.more["PYTHONPATH"]
    host.world.homeport("unhold")


@pytest.mark.parametrize("shift", [400, -400])
def test_deploys_of_a_wrong_clock_keep_their_order(host: Host, clock: Path, shift: int) -> None:
    before = host.sha
    clock.write_text(str(shift))
    host.publish()
    done = host.deploy()
    assert not done["deployId"].startswith(str(datetime.now(UTC).year)), "the clock was wrong"
    clock.write_text("0")
    status = host.world.json("status")
    assert (status["sha"], status["deployId"]) == (host.sha, done["deployId"])
    assert host.world.json("history")["deploys"][0]["id"] == done["deployId"]
    assert host.world.json("rollback")["sha"] == before
    host.world.homeport("unblock", host.sha)
    assert host.deploy()["ok"]
    host.ended(host.number)


@pytest.mark.parametrize("shift", [400, -400])
def test_a_clock_that_jumps_while_a_deploy_runs_changes_no_timer(host: Host, clock: Path, shift: int) -> None:
    going = waiting_build(host)
    running = host.world.start("--json", "deploy")
    assert running.stdout is not None
    reads_until(iter(running.stdout), "waiting")
    clock.write_text(str(shift))
    going.touch()
    said, _ = running.communicate(timeout=60)
    done = json.loads(said.splitlines()[-1])
    assert (running.returncode, done["status"]) == (0, "deployed")
    assert 0 <= done["durationMs"] < 60_000
    clock.write_text("0")
    assert host.world.json("status")["deployId"] == done["deployId"]
    host.tidy()


def test_a_hold_ends_when_its_time_has_come_by_the_clock(host: Host, clock: Path) -> None:
    host.world.homeport("hold", "--for", "2h", "--because", "a freeze")
    assert host.world.json("status")["hold"]
    clock.write_text("-400")
    assert host.world.json("status")["hold"], "still held: its end has not come"
    clock.write_text("1")
    assert host.world.json("status")["hold"] is None


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
@pytest.mark.parametrize("shift", ["+400d", "-400d"])
def test_a_clock_that_is_wrong_for_git_and_the_database_too_stops_no_deploy(host: Host, shift: str) -> None:
    """libfaketime shows every process of the deploy another time; that of this machine comes back afterwards."""
    host.publish()
    argv = ["faketime", "-f", shift, *host.runner]
    deploy = host.enqueue()
    subprocess.run(argv, env=host.world.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=True)
    row = host.row(deploy)
    assert row.status == "deployed"
    assert row.ended_at and not row.ended_at.startswith(str(datetime.now(UTC).year)), "the clock was wrong"
    assert host.world.json("status")["deployId"] == deploy
    host.ended(host.number)
    host.publish()
    assert host.deploy()["status"] == "deployed"
    host.ended(host.number)


LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
SLEEPS = """\
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""Where libfaketime leaves the monotonic clock alone, it takes Python's own sleep for an absolute time and fails."""


@pytest.fixture
def jumping(host: Host) -> Iterator[Path]:
    """A file that says how far libfaketime shifts the time of everything that this host starts, git and SQLite too; it is
    read anew at each question."""
    assert LIBRARY is not None
    folder, file = host.world.root / "jumping", host.world.root / "jumps"
    folder.mkdir(exist_ok=True)
    file.write_text("+0d\n")
    told = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}  # fmt: skip
    (folder / "sitecustomize.py").write_text(SLEEPS)
    words = " ".join(f"{name}={value}" for name, value in told.items())
    (folder / "git").write_text(f'#!/bin/sh\nexec env {words} {shutil.which("git")} "$@"\n')
    (folder / "git").chmod(0o755)
    before = dict(host.world.more)
    host.world.more |= {**told, "PYTHONPATH": str(folder), "PATH": f"{folder}:{host.world.env['PATH']}"}
    yield file
    host.world.more = before


@pytest.mark.soak
@pytest.mark.skipif(LIBRARY is None, reason="needs faketime")
@pytest.mark.parametrize("shift", ["+400d", "-400d"])
def test_a_clock_that_jumps_for_git_and_the_database_too_changes_no_timer_and_no_hold(
    host: Host, jumping: Path, shift: str
) -> None:
    world = host.world
    world.homeport("hold", "--for", "2h", "--because", "a freeze")
    going = waiting_build(host)
    running = world.start("--json", "deploy")
    assert running.stdout is not None
    seen = reads_until(iter(running.stdout), "waiting")
    jumping.write_text(f"{shift}\n")
    began = time.monotonic()
    held = world.json("status")["hold"]
    assert (held is None) == (shift == "+400d"), "a hold ends by the clock, and not before"
    assert world.json("status")["running"], "no timer of the build or of the deploy has run out"
    going.touch()
    said, _ = running.communicate(timeout=60)
    assert time.monotonic() - began < 30
    done = json.loads(said.splitlines()[-1])
    assert (running.returncode, done["status"]) == (0, "deployed"), said
    assert 0 <= done["durationMs"] < 60_000
    times = {json.loads(line).get("at", "")[:4] for line in [*seen, *said.splitlines()]} - {""}
    assert len(times) == 2, "the clock did jump in the middle"
    jumping.write_text("+0d\n")
    status = world.json("status")
    assert status["deployId"] == done["deployId"]
    assert status["hold"]["because"] == "a freeze", "the clock is right again, and so is the hold"
    world.homeport("unhold")
    host.publish()
    assert host.deploy()["status"] == "deployed"
    host.ended(host.number)
