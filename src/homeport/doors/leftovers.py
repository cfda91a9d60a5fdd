"""Finds and kills processes by the mark in their environment: children survive `setsid`, but not this."""

from __future__ import annotations

import contextlib
import os
import signal
import time

MARK = "HOMEPORT_JOB"
"""`<deploy>:<nonce>` in the environment of everything that a job starts."""
PATIENCE = 5.0
"""Seconds to wait until killed processes are gone."""
LOOKS, SURE = 200, 2
"""Times that a process without an environment is looked at, and of those with words, after which it has none."""


def kill_marked(value: str, *, exact: bool) -> int:
    """SIGKILLs every process marked with this value (or, when not `exact`, with a value that begins so).

    Never this process or one that it descends from. Looks again until none is left, because a process may
    fork while it is being looked for. Returns how many were killed; an empty value kills nothing.
    """
    if not value:
        return 0
    wanted = f"{MARK}={value}".encode("utf-8", "surrogateescape") + (b"\0" if exact else b"")
    spared = _ourselves()
    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while True:
        found = {pid for pid in _pids() - spared if _kill_if(pid, wanted)}
        killed |= found
        if not found or time.monotonic() > deadline:
            return len(killed)
        time.sleep(0.005)


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _kill_if(pid: int, wanted: bytes) -> bool:
    """The handle is taken before the look that counts, so a process id that is used again is never hit."""
    if not _is_marked(pid, wanted):
        return False
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _is_marked(pid, wanted):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _is_marked(pid: int, wanted: bytes) -> bool:
    try:
        return b"\0" + wanted in b"\0" + _environment(pid) + b"\0"
    except OSError:
        return False


def _environment(pid: int) -> bytes:
    """Of a process that may be about to become another program: both that and its words are empty for a moment at each
    exec, when it is asked again. Raises OSError for one that has ended, and for the kernel's own."""
    empty = 0
    for _ in range(LOOKS):
        if found := _all_of(f"/proc/{pid}/environ"):
            return found
        os.readlink(f"/proc/{pid}/exe")  # which a process that is no program has not
        if empty == SURE:
            break
        if _all_of(f"/proc/{pid}/cmdline"):
            empty += 1
        else:
            time.sleep(0.001)
    return b""


def _all_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _ourselves() -> set[int]:
    chain, pid = {os.getpid()}, os.getppid()
    while pid > 0 and pid not in chain:
        chain.add(pid)
        pid = _parent(pid)
    return chain


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    return 0
