"""`build.git`: lets a build ask git about the commit that it builds, without the mirror in its reach.

`history.git` beside the build folder holds what that commit reaches, and nothing else of the mirror: no rescue, no try, no
other branch. The `.git` of the build folder belongs to the user who builds and only points at it; its objects are not
the builder's to change.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

from homeport.doors.beside import held
from homeport.doors.git import Mirror
from homeport.doors.gitcmd import GitCommand
from homeport.model.errors import InfrastructureFault

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfilemode = true\n\tlogallrefupdates = false\n"


def lend(mirror: Mirror, folder: str, shown: str, commit: str, source: str, branch: str,
         user: str | None) -> None:  # fmt: skip
    """Makes `folder`/.git anew: HEAD on `branch` at the commit, its history and tags, and an index of
    `source`. `shown`: the folder as the build knows it.

    Raises InfrastructureFault.
    """
    above = os.open(os.path.join(folder, ".."), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    store = os.path.join(held(above), "history.git")
    try:
        _lend(mirror, folder, store, os.path.dirname(shown), commit, source, branch, user)
    except OSError as fault:
        raise InfrastructureFault(f"the build cannot be shown its history: {fault.strerror}", where=shown,
                                  next=f"df -h {shown}", code="build-folder") from fault  # fmt: skip
    finally:
        os.close(above)


def _lend(mirror: Mirror, folder: str, store: str, beside: str, commit: str, source: str, branch: str,
          user: str | None) -> None:  # fmt: skip
    git = _store(mirror, store)
    wanted = f"+{commit}:refs/heads/{branch}"
    git.run("-c", "protocol.file.allow=always", "fetch", "--quiet", "--no-write-fetch-head", "--prune", "--no-auto-gc",
            "--", mirror.path, wanted, timeout=600)  # fmt: skip
    _open_to_read(store)
    refs = git.run("for-each-ref", "--format=%(objectname) %(refname)", f"refs/heads/{branch}", "refs/tags")
    index = os.path.join(store, "lent.index")
    git.run("read-tree", f"{commit}:{source}", index=index)
    with open(index, "rb") as file:
        entries = file.read()
    _write(folder, {
        "HEAD": f"ref: refs/heads/{branch}\n".encode(), "config": _CONFIG.encode(), "packed-refs": refs,
        "index": entries, "objects/info/alternates": f"{beside}/history.git/objects\n".encode(), "refs/heads/": b"",
    }, user)  # fmt: skip


def _store(mirror: Mirror, store: str) -> GitCommand:
    """Made without git, whose `init` goes by the folder's whole path: that may lead elsewhere by then."""
    if not os.path.isdir(store):
        making = f"{store}.new"
        shutil.rmtree(making, ignore_errors=True)
        for name in ("objects", "refs"):
            os.makedirs(os.path.join(making, name), 0o700)
        config = _CONFIG.replace("bare = false", "bare = true")
        for name, content in (("HEAD", "ref: refs/heads/main\n"), ("config", config)):
            with open(os.path.join(making, name), "x", encoding="ascii") as file:
                file.write(content)
        os.rename(making, store)
    return GitCommand(store, mirror.cmd.shell)


def _open_to_read(store: str) -> None:
    """Objects only; git made them read-only itself."""
    os.chmod(store, 0o711)  # noqa: S103  (passed through by the user who builds)
    for where, folders, files in os.walk(os.path.join(store, "objects")):
        os.chmod(where, 0o755)  # noqa: S103
        for name in files:
            path = os.path.join(where, name)
            if stat.S_IMODE(os.lstat(path).st_mode) & 0o777 != 0o444:
                os.chmod(path, 0o444)
        folders.sort()


def _write(folder: str, files: dict[str, bytes], user: str | None) -> None:
    """Through descriptors: the folder above is the builder's, who may have put anything where this is to be."""
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _clear(above)
        root = _folder(above, ".git", user)
        try:
            for name, content in files.items():
                _write_one(root, name, content, user)
        finally:
            os.close(root)
    finally:
        os.close(above)


def _clear(above: int) -> None:
    try:
        found = os.stat(".git", dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        shutil.rmtree(".git", dir_fd=above)
    else:
        os.unlink(".git", dir_fd=above)


def _write_one(root: int, name: str, content: bytes, user: str | None) -> None:
    *folders, last = name.split("/")
    here = os.dup(root)
    try:
        for each in folders:
            further = _folder(here, each, user)
            os.close(here)
            here = further
        if last:
            fd = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=here)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                _give(fd, user)
    finally:
        os.close(here)


def _folder(above: int, name: str, user: str | None) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=above)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    _give(fd, user)
    return fd


def _give(fd: int, user: str | None) -> None:
    if user is not None and os.geteuid() == 0:
        import pwd

        account = pwd.getpwnam(user)
        os.fchown(fd, account.pw_uid, account.pw_gid)
