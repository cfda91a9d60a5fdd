"""Brings a build folder to exactly one tree: caches and whatever git does not know stay, stale sources go."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from homeport.doors.blobs import Blobs, Pour
from homeport.doors.git import Mirror
from homeport.doors.look import Blocked, folder_at, look_at, open_root, split
from homeport.model.errors import InfrastructureFault
from homeport.model.live import Entry
from homeport.model.paths import printable, to_bytes

RECORD = "build.tree"
"""Beside the build folder: the tree that its sources were brought to."""


def bring(git: Mirror, folder: str, tree: str, user: str | None, shown: str) -> None:
    """Makes every file of the tree be there with its bytes, and removes those of the tree before. `shown`: the folder
    as people know it.

    Whatever a build wrote over its sources is put back; a folder of another user's builds is begun anew, for the new
    user could not write what lies there. Raises InfrastructureFault.
    """
    try:
        if user is not None and os.geteuid() == 0 and _of_another(folder, user):
            shutil.rmtree(folder)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _give(folder, user)
        record = os.path.join(os.path.dirname(folder), RECORD)
        before = _recorded(record, git)
        root = open_root(folder)
        assert root is not None
        try:
            wanted = git.listing(tree)
            for path in git.listing(before) if before else ():
                if path not in wanted:
                    _remove(root, path)
            stale = [p for p, entry in wanted.items() if look_at(root, p).entry != entry]
            content = Blobs(git, [wanted[p].oid for p in stale])
            for path in stale:
                _write(root, path, wanted[path], content(wanted[path].oid), user)
        finally:
            os.close(root)
        with open(f"{record}.new", "w", encoding="ascii") as file:
            file.write(tree)
        os.rename(f"{record}.new", record)
    except OSError as fault:
        raise InfrastructureFault(f"the build folder cannot be made: {fault.strerror}", where=shown,
                                  next=f"df -h {shown}", code="build-folder") from fault  # fmt: skip
    except Blocked as blocked:
        raise InfrastructureFault(f"a {blocked.oddity} stands in the build folder", where=printable(blocked.path),
                                  next=f"rm -r {shown}", code="build-folder") from blocked  # fmt: skip


def _recorded(record: str, git: Mirror) -> str | None:
    try:
        with open(record, encoding="ascii") as file:
            tree = file.read().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return tree if tree and git.has(tree) else None


def _remove(root: int, path: str) -> None:
    folder, name = split(path)
    with suppress(FileNotFoundError, IsADirectoryError, Blocked), folder_at(root, folder) as here:
        os.unlink(to_bytes(name), dir_fd=here)
    while folder:
        above, name = split(folder)
        try:
            with folder_at(root, above) as here:
                os.rmdir(to_bytes(name), dir_fd=here)
        except (OSError, Blocked):
            return
        folder = above


def _write(root: int, path: str, entry: Entry, content: bytes | Pour, user: str | None) -> None:
    folder, name = split(path)
    _make_folders(root, folder, user)
    with folder_at(root, folder) as here:
        raw = to_bytes(name)
        try:
            os.unlink(raw, dir_fd=here)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shutil.rmtree(raw, dir_fd=here)
        if entry.mode == "120000" and isinstance(content, bytes):
            os.symlink(content, raw, dir_fd=here)
            _give_at(here, raw, user)
            return
        mode = 0o755 if entry.mode == "100755" else 0o644
        fd = os.open(raw, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
        with os.fdopen(fd, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(fd)
            os.fchmod(fd, mode)
        _give_at(here, raw, user)


def _make_folders(root: int, folder: str, user: str | None) -> None:
    """A link or a file that a build left where a folder of sources is to be is taken away."""
    walked = ""
    for part in folder.split("/") if folder else ():
        with folder_at(root, walked) as here:
            raw = to_bytes(part)
            try:
                os.mkdir(raw, 0o755, dir_fd=here)
            except FileExistsError:
                try:
                    fd = os.open(raw, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                except NotADirectoryError:
                    os.unlink(raw, dir_fd=here)
                    os.mkdir(raw, 0o755, dir_fd=here)
                else:
                    os.close(fd)
                    walked = f"{walked}/{part}" if walked else part
                    continue
            _give_at(here, raw, user)
        walked = f"{walked}/{part}" if walked else part


def _of_another(folder: str, user: str) -> bool:
    import pwd

    with suppress(FileNotFoundError):
        return os.lstat(folder).st_uid != pwd.getpwnam(user).pw_uid
    return False


def _give(path: str, user: str | None) -> None:
    if user is not None and os.geteuid() == 0:
        import pwd

        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _give_at(folder: int, raw: bytes, user: str | None) -> None:
    if user is not None and os.geteuid() == 0:
        import pwd

        account = pwd.getpwnam(user)
        os.chown(raw, account.pw_uid, account.pw_gid, dir_fd=folder, follow_symlinks=False)


