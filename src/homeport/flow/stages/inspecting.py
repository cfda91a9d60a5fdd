"""Reads what is: records, wanted trees, and every path that is not as recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from msgspec.structs import replace as change

from homeport.decide import drift
from homeport.decide.unwinding import unwind
from homeport.flow import editing
from homeport.flow.goals import build_target, with_environment, with_goal
from homeport.flow.images import lacks_images, with_stale
from homeport.flow.stages.due import with_rebuilds
from homeport.flow.work import ServiceWork, TargetWork, Tools, Work
from homeport.model.deploys import StartedWith
from homeport.model.errors import Refused
from homeport.model.live import Recorded, Scan, Target
from homeport.model.paths import folders_above
from homeport.model.patterns import Matcher


def read_live(work: Work, tools: Tools) -> Work:
    """Meets every target in scope, reads it, and sets each service's goal."""
    site, request = tools.site, work.deploy.request
    targets: dict[str, TargetWork] = {}
    for target in _targets(work):
        recorded = site.targets.meet(target, site.env.branch)
        _say_first_contact(work, tools, recorded)
        stay = request.kind in ("live", "restart")
        wanted = recorded.tree if stay else site.targets.wanted(target, _commit_of(work, target))
        targets[target.name] = _look(TargetWork(target=target, recorded=recorded, wanted=wanted), work, tools)
    work = work.having(targets=targets)
    editing.note_inspected(work, tools)
    if request.kind == "live":
        return _rebuild_goals(work, tools)
    services = {}
    for name, service in work.services.items():
        tree = targets[service.target.name].wanted if service.target else None
        state = work.deploy.after.get(name) if request.kind == "rollback" else None
        goal = with_goal(service, _sha_of(work, name), tree, work.config, tools, then=state.outputs if state else None)
        services[name] = _at_goal(goal, work, tools)
    return with_rebuilds(with_stale(work.having(services=services), tools), tools)


def read_again(work: Work, tools: Tools) -> Work:
    """Right before the sync: a file that changed since the first look is drift or a conflict now.

    Where no command of the project ran since, the first look is milliseconds old, and stands: the sync itself checks
    and rescues what it replaces.
    """
    if work.config.migrate is None and not any(s.build_needed for s in work.services.values()):
        return work
    from homeport.flow.stages.deciding import refuse_drift

    targets = {name: _look(target, work, tools) for name, target in work.targets.items()}
    services = {n: with_environment(s, tools) for n, s in work.services.items()}
    work = work.having(targets=targets, services=services)
    refuse_drift(work, tools)
    return work


def read_for_undo(work: Work, tools: Tools) -> Work:
    """Goals are the states before the deploy; a half-done sync is unwound path by path."""
    site, before = tools.site, work.deploy.before
    targets: dict[str, TargetWork] = {}
    services = dict(work.services)
    for target in _targets(work):
        site.targets.settle(target)
        recorded = site.targets.meet(target, site.env.branch)
        goal = next((before[n].tree for n, s in work.services.items()
                     if n in before and s.target is not None and s.target.name == target.name), None)  # fmt: skip
        wanted = goal or recorded.tree
        targets[target.name] = _undo_look(TargetWork(target=target, recorded=recorded, wanted=wanted), tools)
    for name, service in work.services.items():
        state = before.get(name)
        if state is None:
            continue
        record = site.store.services().get(name, service.record)
        if state.sha is not None:
            done = with_goal(replace(service, record=record), state.sha, state.tree, work.config, tools,
                             outputs=state.outputs)  # fmt: skip
        else:
            done = replace(service, record=record, goal=state, start_with=record.started or StartedWith())
        services[name] = replace(done, build_needed=False)
    return work.having(targets=targets, services=services)


def _targets(work: Work) -> list[Target]:
    seen = {s.target.name: s.target for s in work.services.values() if s.target is not None}
    return list(seen.values())


def _sha_of(work: Work, service: str) -> str:
    state = work.deploy.after.get(service) if work.deploy.request.kind == "rollback" else None
    if state is not None and state.sha is not None:
        return state.sha
    if work.sha is None:
        raise Refused("there is no commit to deploy", code="no-commit", next="homeport history")
    return work.sha


def _commit_of(work: Work, target: Target) -> str:
    name = next(n for n, s in work.services.items() if s.target is not None and s.target.name == target.name)
    return _sha_of(work, name)


def _look(target: TargetWork, work: Work, tools: Tools) -> TargetWork:
    site = tools.site
    scan = site.targets.scan(target.target, site.env.branch)
    obstacles = site.targets.obstacles(target.target, scan, target.wanted)
    changes = site.git.changes(target.recorded.tree, target.wanted)
    plan = drift.reconcile(
        target.target.name, target.recorded.tree, target.wanted, changes, scan, obstacles,
        _on_drift(work, tools), Matcher(target.target.in_place) if target.target.in_place else None,
        accepted=editing.accepted_paths(site, target.target, scan),
        landed=editing.landed_paths(site, target.target, scan, work.sha), ours=_ours(target, scan, tools),
    )  # fmt: skip
    return replace(target, scan=scan, plan=plan)


def _ours(target: TargetWork, scan: Scan, tools: Tools) -> frozenset[str]:
    """What a sync that was cut short has brought, where not even the way back from it could be ended; what made way for
    that; and the folders that it made where files were, which hold nothing else."""
    record = tools.site.store.target(scan.target)
    if record is None or record.syncing is None or record.syncing[1] != scan.recorded_tree:
        return frozenset()
    brought = {c.path: c.after for c in tools.site.git.changes(*record.syncing[1:])}
    found = {d.path for d in scan.differences if d.oddity is None and d.path in brought and d.actual == brought[d.path]}
    found |= {d.path for d in scan.differences if d.oddity == "file in the way" and brought.get(d.path, d) is None
              and not found.isdisjoint(folders_above(d.path))}  # fmt: skip
    folders = {d.path for d in scan.differences if d.oddity == "directory" and brought.get(d.path, d) is None}
    if folders:
        since = change(scan, recorded_tree=record.syncing[2])
        folders -= set(tools.site.targets.obstacles(target.target, since, target.wanted))
    return frozenset(found | folders)


def _undo_look(target: TargetWork, tools: Tools) -> TargetWork:
    site = tools.site
    scan = site.targets.scan(target.target, site.env.branch)
    record = site.store.target(target.target.name)
    if record is not None and record.syncing is not None:
        _, from_tree, to_tree = record.syncing
        plan = unwind(target.target.name, from_tree, site.git.changes(from_tree, to_tree), scan)
        return replace(target, scan=scan, plan=plan, wanted=from_tree)
    obstacles = site.targets.obstacles(target.target, scan, target.wanted)
    changes = site.git.changes(target.recorded.tree, target.wanted)
    plan = drift.reconcile(
        target.target.name, target.recorded.tree, target.wanted, changes, scan, obstacles, "keep",
        Matcher(target.target.in_place) if target.target.in_place else None,
    )  # fmt: skip
    return replace(target, scan=scan, plan=plan)


def _on_drift(work: Work, tools: Tools) -> Literal["refuse", "keep", "discard"]:
    if work.deploy.request.kind in ("live", "restart"):
        return "keep"
    environment = work.config.environments[tools.site.environment]
    return work.deploy.request.on_drift or environment.on_drift


def _rebuild_goals(work: Work, tools: Tools) -> Work:
    """What is live is kept as a commit of its own and built from there; the record stays, so the edit stays drift."""
    services = {}
    for name, service in work.services.items():
        target = work.targets[service.target.name] if service.target else None
        if target is None or target.scan is None or service.record.sha is None:
            services[name] = service
            continue
        sha = tools.site.targets.snapshot(target.target, target.scan, service.record.sha)
        done = with_goal(service, sha, target.recorded.tree, work.config, tools)
        done = replace(done, goal=change(done.goal, sha=service.record.sha), affected=True,
                       build_tree=tools.site.targets.wanted(target.target, sha))  # fmt: skip
        services[name] = _at_goal(done, work, tools)
    return work.having(services=services)


def _at_goal(service: ServiceWork, work: Work, tools: Tools) -> ServiceWork:
    key = service.goal.outputs
    tree = service.build_tree or (work.targets[service.target.name].wanted if service.target else None)
    build = service.service.build
    if key is None or service.target is None or build is None or build.where == "live":
        return replace(service, build_tree=tree, build_needed=lacks_images(service, work, tools))
    place = build_target(service)
    there = tools.site.builds.live_key(place)
    kept = any(outputs.key == key for outputs in tools.site.builds.kept(place))
    needed = (there != key and not kept) or lacks_images(service, work, tools)
    return replace(service, build_tree=tree, build_needed=needed)


def _say_first_contact(work: Work, tools: Tools, recorded: Recorded) -> None:
    first = recorded.first_contact
    if first is None:
        return
    said = (
        f"first contact: what lies there matches commit {first.commit[:12]} best "
        f"({first.differing} paths differ, {first.considered} commits compared)"
        if first.commit is not None else "first contact: nothing of this repository lies there yet"
    )  # fmt: skip
    tools.notice(work.deploy.id, said, service=recorded.target, code="first-contact")

