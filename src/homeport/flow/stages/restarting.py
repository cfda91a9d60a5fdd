"""Restarts exactly the services that run with something else than what is there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
from homeport.model.errors import Failed, HomeportError, Refused
from homeport.model.events import RestartDone, RestartStart
from homeport.model.running import Batching, Restarted


def restart_services(work: Work, tools: Tools) -> Work:
    """Level by level of `after`, in parallel within a level; the record is written as each one is up."""
    wanted = [n for n, s in work.services.items() if s.restart_needed or forced(work, s)]
    if wanted:
        work = mark_changed(work, tools)
    for level in levels(work.config, wanted):
        batches = _batches([work.services[name] for name in level], work, tools)
        restarts = [partial(_restart_batch, batch, work, tools) for batch in batches]
        for done in side_by_side(restarts, work.config.project.jobs):
            for service in done.result():
                work = work.with_service(service)
    tools.site.targets.noted()
    return restart_itself(work, tools)


def _batches(services: Sequence[ServiceWork], work: Work, tools: Tools) -> list[list[ServiceWork]]:
    """Services that one call of their runtime starts; one that is validated first goes alone."""
    found: dict[Hashable, list[ServiceWork]] = {}
    for service in services:
        runtime = tools.runtimes[service.service.runtime or ""]
        alike = None
        if isinstance(runtime, Batching) and service.service.validate is None and service.service.handoff is None:
            alike = runtime.together(unit_of(service, tools, service.goal.sha, work.deploy.id))
        found.setdefault(service.name if alike is None else (runtime.name, alike), []).append(service)
    return list(found.values())


def _restart_batch(services: Sequence[ServiceWork], work: Work, tools: Tools) -> list[ServiceWork]:
    """Those that were started; the record is written when all of them are up."""
    runtime = tools.runtimes[services[0].service.runtime or ""]
    if len(services) == 1 or not isinstance(runtime, Batching):
        return [done for service in services if (done := restart(service, work, tools)) is not None]
    clock, began = tools.site.clock, tools.site.clock.monotonic()
    units = [unit_to_start(service, work, tools) for service in services]
    for service in services:
        _begin(service, work, tools)
    try:
        answers = runtime.restart_together(units, tools.lines_of(None))
    except Refused:
        for service in services:
            tools.site.store.save_service(service.record)
        raise
    took = int((clock.monotonic() - began) * 1000)
    return [_started(service, done, took, work, tools) for service, done in zip(services, answers, strict=True)]


def restart(service: ServiceWork, work: Work, tools: Tools) -> ServiceWork | None:
    """One service, validated first; None when its runtime does not know it."""
    site = tools.site
    runtime = tools.runtimes[service.service.runtime or ""]
    began = site.clock.monotonic()
    if service.service.validate is not None:
        validate(service, service.service.validate, work, tools)
    _begin(service, work, tools)
    try:
        unit = replace(unit_to_start(service, work, tools), scopes=unit_scopes(work.config, site.environment))
        if service.service.runtime == "command":
            with site.builds.reached(unit.cwd, service.target) as there:
                done = runtime.restart(replace(unit, reached=there), tools.lines_of(service.name))
        else:
            done = runtime.restart(unit, tools.lines_of(service.name))
    except HomeportError as fault:
        if fault.code == "unregistered" or _old_serves_on(service, fault):
            site.store.save_service(service.record)
        if fault.code != "unregistered":
            raise
        tools.notice(work.deploy.id, f"{fault.what}; its files are in place, it is not started", level="warning",
                     service=service.name, code="unregistered")  # fmt: skip
        return None
    return _started(service, done, int((site.clock.monotonic() - began) * 1000), work, tools)


def _begin(service: ServiceWork, work: Work, tools: Tools) -> None:
    if service.record.started is not None:
        # from here on it is not known what runs, so whoever is killed, an undo starts the old version
        tools.site.store.save_service(replace(service.record, started=None))
    tools.journal.write(RestartStart(deploy_id=work.deploy.id, at=tools.site.clock.now(), service=service.name))


def _old_serves_on(service: ServiceWork, fault: HomeportError) -> bool:
    """Whether what ran before still does, so that an undo need not start it again."""
    if service.service.handoff == "port" and service.service.runtime != "supervisor":
        return isinstance(fault, Failed | Refused) and fault.code not in ("no-door", "no-supervisor")
    return isinstance(fault, Refused) or service.service.runtime == "supervisor"


def _started(service: ServiceWork, done: Restarted, took: int, work: Work, tools: Tools) -> ServiceWork:
    from dataclasses import replace as change

    record = replace(service.record, started=service.start_with,
                     registered=service.record.registered or done.registered)  # fmt: skip
    tools.site.store.save_service(record)
    tools.journal.write(RestartDone(deploy_id=work.deploy.id, at=tools.site.clock.now(), service=service.name,
                                    pid=done.pid, duration_ms=took))  # fmt: skip
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
                extra=dict(unit.env), name=service.name, live=service.target)  # fmt: skip
