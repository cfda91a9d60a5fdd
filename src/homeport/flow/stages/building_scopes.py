"""One build for several services of a scope (`[scopes.N] build`): once, at the top of the repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from homeport.decide import layout, together
from homeport.flow.goals import build_target, place_in_target, service_now
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.deploys import ServiceRecord
from homeport.model.live import PROJECT, Entry, Target
from homeport.model.patterns import effective_protect


def build_together(scope: str, needed: Sequence[ServiceWork], run: Callable[..., None], work: Work, tools: Tools) -> None:
    """Builds in a folder beside the scope's first live folder, and keeps the outputs of those that need them.

    `run` carries out a command of the project. Raises Failed: then nothing is kept of any of them.
    """
    site, config = tools.site, work.config
    place = _place(scope, needed, work, tools)
    for service in needed:
        site.targets.make(build_target(service))
    owner = together.builder(config, scope)
    folder = site.builds.prepare(place, _tree(scope, needed, work, tools), [], owner.user)
    for service in needed:
        build = service.service.build
        inherit = [place_in_target(service, path) for path in (build.inherit if build is not None else ())]
        site.builds.bring_in(build_target(service), inherit, _inside(service, folder), owner.user)
    command = config.scopes[scope].build
    stands = (folder, place.path) if place.name == PROJECT else None
    run(owner, command, folder, together.longest(config, scope), f"build of scope {scope}", work, tools,
        extra=together.environment(config, scope), name=None, stands_at=stands)  # fmt: skip
    for service in needed:
        if service.goal.outputs is not None:
            its = build_target(service)
            site.builds.collect(its, service.goal.outputs, list(its.outputs), _inside(service, folder))


def _inside(service: ServiceWork, folder: str) -> str:
    """Where the build folder has what the service's live folder mirrors."""
    if service.target is not None and service.target.name == PROJECT:
        return folder
    return f"{folder}/{layout.folder_of(service.service)}".rstrip("/")


def _place(scope: str, needed: Sequence[ServiceWork], work: Work, tools: Tools) -> Target:
    """The build folder lies beside the first service of the scope that was or is deployed here, so that it stays one."""
    here, now = {record.name for record in tools.site.store.targets()}, {service.name: service for service in needed}
    for name in together.members(work.config, tools.site.environment, scope):
        target = layout.target_of(work.config, name)
        if target is not None and (name in now or target.name in here):
            return replace(target, shared_by=f"@{scope}")
    raise AssertionError(f"scope {scope} has no live folder")  # faults() of decide/together.py sees to it


def _tree(scope: str, needed: Sequence[ServiceWork], work: Work, tools: Tools) -> str:
    """What the scope builds from: the commit, with each service's own files as they are to be built, without what is
    protected. Raises Refused for what no build folder can hold."""
    site, config = tools.site, work.config
    base = needed[0].goal.sha or work.sha or ""
    everything = Target(name=f"@{scope}", path="/", source="",
                        protect=effective_protect(config.project.protect, (), config.project.unprotect, ()))  # fmt: skip
    shared = site.git.write_tree(together.files(config, scope, site.git.listing(base)))
    found: dict[str, Entry] = site.git.listing(site.targets.wanted(everything, shared))
    for name in together.members(config, site.environment, scope):
        service = config.services[name]
        folder = layout.folder_of(service)
        own = f"{folder}/" if folder else ""
        target = layout.target_of(config, name)
        its = work.services.get(name) or service_now(name, service, target, ServiceRecord(service=name))
        if its.target is None:
            continue
        tree = its.build_tree or site.targets.wanted(its.target, base)
        whole = its.target.name == PROJECT
        listing = {path if whole else own + path: entry for path, entry in site.git.listing(tree).items()}
        found = {path: entry for path, entry in found.items() if not path.startswith(own)}
        found |= {path: entry for path, entry in listing.items() if path.startswith(own)}
    return site.git.write_tree(found)
