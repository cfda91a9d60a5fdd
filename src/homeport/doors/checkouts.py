"""A live folder that is itself a git checkout: its HEAD, branch and index follow what homeport put there.

What git would run for the checkout's own configuration (filters, hooks, a file system monitor) is never run: the
index is made with the mirror's settings, and refs are written as the user who owns the checkout.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from homeport.doors.git import Mirror
from homeport.doors.gitcmd import GitCommand
from homeport.doors.look import open_root, read_in
from homeport.doors.permits import Permits
from homeport.doors.targetbook import CLAIM_BEING_WRITTEN, TargetBook
from homeport.doors.targetindex import TargetIndex
from homeport.model.errors import InfrastructureFault, Refused
from homeport.model.live import Target
from homeport.model.paths import to_bytes
from homeport.model.ports import Completed, Shell

_UNDER_WAY = {
    "MERGE_HEAD": "a merge", "rebase-merge": "a rebase", "rebase-apply": "a rebase",
    "CHERRY_PICK_HEAD": "a cherry-pick", "REVERT_HEAD": "a revert", "BISECT_LOG": "a bisect",
}  # fmt: skip
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHO = {"GIT_COMMITTER_NAME": "homeport", "GIT_COMMITTER_EMAIL": "homeport@localhost",
        "GIT_AUTHOR_NAME": "homeport", "GIT_AUTHOR_EMAIL": "homeport@localhost"}  # fmt: skip


class Checkouts:
    """Satisfies `LiveCheckouts`."""

    def __init__(self, book: TargetBook, git: Mirror, shell: Shell, permits: Permits) -> None:
        self._book, self._git, self._shell, self._permits = book, git, shell, permits

    def move(self, target: Target, commit: str, branch: str, *, attach: bool) -> None:
        """As `LiveCheckouts.move`."""
        with self._opened(target) as (folder, owner):
            _hide_claim(folder, owner)
            theirs = GitCommand(os.path.join(target.path, ".git"), _Becoming(self._shell, *owner))
            head = _answer(theirs, "rev-parse", "--quiet", "--verify", "HEAD^{commit}")
            on = _answer(theirs, "symbolic-ref", "--quiet", "HEAD")
            there = head == commit and on == (f"refs/heads/{branch}" if attach else "")
            staged = _staged(theirs, head)
            if there and not staged:
                return
            keep = self._own_commits(theirs, head, branch if attach else None)
            if staged:
                keep["index"] = _kept_index(theirs, head, target)
            tip = self._git.tip(branch) if _answer(theirs, "config", "--get", "remote.origin.url") else None
            self._bring_objects(theirs, folder, owner, [c for c in (commit, tip) if c])
            _move_refs(theirs, commit, branch if attach else None, tip, branch, keep)
            self._write_index(target, commit, folder, owner)

    @contextmanager
    def _opened(self, target: Target) -> Iterator[tuple[int, tuple[int, int]]]:
        """(descriptor of `.git`, its owner). Raises Refused for what is no checkout to be moved just now."""
        self._permits.changing(target.path)
        root = open_root(target.path)
        if root is None:
            raise Refused("the live folder is not there", where=target.path, next="homeport drift", code="checkout")
        try:
            folder = os.open(".git", _FOLDER, dir_fd=root)
        except OSError as fault:
            what = "is no git checkout" if isinstance(fault, FileNotFoundError) else "has a .git that is not a folder"
            raise Refused(f"the live folder {what}, although `checkout = true` says so", where=target.path,
                          next=f"git init {target.path}, then homeport deploy; or take `checkout` out",
                          code="checkout") from fault  # fmt: skip
        finally:
            os.close(root)
        try:
            owner = _owner(folder, target)
            if owner[0] != os.geteuid():
                self._permits.user(_name(owner[0]))
            _refuse_under_way(folder, target)
            yield folder, owner
        finally:
            os.close(folder)

    def _own_commits(self, theirs: GitCommand, head: str, branch: str | None) -> dict[str, str]:
        """Commits that only the checkout has and that nothing would name any more: name below refs/homeport/kept/."""
        named = [head, _answer(theirs, "rev-parse", "--quiet", "--verify", f"refs/heads/{branch}") if branch else ""]
        return {f"commit-{c[:12]}": c for c in named if c and not self._git.has(c)}

    def _bring_objects(self, theirs: GitCommand, folder: int, owner: tuple[int, int], commits: Sequence[str]) -> None:
        """Copies what the commits need and the checkout has not, as one pack, without running anything there."""
        if all(theirs.code("cat-file", "-e", c, ok=(0, 1, 128)).code == 0 for c in commits):
            return
        have: list[str] = []
        if not _exists(folder, "shallow"):
            listed = theirs.run("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/remotes/origin").decode()
            have = [oid for oid in dict.fromkeys(listed.split()) if self._git.has(oid)]
        asked = "".join([*(f"{c}\n" for c in commits), "--not\n", *(f"{c}\n" for c in have)]).encode()
        import tempfile

        with tempfile.TemporaryDirectory(dir=self._book.folder, prefix=".pack-") as place:
            self._git.cmd.run("pack-objects", "--quiet", "--revs", "--non-empty", os.path.join(place, "pack"),
                              input=asked, timeout=600)  # fmt: skip
            names = sorted(os.listdir(place), key=lambda name: name.endswith(".idx"))
            with _below(folder, owner, "objects", "pack") as packs:
                for name in names:
                    with open(os.path.join(place, name), "rb") as file:
                        _put(packs, name, file.read(), owner, 0o444)

    def _write_index(self, target: Target, commit: str, folder: int, owner: tuple[int, int]) -> None:
        """The index of exactly this commit, with what the target's own index knows of the files on the disk."""
        known = self._book.index(target)
        import tempfile
        from shutil import copy2

        with tempfile.TemporaryDirectory(dir=self._book.folder, prefix=".index-") as place:
            made = TargetIndex(os.path.join(place, "index"), self._book.command)
            with known.hold():
                if known.usable():
                    copy2(known.path, made.path)
            made.read_tree(commit)
            made.refresh(target.path)
            with open(made.path, "rb") as file:
                content = file.read()
        try:
            _put(folder, "index", content, owner, 0o644, by="index.lock")
        except FileExistsError as fault:
            raise Refused("another git is at work in the live checkout", where=f"{target.path}/.git/index.lock",
                          next=f"git -C {target.path} status; if no git runs there: rm {target.path}/.git/index.lock",
                          code="checkout-busy") from fault  # fmt: skip


class _Becoming:
    """A shell whose commands run as the owner of the checkout; only `run` is needed."""

    def __init__(self, shell: Shell, uid: int, gid: int) -> None:
        self._shell = shell
        self._become: tuple[str, ...] = ()
        if uid != os.geteuid():
            self._become = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--")

    def run(self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None,
            **how: Any) -> Completed:  # fmt: skip
        return self._shell.run((*self._become, *argv), cwd="/", env={**(env or {}), **_WHO}, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shell, name)


def _answer(git: GitCommand, *args: str) -> str:
    return git.code(*args, ok=(0, 1, 128)).stdout.decode("utf-8", "surrogateescape").strip()


def _staged(git: GitCommand, head: str) -> bool:
    """Whether the index holds something else than HEAD; a missing index of a fresh checkout holds nothing."""
    if not os.path.exists(os.path.join(git.git_dir, "index")):
        return bool(head)
    against = head or "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    return git.code("diff-index", "--cached", "--quiet", against, ok=(0, 1, 128)).code != 0


def _kept_index(git: GitCommand, head: str, target: Target) -> str:
    """What a person staged, as a commit. Raises Refused for an index in conflict."""
    written = git.code("write-tree", ok=(0, 128))
    if written.code:
        raise Refused("the index of the live checkout is in conflict", where=target.path, code="checkout-busy",
                      next=f"git -C {target.path} status")  # fmt: skip
    onto = ("-p", head) if head else ()
    tree = written.stdout.decode().strip()
    return git.run("commit-tree", tree, *onto, "-m", "What was staged before homeport moved HEAD").decode().strip()


def _move_refs(git: GitCommand, commit: str, branch: str | None, tip: str | None, followed: str,
               keep: Mapping[str, str]) -> None:  # fmt: skip
    """One transaction for the branch and what is kept, then HEAD; each has its line in the reflog."""
    wanted = {f"refs/homeport/kept/{name}": oid for name, oid in keep.items()}
    if branch is not None:
        wanted[f"refs/heads/{branch}"] = commit
    if tip is not None:
        wanted[f"refs/remotes/origin/{followed}"] = tip
    fed = b"".join(to_bytes(f"update {ref}\0{oid}\0\0") for ref, oid in wanted.items())
    git.run("update-ref", "-m", f"homeport: {commit[:12]}", "--stdin", "-z", input=fed)
    if branch is not None:
        git.run("symbolic-ref", "-m", f"homeport: {commit[:12]}", "HEAD", f"refs/heads/{branch}")
    else:
        git.run("update-ref", "-m", f"homeport: {commit[:12]}", "--no-deref", "HEAD", commit)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _owner(folder: int, target: Target) -> tuple[int, int]:
    """Who owns the checkout. Raises Refused where its parts belong to several: one could make git act for another."""
    owners = {}
    for name in (".", "config", "HEAD", "objects", "refs"):
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            owners[found.st_uid] = found.st_gid
    if len(owners) != 1:
        raise Refused(f"the .git of the live checkout belongs to users {', '.join(map(str, sorted(owners)))}",
                      where=target.path, next=f"chown -R USER {target.path}/.git", code="checkout-owner")  # fmt: skip
    uid, gid = next(iter(owners.items()))
    if uid != os.geteuid() and os.geteuid() != 0:
        raise Refused(f"the live checkout belongs to user {_name(uid)}", where=target.path,
                      next=f"run homeport as {_name(uid)}, or take `checkout` out", code="checkout-owner")  # fmt: skip
    return uid, gid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _refuse_under_way(folder: int, target: Target) -> None:
    for name, what in _UNDER_WAY.items():
        if _exists(folder, name):
            raise Refused(f"{what} is under way in the live checkout", where=target.path,
                          next=f"git -C {target.path} status", code="checkout-busy")  # fmt: skip


@contextmanager
def _below(folder: int, owner: tuple[int, int], *names: str) -> Iterator[int]:
    """A folder below an open one, made for its owner where it is missing; no link is followed."""
    here = os.dup(folder)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=here)
                os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
            below = os.open(name, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _put(folder: int, name: str, content: bytes, owner: tuple[int, int], mode: int, by: str | None = None) -> None:
    """A whole file of the owner in an open folder, renamed into place. Raises FileExistsError when `by` is taken."""
    new = by or f".homeport-{os.getpid()}-{name}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as fault:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise InfrastructureFault(f"{name} of the live checkout cannot be written: {fault.strerror}", where=".git",
                                  next="df -h", code="checkout") from fault  # fmt: skip


def _hide_claim(folder: int, owner: tuple[int, int]) -> None:
    """The claim of homeport is not one of the person's untracked files."""
    with _below(folder, owner, "info") as info:
        found = read_in(info, "exclude")
        if found is not None and (found[0] == "120000" or b"\n/.homeport\n" in b"\n" + found[1]):
            return
        text = (found[1] if found else b"").rstrip(b"\n")
        added = b"/.homeport\n/" + CLAIM_BEING_WRITTEN.encode() + b"\n"
        _put(info, "exclude", (text + b"\n" if text else b"") + added, owner, 0o644)
