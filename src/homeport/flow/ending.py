"""How a deploy ends: the final row and the last event."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from homeport.model.deploys import EXIT_CODES, Deploy, Status
from homeport.model.errors import ConfigFault, Failed, HomeportError, Unconfirmed
from homeport.model.events import DeployCancelled, DeployDone

if TYPE_CHECKING:
    from homeport.flow.work import Tools, Work


def ended(work: Work, tools: Tools, status: Status, fault: HomeportError | None = None) -> Deploy:
    """The row as it ends; not written yet."""
    now = tools.site.clock.now()
    code = EXIT_CODES[status]
    if fault is not None and status in ("failed", "refused"):
        code = fault.exit_code
    touched = [s for s in work.services.values() if s.affected] or list(work.services.values())
    previous = {s.record.sha for s in touched} or {work.deploy.previous_sha}
    return replace(
        work.deploy, state="done", status=status, sha=work.sha or work.deploy.sha, ended_at=now,
        previous_sha=work.deploy.previous_sha or (previous.pop() if len(previous) == 1 else None),
        services=tuple(n for n, s in work.services.items() if s.affected) or work.deploy.services,
        exit_code=code, duration_ms=_took(work.deploy, tools, now),
        error_summary=str(fault) if fault else work.deploy.error_summary,
        error_code=(fault.code or None) if fault else work.deploy.error_code,
        next=(fault.next or None) if fault else work.deploy.next, blamed=_to_blame(fault),
        unconfirmed=fault.asked if isinstance(fault, Unconfirmed) else (),
    )  # fmt: skip


def noted(deploy: Deploy, fault: HomeportError) -> Deploy:
    """The row of a deploy that failed and is about to be undone: whoever goes on after a crash knows why."""
    return replace(deploy, error_summary=str(fault), error_code=fault.code or None, next=fault.next or None,
                   blamed=_to_blame(fault))  # fmt: skip


def _to_blame(fault: HomeportError | None) -> bool:
    return isinstance(fault, Failed | ConfigFault) and not fault.infrastructure


def _took(deploy: Deploy, tools: Tools, now: str) -> int:
    """Milliseconds; the clock may have been set meanwhile, so it is asked only where another process began."""
    if deploy.attempts <= 1 and deploy.pid == os.getpid():
        return int((tools.site.clock.monotonic() - tools.began) * 1000)
    return _between(deploy.started_at, now)


def _between(start: str, end: str) -> int:
    try:
        return max(0, int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000))
    except ValueError:
        return 0


def done_event(deploy: Deploy) -> DeployDone:
    """The last event of a deploy, from its final row."""
    return DeployDone(
        deploy_id=deploy.id, at=deploy.ended_at or "", ok=deploy.exit_code == 0, status=deploy.status or "failed",
        sha=deploy.sha, previous_sha=deploy.previous_sha, services=deploy.services,
        exit_code=deploy.exit_code if deploy.exit_code is not None else 1, duration_ms=deploy.duration_ms or 0,
        error_summary=deploy.error_summary, error_code=deploy.error_code, next=deploy.next,
        unconfirmed=deploy.unconfirmed,
    )  # fmt: skip


def tell_end(deploy: Deploy, tools: Tools) -> None:
    """Writes the closing events; the row is already in the database."""
    if deploy.status == "cancelled":
        tools.journal.write(DeployCancelled(deploy_id=deploy.id, at=deploy.ended_at or ""))
    tools.journal.write(done_event(deploy))
    tools.journal.sync()
