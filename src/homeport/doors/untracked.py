"""What lies untracked in a large live folder, asked of git again only when one of its folders changed.

To list it git opens every folder, which is a third of a look. What is in a folder cannot change without the folder's
own times changing, so an answer holds for as long as the index, the rules and the folders are the same. That is kept
only where it is sure: no folder but those of recorded files and those that no answer would name, on file systems of
this machine's own kernel, and every folder at rest for `AT_REST` before git looked (docs/decisions/0014).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from homeport.doors.early import WORTH
from homeport.doors.look import Blocked, folder_at
from homeport.doors.targetindex import TargetIndex
from homeport.model.paths import from_bytes, to_bytes

AT_REST = 3_000_000_000
"""Nanoseconds: more than the coarsest clock of the file systems in `KINDS`."""
ONE_COMMAND = 60_000_000_000
"""Nanoseconds after which the same process, a daemon, looks for another command."""
KINDS = frozenset({b"ext4", b"xfs", b"tmpfs", b"f2fs", b"overlay"})
"""File systems on which every change of a folder's entries changes its ctime, and which nothing else writes to."""
_FOLDERS = re.compile(rb"H ([^\0]*)/[^\0/]*\0")
_WORD = (1 << 64) - 1


class Kept(msgspec.Struct, frozen=True):
    """The answer of an earlier look; without `stamp` only that there was one."""

    key: bytes
    by: int
    """The process that looked."""
    folders: bytes = b""
    """Relative to the live folder, with NUL between them; the live folder itself is not named."""
    stamp: bytes = b""
    others: bytes = b""


class Untracked:
    """One look at one live folder; `sure` when nobody writes its index meanwhile: only then is an answer kept."""

    def __init__(self, index: TargetIndex, work_tree: str, root: int, *, sure: bool) -> None:
        self._index, self._work_tree, self._root, self._sure = index, work_tree, root, sure
        self._path = f"{index.path.removesuffix('.index')}.folders"

    def others(self, patterns: Sequence[str], invisible: Callable[[str, bool], bool]) -> list[str]:
        """As `TargetIndex.others`; `invisible(path, is_folder)` says what the caller leaves out of it anyway."""
        if self._index.size() < WORTH:
            return self._index.others(self._work_tree, patterns)
        key = self._key(patterns)
        kept = self._kept()
        if kept is not None and kept.key == key and kept.stamp and _stamp(self._stats(_split(kept.folders))) == kept.stamp:
            return [from_bytes(path) for path in _split(kept.others)]
        if not self._sure or kept is None or kept.key != key or not (kept.stamp or self._another(kept)):
            found = self._index.others(self._work_tree, patterns)
            if self._sure and (kept is None or kept.key != key):
                self._keep(Kept(key, os.getpid()))
            return found
        began = _now()
        listed = self._index.listed(self._work_tree, patterns)
        others, folders = _read(listed)
        stats = self._stats(folders)
        if stats and self._holds_still(folders, stats, others, began, invisible):
            self._keep(Kept(key, os.getpid(), b"\0".join(folders), _stamp(stats), b"\0".join(others)))
        return [from_bytes(path) for path in others]

    def _another(self, kept: Kept) -> bool:
        """Whether another command looked: a deploy looks twice, and changes the index then."""
        try:
            return kept.by != os.getpid() or _now() - os.stat(self._path).st_mtime_ns > ONE_COMMAND
        except OSError:
            return False

    def _key(self, patterns: Sequence[str]) -> bytes:
        """Of everything but the folders that an answer depends on."""
        said = (self._index.digest(), os.fsencode(self._work_tree), b"%d" % os.geteuid(), *map(to_bytes, patterns))
        return hashlib.sha256(b"\0".join(said)).digest()

    def _stats(self, folders: list[bytes]) -> list[os.stat_result]:
        """Of the live folder and these below it; empty when one is not there."""
        try:
            return [os.fstat(self._root), *map(self._stat, folders)]
        except OSError:
            return []

    def _stat(self, path: bytes) -> os.stat_result:
        return os.stat(path, dir_fd=self._root, follow_symlinks=False)

    def _holds_still(self, folders: list[bytes], stats: list[os.stat_result], others: list[bytes], began: int,
                     invisible: Callable[[str, bool], bool]) -> bool:  # fmt: skip
        """Whether the answer depends on nothing but these folders, and none of them changed since before `began`."""
        device, known = stats[0].st_dev, set(folders)
        if any(path.endswith(b"/") and not invisible(from_bytes(path[:-1]), True) for path in others):
            return False
        if not all(stat.S_ISDIR(found.st_mode) and found.st_dev == device and found.st_ctime_ns < began - AT_REST
                   for found in stats) or _kind_of(device) not in KINDS:  # fmt: skip
            return False
        below = Counter(folder.rpartition(b"/")[0] for folder in folders)
        try:
            return all(self._plain(folder, known, found.st_nlink == below[folder] + 2, invisible)
                       for folder, found in zip((b"", *folders), stats, strict=True))  # fmt: skip
        except OSError:
            return False

    def _plain(self, folder: bytes, known: set[bytes], complete: bool, invisible: Callable[[str, bool], bool]) -> bool:
        """Whether no folder is in this one but those `known` (surely so when its links say it is `complete`) and those
        that are left out anyway. A repository of its own is not plain: what git says of it depends on its `.git`."""
        if folder:
            with suppress(FileNotFoundError):
                self._stat(folder + b"/.git")
                return False
        more = set() if complete else self._below(folder) - known - ({b".git"} if not folder else set())
        return all(invisible(from_bytes(path), True) for path in more)

    def _below(self, folder: bytes) -> set[bytes]:
        """The folders in a folder."""
        prefix = folder + b"/" if folder else b""
        try:
            with folder_at(self._root, from_bytes(folder)) as here:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
        except Blocked as blocked:
            raise OSError(str(blocked)) from blocked
        try:
            with os.scandir(fd) as entries:
                return {prefix + os.fsencode(e.name) for e in entries if e.is_dir(follow_symlinks=False)}
        finally:
            os.close(fd)

    def _kept(self) -> Kept | None:
        try:
            with open(self._path, "rb") as file:
                raw = file.read()
            if hashlib.sha256(raw[32:]).digest() != raw[:32]:
                return None  # a power cut tore it
            return msgspec.msgpack.decode(raw[32:], type=Kept)
        except (OSError, msgspec.DecodeError):
            return None

    def _keep(self, kept: Kept) -> None:
        """A full or read-only disk keeps nothing."""
        raw = msgspec.msgpack.encode(kept)
        new = f"{self._path}.{os.getpid()}"
        with suppress(OSError):
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(hashlib.sha256(raw).digest() + raw)
            os.rename(new, self._path)


def _read(listed: bytes) -> tuple[list[bytes], list[bytes]]:
    """(untracked paths, every folder with a recorded file somewhere in it) of `TargetIndex.listed`."""
    others: list[bytes] = []
    at = 0
    while listed.startswith(b"? ", at):
        end = listed.index(b"\0", at)
        others.append(listed[at + 2 : end])
        at = end + 1
    folders: set[bytes] = set()
    for deepest in set(_FOLDERS.findall(listed, at)):
        folder = deepest
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    return others, sorted(folders)


def _stamp(stats: list[os.stat_result]) -> bytes:
    """Changes when a folder does; empty for none."""
    numbers = array("Q")
    for found in stats:
        numbers.extend((found.st_dev & _WORD, found.st_ino & _WORD, found.st_mtime_ns & _WORD, found.st_ctime_ns & _WORD))
    return hashlib.sha256(numbers.tobytes()).digest() if stats else b""


def _split(named: bytes) -> list[bytes]:
    return named.split(b"\0") if named else []


def _now() -> int:
    """Nanoseconds by the clock that file systems stamp with."""
    memory = os.memfd_create("now", os.MFD_CLOEXEC)
    try:
        return os.fstat(memory).st_ctime_ns
    finally:
        os.close(memory)


def _kind_of(device: int) -> bytes:
    """The kind of a mounted file system; empty when it is not known."""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                if line.split(b" ", 3)[2] == wanted:
                    return line.partition(b" - ")[2].split(b" ", 1)[0]
    except (OSError, IndexError):
        pass
    return b""
