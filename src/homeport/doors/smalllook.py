"""A look at a small live folder in this process: what git's `diff-files` and `ls-files -o` say, without starting git.

Two processes for each service take longer than to read a few hundred entries; a machine has ten services, or a hundred.
A file counts as untouched where git would not read it either (read-cache.c, `ie_match_stat`: all that was noted of it is
the same, and its time is from an earlier second than the index). Anything else is read. What is not understood here is
left to git.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Set
from typing import Literal, NamedTuple

from homeport.doors.look import look_at
from homeport.model.live import Entry
from homeport.model.paths import from_bytes

SMALL = 96 << 10
"""Bytes of an index (some 1,000 files) from which on git is as fast."""
MOST = 3000
"""Names in folders with recorded files; with more of them git is faster."""
DOUBTS = 50
"""Files that are read at every look rather than have the index written anew: in a later second it vouches for them."""
_HEAD, _ENTRY, _SUM = struct.Struct(">4sII"), struct.Struct(">10I20sH"), 20
_NOT_READ_HERE = 0xF000
"""assume-valid, extended, and the stages of a conflict (gitformat-index(5))."""
_KINDS = {0o100644: stat.S_IFREG, 0o100755: stat.S_IFREG, 0o120000: stat.S_IFLNK}
_EMPTY = bytes.fromhex("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
_WORD, _SECOND = 0xFFFFFFFF, 1_000_000_000
Said = Literal["same", "doubtful", "other"]


class Noted(NamedTuple):
    """An entry of the index; its numbers have 32 bits."""

    ctime: int
    ctime_ns: int
    mtime: int
    mtime_ns: int
    device: int
    inode: int
    mode: int
    user: int
    group: int
    size: int
    oid: bytes
    flags: int


Look = tuple[list[tuple[str, Entry]], list[str]]


def small_look(index: str, root: int, invisible: Callable[[str, bool], bool]) -> Look | None:
    """(recorded paths that are not surely as recorded; untracked ones that are not `invisible`, a folder without recorded
    files as one path with `/` at its end), or None where git has to be asked.
    """
    try:
        with open(index, "rb") as file:
            written = os.fstat(file.fileno())
            if written.st_size >= SMALL:
                return None
            noted = dict(_entries(file.read()))
        walked = _Walk(noted.keys(), invisible)
        walked.into(root, ".", b"", False)
    except (OSError, ValueError, struct.error, RecursionError):
        return None
    second = written.st_mtime_ns // _SECOND
    touched: list[tuple[str, Entry]] = []
    doubtful: list[tuple[str, Entry]] = []
    for raw, entry in noted.items():
        said = _said(entry, walked.seen.get(raw), second)
        if said != "same":
            (doubtful if said == "doubtful" else touched).append((from_bytes(raw), _recorded(entry)))
    if len(doubtful) <= DOUBTS or time.time() < second + 1:
        doubtful = [(path, recorded) for path, recorded in doubtful if look_at(root, path).entry != recorded]
    return touched + doubtful, walked.others


def _entries(raw: bytes) -> Iterator[tuple[bytes, Noted]]:
    """Raises ValueError or struct.error for what this module does not read."""
    sign, version, count = _HEAD.unpack_from(raw)
    if sign != b"DIRC" or version != 2:
        raise ValueError(version)
    at = _HEAD.size
    for _ in range(count):
        entry = Noted._make(_ENTRY.unpack_from(raw, at))
        if entry.flags & _NOT_READ_HERE or entry.mode not in _KINDS:
            raise ValueError(entry)
        end = raw.index(b"\0", at + _ENTRY.size)
        yield raw[at + _ENTRY.size : end], entry
        at += (end - at + 8) & ~7
    while at < len(raw) - _SUM:
        if not raw[at : at + 1].isupper():
            raise ValueError("an extension that may not be passed over")
        at += 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
    if at != len(raw) - _SUM:
        raise ValueError(at)


def _recorded(entry: Noted) -> Entry:
    return Entry(f"{entry.mode:06o}", entry.oid.hex())


def _said(entry: Noted, found: os.stat_result | None, written: int) -> Said:
    """Whether a file is as noted; doubtful where its times cannot tell (it may have changed right after it was noted)."""
    kind = _KINDS[entry.mode]
    if found is None or stat.S_IFMT(found.st_mode) != kind:
        return "other"
    if kind == stat.S_IFREG and (entry.mode ^ found.st_mode) & 0o100:
        return "other"
    (changed, changed_ns), (modified, modified_ns) = divmod(found.st_ctime_ns, _SECOND), divmod(found.st_mtime_ns, _SECOND)
    there = (changed & _WORD, modified & _WORD, found.st_ino & _WORD, found.st_uid, found.st_gid, found.st_size & _WORD)
    if there != (entry.ctime, entry.mtime, entry.inode, entry.user, entry.group, entry.size):
        return "other"
    unsure = entry.mtime >= written or (entry.size == 0 and entry.oid != _EMPTY)
    for noted_ns, now in ((entry.ctime_ns, changed_ns), (entry.mtime_ns, modified_ns)):
        unsure = unsure or (now != 0 and noted_ns not in (now, 0))  # 0: a git, or a disk, without them
    return "doubtful" if unsure else "same"


class _Walk:
    """What lies in the folders of recorded paths. No link is followed."""

    def __init__(self, recorded: Set[bytes], invisible: Callable[[str, bool], bool]) -> None:
        self.seen: dict[bytes, os.stat_result] = {}
        self.others: list[str] = []
        self._recorded, self._invisible, self._left = recorded, invisible, MOST
        self._folders: set[bytes] = set()
        for path in recorded:
            folder = path.rpartition(b"/")[0]
            while folder and folder not in self._folders:
                self._folders.add(folder)
                folder = folder.rpartition(b"/")[0]

    def into(self, above: int, name: str, prefix: bytes, hidden: bool) -> None:
        """`hidden`: nothing in there is of interest but what is recorded. Raises OSError; ValueError for too much."""
        here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        raise ValueError("too many")
                    if entry.name != ".git":
                        self._one(here, entry, prefix + os.fsencode(entry.name), hidden)
        finally:
            os.close(here)

    def _one(self, here: int, entry: os.DirEntry[str], raw: bytes, hidden: bool) -> None:
        folder = entry.is_dir(follow_symlinks=False)
        if raw in self._recorded:
            self.seen[raw] = entry.stat(follow_symlinks=False)
        elif folder and raw in self._folders:
            self.into(here, entry.name, raw + b"/", hidden or self._invisible(from_bytes(raw), True))
        elif not hidden and (folder or entry.is_symlink() or entry.is_file(follow_symlinks=False)):
            path = from_bytes(raw)
            if not self._invisible(path, folder):
                self.others.append(f"{path}/" if folder else path)
