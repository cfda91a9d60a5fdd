"""Restarts exactly the services that run with something else than what is there."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from homeport.decide.layout import unit_scopes
from homeport.decide.levels import levels
from homeport.flow.goals import unit_of
from homeport.flow.images import runtime_of, unit_to_start
from homeport.flow.stages.building import run_command
from homeport.flow.stages.itself import restart_itself
from homeport.flow.stages.reaching import forced
from homeport.flow.stages.syncing import mark_changed
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.abreast import side_by_side
from homeport.model.config import Command
from homeport.model.errors import Failed, Refused
from homeport.model.events import RestartDone, RestartStart


def restart_services(work: Work, tools: Tools) -> Work:
    """Level by level of `after`, in parallel within a level; the record is written as each one is up."""
    wanted = [n for n, s in work.services.items() if s.restart_needed or forced(work, s)]
    if wanted:
        work = mark_changed(work, tools)
    for level in levels(work.config, wanted):
        restarts = [partial(restart, work.services[name], work, tools) for name in level]
        for done in side_by_side(restarts, work.config.project.jobs):
            service = done.result()
            if service is not None:
                work = work.with_service(service)
    tools.site.targets.noted()
    return restart_itself(work, tools)


def restart(service: ServiceWork, work: Work, tools: Tools) -> ServiceWork | None:
    """One service, validated first; None when its runtime does not know it."""
    from dataclasses import replace as change

    site, journal, deploy = tools.site, tools.journal, work.deploy.id
    runtime = tools.runtimes[service.service.runtime or ""]
    began = site.clock.monotonic()
    if service.service.validate is not None:
        validate(service, service.service.validate, work, tools)
    if runtime.name != "supervisor" and service.record.started is not None:
        # from here on it is not known what runs, so an undo starts the old version; the supervisor keeps the old running
        site.store.save_service(replace(service.record, started=None))
    journal.write(RestartStart(deploy_id=deploy, at=site.clock.now(), service=service.name))
    try:
        unit = replace(unit_to_start(service, work, tools), scopes=unit_scopes(work.config, site.environment))
        done = runtime.restart(unit, tools.lines_of(service.name))
    except Refused:
        site.store.save_service(service.record)
        raise
    except Failed as fault:
        if fault.code != "unregistered":
            if service.service.handoff == "port" and fault.code != "no-door":
                site.store.save_service(service.record)  # the old version serves on: an undo need not start it again
            raise
        site.store.save_service(service.record)
        tools.notice(deploy, f"{fault.what}; its files are in place, it is not started", level="warning",
                     service=service.name, code="unregistered")  # fmt: skip
        return None
    took = int((site.clock.monotonic() - began) * 1000)
    record = replace(service.record, started=service.start_with,
                     registered=service.record.registered or done.registered)  # fmt: skip
    site.store.save_service(record)
    journal.write(RestartDone(deploy_id=deploy, at=site.clock.now(), service=service.name, pid=done.pid,
                              duration_ms=took))  # fmt: skip
    return change(service, record=record, affected=True, forced=False)


def validate(service: ServiceWork, command: Command, work: Work, tools: Tools) -> None:
    """Tries the new files before the restart that they are for: in a one-off container where the service runs in one,
    which sees the file that is live now, and not the one that a running container still has. Raises Failed."""
    unit = unit_of(service, tools, service.goal.sha, work.deploy.id)
    images = runtime_of(service, tools)
    if images is not None:
        images.validate(unit, command, tools.lines_of(service.name))
        return
    run_command(service.service, command, unit.cwd, 300.0, f"validation of {service.name}", work, tools,
                extra=dict(unit.env), name=service.name)  # fmt: skip
