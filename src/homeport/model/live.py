"""Nouns of the three-way sync (DESIGN section 4): R recorded, W wanted, A actual.

A path is relative to its target. An entry is git's own pair of mode and object id; `None` means absent.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from homeport.model.paths import from_bytes


class Entry(Struct, frozen=True):
    """One file as git knows it: mode `100644`, `100755` or `120000`, and the blob's object id."""

    mode: str
    oid: str


PROJECT = "_project"
"""Name of the target that holds the whole checkout; no service can be called so."""


class Target(Struct, frozen=True, kw_only=True):
    """A live folder that mirrors one source folder of the repository."""

    name: str
    """The service's name, or PROJECT when the whole checkout is live."""
    path: str
    """Absolute, normalised; never followed through links below it."""
    source: str
    """Folder in the repository; empty for the whole of it."""
    protect: tuple[str, ...] = ()
    """Effective gitignore patterns: built-in list, minus `unprotect`, plus the project's and the service's."""
    mutable: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    """Build outputs below the target; homeport's own, they beat `protect`, and are not compared with git."""
    owner: str | None = None
    checkout: bool = False
    shared_by: str = ""
    """Where several services share one live folder: the one whose build and outputs are meant."""


DriftState = Literal["modified", "added", "deleted", "type_changed", "conflict"]


class Difference(Struct, frozen=True, kw_only=True):
    """One path whose actual content is not the recorded one."""

    path: str
    state: DriftState
    recorded: Entry | None = None
    actual: Entry | None = None
    """None when deleted, or when the path is something that cannot be read as a file (see `oddity`)."""
    foreign: str | None = None
    """The commit of the environment's branch that brought this very content, when there is one."""
    oddity: str | None = None
    """Why the content could not be taken: `directory`, `fifo`, `socket`, `device`, `unreadable`,
    `nested repository`, `link in the way`."""


class Scan(Struct, frozen=True, kw_only=True):
    """What one look at a live folder found. Protected, ignored and output paths are never in it."""

    target: str
    recorded_tree: str
    differences: tuple[Difference, ...] = ()
    mutated: tuple[Difference, ...] = ()
    """Paths under `mutable` that programs rewrote: reset by a deploy, not drift."""
    protected_tracked: tuple[str, ...] = ()
    """Paths that git tracks although they are protected: reported, never written."""
    syncing: str | None = None
    """Deploy id of a sync that was interrupted and not ended yet."""


class FirstContact(Struct, frozen=True, kw_only=True):
    """What homeport chose as the recorded state when it met a live folder for the first time."""

    target: str
    commit: str | None
    """None: the folder was empty or absent, so nothing was ever put there."""
    differing: int = 0
    considered: int = 0


class Recorded(Struct, frozen=True, kw_only=True):
    """The record of one target: what homeport last put there."""

    target: str
    tree: str
    """Filtered tree."""
    commit: str | None
    first_contact: FirstContact | None = None


Verdict = Literal[
    "same", "update", "hand_edit", "arrived", "conflict", "in_the_way", "added", "deleted_on_host", "foreign", "kept"
]


class SyncStep(Struct, frozen=True, kw_only=True):
    """One path to change: what must be there before, and what will be there after."""

    path: str
    before: Entry | None
    after: Entry | None
    in_place: bool = False
    rescue: str | None = None
    """Why the bytes that are there must be saved first (`discarded`, `mutable`, ...); None when git has them."""


class SyncPlan(Struct, frozen=True, kw_only=True):
    """What a sync of one target will do; made by `decide.drift`, carried out by the targets door."""

    target: str
    from_tree: str
    to_tree: str
    steps: tuple[SyncStep, ...] = ()
    arrived: tuple[str, ...] = ()
    """Already as wanted; only the record changes."""
    kept: tuple[str, ...] = ()
    """Hand edits left as they are."""
    conflicts: tuple[Difference, ...] = ()
    drift: tuple[Difference, ...] = ()
    """Hand edits that make this environment refuse."""


class SyncResult(Struct, frozen=True, kw_only=True):
    target: str
    written: int = 0
    deleted: int = 0
    rescued: tuple[str, ...] = ()
    """Rescue ids, those of edits made while the sync ran included."""
    surprised: tuple[str, ...] = ()
    """Paths that changed between the look and the exchange; their bytes were rescued."""


class Rescue(Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes saved before they were overwritten or deleted."""

    id: str
    service: str
    path: str
    mode: str
    oid: str
    bytes: int
    because: str
    at: str
    """UTC, ISO 8601."""
    deploy: str | None = None
    raw: str | None = None
    """Base64 of the path's bytes, where they are no UTF-8."""

    @property
    def place(self) -> str:
        """The path as it is, to put the bytes back."""
        if self.raw is None:
            return self.path
        from base64 import b64decode

        return from_bytes(b64decode(self.raw))


class TreeChange(Struct, frozen=True):
    """One line of `diff-tree`: `before` and `after` as in Entry."""

    path: str
    before: Entry | None
    after: Entry | None


class Stat(Struct, frozen=True):
    """Diff statistics of one path; lines are None for binary files."""

    path: str
    inserted: int | None = None
    removed: int | None = None


class Outputs(Struct, frozen=True, kw_only=True):
    """One kept set of build outputs of a service."""

    service: str
    key: str
    bytes: int = 0
    deploy: str | None = None
    at: str = field(default="")
