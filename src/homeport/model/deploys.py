"""Requests, deploys and the records that say what runs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from homeport.model.rules import ActorKind, Confirmation

Kind = Literal["commit", "try", "live", "rollback", "restart", "migrate"]
Status = Literal["deployed", "unchanged", "rolled_back", "failed", "refused", "cancelled", "superseded"]
EXIT_CODES: dict[str, int] = {
    "deployed": 0,
    "unchanged": 0,
    "rolled_back": 1,
    "failed": 1,
    "refused": 3,
    "cancelled": 6,
    "superseded": 6,
}


class Request(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What somebody asked for. Two requests with the same `key` are one deploy."""

    kind: Kind
    ref: str | None = None
    """As the person gave it; None is the tip of the environment's branch."""
    sha: str | None = None
    services: tuple[str, ...] = ()
    """Empty: all of them."""
    on_drift: Literal["refuse", "keep", "discard"] | None = None
    """None: the environment's own `on_drift`."""
    allow_mass_delete: bool = False
    from_deploy: str | None = None
    """For a rollback: the deploy whose outcome is to be restored."""
    requested_by: str = ""
    request_id: str | None = None
    scope: str | None = None
    session_id: str | None = None
    run: str | None = None
    """The CI run that asks: the gate never waits for it. No part of `key`."""
    force: bool = False
    """Restart although nothing differs (`homeport restart`)."""
    itself: bool = False
    """Restart the supervisor too, after everything else."""
    over: tuple[str, ...] = ()
    """Commits that may be taken away knowingly: what a try's base lacks, or the live tries that a deploy ends."""
    actor: ActorKind = "person"
    """What kind of asker: rules that want a confirmation hear only a person's."""
    asker: str = ""
    """Who asks, by login or token: `requested_by` may name somebody else. No part of `key`."""
    origin: str = ""
    """From where it was asked; no part of `key`."""
    confirmed: tuple[Confirmation, ...] = ()
    """Exceptions from rules that a person allowed."""
    built: str | None = None
    """The commit of outputs that were built elsewhere; its topmost folders are the services."""

    @property
    def key(self) -> tuple[object, ...]:
        return (
            self.kind, self.ref, self.sha, tuple(sorted(self.services)), self.on_drift,
            self.allow_mass_delete, self.from_deploy, self.force, self.itself, self.over, self.built,
            tuple(sorted(one.rule for one in self.confirmed)),
        )  # fmt: skip


class ServiceState(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One side (before or after) of a service in a deploy: enough to go back to it without guessing."""

    sha: str | None = None
    """Commit of its last success; None when homeport never deployed it."""
    tree: str | None = None
    """Filtered tree recorded for its target; None when it has none."""
    outputs: str | None = None
    """Outputs key."""


class StartedWith(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a service was last started with. It is restarted while this differs from what is there."""

    tree: str | None = None
    outputs: str | None = None
    environment: str | None = None
    """Hash over its environment, env file and command."""
    marks: tuple[str, ...] = ()
    """Further reasons, each a `path=oid` of `watch` and `uses` content."""


class TryMark(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service runs a try: whose, and until when the pipeline leaves it alone."""

    deploy: str
    by: str
    author: str = ""
    """`Name <address>` of the working tree's owner."""
    since: str
    """When this row of tries began."""
    until: str
    base: str | None = None
    """The newest commit of the environment's branch that the try is made from."""
    branch: str | None = None
    """Where it was adopted to."""
    commit: str | None = None
    """The commit on that branch."""
    request: str | None = None
    number: int | None = None


class ServiceRecord(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is known of one service on this host."""

    service: str
    sha: str | None = None
    """Commit of the last success of this very service: change detection starts here."""
    deploy_id: str | None = None
    tree: str | None = None
    outputs: str | None = None
    started: StartedWith | None = None
    registered: bool = False
    """homeport registered it with its process manager."""
    tried: TryMark | None = None
    """Set while what runs is a try."""


class Deploy(Struct, frozen=True, kw_only=True, rename="camel"):
    """One attempt to bring an environment to one commit: the final row (C8)."""

    id: str
    kind: Kind
    request: Request
    state: Literal["waiting", "running", "done"] = "running"
    status: Status | None = None
    sha: str | None = None
    previous_sha: str | None = None
    stage: str | None = None
    """The stage it is in, or was in when it ended."""
    changed_live: bool = False
    """Past its first change of anything live."""
    attempts: int = 1
    """How often the runner began this deploy (recovery runs it forward once more)."""
    crashed_in: str | None = None
    services: tuple[str, ...] = ()
    """Those it touched."""
    before: dict[str, ServiceState] = field(default_factory=dict)
    after: dict[str, ServiceState] = field(default_factory=dict)
    started_at: str = ""
    ended_at: str | None = None
    duration_ms: int | None = None
    exit_code: int | None = None
    error_summary: str | None = None
    error_code: str | None = None
    next: str | None = None
    """The command to run next, when it failed."""
    blamed: bool = False
    """The commit itself made it fail (its build, its checks, its configuration): no trigger tries it again."""
    unconfirmed: tuple[tuple[str, str], ...] = ()
    """Rules that want a person's word before this can be done: (id, what is wanted) of each."""
    pid: int | None = None
    requested_by: str = ""


class Block(Struct, frozen=True, kw_only=True, rename="camel"):
    sha: str
    because: str
    by: str
    at: str
    deploy_id: str | None = None


class Hold(Struct, frozen=True, kw_only=True, rename="camel"):
    because: str
    by: str
    at: str
    until: str
    deploy_id: str | None = None


class Stamp(Struct, frozen=True, kw_only=True):
    """The one transaction that makes a deploy a success."""

    deploy: str
    services: tuple[ServiceRecord, ...]


class TargetRecord(Struct, frozen=True, kw_only=True):
    """What the database knows of one target beside its index file."""

    name: str
    path: str
    source: str
    tree: str
    commit: str | None
    device: int
    inode: int
    patterns: str = ""
    """Digest of the patterns the tree was filtered with."""
    syncing: tuple[str, str, str] | None = None
    """(deploy, from tree, to tree) of a sync that began and has not ended."""
