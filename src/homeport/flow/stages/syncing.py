"""The first change of anything live: files put in place, outputs exchanged."""

from __future__ import annotations

from dataclasses import replace as change

from msgspec.structs import replace

from homeport.decide import layout
from homeport.flow.goals import build_target
from homeport.flow.work import ServiceWork, TargetWork, Tools, Work
from homeport.model.deploys import ServiceState
from homeport.model.live import PROJECT, SyncPlan, Target
from homeport.model.paths import within


def sync_and_swap(work: Work, tools: Tools) -> Work:
    """Syncs every target that differs and exchanges outputs; the row says `changed_live` before the first byte."""
    site = tools.site
    plans = [t for t in work.targets.values() if t.plan is not None and _changes(t.plan)]
    swaps = [s for s in work.services.values() if _must_swap(s.goal.outputs, s, tools)]
    restarts = [s for s in work.services.values() if s.restart_needed]
    if plans or swaps or restarts:
        work = mark_changed(work, tools)
    work = _forget_starts(work, plans, tools)
    later = _only_restarts_follow(work, bool(swaps))
    for target in plans:
        plan = target.plan
        assert plan is not None
        result = site.targets.sync(target.target, plan, work.deploy.id, _commit(work, target.target.name), later=later)
        for path in result.surprised:
            tools.notice(work.deploy.id, f"{path} was edited while the sync ran; the edit is saved (homeport rescue list)",
                         level="warning", service=target.target.name, code="surprised")  # fmt: skip
    _mend_owners(work, tools)
    for service in swaps:
        assert service.target is not None and service.goal.outputs is not None
        place = build_target(service)
        live = site.builds.live_key(place) or before_key(service.record.outputs, work.deploy.id)
        site.builds.swap_in(place, service.goal.outputs, live)
    return work


def _only_restarts_follow(work: Work, swaps: bool) -> bool:
    """Whether nothing asks for the record of a live folder until the services run again: then a try starts them as soon
    as their files are there, and index and record are written meanwhile (`restarting` waits for them)."""
    if work.deploy.kind != "try" or swaps or (work.deploy.stage or "").startswith("rollback:"):
        return False
    in_place = any(s.service.build is not None and s.service.build.where == "live" for s in work.services.values())
    owners = any(t.target.owner is not None for t in work.targets.values()) or bool(_owners_below(work))
    return not in_place and not owners


def _mend_owners(work: Work, tools: Tools) -> None:
    """What programs and people left as somebody else's goes back to the `owner` (D8). In the project's live folder each
    service's files are those below its `source`; of nested sources the inner one's `owner` counts."""
    asked: list[tuple[Target, str, tuple[str, ...]]] = [
        (t.target, "", ()) for t in work.targets.values() if t.target.owner is not None]  # fmt: skip
    sharing = _owners_below(work)
    for folder, target in sharing.items():
        inner = tuple(other for other in sharing if other != folder and within(other, folder))
        asked.append((target, folder, inner))
    for target, folder, inner in asked:
        mended = tools.site.targets.mend(target, folder, inner)
        if mended:
            shown = ", ".join(mended[:5]) + (f" and {len(mended) - 5} more" if len(mended) > 5 else "")
            tools.notice(work.deploy.id, f"given to {target.owner}: {shown}", service=target.name, code="mended")


def _owners_below(work: Work) -> dict[str, Target]:
    """By source folder: the project's live folder with the owner that a service gives its part of it."""
    return {layout.folder_of(s.service): replace(s.target, owner=s.service.owner)
            for s in work.services.values()
            if s.target is not None and s.target.name == PROJECT and s.service.owner is not None}  # fmt: skip


def _forget_starts(work: Work, plans: list[TargetWork], tools: Tools) -> Work:
    """A service whose files were edited by hand may run those edits, whatever the record says: where they are put
    back it is not known any more what it was started with, so it is restarted."""
    for target in plans:
        if target.plan is None or not any(step.rescue == "discarded" for step in target.plan.steps):
            continue
        for service in work.services.values():
            if service.target is not None and service.target.name == target.target.name and service.record.started:
                record = replace(service.record, started=None)
                tools.site.store.save_service(record)
                work = work.with_service(change(service, record=record))
    return work


def mark_changed(work: Work, tools: Tools) -> Work:
    """From here on a failure is undone. `before` is what an undo goes back to."""
    if work.deploy.changed_live:
        return work
    before = {
        name: ServiceState(
            sha=s.record.sha or _first_commit(work, name), tree=_recorded(work, name),
            outputs=before_key(s.record.outputs, work.deploy.id) if s.goal.outputs else None,
        )
        for name, s in work.services.items()
    }
    deploy = replace(work.deploy, changed_live=True, before=before, after={n: s.goal for n, s in work.services.items()},
                     services=tuple(n for n, s in work.services.items() if s.affected))  # fmt: skip
    tools.site.store.update(deploy)
    tools.journal.sync()
    return work.having(deploy=deploy)


def before_key(recorded: str | None, deploy: str) -> str:
    """The kept set that receives what is live now; outputs that homeport did not build get a name of their own."""
    return recorded or f"found-{deploy}"


def _recorded(work: Work, service: str) -> str | None:
    target = work.services[service].target
    return work.targets[target.name].recorded.tree if target and target.name in work.targets else None


def _first_commit(work: Work, service: str) -> str | None:
    target = work.services[service].target
    return work.targets[target.name].recorded.commit if target and target.name in work.targets else None


def _changes(plan: SyncPlan) -> bool:
    return bool(plan.steps or plan.arrived) or plan.from_tree != plan.to_tree


def _must_swap(key: str | None, service: ServiceWork, tools: Tools) -> bool:
    if key is None or service.target is None or service.service.build is None or service.service.build.where == "live":
        return False
    return tools.site.builds.live_key(build_target(service)) != key


def _commit(work: Work, target: str) -> str | None:
    for service in work.services.values():
        if service.target is not None and service.target.name == target:
            return service.goal.sha
    return None
