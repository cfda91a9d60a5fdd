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
from collections.abc import Callable, Iterable, Sequence
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
FEW = 40
"""Folders that git is asked about one by one; when more changed, it is asked about all of them."""
KINDS = frozenset({b"ext4", b"xfs", b"tmpfs", b"f2fs", b"overlay"})
"""File systems on which every change of a folder's entries changes its ctime, and which nothing else writes to."""
_FOLDERS = re.compile(rb"H ([^\0]*)/[^\0/]*\0")
_WORD = (1 << 64) - 1
_STAMP = 32
"""Bytes of the stamp of one folder."""
_UNKNOWN = bytes(_STAMP)
"""In the place of a stamp: git is asked about this folder at every look."""


class Kept(msgspec.Struct, frozen=True):
    """The answer of an earlier look; without `stamps` only that there was one."""

    index: bytes
    """Its digest: of what is recorded."""
    rules: bytes
    by: int
    """The process that looked."""
    folders: bytes = b""
    """Relative to the live folder, with NUL between them; the live folder itself is not named."""
    stamps: bytes = b""
    """Of the live folder, then of these."""
    others: bytes = b""


class Untracked:
    """One look at one live folder; `sure` when nobody writes its index meanwhile: only then is an answer kept."""

    def __init__(self, index: TargetIndex, work_tree: str, root: int, *, sure: bool) -> None:
        self._index, self._work_tree, self._root, self._sure = index, work_tree, root, sure
        self._path = _folders_of(index)

    def others(self, patterns: Sequence[str], invisible: Callable[[str, bool], bool]) -> list[str]:
        """As `TargetIndex.others`; `invisible(path, is_folder)` says what the caller leaves out of it anyway."""
        if self._index.size() < WORTH:
            return self._index.others(self._work_tree, patterns)
        digest, rules = self._index.digest(), self._rules(patterns)
        kept = _kept(self._path)
        known = kept is not None and (kept.index, kept.rules) == (digest, rules)
        if kept is not None and known and kept.stamps:
            answer = self._built_on(kept, patterns, invisible)
            if answer is not None:
                return [from_bytes(path) for path in answer]
        if not self._sure or kept is None or not known or not (kept.stamps or self._another(kept)):
            found = self._index.others(self._work_tree, patterns)
            if self._sure and not known:
                self._keep(Kept(digest, rules, os.getpid()))
            return found
        began = _now()
        listed = self._index.listed(self._work_tree, patterns)
        others, folders = _read(listed)
        stamps = self._stamps(folders, others, began, invisible)
        if stamps:
            self._keep(Kept(digest, rules, os.getpid(), b"\0".join(folders), stamps, b"\0".join(others)))
        return [from_bytes(path) for path in others]

    def _built_on(self, kept: Kept, patterns: Sequence[str],
                  invisible: Callable[[str, bool], bool]) -> list[bytes] | None:  # fmt: skip
        """What was kept, with git's new answer about the folders that changed since; None where it has to be asked about
        everything."""
        folders = [b"", *_split(kept.folders)]
        stats = self._stats(folders[1:])
        before, now = kept.stamps, _stamps_of(stats)
        if now == before:
            return _split(kept.others)
        at = _differing(before, now)
        if not at or at[0] == 0 or len(at) > FEW or not self._alike(stats):
            return None
        began, changed = _now(), [folders[n] for n in at]
        within = tuple(folder + b"/" for folder in changed)
        others = {path for path in _split(kept.others) if not path.startswith(within)}
        others |= set(_split(self._index.others_in(self._work_tree, patterns, changed)))
        if self._sure:
            known, later = set(folders), self._stats(changed)[1:]
            stamps = {n: _stamps_of([found]) for n, found in zip(at, later, strict=False)
                      if self._alike([stats[0], found]) and found.st_ctime_ns < began - AT_REST
                      and self._all_plain([folders[n]], known, invisible)}  # fmt: skip
            if stamps:
                pieces = (stamps.get(n, before[n * _STAMP : (n + 1) * _STAMP]) for n in range(len(folders)))
                self._keep(msgspec.structs.replace(kept, stamps=b"".join(pieces), others=b"\0".join(sorted(others))))
        return sorted(others)

    def _another(self, kept: Kept) -> bool:
        """Whether another command looked: a deploy looks twice, and changes the index then."""
        try:
            return kept.by != os.getpid() or _now() - os.stat(self._path).st_mtime_ns > ONE_COMMAND
        except OSError:
            return False

    def _rules(self, patterns: Sequence[str]) -> bytes:
        """Of everything but index and folders that an answer depends on."""
        said = (os.fsencode(self._work_tree), b"%d" % os.geteuid(), *map(to_bytes, patterns))
        return hashlib.sha256(b"\0".join(said)).digest()

    def _stats(self, folders: list[bytes]) -> list[os.stat_result]:
        """Of the live folder and these below it; empty when one is not there."""
        try:
            return [os.fstat(self._root), *map(self._stat, folders)]
        except OSError:
            return []

    def _stat(self, path: bytes) -> os.stat_result:
        return os.stat(path, dir_fd=self._root, follow_symlinks=False)

    def _stamps(self, folders: list[bytes], others: list[bytes], began: int,
                invisible: Callable[[str, bool], bool]) -> bytes:  # fmt: skip
        """Those of all folders, where the answer depends on nothing else; of the few that changed since shortly before
        `began` nothing is known. Empty where it may depend on more."""
        stats, known = self._stats(folders), set(folders)
        if not stats or not self._alike(stats) or _kind_of(stats[0].st_dev) not in KINDS:
            return b""
        if any(path.endswith(b"/") and not invisible(from_bytes(path[:-1]), True) for path in others):
            return b""
        restless = [n for n, found in enumerate(stats) if found.st_ctime_ns >= began - AT_REST]
        if restless[:1] == [0] or len(restless) > FEW:
            return b""
        below = Counter(folder.rpartition(b"/")[0] for folder in folders)
        doubtful = [folder for folder, found in zip((b"", *folders), stats, strict=True)
                    if found.st_nlink != below[folder] + 2]  # fmt: skip
        if not self._all_plain(doubtful, known, invisible) or any(map(self._has_git, folders)):
            return b""
        stamps = bytearray(_stamps_of(stats))
        for n in restless:
            stamps[n * _STAMP : (n + 1) * _STAMP] = _UNKNOWN
        return bytes(stamps)

    @staticmethod
    def _alike(stats: list[os.stat_result]) -> bool:
        """Whether all of them are folders of one file system."""
        return all(stat.S_ISDIR(found.st_mode) and found.st_dev == stats[0].st_dev for found in stats)

    def _all_plain(self, folders: Iterable[bytes], known: set[bytes], invisible: Callable[[str, bool], bool]) -> bool:
        """Whether no folder is in these but those `known` and those that are left out anyway. A repository of its own is
        not plain: what git says of it depends on its `.git`."""
        try:
            return all(
                not (folder and self._has_git(folder))
                and all(invisible(from_bytes(path), True)
                        for path in self._below(folder) - known - ({b".git"} if not folder else set()))
                for folder in folders
            )  # fmt: skip
        except OSError:
            return False

    def _has_git(self, folder: bytes) -> bool:
        try:
            self._stat(folder + b"/.git")
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

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

    def _keep(self, kept: Kept) -> None:
        _write(self._path, kept)


def _folders_of(index: TargetIndex) -> str:
    """Where an answer about this index is kept."""
    return f"{index.path.removesuffix('.index')}.folders"


def rewritten(index: TargetIndex, before: bytes) -> None:
    """The index had this digest, and names the same paths now: an answer about them stays one, and its folders vouch for
    themselves. The caller holds the index."""
    kept = _kept(path := _folders_of(index))
    if kept is not None and kept.index == before:
        _write(path, msgspec.structs.replace(kept, index=index.digest()))


def _kept(path: str) -> Kept | None:
    try:
        with open(path, "rb") as file:
            raw = file.read()
        if hashlib.sha256(raw[32:]).digest() != raw[:32]:
            return None  # a power cut tore it
        return msgspec.msgpack.decode(raw[32:], type=Kept)
    except (OSError, msgspec.DecodeError):
        return None


def _write(path: str, kept: Kept) -> None:
    """A full or read-only disk keeps nothing."""
    raw = msgspec.msgpack.encode(kept)
    new = f"{path}.{os.getpid()}"
    with suppress(OSError):
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(hashlib.sha256(raw).digest() + raw)
        os.rename(new, path)


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


def _stamps_of(stats: list[os.stat_result]) -> bytes:
    """One after the other; each changes when its folder does."""
    numbers = array("Q")
    for found in stats:
        numbers.extend((found.st_dev & _WORD, found.st_ino & _WORD, found.st_mtime_ns & _WORD, found.st_ctime_ns & _WORD))
    return numbers.tobytes()


def _differing(before: bytes, now: bytes) -> list[int]:
    """Which stamps are not the same; none where there are more or fewer."""
    if len(before) != len(now):
        return []
    return [n // _STAMP for n in range(0, len(now), _STAMP) if now[n : n + _STAMP] != before[n : n + _STAMP]]


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
