"""Builds beside the live folder: nothing live is touched, whatever happens here (promise P5)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from homeport.decide import together
from homeport.flow.goals import build_target, env_file_of, place_in_target, standard_environment, unit_of
from homeport.flow.images import runtime_of
from homeport.flow.stages.building_scopes import build_together
from homeport.flow.stages.syncing import mark_changed
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.abreast import side_by_side
from homeport.model.blameless import fault_of_the_machine, how
from homeport.model.config import Command, Migrate
from homeport.model.envfile import parse
from homeport.model.errors import Failed, Refused
from homeport.model.live import Target
from homeport.model.ports import Job

MIGRATED = "migrated:"
"""Before a deploy's id, where it is written down that its migrations began, and of which commit."""


def prepare_folders(work: Work, tools: Tools) -> Work:
    """Clears what an interrupted sync left beside the targets, rescuing what git does not have."""
    for target in work.targets.values():
        for rescue in tools.site.targets.settle(target.target):
            tools.notice(work.deploy.id, f"bytes left by an interrupted sync were saved as {rescue}",
                         service=target.target.name, code="rescued")  # fmt: skip
    return work


def build_services(work: Work, tools: Tools) -> Work:
    """Runs the builds that are needed, independent ones in parallel. Raises Failed for the first that fails."""
    needed = [s for s in work.services.values() if s.build_needed and s.target is not None]
    for service in work.services.values():
        if service not in needed and _brought(service, work, tools) is not None:
            tools.notice(work.deploy.id, "its outputs were brought and are not used: what it would build is here already",
                         service=service.name, code="brought")  # fmt: skip
    if any(s.service.build for s in needed) and (because := tools.shell.cannot_stand()):
        tools.notice(work.deploy.id, f"builds do not see their folder at its live path: {because}; what they make must not "
                     'hold its own path, or use build.where = "live"', level="warning", code="namespace")  # fmt: skip
    scopes = {s.name: together.scope_of(work.config, s.name) for s in needed}
    doing = [partial(_build, service, work, tools) for service in needed if scopes[service.name] is None]
    for scope in sorted({scope for scope in scopes.values() if scope is not None}):
        its = [service for service in needed if scopes[service.name] == scope]
        doing.append(partial(build_together, scope, its, run_command, work, tools))
    for done in side_by_side(doing, work.config.project.jobs):
        done.result()
    return work


def _build(service: ServiceWork, work: Work, tools: Tools) -> None:
    build = service.service.build
    assert service.build_tree is not None
    place = build_target(service)
    if (brought := _brought(service, work, tools)) is not None:
        _bring(service, brought, work, tools)
        return
    inherit = [place_in_target(service, path) for path in (build.inherit if build is not None else ())]
    tools.site.targets.make(place)
    folder = tools.site.builds.prepare(place, service.build_tree, inherit, service.service.user)
    inside = place_in_target(service, "").rstrip("/")
    if build is not None and build.git and service.goal.sha is not None:
        tools.site.builds.lend_history(folder, service.goal.sha, place.source.strip("/").removeprefix("."),
                                       tools.site.env.branch, service.service.user)  # fmt: skip
    if build is not None and build.run is not None:
        run_command(service.service, build.run, f"{folder}/{inside}" if inside else folder, float(build.timeout),
                    f"build of {service.name}", work, tools, extra=build.env, name=service.name,
                    stands_at=(folder, place.path))  # fmt: skip
    runtime = runtime_of(service, tools)
    if runtime is not None:
        unit = unit_of(service, tools, service.goal.sha, work.deploy.id)
        runtime.build(unit, folder, service.fresh, tools.lines_of(service.name))
    if build is not None and service.goal.outputs is not None:
        tools.site.builds.collect(place, service.goal.outputs, list(place.outputs))


def _brought(service: ServiceWork, work: Work, tools: Tools) -> str | None:
    """The tree of the outputs that were built elsewhere for this very commit."""
    built, going = work.deploy.request.built, not (work.deploy.stage or "").startswith("rollback:")
    return tools.site.git.tree_of(built, service.name) if built is not None and going else None


def _bring(service: ServiceWork, tree: str, work: Work, tools: Tools) -> None:
    """Takes the place of the build: what came is kept under the key that the build would have had."""
    place = build_target(service)
    assert service.goal.outputs is not None
    tools.site.targets.make(place)
    folder = tools.site.builds.lay_out(place, tree, place_in_target(service, "").rstrip("/"), service.service.user)
    tools.site.builds.collect(place, service.goal.outputs, list(place.outputs), folder)
    tools.notice(work.deploy.id, f"its outputs were built elsewhere, and brought by {work.deploy.requested_by}: tree "
                 f"{tree[:12]}", service=service.name, code="brought")  # fmt: skip


def build_in_place(work: Work, tools: Tools) -> Work:
    """Runs builds that must work in the live folder itself (`build.where = "live"`), after its files are in place.

    An undo runs them again on the old files: there is nothing kept to go back to.
    """
    undoing = (work.deploy.stage or "").startswith("rollback:")
    for service in work.services.values():
        build = service.service.build
        if build is None or build.run is None or build.where != "live" or service.target is None:
            continue
        if not undoing and service.record.outputs == service.goal.outputs and not service.forced:
            continue
        work = mark_changed(work, tools)
        folder = f"{service.target.path}/{place_in_target(service, '')}".rstrip("/")
        run_command(service.service, build.run, folder, float(build.timeout), f"build of {service.name}", work, tools,
                    extra=build.env, name=service.name, live=service.target)  # fmt: skip
        work = work.with_service(replace(service, affected=True))
    return work


def run_command(owner: object, command: str | list[str], folder: str, timeout: float, label: str, work: Work,
                tools: Tools, *, extra: dict[str, str], name: str | None, stands_at: tuple[str, str] | None = None,
                live: Target | None = None, once: bool = False) -> None:  # fmt: skip
    """Runs one of the project's commands in a build folder, or one of a `live` folder, and nowhere else; its lines reach
    the journal at once. Raises Failed, and InfrastructureFault where the commit is not to blame; never of what is to be
    done `once`, for that is tried again."""
    path = [*getattr(owner, "path", []), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    user = getattr(owner, "user", None)
    home = getattr(owner, "home", None)
    env = {"PATH": ":".join(path), "LANG": "C.UTF-8", "HOME": home or folder,
           **standard_environment(tools, work.sha, work.deploy.id), **extra}  # fmt: skip
    with tools.site.builds.reached(folder, live) as reached:
        job = Job(command=command, cwd=folder, reached=reached, env=env, label=label, timeout=timeout, user=user,
                  stands_at=stands_at)  # fmt: skip
        done = tools.shell.job(job, tools.lines_of(name))
    if done.timed_out:
        raise Failed(f"{label} did not end within {timeout:g} s", where=folder, code="timeout",
                     next=f"homeport logs {work.deploy.id}")  # fmt: skip
    blameless = fault_of_the_machine(done, label, folder, f"homeport logs {work.deploy.id}")
    if blameless is not None and not once:
        raise blameless
    if done.code != 0:
        raise Failed(f"{label} {how(done)}", where=folder, code="command", next=f"homeport logs {work.deploy.id}")


def migrate(work: Work, tools: Tools) -> Work:
    """Migrations run from the build folder, before anything live changes; the old version keeps serving.

    Once per environment: on the first of several hosts.
    """
    service = migrating(work, tools)
    return work if service is None else _migrate(service, work, tools)


def migrating(work: Work, tools: Tools) -> ServiceWork | None:
    """The service whose migrations this deploy runs; None when it runs none. Raises Refused (code `migrate`)."""
    plan = work.config.migrate
    if plan is None or work.deploy.request.kind in ("rollback", "restart"):
        return None
    hosts = tools.site.env.hosts
    if len(hosts) > 1 and tools.site.host != hosts[0]:
        return None
    service = _migrating(work, plan.service)
    if service is None or service.build_tree is None or _as_it_was(service, work):
        return None
    return service


def migrate_alone(work: Work, tools: Tools) -> Work:
    """The migrations of what runs, without a deploy. Raises Refused (code `no-migrate`) when there are none."""
    return _migrate(migrating_alone(work, tools), work, tools)


def migrating_alone(work: Work, tools: Tools) -> ServiceWork:
    """The service whose migrations `homeport migrate` runs. Raises Refused (code `no-migrate`) when there are none."""
    plan = work.config.migrate
    if plan is None:
        raise Refused("this project has no migrations", where="homeport.toml: migrate", next="write [migrate]",
                      code="no-migrate")  # fmt: skip
    placed = [s for s in work.services.values() if s.target is not None and s.record.sha is not None]
    named = plan.service if plan.service is not None or len(placed) != 1 else placed[0].name
    service = next((s for s in placed if s.name == named), None)
    if service is None or service.target is None or service.record.sha is None:
        raise Refused("the service that has the migrations was not deployed here, or is not named",
                      where="homeport.toml: migrate.service", next="homeport deploy", code="no-migrate")  # fmt: skip
    return replace(service, build_tree=tools.site.targets.wanted(service.target, service.record.sha))


def _migrate(service: ServiceWork, work: Work, tools: Tools) -> Work:
    plan = work.config.migrate
    assert plan is not None
    tools.site.store.cache(MIGRATED + work.deploy.id, work.sha or "")
    run_migration(plan, plan.run, "migration", service, work, tools, {})
    tools.site.store.audit(work.deploy.requested_by, "migrate", f"{work.deploy.id} {service.name} {work.sha}")
    return work


def run_migration(plan: Migrate, command: Command, label: str, service: ServiceWork, work: Work, tools: Tools,
                  extra: dict[str, str]) -> None:  # fmt: skip
    """Runs a command in a build folder that holds the service's `build_tree`, under the project's lock."""
    assert service.build_tree is not None
    place = build_target(service)
    raw = env_file_of(service, tools)
    env = parse(raw.decode("utf-8", "replace")) if raw is not None else {}
    folder = tools.site.builds.prepare(place, service.build_tree, [], plan.user)
    inside = place_in_target(service, "").rstrip("/")
    site = tools.site
    held: AbstractContextManager[None] = nullcontext()
    if plan.lock is not None:
        held = site.migration_lock(plan.lock, float(plan.timeout), lambda: bool(site.store.cancel_asked(work.deploy.id)))
    with held:
        run_command(plan, command, f"{folder}/{inside}" if inside else folder, float(plan.timeout), label, work, tools,
                    extra={**env, **service.service.env, **extra}, name=service.name, once=True)  # fmt: skip


def _as_it_was(service: ServiceWork, work: Work) -> bool:
    """A rebuild of a live folder that nobody edited: what its migrations are was carried out when it was deployed."""
    target = work.targets.get(service.target.name) if service.target is not None else None
    return work.deploy.kind == "live" and target is not None and target.scan is not None and not target.scan.differences


def _migrating(work: Work, named: str | None) -> ServiceWork | None:
    """The service whose new files bring the migrations; None when this deploy is not about it.

    Without `[migrate] service` it is the only service with a live folder. Raises Refused (code `migrate`) when that
    cannot be told, rather than leave a migration out in silence.
    """
    placed = [s for s in work.services.values() if s.target is not None]
    if named is None and len({n for n, s in work.config.services.items() if s.source is not None}) > 1:
        raise Refused("it is not known which service's files hold the migrations", where="homeport.toml: migrate.service",
                      next="name it: [migrate] service = ...", code="migrate")  # fmt: skip
    service = next((s for s in placed if named is None or s.name == named), None)
    if service is None and any(s.affected for s in work.services.values()) and not work.deploy.request.services:
        raise Refused(f"service {named} has no live folder here, so its migrations cannot run",
                      where="homeport.toml: migrate.service", next="homeport check", code="migrate")  # fmt: skip
    return service if service is not None and (service.affected or service.record.sha != work.sha) else None
