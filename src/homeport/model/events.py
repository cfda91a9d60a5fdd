"""Events of a deploy: what the journal holds, what `--json` prints and what the API streams (row C4).

Every event is one JSON object with `type` first; names are camelCase. `at` is UTC, ISO 8601.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class _Event(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    deploy_id: str
    at: str = ""


class DeployStart(_Event, frozen=True, tag="deploy.start"):
    kind: str
    mode: str = "commit"
    targets: tuple[str, ...] = ()
    sha: str | None = None
    environment: str = ""
    host: str = ""
    requested_by: str = ""
    session_id: str | None = None


class StageEvent(_Event, frozen=True, tag="deploy.stage"):
    stage: str
    state: Literal["start", "done", "failed", "skipped", "undo"]
    duration_ms: int | None = None
    detail: str = ""


class LogLine(_Event, frozen=True, tag="deploy.log"):
    stream: Literal["stdout", "stderr", "homeport"]
    line: str
    service: str | None = None


class PlanEvent(_Event, frozen=True, tag="deploy.plan"):
    from_sha: str | None
    to_sha: str
    services: tuple[str, ...] = ()
    added: int = 0
    modified: int = 0
    deleted: int = 0


class Notice(_Event, frozen=True, tag="deploy.notice"):
    """Something a person should know, that stops nothing: a first contact, a rescue, an unregistered process."""

    level: Literal["info", "warning"]
    message: str
    service: str | None = None
    code: str = ""


class RestartStart(_Event, frozen=True, tag="deploy.restart.start"):
    service: str


class RestartDone(_Event, frozen=True, tag="deploy.restart.done"):
    service: str
    pid: int | None
    duration_ms: int


class CheckEvent(_Event, frozen=True, tag="deploy.check"):
    check: str
    ok: bool
    service: str | None = None
    detail: str = ""
    duration_ms: int = 0
    required: bool = True


class DeployCancelled(_Event, frozen=True, tag="deploy.cancelled"):
    pass


class DeployDone(_Event, frozen=True, tag="deploy.done"):
    """Always the last."""

    ok: bool
    status: str
    sha: str | None
    previous_sha: str | None
    services: tuple[str, ...]
    exit_code: int
    duration_ms: int
    error_summary: str | None = None
    error_code: str | None = None
    next: str | None = None
    unconfirmed: tuple[tuple[str, str], ...] = ()
    """Rules that want a person's word: (id, what is wanted) of each."""


Event = (
    DeployStart | StageEvent | LogLine | PlanEvent | Notice | RestartStart | RestartDone | CheckEvent
    | DeployCancelled | DeployDone
)  # fmt: skip
