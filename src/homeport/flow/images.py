"""Services that run images: which image, which live paths changed since their start, which run a stale one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from homeport.flow.goals import unit_of
from homeport.flow.site import Site
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.config import IMAGES
from homeport.model.errors import HomeportError
from homeport.model.live import PROJECT
from homeport.model.running import ImageRuntime, Unit


def runtime_of(service: ServiceWork, tools: Tools) -> ImageRuntime | None:
    """The service's runtime, when what it runs are images."""
    runtime = tools.runtimes.get(service.service.runtime or "")
    return runtime if isinstance(runtime, ImageRuntime) else None


def lacks_images(service: ServiceWork, work: Work, tools: Tools) -> bool:
    """It is to run images that are neither kept nor what it was started with."""
    runtime, key = runtime_of(service, tools), service.goal.outputs
    if runtime is None or key is None or service.target is None:
        return False
    started = service.record.started
    if started is not None and started.outputs == key and service.record.outputs == key:
        return False
    return not runtime.has_images(unit_of(service, tools, service.goal.sha, work.deploy.id))


def changed_paths(service: ServiceWork, work: Work, tools: Tools) -> tuple[str, ...] | None:
    """Live paths that differ from those it was last started with; None when that is not known, or it is to be
    restarted whatever differs."""
    git, started = tools.site.git, service.record.started
    if started is None or service.target is None or service.forced or work.deploy.request.force:
        return None
    before, after, base = started.tree, service.start_with.tree, unit_of(service, tools, None, "").cwd
    if service.target.name == PROJECT:
        before, after, base = service.record.sha, service.goal.sha, service.target.path
    elif service.service.cwd:
        base = base.removesuffix("/" + service.service.cwd)
    if before is None or after is None or not git.has(before) or not git.has(after):
        return None
    return tuple(f"{base}/{change.path}" for change in git.changes(before, after))


def unit_to_start(service: ServiceWork, work: Work, tools: Tools) -> Unit:
    """The unit as a start needs it; a runtime without images needs no more than the unit."""
    unit = unit_of(service, tools, service.goal.sha, work.deploy.id)
    if runtime_of(service, tools) is None:
        return unit
    from msgspec.structs import replace as change

    return change(unit, changed=changed_paths(service, work, tools))


def with_stale(work: Work, tools: Tools) -> Work:
    """Marks services for a restart whose containers run an image that its name does not stand for any more."""
    for runtime in tools.runtimes.values():
        if not isinstance(runtime, ImageRuntime):
            continue
        own = [s for s in work.services.values() if s.service.runtime == runtime.name and s.record.started is not None]
        units = [unit_of(s, tools, s.goal.sha, work.deploy.id) for s in own]
        try:
            found = runtime.stale(units) if units else {}
        except HomeportError:
            continue  # the engine does not answer: the stage that needs it says so
        for name, told in found.items():
            tools.notice(work.deploy.id, told, service=name, code="stale-image")
            work = work.with_service(replace(work.services[name], forced=True))
    return work


def stale_services(site: Site) -> dict[str, str]:
    """By service, why: deployed ones whose containers run an image that its name does not stand for any more (D14).
    Asks no engine where no service runs images."""
    from homeport.flow.looking import unit_for

    records = site.store.services()
    found: dict[str, str] = {}
    for kind in IMAGES:
        own = [name for name, service in site.config.services.items()
               if service.runtime == kind and name in records and records[name].started is not None]  # fmt: skip
        runtime = site.runtimes_for(site.shell_for(None, lambda: False)).get(kind) if own else None
        with suppress(HomeportError):  # the next tick asks again
            found |= runtime.stale([unit_for(site, name) for name in own]) if isinstance(runtime, ImageRuntime) else {}
    return found


def prune(service: ServiceWork, work: Work, tools: Tools) -> None:
    """Removes the oldest kept images. What cannot be removed now is in the way of nothing."""
    runtime = runtime_of(service, tools)
    if runtime is None or service.goal.outputs is None:
        return
    try:
        runtime.prune(unit_of(service, tools, service.goal.sha, work.deploy.id), work.config.project.keep)
    except HomeportError as fault:
        tools.notice(work.deploy.id, f"old images of {service.name} stay: {fault.what}", level="warning",
                     service=service.name, code="prune")  # fmt: skip
