"""`homeport plan`: the deploy up to `decide`, with nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from msgspec.structs import replace

from homeport.flow import tries
from homeport.flow.asking import stamped
from homeport.flow.editing import SilentLedger
from homeport.flow.site import Site
from homeport.flow.stages import deciding, fetching, inspecting
from homeport.flow.work import Work, tools_for
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import Refused
from homeport.model.events import Event
from homeport.model.live import Recorded, Target
from homeport.model.plan import Plan, Refusal
from homeport.model.ports import Store, Targets


class SilentJournal:
    """A plan leaves no journal."""

    def write(self, event: Event) -> None:
        del event

    def line(self, stream: Literal["stdout", "stderr", "homeport"], line: str, service: str | None = None) -> None:
        del stream, line, service

    def lines(self, stream: Literal["stdout", "stderr"], lines: Sequence[str], service: str | None = None) -> None:
        del stream, lines, service

    def sync(self) -> None:
        return

    def close(self) -> None:
        return


class ReadOnlyStore:
    """Answers as the store does, and keeps nothing that a plan would write."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def update(self, deploy: Deploy, *, lasting: bool = True) -> None:
        del deploy, lasting


class UntouchedTargets:
    """Looks at live folders as `observe` does: no claim is written."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._targets, name)

    def meet(self, target: Target, branch: str, *, observe: bool = True) -> Recorded:
        del observe
        return self._targets.meet(target, branch, observe=True)


def make_plan(site: Site, request: Request) -> Plan:
    """What a deploy would do now, refusals included; raises for what is not even a plan (no such ref ...)."""
    from dataclasses import replace as change

    site = change(site, journal_for=lambda _deploy: SilentJournal(), edits=SilentLedger(site.edits),
                  take_over=lambda _target, _names: None,
                  store=cast("Store", ReadOnlyStore(site.store)),
                  targets=cast("Targets", UntouchedTargets(site.targets)))  # fmt: skip
    tools = tools_for(site, "plan")
    work = Work(deploy=Deploy(id="plan", kind=request.kind, request=stamped(site, request)), config=site.config)
    work = fetching.fetch_commit(work, tools)
    refusals: list[Refusal] = []
    try:
        work = fetching.pass_gate(work, tools)
    except Refused as fault:
        refusals.append(Refusal(rule=fault.code or "refused", message=fault.what, next=fault.next))
    work = deciding.make_plan(inspecting.read_live(work, tools), tools, extent=True)
    assert work.plan is not None
    if work.held and not work.plan.services:
        told = tries.refused(work.held, site, ())
        refusals.append(Refusal(rule=told.code, message=told.what, next=told.next))
    if not refusals:
        return work.plan
    return replace(work.plan, deployable=False, refusals=(*refusals, *work.plan.refusals))
