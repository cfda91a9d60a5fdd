"""Routes that ask for deploys, find them again and cancel them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromQuery, JSONBody, PathParameter, QueryParameter

from homeport.daemon.access import Caller, Denied
from homeport.daemon.answers import ERRORS, answering
from homeport.daemon.served import Environment, Served
from homeport.daemon.shapes import Asked, DeployWanted, SelfDeploy
from homeport.daemon.waiting import Outcomes
from homeport.decide import scoping
from homeport.flow import asking, guarding, supervising, telling
from homeport.flow.blocking import commit_named
from homeport.flow.site import Site
from homeport.model import deploys
from homeport.model.deploys import Deploy
from homeport.model.errors import Refused, UsageFault

Ask = Request[Any, Any, Any]
DeployId = Annotated[str, PathParameter(pattern=r"^[0-9a-z-]{1,60}$", description="In full, or an unambiguous beginning.")]
LOG = 1024 * 1024
"""Bytes of a journal in one answer."""


def asked_by(request: Ask) -> tuple[Served, Environment, Caller]:
    state = request.scope["state"]
    return request.app.state.served, state["environment"], state["caller"]


@post("/self/deploy", opt={"right": "deploy"}, status_code=200, summary="Deploy, and answer when it has ended (C1)",
      responses=answering(_200=telling.Outcome, _202=Asked, _500=telling.Outcome))  # fmt: skip
async def self_deploy(request: Ask, data: JSONBody[SelfDeploy], wait: FromQuery[bool] = True) -> Response[Any]:
    """Blocks until the end: 200 or 500 with the outcome. Equal requests join and get the same answer."""
    served, environment, caller = asked_by(request)
    site = await served.soon(environment.now)
    services = scoping.services_of_scope(site.config, site.environment, data.scope)
    allow(caller, [f"deploy:{data.scope}", *scoping.rights_for(site.config, site.environment, services)], data.scope)
    if data.itself and (services or not supervising.restarts_itself(site)):
        raise UsageFault("the supervisor itself is restarted with scope `all` only, where it runs services", where="itself",
                         next="leave `itself` out, or name scope all", code="usage")  # fmt: skip
    wanted = deploys.Request(
        kind=data.mode, services=services, scope=data.scope, request_id=data.request_id, session_id=data.session_id,
        requested_by=data.requested_by or caller.name, actor=caller.actor.kind, origin=caller.origin,
        asker=caller.name, itself=data.itself,
    )  # fmt: skip
    return await ask(request, wanted, wait)


@post("/deploys", opt={"right": "deploy"}, status_code=202, summary="Ask for a deploy of any kind",
      responses=answering(_200=telling.Outcome, _202=Asked, _500=telling.Outcome))  # fmt: skip
async def create_deploy(request: Ask, data: JSONBody[DeployWanted], wait: FromQuery[bool] = False) -> Response[Any]:
    """Answers at once with 202 and the place to look; with `wait=true` as `/self/deploy` does."""
    served, environment, caller = asked_by(request)
    site = await served.soon(environment.now)
    if data.scope is not None and data.services:
        raise UsageFault("a scope or services, not both", where="scope, services", next="leave one out", code="usage")
    services = tuple(data.services)
    if data.scope is not None:
        services = scoping.services_of_scope(site.config, site.environment, data.scope)
    allow(caller, scoping.rights_for(site.config, site.environment, services), ", ".join(services) or "everything")
    everything = data.kind == "restart" and data.scope is not None and not services
    if data.kind in ("live", "restart") and not services and not everything:
        raise UsageFault(f"{data.kind}: of which services?", where="services", code="usage",
                         next="name services or a scope")  # fmt: skip
    wanted = deploys.Request(
        kind=data.kind, ref=data.ref, services=services, scope=data.scope, on_drift=data.on_drift,
        allow_mass_delete=data.allow_mass_delete, request_id=data.request_id, session_id=data.session_id,
        requested_by=data.requested_by or caller.name, force=data.kind == "restart", actor=caller.actor.kind,
        origin=caller.origin, asker=caller.name, itself=everything and supervising.restarts_itself(site),
    )  # fmt: skip
    if data.confirm:
        wanted = await served.slowly(_confirmed, site, wanted, caller, data)
    if data.kind == "rollback":
        wanted = await served.slowly(_back_to, site, wanted, data.from_deploy)
    return await ask(request, wanted, wait)


def _confirmed(site: Site, wanted: deploys.Request, caller: Caller, data: DeployWanted) -> deploys.Request:
    """With the exceptions that the caller allows. Raises Refused (code `no-confirm`)."""
    allowed = guarding.allowing(replace(site, actor=caller.actor), data.confirm, data.because)
    return msgspec.structs.replace(wanted, confirmed=allowed.actor.confirmed)


def _back_to(site: Site, wanted: deploys.Request, named: str | None) -> deploys.Request:
    """For a rollback `ref` is a commit, `fromDeploy` a deploy; neither is the success before."""
    if named is not None:
        return msgspec.structs.replace(wanted, from_deploy=find(site, named).id)
    if wanted.ref is not None:
        return msgspec.structs.replace(wanted, ref=None, sha=commit_named(site, wanted.ref))
    return wanted


def allow(caller: Caller, enough: list[str], what: str) -> None:
    """Raises Denied unless the caller holds one of the rights."""
    if not any(caller.may(right) for right in enough):
        raise Denied(403, f"{caller.name} has no right to deploy {what}", where=f"it has: {' '.join(caller.rights)}",
                     next=f"a token with one of: {', '.join(sorted(set(enough)))}", code="no-right")  # fmt: skip


async def ask(request: Ask, wanted: deploys.Request, wait: bool) -> Response[Any]:
    """Enqueues (or joins), and answers at once or at the end. A caller that hangs up cancels nothing."""
    served, environment, _ = asked_by(request)
    outcomes: Outcomes = request.app.state.outcomes
    deploy = await served.soon(asking.ask, environment.site, wanted)
    place = {"location": f"/api/v1/deploys/{deploy}"}
    if not wait:
        row = await served.quickly(environment.site.store.deploy, deploy)
        status = "waiting" if row is None else row.status or row.state
        return Response(Asked(deploy_id=deploy, status=status), status_code=202, headers=place)
    row = await outcomes.of(environment, deploy)
    said = await served.quickly(telling.outcome_of, environment.site, row)
    return Response(said, status_code=200 if said.ok else 500, headers=place)


@get("/deploys", opt={"right": "read"}, responses=ERRORS, summary="Deploys, newest first; or those of a requestId")
async def list_deploys(
    request: Ask, limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 20,
    request_id: Annotated[str | None, QueryParameter(name="requestId", max_length=200)] = None,
) -> dict[str, list[Any]]:  # fmt: skip
    """With `requestId`, what whoever asked with it got: also after the connection, or the daemon, was lost."""
    served, environment, _ = asked_by(request)
    store = environment.site.store
    if request_id is not None:
        return {"deploys": [row_of(row) for row in await served.quickly(store.asked_as, request_id)]}
    waiting = await served.quickly(store.waiting)
    rows = await served.quickly(store.history, limit)
    return {"deploys": [row_of(row) for row in ([waiting] if waiting else []) + rows][:limit]}


@get("/deploys/{deploy_id:str}", opt={"right": "read"}, responses=ERRORS, summary="One deploy, with its stages")
async def show_deploy(request: Ask, deploy_id: DeployId) -> dict[str, Any]:
    served, environment, _ = asked_by(request)
    row = await served.quickly(find, environment.site, deploy_id)
    stages = await served.quickly(environment.site.store.stages, row.id)
    tail = await served.quickly(telling.log_tail, environment.site.journal_path(row.id)) if row.state == "done" else ""
    return {**row_of(row), "deployId": row.id, "logTail": tail,
            "stages": [{"stage": stage, "state": state, "at": at} for stage, state, at in stages]}  # fmt: skip


@get("/deploys/{deploy_id:str}/log", opt={"right": "read"}, responses=ERRORS, media_type="application/x-ndjson",
     summary="The journal, as JSON lines from a byte on")  # fmt: skip
async def deploy_log(
    request: Ask, deploy_id: DeployId, start: Annotated[int, QueryParameter(name="from", ge=0, le=1 << 50)] = 0
) -> Response[bytes]:
    """At most 1 MiB at a time; the header `homeport-next` says where to go on."""
    served, environment, _ = asked_by(request)
    row = await served.quickly(find, environment.site, deploy_id)
    chunk, after = await served.quickly(environment.site.read_journal, environment.site.journal_path(row.id), start, LOG)
    headers = {"homeport-next": str(after), "homeport-state": row.state}
    return Response(chunk, headers=headers, media_type="application/x-ndjson")


@post("/deploys/{deploy_id:str}/cancel", opt={"right": "deploy"}, status_code=202, responses=ERRORS,
      summary="Stop it and undo what it did")  # fmt: skip
async def cancel_deploy(request: Ask, deploy_id: DeployId) -> Asked:
    served, environment, caller = asked_by(request)
    site = await served.soon(environment.now)
    row = await served.quickly(find, site, deploy_id)
    allow(caller, scoping.rights_for(site.config, site.environment, row.request.services), "what that deploy does")
    if not await served.quickly(asking.cancel, site, row.id, caller.name):
        raise Refused("that deploy has ended", where=row.id, next=f"GET /api/v1/deploys/{row.id}", code="ended")
    return Asked(deploy_id=row.id, status="cancelling")


def find(site: Site, name: str) -> Deploy:
    """Raises UsageFault (code `no-deploy`)."""
    row = site.store.deploy(name)
    if row is None:
        raise UsageFault(f"there is no deploy {name}, or several begin so", where=f"environment {site.environment}",
                         next="GET /api/v1/deploys", code="no-deploy")  # fmt: skip
    return row


def row_of(row: Deploy) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    return found


ROUTES: list[Any] = [self_deploy, create_deploy, list_deploys, show_deploy, deploy_log, cancel_deploy]
