"""Watches folders with inotify. Folders that are not worth it are never descended into, so they cost nothing.

Not seen: writes through a shared memory map until the file is closed, and writes through a hard link that lies outside.
A new folder is watched first and listed then, so that what was put into it meanwhile is reported too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable

from homeport.model.errors import InfrastructureFault
from homeport.model.paths import from_bytes, to_bytes
from homeport.model.watching import Stir

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF, UNMOUNT = 0x100, 0x200, 0x400, 0x800, 0x2000
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
ONLY_FOLDER, NO_FOLLOW, EXCLUDE_UNLINKED = 0x1000000, 0x2000000, 0x4000000
MASK = (MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
        | ONLY_FOLDER | NO_FOLLOW | EXCLUDE_UNLINKED)  # fmt: skip
_HEAD = struct.Struct("iIII")
_LIMITS = "/proc/sys/fs/inotify/"

Skip = Callable[[str], bool]
"""Whether a folder, by its path below the root, is not worth watching."""


class Inotify:
    """Satisfies `FolderWatch`. Raises InfrastructureFault (codes `watch-limit`, `watch`)."""

    def __init__(self, root: str, skip: Skip) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._root, self._skip = to_bytes(os.path.abspath(root)), skip
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise self._fault(ctypes.get_errno(), root)
        self._by_watch: dict[int, str] = {}
        self._folders = False
        try:
            if not self._add(""):
                raise InfrastructureFault("there is no folder to watch", where=root, next=f"ls -ld {root}", code="watch")
            self._descend("")
        except BaseException:
            self.close()
            raise

    @property
    def folders(self) -> int:
        return len(self._by_watch)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def fileno(self) -> int:
        return int(self._fd)

    def wait(self, timeout: float) -> Stir:
        """As `FolderWatch.wait`."""
        select.select([self._fd], [], [], timeout)
        paths: set[str] = set()
        lost, self._folders = False, False
        while True:
            try:
                raw = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return Stir(frozenset(paths), lost, self._folders)
            at = 0
            while at < len(raw):
                watch, mask, _, size = _HEAD.unpack_from(raw, at)
                name = raw[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
                at += _HEAD.size + size
                lost = self._take(watch, mask, from_bytes(name), paths) or lost

    def _take(self, watch: int, mask: int, name: str, paths: set[str]) -> bool:
        """True when something was lost."""
        if mask & OVERFLOW:
            return True
        folder = self._by_watch.get(watch)
        if mask & IGNORED:
            self._by_watch.pop(watch, None)
            return False
        if folder is None:
            return False
        if mask & (DELETE_SELF | MOVE_SELF | UNMOUNT):
            return folder == ""
        path = f"{folder}/{name}" if folder else name
        if mask & IS_FOLDER:
            if mask & ATTRIB:
                return False
            self._folders = True
            if mask & MOVED_FROM:
                self._forget(path)
            if mask & (CREATE | MOVED_TO):
                if self._skip(path):
                    return False
                if self._add(path):
                    self._descend(path)
        paths.add(path)
        return False

    def _forget(self, path: str) -> None:
        """A folder that was moved away keeps its watches, under a name that is another's now."""
        gone = [w for w, p in self._by_watch.items() if p == path or p.startswith(path + "/")]
        for watch in gone:
            self._libc.inotify_rm_watch(self._fd, watch)
            del self._by_watch[watch]

    def _descend(self, path: str) -> None:
        waiting = [path]
        while waiting:
            here = waiting.pop()
            try:
                with os.scandir(self._at(here)) as entries:
                    names = [from_bytes(e.name) for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            for name in names:
                below = f"{here}/{name}" if here else name
                if not self._skip(below) and self._add(below):
                    waiting.append(below)

    def _at(self, path: str) -> bytes:
        return os.path.join(self._root, to_bytes(path)) if path else self._root

    def _add(self, path: str) -> bool:
        """False when it is gone again, or may not be looked into."""
        watch = self._libc.inotify_add_watch(self._fd, self._at(path), MASK)
        if watch >= 0:
            self._by_watch[watch] = path
            return True
        number = ctypes.get_errno()
        if number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
            return False
        raise self._fault(number, from_bytes(self._at(path)))

    def _fault(self, number: int, where: str) -> InfrastructureFault:
        which = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}.get(number)
        if which is None:
            return InfrastructureFault(f"it cannot be watched: {os.strerror(number)}", where=where, next="homeport drift",
                                       code="watch")  # fmt: skip
        now = _limit(which)
        return InfrastructureFault(
            f"this machine lets a user watch no more than {now:,} {'folders' if number == errno.ENOSPC else 'times'}",
            where=where, next=f"sysctl -w fs.inotify.{which}={max(now * 4, 8192)}   (and into /etc/sysctl.d/ to keep it)",
            code="watch-limit",
        )  # fmt: skip


def _limit(which: str) -> int:
    try:
        with open(_LIMITS + which, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 8192
