"""Whether the process managers that a deploy will need can be asked: said before anything is touched."""

from __future__ import annotations

from homeport.flow.goals import unit_of
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.errors import InfrastructureFault


def refuse_unreachable(work: Work, tools: Tools) -> None:
    """Raises InfrastructureFault (code `no-supervisor`) when a service is to be started and nobody can do it now."""
    for name, service in work.services.items():
        runtime = tools.runtimes.get(service.service.runtime or "")
        if runtime is None or not (service.restart_needed or forced(work, service)):
            continue
        state = runtime.inspect(unit_of(service, tools, service.goal.sha, work.deploy.id))
        if state.unreachable:
            site = tools.site
            raise InfrastructureFault(
                state.unreachable, where=f"services.{name}", code="no-supervisor",
                next=f"homeport -p {site.project} -e {site.environment} supervise",
            )  # fmt: skip


def forced(work: Work, service: ServiceWork) -> bool:
    """Whether the request restarts it although nothing differs; an undo does not."""
    force = work.deploy.request.force and not (work.deploy.stage or "").startswith("rollback")
    return force and service.service.runtime is not None
