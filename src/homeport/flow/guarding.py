"""`[[rules]]` carried out: which rules are in force, what a deploy or a verb is about to do, and whether it may.

One question per deed, asked before anything is touched: by `deciding` for deploys, tries, rebuilds, rollbacks and
restarts, by `check` for the verbs that act at once. The undo of a failed deploy asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from homeport.decide.policy import Judge, refusals, used
from homeport.flow.editing import in_repository
from homeport.flow.goals import place_in_target
from homeport.flow.site import Site
from homeport.flow.work import ServiceWork, TargetWork, Tools, Work
from homeport.model.config import Rule, Service
from homeport.model.deploys import ServiceRecord
from homeport.model.errors import ConfigFault, HomeportError, Refused, Unconfirmed, UsageFault
from homeport.model.live import Difference, Target
from homeport.model.paths import printable, within
from homeport.model.plan import Refusal
from homeport.model.rules import Confirmation, Deed, Rulebook

CODES = {"deny": "rule", "review": "review", "confirm": "confirm"}
GOES_BY_BRANCH = ("commit", "rollback")
"""Kinds whose content came by the environment's branch."""


def rulebook(site: Site) -> Rulebook:
    """The host's rules and those of the configuration that is deployed; before the first deploy the host's alone.

    Raises Refused (code `rules-unreadable`) rather than judge by half of them.
    """
    host = tuple(site.host_config.rules) if site.host_config is not None else ()
    deployed = {msgspec.json.encode(rule): rule for sha in deployed_commits(site) for rule in _rules_at(site, sha)}
    return Rulebook(host=host, deployed=tuple(deployed.values()))


_known: dict[tuple[str, str], tuple[Rule, ...]] = {}
"""The rules of commits that were read already; a commit never changes."""


def _rules_at(site: Site, sha: str) -> tuple[Rule, ...]:
    key = (site.git.path, sha)
    if key not in _known:
        raw = site.git.file_at(sha, "homeport.toml") if site.git.has(sha) else None
        try:
            _known[key] = tuple(site.load_config(raw, f"{sha[:12]}:homeport.toml").rules) if raw is not None else ()
        except ConfigFault as fault:
            raise Refused(f"the rules of what is deployed cannot be read: {fault.what}", where=fault.where,
                          next=f"git show {sha[:12]}:homeport.toml", code="rules-unreadable") from fault  # fmt: skip
    return _known[key]


def deployed_commits(site: Site) -> list[str]:
    """The commits that the services run, a try's left out: what nobody merged makes no rules and lifts none."""
    records = [r for r in site.store.services().values() if r.sha is not None and not r.service.startswith("_")]
    pairs = {(r.deploy_id, r.sha) for r in records if r.sha is not None}
    found = {sha for deploy, sha in pairs if _by_branch(site, deploy, sha)}
    if not found and records:
        last = newest_commit(site)
        found = {last} if last is not None else set()
    return sorted(found)


def newest_commit(site: Site) -> str | None:
    """The commit of the newest success that came by the branch; None before the first."""
    last = next((d for d in site.store.history(200) if d.kind in GOES_BY_BRANCH and d.sha
                 and d.status in ("deployed", "unchanged")), None)  # fmt: skip
    return last.sha if last is not None else None


def _by_branch(site: Site, deploy: str | None, sha: str) -> bool:
    row = site.store.deploy(deploy) if deploy else None
    if row is not None and row.kind in GOES_BY_BRANCH and row.sha == sha:
        return True
    return site.git.has(f"refs/heads/{site.env.branch}") and site.git.reaches(site.env.branch, sha)


def judge_of(site: Site) -> Judge:
    return Judge(rulebook(site), site.environment)


# Deploys.


def refusals_of(work: Work, tools: Tools) -> list[Refusal]:
    """What the rules refuse of this deploy; what its request confirmed is let through."""
    judge = judge_of(tools.site)
    if not judge:
        return []
    from homeport.flow import reviewing

    request = work.deploy.request
    confirmed = {one.rule for one in request.confirmed}
    deeds = reviewing.looked_at(work, tools, judge, deeds_of(work, tools, judge))
    return refusals(judge, deeds, request.actor, confirmed, reviewing.seconded(work, tools))


def note_exceptions(work: Work, tools: Tools) -> None:
    """Keeps in the audit what a person's word let through."""
    from homeport.flow import reviewing

    request = work.deploy.request
    if request.confirmed and request.actor == "person":
        judge = judge_of(tools.site)
        deeds = reviewing.looked_at(work, tools, judge, deeds_of(work, tools, judge))
        _keep(tools.site, judge, deeds, request.confirmed, f"deploy {work.deploy.id}", request.origin)


def deeds_of(work: Work, tools: Tools, judge: Judge) -> Iterator[Deed]:
    """Everything the deploy is about to do that a rule may speak of."""
    kind = work.deploy.request.kind
    by_branch = kind in GOES_BY_BRANCH
    yield from _commands(work, tools, judge)
    if kind == "migrate":
        return
    for service in work.services.values():
        names = (service.service.unit,) if service.service.unit else ()
        if service.affected and by_branch:
            action: Any = "rollback" if kind == "rollback" else "deploy"
            yield Deed(action=action, subject=service.name, names=names, reviewed=True, since=service.record.sha)
        if _restarts(service, work, tools):
            yield Deed(action="restart", subject=service.name, names=names, reviewed=by_branch, since=service.record.sha)
    for target in work.targets.values():
        if kind == "live":
            yield from _edited(target, work)
        elif target.plan is not None:
            yield from _steps(target, work, tools, judge)


def _commands(work: Work, tools: Tools, judge: Judge) -> Iterator[Deed]:
    """Migrations and the commands of `[[actions]]`: what they do is not known, only for whom they run."""
    from homeport.flow.stages import acting, building
    from homeport.flow.stages.due import SEEN

    kind = work.deploy.request.kind
    if judge.asks("migrate"):
        with suppress(Refused):  # the stage itself says that it cannot be told which service migrates
            found = building.migrating_alone(work, tools) if kind == "migrate" else building.migrating(work, tools)
            if found is not None:
                yield command_deed("migrate", found.name, found.service, kind in GOES_BY_BRANCH, found.record.sha)
    since = tools.site.store.services().get(SEEN, ServiceRecord(service=SEEN)).sha
    for action in acting.commands(work, tools) if judge.asks("run") else ():
        service = work.config.services.get(action.service or "")
        if service is not None and action.service is not None:
            yield command_deed("run", action.service, service, True, since)
        else:
            yield Deed(action="run", subject=action.paths[0], names=tuple(action.paths), reviewed=True, since=since)


def _restarts(service: ServiceWork, work: Work, tools: Tools) -> bool:
    from homeport.flow.stages.acting import asks_for

    if service.service.runtime is None:
        return False
    return service.restart_needed or work.deploy.request.force or service.name in asks_for(work, tools)


def _steps(target: TargetWork, work: Work, tools: Tools, judge: Judge) -> Iterator[Deed]:
    plan, kind = target.plan, work.deploy.request.kind
    assert plan is not None
    unmerged: set[str] | None = None
    if kind == "try" and any(judge.asks(action, "review") for action in ("try", "write", "delete")):
        unmerged = _unmerged(target, tools, judge, {step.path for step in plan.steps})
    asked = {action for action in ("write", "delete", "discard", "try") if judge.asks(action)}
    for step in plan.steps if asked else ():
        reviewed = kind in GOES_BY_BRANCH or (unmerged is not None and step.path not in unmerged)
        actions: list[Any] = ["delete" if step.after is None else "write"]
        actions += ["try"] if kind == "try" else []
        for action in actions if asked.intersection(actions) else ():
            yield path_deed(action, target.target, step.path, reviewed, target.recorded.commit)
        if step.rescue == "discarded":
            yield path_deed("discard", target.target, step.path, False)


def _unmerged(target: TargetWork, tools: Tools, judge: Judge, paths: set[str]) -> set[str]:
    """The paths of a try that differ from the environment's branch; before a review is missed, the origin is asked."""
    found = _off_branch(target, tools) & paths
    deeds = (path_deed(action, target.target, path, False) for path in found for action in ("try", "write", "delete"))
    if any(judge.says(deed).effect == "review" for deed in deeds):
        with suppress(HomeportError):
            tools.site.git.fetch(tools.shell)
        return _off_branch(target, tools)
    return found


def _off_branch(target: TargetWork, tools: Tools) -> set[str]:
    tip = tools.site.targets.wanted(target.target, tools.site.git.tip(tools.site.env.branch))
    return {change.path for change in tools.site.git.changes(tip, target.wanted)}


def _edited(target: TargetWork, work: Work) -> Iterator[Deed]:
    """What a rebuild makes run: the edits of the services it is about."""
    folders = [place_in_target(s, "").rstrip("/") for s in work.services.values() if s.target is not None
               and s.target.name == target.target.name]  # fmt: skip
    for difference in target.scan.differences if target.scan is not None else ():
        if any(within(difference.path, folder) for folder in folders):
            for action in ("try", "write"):
                yield path_deed(action, target.target, difference.path, False)


def path_deed(action: Any, target: Target, path: str, reviewed: bool, since: str | None = None) -> Deed:
    """An action on a path of a live folder, named as in the repository."""
    return Deed(action=action, subject=printable(in_repository(target, path)), names=(f"{target.path}/{path}",),
                reviewed=reviewed, since=since)  # fmt: skip


def command_deed(action: Any, name: str, service: Service, reviewed: bool, since: str | None = None) -> Deed:
    """A command that runs for a service."""
    return Deed(action=action, subject=name, names=(service.unit,) if service.unit else (), reviewed=reviewed,
                since=since)  # fmt: skip


# Verbs that act at once.


def refuse_onlooker(site: Site) -> None:
    """Raises Refused where nothing live is to be changed: `no-lists` for root without a host file, `observe`."""
    site.permits.lists()
    if site.observes == "host":
        raise Refused(f"host {site.host} only observes", where="host.toml: observe = true",
                      next="homeport setup --no-observe", code="observe")  # fmt: skip
    if site.observes:
        raise Refused(f"environment {site.environment} only observes", where="homeport.toml: observe = true",
                      next="take it out, commit and push, then: homeport deploy   (an edit: homeport adopt)",
                      code="observe")  # fmt: skip


def putting_back(target: Target, differences: Sequence[Difference]) -> list[Deed]:
    """What `discard` is about to do: what comes back came by the branch."""
    found = []
    for difference in differences:
        gone = difference.recorded is None
        found += [path_deed("discard", target, difference.path, False),
                  path_deed("delete" if gone else "write", target, difference.path, True)]  # fmt: skip
    return found


def writing(target: Target, paths: Sequence[str]) -> list[Deed]:
    """A live path that gets content which came by no branch."""
    return [path_deed("write", target, path, False) for path in paths]


def letting_stay(target: Target, paths: Sequence[str]) -> list[Deed]:
    """An edit that is to stay although nobody reviewed it."""
    return [path_deed(action, target, path, False) for path in paths for action in ("try", "write")]


def check_push(site: Site, branch: str, paths: Sequence[str], *, merge: bool) -> None:
    """Whether `adopt` may push, and with `merge` whether these paths may reach the branch without another's look.

    Raises as `check`.
    """
    branches = [branch, site.env.branch] if merge else [branch]
    check(site, [Deed(action="push", subject=name) for name in branches], "adopt")
    if merge:
        check(site, _bringing(paths), "adopt --merge", only=("review",))


def wants_review(site: Site, paths: Sequence[str]) -> bool:
    """Whether a rule wants a second person's look before these paths reach the branch: then nobody merges their own."""
    found = refusals(judge_of(site), _bringing(paths), site.actor.kind, set())
    return any(one.effect == "review" for one in found)


def _bringing(paths: Sequence[str]) -> list[Deed]:
    """What a merge of these paths is to the rules."""
    actions: tuple[Any, ...] = ("try", "write")
    return [Deed(action=action, subject=printable(path)) for path in paths for action in actions]


def check(site: Site, deeds: Iterable[Deed], what: str, *, only: Sequence[str] = ()) -> None:
    """Raises Refused (codes `rule`, `review`, `confirm`) when a rule stops one of the deeds; the audit keeps it.

    With `only`, rules of other effects are not asked. `what` is the verb, for the audit.
    """
    judge = judge_of(site)
    if not judge:
        return
    deeds = list(deeds)
    actor = site.actor
    found = refusals(judge, deeds, actor.kind, {one.rule for one in actor.confirmed})
    found = [one for one in found if not only or one.effect in only]
    if found:
        site.store.audit(actor.name, what, "; ".join(one.message for one in found), outcome="refused")
        raise fault_of(found, f"environment {site.environment}")
    if not only:
        _keep(site, judge, deeds, actor.confirmed, what, None)


def fault_of(found: Sequence[Refusal], where: str) -> Refused:
    """The error for refusals of rules, the first one told in full."""
    first = found[0]
    others = len(found) - 1
    rest = f" (and {others} more {'reason' if others == 1 else 'reasons'})" if others else ""
    if all(one.effect == "confirm" for one in found):
        flags = " ".join(f"--confirm {one.rule}" for one in found)
        asked = tuple((one.rule, one.message) for one in found)
        next = first.next.replace(f"--confirm {first.rule}", flags)
        return Unconfirmed(first.message + rest, where=where, next=next, code="confirm", asked=asked)
    return Refused(first.message + rest, where=where, next=first.next, code=CODES.get(first.effect, first.rule))


def _keep(site: Site, judge: Judge, deeds: Iterable[Deed], confirmed: Sequence[Confirmation], what: str,
          origin: str | None) -> None:  # fmt: skip
    for one, let_through in used(judge, deeds, confirmed) if confirmed else ():
        subjects = list(dict.fromkeys(f"{deed.action} {deed.subject}" for deed in let_through))
        more = f" and {len(subjects) - 20} more" if len(subjects) > 20 else ""
        site.store.audit(one.by, f"exception {one.rule}", f"{what}: {', '.join(subjects[:20])}{more}; {one.because}",
                         actor="person", origin=origin)  # fmt: skip


def allowing(site: Site, rules: Sequence[str], because: str) -> Site:
    """The site with the exceptions that a person allows.

    Raises Refused (code `no-confirm`) for an agent, a trigger, or a token without that right, UsageFault (code
    `because`) without a reason.
    """
    if not rules:
        return site
    actor = site.actor
    if actor.kind != "person" or not actor.confirms:
        who = {"person": "this token has", "agent": "an agent has", "trigger": "a trigger has"}[actor.kind]
        site.store.audit(actor.name, "confirm", " ".join(rules), outcome="refused")
        raise Refused(f"{who} no right to confirm an exception", where=f"--confirm {' --confirm '.join(rules)}",
                      next="ask a person to run the command", code="no-confirm")  # fmt: skip
    if not because.strip():
        raise UsageFault("an exception names its reason", where=f"--confirm {' --confirm '.join(rules)}", code="because",
                         next=f'the same command with: --confirm {rules[0]} --because "..."')  # fmt: skip
    known = {one.rule for one in actor.confirmed}
    fresh = tuple(Confirmation(rule=rule, by=actor.name, because=because.strip())
                  for rule in dict.fromkeys(rules) if rule not in known)  # fmt: skip
    return replace(site, actor=msgspec.structs.replace(actor, confirmed=actor.confirmed + fresh))
