"""What lies beside a live folder (`/opt/.homeport-api/` for `/opt/api`), and what a new file there looks like."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pwd
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from homeport.model.errors import InfrastructureFault, Refused

_FLAGS = 0x80086601
"""FS_IOC_GETFLAGS."""
_UNCHANGEABLE = 0x10 | 0x20
"""chattr +i and +a."""
_NEVER_COPIED = ("security.capability", "security.ima", "security.evm")
_ACL, _DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
_libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2


def rename(from_folder: int, from_name: bytes, to_folder: int, to_name: bytes, flags: int) -> None:
    """renameat2(2). Raises OSError; EINVAL or ENOSYS where the file system or kernel has no such flag."""
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(from_folder, from_name, to_folder, to_name, ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(to_name))


def sync_file_system(fd: int) -> None:
    """Everything written to the file system of this descriptor is on its disk afterwards."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def folder_beside(path: str) -> str:
    """The folder beside a live folder where its staged files, build folder and kept outputs lie."""
    parent, name = os.path.split(path.rstrip("/"))
    return os.path.join(parent, f".homeport-{name}")


def held(fd: int) -> str:
    """A path that leads to an open folder, for this process and those it starts, wherever that folder is moved to."""
    return f"/proc/{os.getpid()}/fd/{fd}/."


@contextmanager
def inside(root: int | None, folder: str, live: str) -> Iterator[str]:
    """A path that leads to a folder in the open live folder at `live`, by a descriptor of its own: nothing between counts
    any more. As root it is where it was found, not where a link leads to. Raises Refused (code `not-the-folder`)."""
    if root is None or os.geteuid() != 0 or folder == live:
        yield folder if root is None else held(root) + folder[len(live) :]
        return
    try:
        fd = os.open(held(root) + folder[len(live) :], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield f"/proc/{os.getpid()}/fd/none"  # who starts something in it says so
        return
    except OSError as fault:
        raise InfrastructureFault(f"the folder cannot be opened: {fault.strerror}", where=folder, next=f"ls -ld {folder}",
                                  code="unreadable") from fault  # fmt: skip
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(f"{os.readlink(f'/proc/self/fd/{root}')}/"):
            raise Refused("a link leads out of the live folder there; as root nothing is started behind it", where=folder,
                          next=f"namei -l {folder}", code="not-the-folder")  # fmt: skip
        yield held(fd)
    finally:
        os.close(fd)


def open_beside(root: int | None, path: str, below: str) -> int:
    """The folder beside the live folder `path` (open; None: there was never one), or the one `below` it, made when
    missing. Raises OSError, and Refused (code `unowned`)."""
    beside = folder_beside(path)
    if root is None:
        os.makedirs(os.path.dirname(beside), exist_ok=True)
    fd = os.open(os.path.dirname(path) if root is None else "..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    for name in (os.path.basename(beside), *([below] if below else [])):
        above = fd
        try:
            fd = _own_folder(above, name, 0o711, beside, "builds")
        finally:
            os.close(above)
    return fd


def open_stage(root: int, path: str, deploy: str) -> int:
    """A private folder for the staged files of one deploy of the open live folder `path`, made when missing.

    It is beside that very folder, wherever its path leads by now. Raises InfrastructureFault, or Refused (code
    `unowned`) when another user put something in its place.
    """
    beside = folder_beside(path)
    try:
        fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        for name, mode in ((os.path.basename(beside), 0o711), ("stage", 0o700), (deploy, 0o700)):
            above, fd = fd, _own_folder(fd, name, mode, beside)
            os.close(above)
    except OSError as fault:
        raise InfrastructureFault(f"no room for staged files: {fault.strerror}", where=beside, next=f"df -h {path}",
                                  code="stage") from fault  # fmt: skip
    return fd


def open_stages(root: int | None, path: str) -> int | None:
    """The folder of every stage beside a live folder (open, or gone); None when there is none of ours."""
    try:
        above_it = os.path.dirname(path) if root is None else ".."
        fd = os.open(above_it, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        for name in (os.path.basename(folder_beside(path)), "stage"):
            above = fd
            try:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            finally:
                os.close(above)
            if os.fstat(fd).st_uid != os.geteuid():
                os.close(fd)
                return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return fd


def make_live(path: str, permitted: Callable[[int, str], None], owner: Owner | None) -> None:
    """Makes a live folder and what is missing above it, readable by whom it is served to whatever the umask says; it
    belongs to `owner`, or (as root) to whom the folder above belongs to.

    No link that comes into its path meanwhile is followed. `permitted` is asked with the deepest folder that is there,
    and the path below it. A folder that somebody else made meanwhile (two services of one checkout build side by side)
    is taken as it is.
    """
    there = os.path.dirname(path)
    missing = [os.path.basename(path)]
    while not os.path.isdir(there):
        there, name = os.path.split(there)
        missing.append(name)
    fd = _walked(os.path.realpath(there))
    try:
        permitted(fd, "/".join(reversed(missing)))
        for name in reversed(missing):
            made = _mkdir(name, fd)
            above, fd = fd, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            found = os.fstat(above)
            os.close(above)
            if made:
                os.fchmod(fd, 0o755)
        if made and os.geteuid() == 0:
            os.fchown(fd, owner.uid if owner else found.st_uid, owner.gid if owner else found.st_gid)
    finally:
        os.close(fd)


def _mkdir(name: str, above: int) -> bool:
    """Whether the folder was made by this call."""
    try:
        os.mkdir(name, 0o755, dir_fd=above)
    except FileExistsError:
        return False
    return True


def _walked(real: str) -> int:
    """A descriptor of a folder, opened step by step without a link."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in real.strip("/").split("/") if real != "/" else ():
        above = fd
        try:
            fd = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    return fd


def _own_folder(above: int, name: str, mode: int, where: str, what: str = "staged files") -> int:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=above)
        os.chmod(name, mode, dir_fd=above)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise Refused(f"another user owns the folder for {what}", where=where, next=f"ls -ld {where}", code="unowned")
    return fd


class Owner(Struct, frozen=True):
    uid: int
    gid: int


def owner_named(name: str | None) -> Owner | None:
    """A target's `owner` (`user` or `user:group`). Raises Refused (code `no-user`)."""
    if not name:
        return None
    import grp

    user, _, group = name.partition(":")
    try:
        account = pwd.getpwnam(user)
        return Owner(account.pw_uid, grp.getgrnam(group).gr_gid if group else account.pw_gid)
    except KeyError as fault:
        raise Refused(f"there is no such user or group: {name}", where="owner", next=f"getent passwd {user}",
                      code="no-user") from fault  # fmt: skip


class Above(Struct, frozen=True):
    """What a new file takes from the folder it goes into."""

    owner: Owner
    shares_group: bool
    acl: bytes | None
    """Its default ACL."""

    @classmethod
    def of(cls, folder: int) -> Above:
        found = os.fstat(folder)
        try:
            acl = os.getxattr(f"/proc/self/fd/{folder}", _DEFAULT_ACL)
        except OSError:
            acl = None
        return cls(Owner(found.st_uid, found.st_gid), bool(found.st_mode & stat.S_ISGID), acl)


def dress_new(fd: int, above: Above, owner: Owner | None, executable: bool) -> None:
    """Owner, default ACL and mode of a file that git brings new: as the folder it goes into says, where root may."""
    _give(fd, owner or (above.owner if os.geteuid() == 0 else None))
    if os.geteuid() != 0 and above.shares_group:
        with suppress(PermissionError):
            os.fchown(fd, -1, above.owner.gid)
    if above.acl is None:
        _forget_acl(fd)
        os.fchmod(fd, 0o755 if executable else 0o644)
        return
    os.setxattr(fd, _ACL, above.acl)
    given = os.fstat(fd).st_mode & (0o777 if executable else 0o666)
    os.fchmod(fd, given | 0o100 if executable else given)


def _forget_acl(fd: int) -> None:
    """A staged file may have one from the folder beside, which is not the one it goes into."""
    with suppress(OSError):
        os.removexattr(fd, _ACL)


def dress_alike(fd: int, old: int, owner: Owner | None, executable: bool) -> None:
    """Owner, ACLs, extended attributes and mode of the file that is replaced; only the x bit follows git.

    Raises OSError when something of it cannot be kept; setuid, setgid, sticky and capabilities never are.
    """
    was = os.fstat(old)
    if (was.st_uid, was.st_gid) != (os.geteuid(), os.fstat(fd).st_gid) or owner is not None:
        _give(fd, owner or Owner(was.st_uid, was.st_gid))
    handle = f"/proc/self/fd/{old}"
    try:
        names = os.listxattr(handle)
    except OSError:
        names = []
    if _ACL not in names:
        _forget_acl(fd)
    for name in names:
        if name in _NEVER_COPIED:
            continue
        try:
            os.setxattr(fd, name, os.getxattr(handle, name))
        except OSError as fault:
            if not name.startswith(("security.", "trusted.")) and fault.errno != errno.ENOTSUP:
                raise
    os.fchmod(fd, wanted_mode(was.st_mode, executable))


def wanted_mode(mode: int, executable: bool) -> int:
    """The old permission bits with the x bit that git says."""
    bits = stat.S_IMODE(mode) & 0o777
    if executable == bool(bits & 0o100):
        return bits
    return bits | 0o100 | (bits & 0o044) >> 2 if executable else bits & ~0o111


def _give(fd: int, owner: Owner | None) -> None:
    if owner is not None:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
            os.fchown(fd, owner.uid, owner.gid)


def unchangeable(fd: int) -> bool:
    """Whether chattr made this file or folder immutable or append-only."""
    answer = bytearray(struct.pack("l", 0))
    try:
        fcntl.ioctl(fd, _FLAGS, answer)
    except OSError:
        return False
    return bool(struct.unpack("l", answer)[0] & _UNCHANGEABLE)
