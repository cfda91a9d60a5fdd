"""Tries: uncommitted work that goes live as a real commit, and what the flow asks of the doors for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from homeport.model.edits import Person
from homeport.model.live import TreeChange
from homeport.model.watching import FolderWatch


class Snapshot(Struct, frozen=True, kw_only=True):
    """A working tree as it was at one moment, as a commit that no branch knows."""

    sha: str
    base: str
    """What was checked out; the parent of the commit."""
    changed: tuple[str, ...] = ()
    """Paths of the repository at which the working tree is not as in the base or not as in the index."""
    nested: tuple[str, ...] = ()
    """Untracked folders that are repositories of their own: git would take their name and nothing in them."""


class Reverted(Struct, frozen=True, kw_only=True):
    """What a try would take away because its base lacks what is deployed."""

    service: str
    deployed: str
    """The commit that runs."""
    commits: tuple[str, ...] = ()
    """Newest first, bounded."""
    paths: tuple[str, ...] = ()
    """Paths of the repository whose deployed content would be another one."""


class WorkingTree(Protocol):
    """A person's checkout. Its index, HEAD, refs, reflog, object store and files are only read."""

    top: str
    """The root of the checkout."""

    def take(self, person: Person, message: str, hidden: Callable[[str], bool]) -> Snapshot:
        """Makes the working tree as it is a commit: what is tracked as it lies there, what is untracked and not ignored.

        Untracked paths for which `hidden` holds stay out.

        Raises Refused: `unmerged`, `oddity` (a FIFO, socket or device where a file was), `changing` (a file that never
        holds still), `no-commit` (nothing was committed yet).
        """
        ...

    def pack(self, commit: str, have: Sequence[str], into: str) -> None:
        """Writes what a mirror that has the commits `have` lacks of `commit` straight into its object store, by path."""
        ...

    def packed(self, commit: str, have: Sequence[str]) -> str:
        """The path of a pack of what a mirror that has the commits `have` lacks of `commit`; there until `close`."""
        ...

    def watch(self) -> FolderWatch:
        """Watches every folder that git does not ignore."""
        ...

    def concerns(self, paths: Iterable[str]) -> bool:
        """Whether git would take any of these paths: false for what is ignored, such as what a build makes."""
        ...

    def written(self, paths: Iterable[str]) -> float | None:
        """When the newest of these files was written, in Unix time; None when none is there."""
        ...

    def close(self) -> None: ...


class Tries(Protocol):
    """The commits of tries in the mirror of one environment, below refs/homeport/tries/."""

    def bring(self, tree: WorkingTree, snapshot: Snapshot) -> None:
        """Brings the commit of a working tree on this machine here and keeps it."""
        ...

    def knows(self, sha: str) -> bool:
        """Whether a commit, by its full id, is a try that was brought here and is kept by a reference of its own."""
        ...

    def fork(self, sha: str, branch: str) -> str | None:
        """The newest commit of the branch that this commit is made from; None when they share none."""
        ...

    def missing(self, sha: str, deployed: str, limit: int) -> tuple[str, ...]:
        """Commits that `deployed` is made from and `sha` is not, newest first."""
        ...

    def brought(self, base: str | None, commit: str, paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """By path: the blobs that commits from `base` to `commit` gave it."""
        ...

    def author(self, sha: str) -> str:
        """`Name <address>` of a commit."""
        ...

    def prune(self, needed: Sequence[str]) -> int:
        """Keeps what was tried long ago under one reference, so that nothing is lost and few are left; how many went."""
        ...

    def changes(self, base: str | None, sha: str) -> list[TreeChange]: ...
