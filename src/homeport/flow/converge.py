"""One tick of a trigger: fetch once, and ask for what is due. The timer, cron and webhooks all come through here."""

from __future__ import annotations

from typing import Any

from homeport.decide import gating, layout
from homeport.decide.converging import Decision, Look, decide
from homeport.flow import asking, checking
from homeport.flow.images import stale_services
from homeport.flow.planning import make_plan
from homeport.flow.site import Site
from homeport.flow.stages.gating import first_seen, reported, unix
from homeport.model.deploys import Request
from homeport.model.forge import ForgeFault
from homeport.model.plan import Plan


def tick(site: Site, by: str, *, pushed: bool = False) -> dict[str, Any]:
    """{"due", "code", "because", "sha", "deployId"}: what was asked for, or why nothing was.

    `by` is the trigger, as it stands in `requestedBy`. Raises InfrastructureFault when the origin does not answer.
    """
    running = site.store.running()
    if running is not None and site.lock.free():
        asking.recover_if_needed(site)
        running = site.store.running()
    if running is not None and not pushed:
        return _said(Decision(due=False, because=f"deploy {running.id} runs", code="runs"), None, None)
    if not site.observes:
        checking.start_due(site)
    site.git.fetch()
    tip = site.git.tip(site.env.branch)
    decision = decide(_look(site, tip, pushed))
    if decision.due and decision.replan:
        decision = _after_plan(make_plan(site, Request(kind="commit")))
    if decision.due and decision.regate:
        decision = _after_look(decision, site, tip)
    if decision.code == "equal" and (stale := stale_services(site)):
        told = Decision(due=True, because="; ".join(stale.values()), code="stale-image")
        request = Request(kind="restart", services=tuple(stale), force=True, requested_by=by, actor="trigger")
        return _said(told, tip, asking.ask(site, request))
    if not decision.due:
        return _said(decision, tip, None)
    return _said(decision, tip, asking.ask(site, Request(kind="commit", sha=tip, requested_by=by, actor="trigger")))


def _look(site: Site, tip: str, pushed: bool) -> Look:
    records = site.store.services()
    names = layout.services_of(site.config, site.environment)
    shas = [records[name].sha if name in records else None for name in names]
    return Look(tip=tip, services=shas, last=[d for d in site.store.history(50) if d.state == "done"],
                blocks=site.store.blocks(), holds=site.store.holds(), running=site.store.running(),
                observe=bool(site.observes), pushed=pushed)  # fmt: skip


def _after_plan(plan: Plan) -> Decision:
    """What was refused is asked for again only when nothing refuses it any more: no row for every tick."""
    if plan.refusals:
        return Decision(due=False, because=plan.refusals[0].message, code="refused")
    return Decision(due=True, because="what refused it is gone", code="due")


def _after_look(decision: Decision, site: Site, tip: str) -> Decision:
    """A gate that was closed is looked at first: no failed deploy, and no message, for every tick that it stays red."""
    gate, forge = site.config.gate, site.forge(site.config)
    if gate is None or forge is None:
        return decision
    try:
        found = gating.decide(gate, reported(forge, site.config, tip), unix(site), first_seen(site, tip))
    except ForgeFault as fault:
        return Decision(due=False, because=f"the forge could not be asked: {fault.what}", code="gate")
    finally:
        forge.close()
    if isinstance(found, gating.Open):
        return Decision(due=True, because="the gate is open now", code="due")
    return Decision(due=False, because=f"the gate is closed: {found.why}", code="gate")


def _said(decision: Decision, tip: str | None, deploy: str | None) -> dict[str, Any]:
    return {"due": decision.due, "code": decision.code, "because": decision.because, "sha": tip, "deployId": deploy}
