"""Calls of the C library that fail in the runner, each of them once, until none is left (P1, P5, P6).

libfiu stands between the runner and the library, where strace cannot: short writes and short reads, a process
that cannot be waited for, a file that cannot be closed.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.harness import Host, read
from tests.faults.moments import Share
from tests.loaded import BEFORE, loaded
from tests.world import eventually

PRELOAD = next((p for p in map(Path, ("/usr/lib/fiu/fiu_posix_preload.so", "/usr/local/lib/fiu/fiu_posix_preload.so"))
                if p.exists()), None)  # fmt: skip
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(PRELOAD is None, reason="needs fiu-utils"),
]
POINTS = {
    "posix/io/rw/write/reduce": 0,
    "posix/io/rw/read/reduce": 0,
    "posix/io/rw/pwrite/reduce": 0,
    "posix/io/rw/write": errno.ENOSPC,
    "posix/io/rw/read": errno.EIO,
    "posix/io/sync/fsync": errno.EIO,
    "posix/io/oc/open": errno.ENFILE,
    "posix/io/oc/close": errno.EIO,
    "posix/io/dir/rename": errno.EACCES,
    "posix/io/net/poll": errno.ENOMEM,
    "posix/proc/waitpid": errno.ECHILD,
    "posix/mm/mmap": errno.ENOMEM,
}
"""What fails, and with which error; `reduce` does less than was asked for and says so."""

FAILING = """\
import ctypes, os
fiu = ctypes.CDLL("libfiu.so.0")
calls = 0
Called = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, *[ctypes.c_void_p] * 3)
@Called
def fails(name, number, error, flags):
    global calls
    calls += 1
    if calls == {nth}:
        os.mkdir({told!r})
    return calls == {nth}
os.called_by_fiu = fails
fiu.fiu_init(0)
fiu.fiu_enable_external({point!r}.encode(), 1, ctypes.c_void_p({error}), 0, fails)
"""


def failing(host: Host, point: str, error: int, nth: int) -> tuple[str, bool]:
    """A deploy whose runner's `nth` call of that kind fails, from when it is loaded: (its id, whether there was one)."""
    told, before = host.world.root / "fell", host.world.root / "before.py"
    before.write_text(FAILING.format(point=point, error=error, nth=nth, told=str(told)))
    deploy = host.enqueue()
    _, *argv = host.runner
    loaded(str(PRELOAD)).run_beside(argv, host.world.root, {**host.world.env, BEFORE: str(before)}, [], 100)
    eventually(lambda: not host.world.own_processes(), "the runner has ended")
    fell = told.exists()
    if fell:
        told.rmdir()
    return deploy, fell


@pytest.mark.parametrize("point", POINTS)
def test_each_call_of_the_library_fails_once(own_host: Host, point: str, soak: Share | None) -> None:
    assert soak is not None, "this is for a soak only"
    host, nth, fell = own_host, soak.number - soak.among, True
    while fell:
        nth += soak.among
        host.publish()
        deploy, fell = failing(host, point, POINTS[point], nth)
        with host.trying(soak, f"{point} #{nth}"):
            row = host.row(deploy)
            host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
            if point.endswith("/reduce"):
                assert row.status == "deployed", "doing less at once is no fault"
            if row.status == "deployed":
                assert read(host.world.live) == host.expected(host.number), "what is called deployed is live"
            assert host.blocked() == [], "a fault of the machine blocks no commit"
            if row.status != "deployed" or nth % 10 == 0:
                assert host.deploy()["ok"]
            host.ended(host.number)
    assert nth > soak.among, "the runner makes such calls"
    soak.tell(f"{nth} calls at most")
    assert not soak.wrong, "\n".join(soak.wrong)
