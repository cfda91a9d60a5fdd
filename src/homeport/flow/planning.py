"""`homeport plan`: the deploy up to `decide`, with nothing written."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from homeport.flow import runner
from homeport.flow.site import Site
from homeport.flow.stages import deciding, fetching, inspecting
from homeport.flow.work import Work
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import Refused
from homeport.model.events import Event
from homeport.model.plan import Plan, Refusal


class SilentJournal:
    """A plan leaves no journal."""

    def write(self, event: Event) -> None:
        del event

    def line(self, stream: Literal["stdout", "stderr", "homeport"], line: str, service: str | None = None) -> None:
        del stream, line, service

    def sync(self) -> None:
        return

    def close(self) -> None:
        return


def make_plan(site: Site, request: Request) -> Plan:
    """What a deploy would do now, refusals included; raises for what is not even a plan (no such ref ...)."""
    from dataclasses import replace as change

    site = change(site, journal_for=lambda _deploy: SilentJournal())
    tools = runner.tools_for(site, "plan")
    work = Work(deploy=Deploy(id="plan", kind=request.kind, request=request), config=site.config)
    work = fetching.fetch_commit(work, tools)
    refusals: list[Refusal] = []
    try:
        work = fetching.pass_gate(work, tools)
    except Refused as fault:
        refusals.append(Refusal(rule=fault.code or "refused", message=fault.what, next=fault.next))
    work = deciding.make_plan(inspecting.read_live(work, tools), tools)
    assert work.plan is not None
    if not refusals:
        return work.plan
    return replace(work.plan, deployable=False, refusals=(*refusals, *work.plan.refusals))
