"""Plans: changed paths, affected services, the actions in order, and what was refused."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

ActionName = Literal[
    "register", "build", "restore-outputs", "sync", "swap", "migrate", "validate", "run",
    "restart", "reload", "rebuild", "recreate", "up", "wait", "verify", "record",
]  # fmt: skip


class Refusal(Struct, frozen=True, kw_only=True):
    rule: str
    """A stable word (drift, conflict, identity, blocked, mass-delete ...), or the id of the rule that decides."""
    message: str
    paths: tuple[str, ...] = ()
    service: str | None = None
    next: str = ""
    effect: str = ""
    """Of the rule that decides: confirm, review or deny; empty for what is no rule of `[[rules]]`."""


class Impact(Struct, frozen=True, kw_only=True):
    """How a change of paths concerns one service."""

    service: str
    affected: bool
    reasons: tuple[str, ...] = ()
    """Repository paths that concern it (bounded; `count` has the number), or words such as `first deploy`."""
    count: int = 0
    inserted: int = 0
    removed: int = 0


class ServicePlan(Struct, frozen=True, kw_only=True):
    service: str
    reasons: tuple[str, ...] = ()
    actions: tuple[ActionName, ...] = ()


class DueAction(Struct, frozen=True, kw_only=True):
    """One of `[[actions]]` that the changed paths ask for."""

    paths: tuple[str, ...]
    """Its patterns."""
    runs: bool
    """A command of its own."""
    service: str | None = None
    """The service it acts on."""


class PathCounts(Struct, frozen=True, kw_only=True):
    added: int = 0
    modified: int = 0
    deleted: int = 0


class Extent(Struct, frozen=True, kw_only=True):
    """How much of what a deploy brings concerns one service."""

    paths: int
    inserted: int
    """Lines; none of binary files."""
    removed: int


class Plan(Struct, frozen=True, kw_only=True, rename={"from_sha": "from", "to_sha": "to"}):
    from_sha: str | None
    to_sha: str
    deployable: bool
    """Something would be done, and nothing was refused."""
    services: tuple[ServicePlan, ...] = ()
    paths: PathCounts = field(default_factory=PathCounts)
    refusals: tuple[Refusal, ...] = ()
    actions: tuple[DueAction, ...] = ()
    extent: dict[str, Extent] = field(default_factory=dict)
    """By service, where paths of the commit concern it; worked out for whoever reads the plan, not in a deploy."""
    quiet: bool = False
    """The commit is new but touches nothing deployable: it is recorded as seen."""
