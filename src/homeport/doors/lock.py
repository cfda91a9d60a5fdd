"""The environment's lock: flock, which the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from homeport.model.errors import Busy, InfrastructureFault

TRIES = 5
"""A look by `free` holds the lock for a moment; one refusal is not yet somebody who works."""
BETWEEN = 0.01
"""Seconds between two tries."""


class FileLock:
    """Satisfies `Lock`. What is written into the file is for people only; the kernel's lock is what counts."""

    def __init__(self, path: str, deploy: str | None = None) -> None:
        self.path = path
        self._deploy = deploy

    @contextmanager
    def hold(self, *, wait: bool) -> Iterator[None]:
        """As `Lock.hold`. Raises Busy (code `busy`) or InfrastructureFault when the file cannot be opened."""
        handle = self._open()
        try:
            if wait:
                fcntl.flock(handle, fcntl.LOCK_EX)
            elif not _taken(handle, fcntl.LOCK_EX):
                said = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
                raise Busy(
                    "another deploy holds this environment" + (f": {said}" if said else ""), where=self.path,
                    next="homeport status", code="busy", holder=_alive(said),
                )  # fmt: skip
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()}{f' deploy {self._deploy}' if self._deploy else ''}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def free(self) -> bool:
        """Whether nobody holds it at this moment; makes no file."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError as fault:
            raise self._unopened(fault) from fault
        try:
            return _once(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as fault:
            raise self._unopened(fault) from fault

    def _unopened(self, fault: OSError) -> InfrastructureFault:
        return InfrastructureFault(f"the lock cannot be opened: {fault.strerror}", where=self.path, next="homeport doctor",
                                   code="lock")  # fmt: skip


def _alive(said: str) -> int | None:
    """The process that the file names, while there is one of that number."""
    word, _, rest = said.partition(" ")
    number = rest.split(" ")[0]
    if word != "pid" or not number.isascii() or not number.isdigit():
        return None
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return int(number)
    except (OSError, OverflowError):
        return None
    return int(number)


def _once(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken(handle: int, how: int) -> bool:
    for left in range(TRIES, 0, -1):
        if _once(handle, how):
            return True
        if left > 1:
            time.sleep(BETWEEN)
    return False
