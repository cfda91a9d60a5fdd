"""A live file as it was at one moment, brought into the mirror: what somebody writes to meanwhile is read again, and
never taken half old and half new, nor for deleted because something else lies there."""

from __future__ import annotations

import os
import stat
import time

from homeport.doors.git import Mirror
from homeport.doors.look import LARGE, Blocked, folder_at, look_in, open_file, split
from homeport.doors.writers import open_for_writing, writer_of
from homeport.model.errors import HomeportError
from homeport.model.live import Entry
from homeport.model.paths import to_bytes

TRIES = 12
"""Readings before a file is given up that somebody writes to meanwhile."""
STILL = 0.02
"""Seconds without a change before a reading counts. The kernel gives writes within one tick, up to 10 ms, the same time:
a file that changed less than a tick ago may change again unseen."""
CHANGING = "somebody writes to it, and it did not hold still"


class Uncaught(Exception):
    """What lies at a path cannot be taken as it is; `because` says why."""

    def __init__(self, path: str, because: str) -> None:
        super().__init__(f"{path}: {because}")
        self.path, self.because = path, because


def caught_at(git: Mirror, root: int, path: str, most: int | None = None, *, closed: bool = False) -> Entry | None:
    """What lies at a path below the root: a file or a link. None when neither it nor anything else of its name is there,
    or a folder is. `most`: bytes from which on a file is not taken. `closed`: nor while somebody has it open for writing,
    who may have written half of it. Raises Uncaught, InfrastructureFault."""
    folder, name = split(path)
    try:
        with folder_at(root, folder) as here:
            return _caught(git, here, name, path, most, closed)
    except FileNotFoundError:
        return None
    except Blocked as blocked:
        if blocked.oddity == "unreadable":
            raise Uncaught(path, "cannot be read") from blocked
        return None


def _caught(git: Mirror, here: int, name: str, path: str, most: int | None, closed: bool) -> Entry | None:
    because = CHANGING
    for _ in range(TRIES):
        seen = os.stat(to_bytes(name), dir_fd=here, follow_symlinks=False)
        try:
            if stat.S_ISLNK(seen.st_mode):
                return Entry("120000", git.write_blob(os.readlink(to_bytes(name), dir_fd=here)))
            if stat.S_ISDIR(seen.st_mode):
                return None
            if not stat.S_ISREG(seen.st_mode):
                raise Uncaught(path, f"not a file or link: {look_in(here, name).oddity}")
            if most is not None and seen.st_size >= most:
                raise Uncaught(path, "too large for a commit")
            fd = open_file(here, name)
        except FileNotFoundError:
            continue
        except OSError as fault:
            if stat.S_ISREG(seen.st_mode) and isinstance(fault, PermissionError):
                raise Uncaught(path, "cannot be read") from fault
            continue  # something else came into its place
        try:
            if closed and open_for_writing(fd):
                because = because if because != CHANGING else f"{writer_of(fd) or 'somebody'} has it open for writing"
                time.sleep(STILL)
                continue
            found = _read_still(git, fd)
            if found is not None and closed and open_for_writing(fd):
                continue
        except OSError as fault:
            raise Uncaught(path, f"cannot be read: {fault.strerror}") from fault
        finally:
            os.close(fd)
        if found is not None:
            return found
    raise Uncaught(path, because)


def _read_still(git: Mirror, fd: int) -> Entry | None:
    """None when it is no regular file, or was written to meanwhile or just before."""
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):
        return None
    oid = _large(git, fd, before) if before.st_size >= LARGE else None
    content = b"" if oid is not None else _content(fd, before.st_size)
    now = time.time()
    if 0 <= now - before.st_ctime < STILL:
        time.sleep(STILL)
        if oid is None and content != _content(fd, before.st_size):
            return None
    after = os.fstat(fd)
    if _moment(after) != _moment(before) or (oid is None and len(content) != before.st_size):
        return None
    return Entry("100755" if after.st_mode & 0o100 else "100644", oid or git.write_blob(content))


def _content(fd: int, size: int) -> bytes:
    """As much as there was to be, and a byte more where it grew."""
    content = bytearray()
    while len(content) <= size and (more := os.pread(fd, size + 1 - len(content), len(content))):
        content += more
    return bytes(content)


def _large(git: Mirror, fd: int, before: os.stat_result) -> str | None:
    """Its object id; the empty one when it changed while git read it."""
    try:
        return git.write_blob_of(fd)
    except HomeportError:
        if _moment(os.fstat(fd)) == _moment(before):
            raise
        return ""


def _moment(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
