"""The environment's lock: one at a time, freed by the kernel when its holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from homeport.doors.lock import FileLock
from homeport.flow.site import Site
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import Busy, InfrastructureFault

HOLDER = """
import sys, time
from homeport.doors.lock import FileLock
with FileLock(sys.argv[1], "d1").hold(wait=True):
    print("held", flush=True)
    time.sleep(600)
"""


class Clock:
    """Sleeps in no time, and each time a second goes by; after some sleeps something happens."""

    def __init__(self) -> None:
        self.slept = 0
        self.after: tuple[int, Callable[[], None]] = (-1, lambda: None)

    def monotonic(self) -> float:
        return float(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        if self.slept == self.after[0]:
            self.after[1]()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_it_is_held_by_one_and_says_by_whom(path: str) -> None:
    lock = FileLock(path, "d1")
    assert lock.free()
    assert not os.path.exists(path), "looking makes no file"
    with lock.hold(wait=False):
        assert not lock.free()
        with pytest.raises(Busy, match=f"pid {os.getpid()} deploy d1") as busy, FileLock(path).hold(wait=False):
            pass
        assert busy.value.holder == os.getpid()
    assert lock.free()
    with FileLock(path).hold(wait=True):
        assert not lock.free()


def test_an_error_inside_frees_it(path: str) -> None:
    lock = FileLock(path)
    with pytest.raises(ValueError, match="inside"), lock.hold(wait=True):
        raise ValueError("inside")
    assert lock.free()


def test_kill_9_of_its_holder_frees_it_and_who_waits_goes_on(path: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock, got = FileLock(path), threading.Event()

    def wait() -> None:
        with lock.hold(wait=True):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not lock.free()
    assert not got.wait(0.2)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert got.wait(30)
    waiter.join()
    assert lock.free()


def test_who_only_looks_never_makes_another_busy(path: str) -> None:
    with FileLock(path).hold(wait=True):
        pass
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            FileLock(path).free()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(look)
        try:
            for _ in range(3000):
                with FileLock(path).hold(wait=False):
                    pass
        finally:
            stop.set()


def test_a_child_of_the_holder_does_not_inherit_it(path: str) -> None:
    lock = FileLock(path)
    with lock.hold(wait=True):
        child = subprocess.Popen(["sleep", "600"])
    try:
        assert lock.free()
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_is_not_there_is_an_infrastructure_fault(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFault), FileLock(str(tmp_path / "none" / "lock")).hold(wait=True):
        pass


def test_what_a_person_does_waits_for_a_runner_that_only_tidies_up_and_for_nobody_else(path: str) -> None:
    """A verb right after a deploy was busy while the deploy's runner was still leaving."""
    clock = Clock()
    rows = [Deploy(id="d1", kind="commit", request=Request(kind="commit"), state="done", pid=os.getpid())]
    site = SimpleNamespace(lock=FileLock(path), clock=clock, store=SimpleNamespace(history=lambda _: rows))
    held = ExitStack()
    clock.after = 2, held.close
    with held:
        held.enter_context(FileLock(path).hold(wait=False))
        with Site.at_once(site):  # type: ignore[arg-type]
            assert clock.slept == 2
        for row, most in ((rows[0], 5), (replace(rows[0], state="running"), 0), (replace(rows[0], pid=1), 0)):
            rows[0], clock.slept, clock.after = row, 0, (-1, held.close)
            held.enter_context(FileLock(path).hold(wait=False))
            with pytest.raises(Busy), Site.at_once(site):  # type: ignore[arg-type]
                pass
            assert (clock.slept > 0) == (most > 0) and clock.slept <= most
            held.close()
