"""The pure part: what a deploy will do, or why it will not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from homeport.decide import impact, layout, planning
from homeport.flow import guarding, tries
from homeport.flow.goals import target_of
from homeport.flow.stages.due import due_actions
from homeport.flow.stages.reaching import refuse_unreachable
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.deploys import Request
from homeport.model.errors import Refused
from homeport.model.events import PlanEvent
from homeport.model.live import PROJECT, Stat
from homeport.model.paths import within
from homeport.model.plan import ActionName, DueAction, Extent, PathCounts, Plan, Refusal, ServicePlan


def decide_plan(work: Work, tools: Tools) -> Work:
    """Marks the services concerned and refuses on drift, conflict and mass deletion."""
    work = make_plan(work, tools)
    plan = work.plan
    assert plan is not None
    tools.journal.write(
        PlanEvent(deploy_id=work.deploy.id, at=tools.site.clock.now(), from_sha=plan.from_sha, to_sha=plan.to_sha,
                  services=tuple(s.service for s in plan.services), added=plan.paths.added,
                  modified=plan.paths.modified, deleted=plan.paths.deleted)  # fmt: skip
    )
    _refuse(list(plan.refusals), tools, work.deploy.kind)
    if work.held and not plan.services:
        raise tries.refused(work.held, tools.site, ())
    tries.newer_than(work, tools)
    refuse_unreachable(work, tools)
    guarding.note_exceptions(work, tools)
    return work


def decide_restart(work: Work, tools: Tools) -> Work:
    """A restart, or migrations alone, bring nothing new: only the rules and the host may be against it."""
    guarding.refuse_onlooker(tools.site)
    _refuse(guarding.refusals_of(work, tools), tools, work.deploy.kind)
    refuse_unreachable(work, tools)
    guarding.note_exceptions(work, tools)
    return work


def make_plan(work: Work, tools: Tools, *, extent: bool = False) -> Work:
    """The plan of this work; effects are reads only. `extent`: with how much of it concerns each service."""
    changes, paths = _changes(work, tools, lines=extent)
    impacts = impact.impacts(work.config, list(work.services), changes)
    services: dict[str, ServiceWork] = {}
    rows: list[ServicePlan] = []
    for name, service in work.services.items():
        actions = _actions(work, service)
        services[name] = replace(service, affected=bool(actions) or service.affected)
        if actions:
            reasons = impacts[name].reasons if name in impacts else ()
            reasons = reasons or _moved(service, work) or ("differs from what it runs with",)
            rows.append(ServicePlan(service=name, reasons=reasons, actions=tuple(actions)))
    work = work.having(services=services)
    refusals = all_refusals(work, tools)
    shas = {s.record.sha for s in work.services.values()}
    due = [DueAction(paths=tuple(action.paths), runs=action.run is not None, service=action.service)
           for action in due_actions(work, tools)]  # fmt: skip
    plan = Plan(
        from_sha=next(iter(shas)) if len(shas) == 1 else None, to_sha=work.sha or "",
        deployable=bool(rows or due) and not refusals, services=tuple(rows), paths=paths,
        refusals=tuple(refusals), actions=tuple(due), quiet=not (rows or due),
        extent={name: Extent(paths=it.count, inserted=it.inserted, removed=it.removed)
                for name, it in impacts.items() if extent and it.affected},
    )  # fmt: skip
    return work.having(services=services, plan=plan)


def _changes(work: Work, tools: Tools, *, lines: bool) -> tuple[dict[str, list[Stat]], PathCounts]:
    """Per service, the paths between its own last success and the new commit; each pair is read once."""
    by_pair: dict[str | None, list[Stat]] = {}
    kinds: dict[str, str] = {}
    result: dict[str, list[Stat]] = {}
    for name, service in work.services.items():
        since = service.record.sha
        if since is not None and not tools.site.git.has(since):
            since = None
        if since not in by_pair:
            changes = tools.site.git.changes(since, work.sha) if work.sha and since != work.sha else []
            counted = tools.site.git.lines(since, work.sha) if lines and changes and work.sha else {}
            by_pair[since] = [Stat(change.path, *counted.get(change.path, ())) for change in changes]
            for change in changes:
                kind = "added" if change.before is None else "deleted" if change.after is None else "modified"
                kinds.setdefault(change.path, kind)
        result[name] = by_pair[since]
    return result, PathCounts(**Counter(kinds.values()))


def _actions(work: Work, service: ServiceWork) -> list[ActionName]:
    target = target_of(work, service)
    actions: list[ActionName] = []
    if service.build_needed:
        actions.append("build")
    plan = target.plan if target is not None else None
    if plan is not None and _concerns(service, [step.path for step in plan.steps] + [path.path for path in plan.conflicts]):
        actions.append("sync")
    if service.service.build and service.goal.outputs and service.goal.outputs != service.record.outputs:
        actions.append("swap")
    if service.restart_needed:
        actions.append("restart")
    if actions and service.service.checks:
        actions.append("verify")
    return actions


def _moved(service: ServiceWork, work: Work) -> tuple[str, ...]:
    """The paths that come or go without concerning what runs, as the repository has them."""
    target = target_of(work, service)
    plan = target.plan if target is not None else None
    steps = plan.steps if plan is not None and target is not None and target.target.name != PROJECT else ()
    folder = layout.folder_of(service.service)
    return tuple(f"{folder}/{step.path}" if folder else step.path for step in steps)[: impact.REASONS]


def _concerns(service: ServiceWork, paths: Sequence[str]) -> bool:
    if service.target is None or service.target.name != PROJECT:
        return bool(paths)
    return any(within(path, layout.folder_of(service.service)) for path in paths)


def all_refusals(work: Work, tools: Tools) -> list[Refusal]:
    """Every reason not to go on, for all targets at once."""
    found: list[Refusal] = tries.refusals(work, tools)
    for name, target in work.targets.items():
        if target.plan is None:
            continue
        known = tools.site.edits.living(name) if target.plan.drift else ()
        found += planning.refusals_of(target.plan, tools.site.environment, known)
        deleted = sum(1 for step in target.plan.steps if step.after is None and step.before is not None)
        if deleted and not work.deploy.request.allow_mass_delete:
            total = len(tools.site.git.listing(target.recorded.tree))
            if planning.mass_delete(total, deleted):
                found.append(Refusal(
                    rule="mass-delete", service=name, message=f"{name}: would delete {deleted} of {total} files",
                    next=f"{_asked(work.deploy.request)} --allow-mass-delete",
                ))  # fmt: skip
    return found + guarding.refusals_of(work, tools)


def _asked(request: Request) -> str:
    """The command that asks for the same."""
    verb, named = {
        "rollback": ("rollback", request.from_deploy or request.sha), "try": ("try", None),
    }.get(request.kind, ("deploy", request.ref))  # fmt: skip
    return " ".join(word for word in ("homeport", verb, named, *request.services) if word)


def refuse_drift(work: Work, tools: Tools) -> None:
    """Raises Refused for the first refusal, naming all paths of its kind; for a rule code `rule`, `review` or `confirm`."""
    _refuse(all_refusals(work, tools), tools, work.deploy.kind)


def _refuse(refusals: list[Refusal], tools: Tools, kind: str) -> None:
    if refusals and all(refusal.effect for refusal in refusals):
        raise guarding.fault_of(refusals, f"environment {tools.site.environment}")
    if refusals:
        first = refusals[0]
        others = len(refusals) - 1
        rest = f" (and {others} more {'reason' if others == 1 else 'reasons'})" if others else ""
        whole = "; every reason: homeport plan" if others and kind == "commit" else ""
        whose = "" if first.service == PROJECT else first.service
        raise Refused(first.message + rest, where=whose or "", next=first.next + whole, code=first.rule)
