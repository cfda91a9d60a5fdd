"""Edits: drift with a life (DESIGN section 2), the way back into git, and what the flow asks of the doors for both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.live import Entry, Target, TreeChange

EditState = Literal["open", "accepted", "adopted", "merged", "closed", "discarded"]
LIVING: tuple[EditState, ...] = ("open", "accepted", "adopted", "merged")
"""States in which the edit still lies on the host; at most one edit of a path is in one of them."""


class Edit(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What became of one hand edit of one path."""

    id: str
    target: str
    """The live folder's name."""
    service: str
    """The service the path belongs to; `_project` where the whole checkout is live and no service holds it."""
    path: str
    """Within the live folder, as `encodable` shows it."""
    state: EditState
    since: str
    """When homeport saw it first."""
    actual: Entry | None = None
    """The content it is about; None: the path was deleted."""
    by: str | None = None
    """Who accepted, adopted or discarded it."""
    because: str | None = None
    until: str | None = None
    """When the acceptance ends."""
    branch: str | None = None
    commit: str | None = None
    """The commit on that branch."""
    landed: str | None = None
    """The commit of the base branch that a merged request became."""
    request: str | None = None
    """The page of the request."""
    number: int | None = None
    """Its number."""
    unsure: bool = False
    """Adopted, and not known yet whether the branch came to the origin."""
    ended: str | None = None


class Adopted(Struct, frozen=True, kw_only=True):
    """One commit made of live paths, not pushed yet."""

    commit: str
    base: str
    paths: tuple[str, ...]
    """Of the repository."""


class Finding(Struct, frozen=True, kw_only=True):
    """Something in a file that looks like a secret. The secret itself is never held."""

    path: str
    line: int
    kind: str


class Person(Struct, frozen=True, kw_only=True):
    """Who a commit is by."""

    name: str
    email: str


class Merged(Struct, frozen=True, kw_only=True):
    """What a three-way merge came to."""

    tree: str
    conflicts: tuple[str, ...] = ()


class Ledger(Protocol):
    """The record of edits, in the environment's database."""

    def living(self, target: str | None = None) -> list[Edit]: ...
    def all(self) -> list[Edit]:
        """Newest first, those that have ended included."""
        ...

    def save(self, edits: Sequence[Edit]) -> None:
        """All of them in one transaction. A new living edit beside another living one of its path is left out."""
        ...


class Merging(Protocol):
    """The way from a live folder to a branch. Nothing here touches a checkout or the live folder."""

    def collect(self, target: Target, paths: Sequence[str]) -> tuple[dict[str, Entry | None], dict[str, str]]:
        """What lies at these paths, each file's bytes as of one moment and as a blob of the mirror; None when it is absent.
        And why the others cannot be taken."""
        ...

    def with_changes(self, tree: str | None, changes: Mapping[str, Entry | None]) -> str: ...
    def merge(self, recorded: str, live: str, fresh: str) -> Merged:
        """Three-way merge of trees that hold the same paths."""
        ...

    def commit(self, tree: str, parents: Sequence[str], message: str, person: Person, at: str | None = None) -> str:
        """Dated `at`; None: now."""
        ...

    def message_of(self, commit: str) -> tuple[str, str]:
        """Subject and body."""
        ...

    def prove(self, base: str, commit: str, paths: Sequence[str]) -> None:
        """Raises InfrastructureFault (code `proof`) unless the commit is one ahead of `base`, none behind, and changes
        exactly these paths."""
        ...

    def push(self, commit: str, branch: str) -> None:
        """To the origin, as a branch that is not there yet. Raises Refused (code `branch-exists`)."""
        ...

    def hostile(self, path: str) -> bool:
        """Whether git would not take a file of that name."""
        ...

    def changes(self, before: str | None, after: str) -> list[TreeChange]: ...
    def forget(self, ended: Collection[str], living: Collection[str]) -> int:
        """Drops what is kept of adoptions that are over: commits in `ended` and not in `living`; how many."""
        ...


class SecretScan(Protocol):
    def look(self, path: str, content: bytes, known: bytes | None) -> list[Finding]:
        """What looks like a secret in a file and was not in its `known` content. Asks nobody, writes nothing lasting."""
        ...
