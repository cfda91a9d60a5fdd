"""Whether the process managers that a deploy will need can be asked: said before anything is touched."""

from __future__ import annotations

from homeport.flow.goals import unit_of
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.errors import InfrastructureFault

RETURN = 15.0
"""Seconds that a process manager which was killed has to be started again."""
EVERY = 0.05


def refuse_unreachable(work: Work, tools: Tools) -> None:
    """Raises InfrastructureFault (code `no-supervisor`) when a service is to be started and nobody can do it now.

    Only the supervisor's absence can be told for sure, and is cheap to ask. One that was killed is waited for.
    """
    clock = tools.site.clock
    ends = clock.monotonic() + RETURN
    for name, service in work.services.items():
        runtime = tools.runtimes.get(service.service.runtime or "")
        if runtime is None or not service.service.supervised or not (service.restart_needed or forced(work, service)):
            continue
        unit = unit_of(service, tools, service.goal.sha, work.deploy.id)
        state = runtime.inspect(unit)
        while state.unreachable and state.returning and clock.monotonic() < ends and not _cancelled(work, tools):
            clock.sleep(EVERY)
            state = runtime.inspect(unit)
        if state.unreachable:
            site = tools.site
            raise InfrastructureFault(
                state.unreachable, where=f"services.{name}", code="no-supervisor",
                next=f"homeport -p {site.project} -e {site.environment} supervise",
            )  # fmt: skip


def _cancelled(work: Work, tools: Tools) -> bool:
    return bool(tools.site.store.cancel_asked(work.deploy.id))


def forced(work: Work, service: ServiceWork) -> bool:
    """Whether the request restarts it although nothing differs; an undo does not."""
    force = work.deploy.request.force and not (work.deploy.stage or "").startswith("rollback")
    return force and service.service.runtime is not None
