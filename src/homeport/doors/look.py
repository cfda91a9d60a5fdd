"""Looks at live folders without following a link below their root and without ever waiting for a FIFO.

Everything is addressed by a descriptor of the root and a relative path; each component is opened with
`O_NOFOLLOW`. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from homeport.model.errors import InfrastructureFault, Refused
from homeport.model.live import Entry
from homeport.model.paths import from_bytes, printable, to_bytes

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LARGE = 100 << 20
"""Bytes from which on a file is handed to git as a file, and neither shown nor adopted: it may be larger than the memory,
and forges take none."""
_TRIES = 3
"""Readings of a file that somebody writes to meanwhile."""


class Seen(Struct, frozen=True):
    """What lies at a path: `entry` for a file or link, `oddity` for anything else, neither when it is absent."""

    entry: Entry | None = None
    oddity: str | None = None

    @property
    def absent(self) -> bool:
        return self.entry is None and self.oddity is None


class Blocked(Exception):
    """A folder on the way to a path is not a folder; `oddity` says what it is, `path` which one."""

    def __init__(self, path: str, oddity: str) -> None:
        super().__init__(f"{oddity}: {path}")
        self.path = path
        self.oddity = oddity


def open_root(path: str) -> int | None:
    """A descriptor of a live folder (the caller closes it); None when there is none.

    Raises Refused (code `not-the-folder`) when something else lies there, InfrastructureFault when it cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError as fault:
        raise Refused("the live folder is a link or a file, not a folder", where=path, next=f"ls -ld {path}",
                      code="not-the-folder") from fault  # fmt: skip
    except OSError as fault:
        raise InfrastructureFault(f"the live folder cannot be opened: {fault.strerror}", where=path,
                                  next="homeport doctor", code="unreadable") from fault  # fmt: skip


def split(path: str) -> tuple[str, str]:
    """Folder (empty for the root) and last name."""
    folder, _, name = path.rpartition("/")
    return folder, name


@contextmanager
def folder_at(root: int, folder: str) -> Iterator[int]:
    """A descriptor (O_PATH) of a folder below the root.

    Raises FileNotFoundError, or Blocked when a component is no folder.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        walked = ""
        for part in folder.split("/") if folder else ():
            walked = f"{walked}/{part}" if walked else part
            try:
                below = os.open(to_bytes(part), _FOLDER, dir_fd=here)
            except NotADirectoryError as fault:
                raise Blocked(walked, _kind(here, part)) from fault
            except PermissionError as fault:
                raise Blocked(walked, "unreadable") from fault
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _kind(folder: int, name: str) -> str:
    found = os.stat(to_bytes(name), dir_fd=folder, follow_symlinks=False)
    return "link in the way" if stat.S_ISLNK(found.st_mode) else "file in the way"


def look_at(root: int, path: str) -> Seen:
    """What lies at a path below the root, its content hashed as git would. Never raises for what it finds."""
    folder, name = split(path)
    try:
        with folder_at(root, folder) as here:
            return look_in(here, name)
    except FileNotFoundError:
        return Seen()
    except Blocked as blocked:
        return Seen(oddity=blocked.oddity)


def look_in(folder: int, name: str) -> Seen:
    """As `look_at`, for a name in an open folder."""
    raw = to_bytes(name)
    try:
        found = os.stat(raw, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return Seen(Entry("120000", blob_id(os.readlink(raw, dir_fd=folder))))
        if not stat.S_ISREG(found.st_mode):
            return Seen(oddity=_oddity(folder, raw, found.st_mode))
        entry = _hash_file(folder, raw)
    except FileNotFoundError:
        return Seen()
    except OSError:
        return Seen(oddity="unreadable")
    return Seen(entry) if entry is not None else Seen(oddity="unreadable")


def _oddity(folder: int, raw: bytes, mode: int) -> str:
    if stat.S_ISDIR(mode):
        try:
            os.stat(raw + b"/.git", dir_fd=folder, follow_symlinks=False)
        except OSError:
            return "directory"
        return "nested repository"
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def blob_id(content: bytes) -> str:
    """The object id git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def open_file(folder: int, name: str) -> int:
    """A descriptor for reading, never through a link and never waiting for the other end of a FIFO. Raises OSError."""
    return os.open(to_bytes(name), _READ, dir_fd=folder)


def _hash_file(folder: int, raw: bytes) -> Entry | None:
    """None when it is not a regular file any more, or never holds still."""
    for _ in range(_TRIES):
        fd = os.open(raw, _READ, dir_fd=folder)
        try:
            entry = entry_of(fd)
        finally:
            os.close(fd)
        if entry is not None:
            return entry
    return None


def entry_of(fd: int) -> Entry | None:
    """Mode and object id of an open regular file, read from its start; None when it changed size meanwhile."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return None
    digest = hashlib.sha1(b"blob %d\0" % found.st_size, usedforsecurity=False)
    at = 0
    while chunk := os.pread(fd, 1 << 20, at):
        digest.update(chunk)
        at += len(chunk)
    if at != found.st_size:
        return None
    return Entry("100755" if found.st_mode & 0o100 else "100644", digest.hexdigest())


def read_in(folder: int, name: str) -> tuple[str, bytes] | None:
    """Git mode and bytes of a regular file or link in an open folder; None for anything else."""
    raw = to_bytes(name)
    try:
        found = os.stat(raw, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return "120000", os.readlink(raw, dir_fd=folder)
        if not stat.S_ISREG(found.st_mode):
            return None
        fd = os.open(raw, _READ, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        return ("100755" if found.st_mode & 0o100 else "100644"), file.read()


def kept_in(folder: int, name: str) -> tuple[str, bytes | str] | None:
    """As `read_in`, in a folder that nobody else writes to: of a file too large for memory a path to it, good while the
    folder is open."""
    found = os.stat(to_bytes(name), dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode) or found.st_size < LARGE:
        return read_in(folder, name)
    return "100755" if found.st_mode & 0o100 else "100644", f"/proc/{os.getpid()}/fd/{folder}/{name}"


def large_at(root: int, path: str) -> bool:
    """Whether a regular file of at least `LARGE` bytes lies there."""
    folder, name = split(path)
    try:
        with folder_at(root, folder) as here:
            found = os.stat(to_bytes(name), dir_fd=here, follow_symlinks=False)
    except (OSError, Blocked):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size >= LARGE


def read_at(root: int, path: str) -> tuple[str, bytes] | None:
    """As `read_in`, for a path below the root."""
    folder, name = split(path)
    try:
        with folder_at(root, folder) as here:
            return read_in(here, name)
    except (FileNotFoundError, Blocked):
        return None


def walk(root: int, folder: str, skip: Callable[[str, bool], bool]) -> Iterator[tuple[str, str]]:
    """Every file and link below a folder as (path, kind), and nested repositories as (path, "nested repository").

    `skip(path, is_folder)` prunes; kind is "" for a file or link. FIFOs, sockets and devices are no content and
    are passed over, as git does.
    """
    try:
        with folder_at(root, folder) as here:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    except (OSError, Blocked):
        return
    below: list[str] = []
    try:
        with os.scandir(fd) as entries:
            found = sorted((from_bytes(os.fsencode(e.name)), e.is_dir(follow_symlinks=False),
                            e.is_symlink() or e.is_file(follow_symlinks=False)) for e in entries)  # fmt: skip
    finally:
        os.close(fd)
    if folder and any(name == ".git" for name, _, _ in found):
        yield folder, "nested repository"
        return
    for name, is_folder, is_content in found:
        path = f"{folder}/{name}" if folder else name
        if not (is_folder or is_content) or skip(path, is_folder):
            continue
        if is_folder:
            below.append(path)
        else:
            yield path, ""
    for path in below:
        yield from walk(root, path, skip)


def mounts_below(path: str) -> set[str]:
    """Paths below a folder, relative to it, on which something is mounted."""
    found: set[str] = set()
    prefix = path.rstrip("/") + "/"
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return found
    for line in lines:
        point = from_bytes(_unescaped(line.split(b" ")[4]))
        if point.startswith(prefix):
            found.add(point[len(prefix):])
    return found


def _unescaped(raw: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        raw = raw.replace(code, char)
    return raw


def shown(paths: list[str], most: int = 5) -> str:
    """Some paths for a message."""
    some = ", ".join(printable(p) for p in paths[:most])
    return some if len(paths) <= most else f"{some} and {len(paths) - most} more"
