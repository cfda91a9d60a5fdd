"""Host files on the disk: read, copied beside themselves, exchanged at once. No link is followed, in no part of a path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

from homeport.doors.beside import held
from homeport.doors.durable import sync_folder
from homeport.doors.look import Blocked, folder_at
from homeport.model.errors import InfrastructureFault, Refused
from homeport.model.hostfiles import Held
from homeport.model.paths import printable, to_bytes

LARGEST = 4 * 1024 * 1024
"""Bytes; a host file is something a person edits."""
ABANDONED = 24 * 3600.0
"""Seconds after which a copy beside the file is what a crash left, and no editor is open on it."""
KEPT = 20
"""Backups of one path."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class HostFileDoor:
    """Satisfies `HostFiles`. Backups and drafts lie in `folder`, which is homeport's own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self, path: str) -> Held | None:
        with _folder_of(path) as (folder, name):
            return None if folder is None else _read(folder, name, path)

    @contextmanager
    def reached(self, path: str) -> Iterator[str]:
        with _folder_of(path) as (folder, _):
            yield os.path.dirname(path) if folder is None else held(folder)

    def copy(self, path: str, content: bytes, like: Held | None, secret: bool) -> str:
        with _folder_of(path) as (folder, name):
            if folder is None:
                raise Refused("its folder is not there", where=printable(path), code="hostfile-odd",
                              next=f"mkdir -p {os.path.dirname(path)}")  # fmt: skip
            fresh = f".{name}.homeport-{secrets.token_hex(4)}"
            try:
                fd = os.open(to_bytes(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                             dir_fd=folder)  # fmt: skip
            except OSError as fault:
                raise _cannot("a copy cannot be made beside it", path, fault) from fault
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    file.flush()
                    if like is None:
                        os.fchmod(fd, 0o600 if secret else 0o644)
                    else:
                        _dress(fd, folder, name)
                    os.fsync(fd)
            except OSError as fault:
                _unlink(folder, fresh)
                raise _cannot("owner, mode or attributes cannot be kept", path, fault) from fault
            return f"{os.path.dirname(path).rstrip('/')}/{fresh}"

    def take(self, copy: str) -> bytes:
        found = self.read(copy)
        if found is None:
            raise Refused("the editor left no file behind", where=printable(copy), next="homeport hostfile list",
                          code="hostfile-odd")  # fmt: skip
        return found.content

    def put(self, path: str, copy: str, expected: str | None) -> None:
        with _folder_of(path) as (folder, name):
            there = None if folder is None else _read(folder, name, path)
            if folder is None or (there.digest if there else None) != expected:
                raise Refused("somebody changed it meanwhile; nothing was put in place", where=printable(path),
                              next=f"homeport hostfile diff {path}", code="changing")  # fmt: skip
            try:
                os.rename(to_bytes(os.path.basename(copy)), to_bytes(name), src_dir_fd=folder, dst_dir_fd=folder)
                sync_folder(".", dir_fd=folder)
            except OSError as fault:
                hint = " (it is mounted by itself, and cannot be exchanged)" if fault.errno == errno.EBUSY else ""
                raise _cannot(f"it cannot be replaced{hint}", path, fault) from fault

    def remove(self, path: str, expected: str) -> None:
        with _folder_of(path) as (folder, name):
            there = None if folder is None else _read(folder, name, path)
            if folder is not None and there is not None and there.digest == expected:
                _unlink(folder, name)
                sync_folder(".", dir_fd=folder)

    def clear(self, path: str) -> None:
        with _folder_of(path) as (folder, name):
            if folder is None:
                return
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                for entry in os.listdir(fd):
                    if entry.startswith(f".{name}.homeport-"):
                        with contextlib.suppress(FileNotFoundError):
                            if os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mtime < time.time() - ABANDONED:
                                os.unlink(entry, dir_fd=fd)
            finally:
                os.close(fd)

    def drop(self, copy: str) -> None:
        with contextlib.suppress(Refused, InfrastructureFault), _folder_of(copy) as (folder, name):
            if folder is not None:
                _unlink(folder, name)

    def back_up(self, path: str, held: Held, at: str) -> str:
        place = self._place(path)
        name = f"{at.replace(':', '-')}-{held.digest[:16]}.bak"
        known = sorted(entry for entry in os.listdir(place) if entry.endswith(".bak"))
        if not any(entry.endswith(f"-{held.digest[:16]}.bak") for entry in known[-1:]):
            _write(place, name, held.content)
            for old in [*known, name][:-KEPT]:
                os.unlink(os.path.join(place, old))
            return os.path.join(place, name)
        return os.path.join(place, known[-1])

    def backup_of(self, path: str, digest: str) -> bytes | None:
        place = self._place(path)
        for name in sorted(os.listdir(place), reverse=True):
            if name.endswith(f"-{digest[:16]}.bak"):
                with open(os.path.join(place, name), "rb") as file:
                    return file.read()
        return None

    def draft(self, path: str, content: bytes, at: str) -> str:
        place = self._place(path)
        _write(place, f"{at.replace(':', '-')}.draft", content)
        return os.path.join(place, f"{at.replace(':', '-')}.draft")

    def _place(self, path: str) -> str:
        place = os.path.join(self._folder, urllib.parse.quote(path, safe="")[-200:])
        os.makedirs(place, mode=0o700, exist_ok=True)
        return place


@contextmanager
def _folder_of(path: str) -> Iterator[tuple[int | None, str]]:
    """(descriptor of the folder or None when there is none, last name)."""
    folder, name = os.path.split(path)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            with folder_at(root, folder.strip("/")) as here:
                yield here, name
        except FileNotFoundError:
            yield None, name
        except Blocked as fault:
            if fault.oddity == "unreadable":
                denied = PermissionError(errno.EACCES, "no permission")
                raise _cannot(f"/{fault.path} cannot be opened", path, denied) from fault
            raise Refused(f"/{fault.path} is a {fault.oddity}; links are not followed", where=printable(path),
                          code="hostfile-link",
                          next=f"register where it really lies: readlink -f {path}") from fault  # fmt: skip
    finally:
        os.close(root)


def _read(folder: int, name: str, path: str) -> Held | None:
    try:
        fd = os.open(to_bytes(name), _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            raise Refused("it is a link, and links are not followed", where=printable(path), code="hostfile-link",
                          next=f"register where it really lies: readlink -f {path}") from fault  # fmt: skip
        raise _cannot("it cannot be read", path, fault) from fault
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("it is no plain file", where=printable(path), next=f"ls -ld {path}", code="hostfile-odd")
        if found.st_nlink > 1:
            raise Refused(f"it has {found.st_nlink} names (hard links); replacing it would part them",
                          where=printable(path), next=f"find / -xdev -samefile {path}", code="hostfile-odd")  # fmt: skip
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Refused(f"it is larger than {LARGEST >> 20} MB", where=printable(path), next=f"ls -l {path}",
                      code="hostfile-odd")  # fmt: skip
    return Held(content=content, digest=hashlib.sha256(content).hexdigest(), mode=stat.S_IMODE(found.st_mode),
                owner=f"{found.st_uid}:{found.st_gid}")  # fmt: skip


def _dress(fd: int, folder: int, name: str) -> None:
    """Owner, mode, ACL and attributes of the file that lies there."""
    other = os.open(to_bytes(name), _READ, dir_fd=folder)
    try:
        like = os.fstat(other)
        mine = os.fstat(fd)
        if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, stat.S_IMODE(like.st_mode))
        try:
            names = os.listxattr(other)
        except OSError as fault:
            if fault.errno != errno.ENOTSUP:
                raise
            names = []
        for attribute in names:
            if attribute.startswith("security.") and attribute != "security.selinux":
                continue
            os.setxattr(fd, attribute, os.getxattr(other, attribute))
    finally:
        os.close(other)


def _write(place: str, name: str, content: bytes) -> None:
    fd = os.open(os.path.join(place, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(to_bytes(name), dir_fd=folder)


def _cannot(what: str, path: str, fault: OSError) -> InfrastructureFault:
    return InfrastructureFault(f"{what}: {fault.strerror}", where=printable(path), next=f"ls -ld {path}", code="os")
