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
from homeport.model.paths import from_bytes, to_bytes, within
from homeport.model.watching import Stir

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF, UNMOUNT = 0x100, 0x200, 0x400, 0x800, 0x2000
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
ONLY_FOLDER, NO_FOLLOW, EXCLUDE_UNLINKED = 0x1000000, 0x2000000, 0x4000000
MASK = (MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
        | ONLY_FOLDER | NO_FOLLOW | EXCLUDE_UNLINKED)  # fmt: skip
_HEAD = struct.Struct("iIII")
_LIMITS = {errno.ENOSPC: ("fs.inotify.max_user_watches", "user.max_inotify_watches"),
           errno.EMFILE: ("fs.inotify.max_user_instances", "user.max_inotify_instances")}  # fmt: skip
"""Settings of the machine, and of a namespace of users: the lower one counts."""
_READS = 16
"""Times 64 KiB that one look at the queue reads at most: more than the kernel keeps, and an end for who writes faster
than that."""
_AT_ONCE = 2048
"""Watches that are given back before the queue is read."""
_MOST = 20_000
"""Paths that are kept until somebody asks; more are lost, and everything has to be looked at."""

Skip = Callable[[str], bool]
"""Whether a folder, by its path below the root, is not worth watching."""


class Queue:
    """One inotify instance, of which a user has few; trees that are not within one another share it.

    Raises InfrastructureFault (codes `watch-limit`, `watch`).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _fault(ctypes.get_errno(), "inotify")
        self._by_watch: dict[int, tuple[Inotify, str]] = {}
        self._ready = select.poll()
        self._ready.register(self._fd, select.POLLIN)

    def fileno(self) -> int:
        return int(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def add(self, tree: Inotify, path: str, where: bytes) -> bool:
        """False when it is gone again, or may not be looked into."""
        watch = self._libc.inotify_add_watch(self._fd, where, MASK)
        if watch >= 0:
            self._drop(watch)
            self._by_watch[watch] = (tree, path)
            tree.folders += 1
            return True
        number = ctypes.get_errno()
        if number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
            return False
        raise _fault(number, from_bytes(where))

    def forget(self, tree: Inotify, path: str) -> None:
        """No longer watches a folder of a tree and what is below it."""
        gone = [w for w, (its, p) in self._by_watch.items() if its is tree and within(p, path)]
        for watch in gone:
            self._libc.inotify_rm_watch(self._fd, watch)
            self._drop(watch)

    def leave(self, tree: Inotify) -> None:
        """No longer watches a tree. Each watch that goes is an event: they are read, or they would be too many."""
        gone = [watch for watch, (its, _) in self._by_watch.items() if its is tree]
        for start in range(0, len(gone), _AT_ONCE):
            for watch in gone[start : start + _AT_ONCE]:
                self._libc.inotify_rm_watch(self._fd, watch)
                self._drop(watch)
            self.hear(0)

    def _drop(self, watch: int) -> None:
        owner = self._by_watch.pop(watch, None)
        if owner is not None:
            owner[0].folders -= 1

    def hear(self, timeout: float) -> None:
        """Tells the trees what happened; waits up to `timeout` seconds for the first of it."""
        self._ready.poll(timeout * 1000)
        for _ in range(_READS):
            try:
                raw = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(raw):
                watch, mask, _, size = _HEAD.unpack_from(raw, at)
                name = raw[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
                at += _HEAD.size + size
                self._tell(watch, mask, name)

    def _tell(self, watch: int, mask: int, name: bytes) -> None:
        if mask & OVERFLOW:
            for tree in {tree for tree, _ in self._by_watch.values()}:
                tree.lose()
            return
        owner = self._by_watch.get(watch)
        if mask & IGNORED:
            self._drop(watch)
        elif owner is not None:
            owner[0].take(owner[1], mask, from_bytes(name))


class Inotify:
    """Satisfies `FolderWatch`, of one folder with what is below it. Raises InfrastructureFault (codes `watch-limit`,
    `watch`)."""

    def __init__(self, root: str, skip: Skip, queue: Queue | None = None, dull: set[str] | None = None) -> None:
        """`dull`: files whose changes are nobody's business."""
        self.folders = 0
        self._root, self._skip, self._dull = to_bytes(os.path.abspath(root)), skip, dull if dull is not None else set()
        self._own = queue is None
        self._queue = queue or Queue()
        self._paths: set[str] = set()
        self._lost = self._folders = self._closed = False
        self._fault: InfrastructureFault | None = None
        try:
            if not self._add(""):
                raise InfrastructureFault("there is no folder to watch", where=root, next=f"ls -ld {root}", code="watch")
            self._which = self._identity()
            self._descend("")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._own:
            self._queue.close()
        elif self._queue.fileno() >= 0:
            self._closed = True
            self._queue.leave(self)

    def there(self) -> bool:
        """Whether what is watched still lies where it did."""
        return self._which is not None and self._identity() == self._which

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._root)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def wait(self, timeout: float) -> Stir:
        """As `FolderWatch.wait`."""
        self._queue.hear(0 if self._paths or self._lost or self._fault else timeout)
        stir, fault = Stir(frozenset(self._paths), self._lost, self._folders), self._fault
        self._paths, self._lost, self._folders, self._fault = set(), False, False, None
        if fault is not None:
            raise fault
        return stir

    def lose(self) -> None:
        """Everything has to be looked at."""
        self._lost = True
        self._paths.clear()

    def take(self, folder: str, mask: int, name: str) -> None:
        """One event in a folder, or of it."""
        if self._closed:
            return
        if mask & (DELETE_SELF | MOVE_SELF | UNMOUNT):
            if folder == "":
                self.lose()
            return
        path = f"{folder}/{name}" if folder else name
        if mask & IS_FOLDER:
            if mask & ATTRIB:
                return
            self._folders = True
            if mask & MOVED_FROM:
                # it keeps its watches, under a name that is another's now
                self._queue.forget(self, path)
            if mask & (CREATE | MOVED_TO) and not self._came(path):
                return
        elif path in self._dull:
            return
        if len(self._paths) >= _MOST:
            self.lose()
        if not self._lost:
            self._paths.add(path)

    def _came(self, path: str) -> bool:
        """Watches a new folder; False when it is not worth it. What cannot be watched is told by the next `wait`."""
        if self._skip(path):
            return False
        try:
            if self._add(path):
                self._descend(path)
        except InfrastructureFault as fault:
            self._fault = fault
        return True

    def _descend(self, path: str) -> None:
        _walk(self._root, path, lambda below: not self._skip(below) and self._add(below))

    def _add(self, path: str) -> bool:
        return self._queue.add(self, path, _at(self._root, path))


def count(root: str, skip: Skip) -> int:
    """How many watches a folder with what is below it needs."""
    found = 1

    def met(folder: str) -> bool:
        nonlocal found
        found += (worth := not skip(folder))
        return worth

    _walk(to_bytes(os.path.abspath(root)), "", met)
    return found


def check(folders: int) -> None:
    """Raises InfrastructureFault (code `watch-limit`) for more than the kernel lets a user watch."""
    if folders > _limit(errno.ENOSPC)[0]:
        raise _fault(errno.ENOSPC, f"{folders:,} folders")


def _walk(root: bytes, path: str, enter: Callable[[str], bool]) -> None:
    """Every folder below one that is entered."""
    waiting = [path]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(_at(root, here)) as entries:
                names = [from_bytes(e.name) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for name in names:
            below = f"{here}/{name}" if here else name
            if enter(below):
                waiting.append(below)


def _at(root: bytes, path: str) -> bytes:
    return os.path.join(root, to_bytes(path)) if path else root


def _fault(number: int, where: str) -> InfrastructureFault:
    if number not in _LIMITS:
        return InfrastructureFault(f"it cannot be watched: {os.strerror(number)}", where=where, next="homeport drift",
                                   code="watch")  # fmt: skip
    now, which = _limit(number)
    return InfrastructureFault(
        f"this machine lets a user watch no more than {now:,} {'folders' if number == errno.ENOSPC else 'times'}",
        where=where, next=f"sysctl -w {which}={max(now * 4, 8192)}   (and into /etc/sysctl.d/ to keep it)",
        code="watch-limit",
    )  # fmt: skip


def _limit(number: int) -> tuple[int, str]:
    """(how many, the setting that says so)."""
    found = []
    for which in _LIMITS[number]:
        try:
            with open(f"/proc/sys/{which.replace('.', '/')}", encoding="ascii") as file:
                found.append((int(file.read()), which))
        except (OSError, ValueError):
            continue
    return min(found, default=(8192, _LIMITS[number][0]))
