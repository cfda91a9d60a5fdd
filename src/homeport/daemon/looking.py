"""Routes that only look: status, drift, edits, plan, health; and the small acts: hold, unhold, block, unblock, adopt."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import JSONBody, QueryParameter

from homeport.daemon.access import OPEN
from homeport.daemon.answers import ERRORS
from homeport.daemon.deploying import Ask, asked_by
from homeport.daemon.served import Environment
from homeport.daemon.shapes import AdoptWanted, BlockWanted, HoldWanted, UnblockWanted, Word
from homeport.decide import scoping
from homeport.flow import adopting, blocking, editing, looking, requesting
from homeport.flow.planning import make_plan
from homeport.model.deploys import Request
from homeport.model.edits import Person
from homeport.model.paths import exact

Services = Annotated[list[Word] | None, QueryParameter(name="service", required=False)]


@get("/status", opt={"right": "read"}, responses=ERRORS, summary="What runs, from which commit, and what holds it up")
async def status(request: Ask) -> dict[str, Any]:
    found: dict[str, Any] = await _look(request, lambda environment: looking.status_of(environment.now()))
    return found


@get("/drift", opt={"right": "read"}, responses=ERRORS, summary="What was edited on the host")
async def drift(request: Ask, services: Services = None) -> dict[str, Any]:
    found: dict[str, Any] = await _look(request, lambda environment: looking.drift_of(environment.now(), services or []))
    return found


@get("/edits", opt={"right": "read"}, responses=ERRORS, summary="Edits that are not settled")
async def edits(request: Ask, ended: Annotated[bool, QueryParameter(name="all", required=False)] = False) -> dict[str, Any]:
    found: dict[str, Any] = await _look(request, lambda environment: editing.edits_of(environment.now(), ended))
    return found


@get("/plan", opt={"right": "read"}, responses=ERRORS, summary="What a deploy would do, and what it would refuse")
async def plan(
    request: Ask, ref: Annotated[str | None, QueryParameter(required=False, max_length=200)] = None,
    named: Annotated[str | None, QueryParameter(name="scope", required=False, max_length=200)] = None,
    services: Services = None,
) -> dict[str, Any]:  # fmt: skip
    def made(environment: Environment) -> dict[str, Any]:
        site = environment.now()
        chosen = tuple(services or ())
        if named is not None:
            chosen = scoping.services_of_scope(site.config, site.environment, named)
        found: dict[str, Any] = msgspec.to_builtins(make_plan(site, Request(kind="commit", ref=ref, services=chosen)))
        return found

    found: dict[str, Any] = await _look(request, made)
    return found


@post("/hold", opt={"right": "hold"}, responses=ERRORS, status_code=200, summary="Pause deploys by triggers")
async def hold(request: Ask, data: JSONBody[HoldWanted]) -> dict[str, Any]:
    served, environment, caller = asked_by(request)
    made = await served.quickly(blocking.hold, environment.site, data.because, caller.name, data.seconds)
    return {"hold": {"because": made.because, "by": made.by, "until": made.until}}


@post("/unhold", opt={"right": "hold"}, responses=ERRORS, status_code=200, summary="End the pause")
async def unhold(request: Ask) -> dict[str, Any]:
    served, environment, caller = asked_by(request)
    return {"hold": None, "ended": await served.quickly(blocking.unhold, environment.site, caller.name)}


@post("/block", opt={"right": "hold"}, responses=ERRORS, status_code=200, summary="Never deploy a commit")
async def block(request: Ask, data: JSONBody[BlockWanted]) -> dict[str, Any]:
    served, environment, caller = asked_by(request)
    full = await served.slowly(blocking.block, environment.site, data.sha, data.because, caller.name)
    return {"sha": full, "blocked": True}


@post("/unblock", opt={"right": "hold"}, responses=ERRORS, status_code=200, summary="Allow a blocked commit again")
async def unblock(request: Ask, data: JSONBody[UnblockWanted]) -> dict[str, Any]:
    served, environment, caller = asked_by(request)
    return {"sha": await served.slowly(blocking.unblock, environment.site, data.sha, caller.name), "blocked": False}


@post("/adopt", opt={"right": "adopt"}, responses=ERRORS, status_code=200, summary="Bring edits back into git")
async def adopt(request: Ask, data: JSONBody[AdoptWanted]) -> dict[str, Any]:
    _, _, caller = asked_by(request)
    wish = requesting.Wish(branch=data.branch, message=data.message, merge=data.merge, foreign=data.foreign, by=caller.name)
    author = Person(name=data.author.name, email=data.author.email)

    def act(environment: Environment) -> dict[str, Any]:
        return adopting.adopt(replace(environment.now(), actor=caller.actor), tuple(data.paths), wish, author, None)

    found: dict[str, Any] = await _look(request, act)
    return found


async def _look(request: Ask, act: Any) -> Any:
    """One at a time for each environment, in the threads for slow things. Names that are no text are shown escaped."""
    served, environment, _ = asked_by(request)

    def locked() -> Any:
        with environment.looking:
            return _sound(act(environment))

    return await served.slowly(locked)


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return exact(value)
    if isinstance(value, dict):
        return {_sound(key): _sound(item) for key, item in value.items()}
    return [_sound(item) for item in value] if isinstance(value, list | tuple) else value


@get("/healthz", opt={"right": OPEN}, summary="Whether the daemon answers")
async def healthz() -> dict[str, bool]:
    return {"ok": True}


ROUTES: list[Any] = [status, drift, edits, plan, hold, unhold, block, unblock, adopt]
