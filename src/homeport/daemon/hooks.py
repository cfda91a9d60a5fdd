"""Webhooks: a genuine delivery makes homeport look at once; what is deployed is read from git afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from litestar import Request, Response, get, post
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from msgspec import Struct

from homeport.daemon.access import OPEN, Denied, Patience, address_of
from homeport.daemon.answers import ERRORS
from homeport.daemon.served import Environment, Served
from homeport.daemon.timer import Timer
from homeport.decide import webhooks
from homeport.decide.payloads import Finished, Ping, Push, Requested
from homeport.flow.checking import ask_for
from homeport.flow.stages.gating import WOKEN
from homeport.model.errors import UsageFault
from homeport.model.forge import Kind

log = logging.getLogger("homeport.daemon")
Ask = Request[Any, Any, Any]
OVER = ("closed", "close", "merged", "merge", "deleted")
"""What the forges call the end of a request."""


class Hook(Struct, frozen=True, kw_only=True):
    """What an environment accepts: deliveries of this kind, about this repository, signed with one of these."""

    environment: Environment
    kind: Kind
    secrets: list[bytes]
    repository: str

    def concerns(self, delivery: webhooks.Delivery) -> bool:
        return delivery.repository.lower() == self.repository.lower() or isinstance(delivery.subject, Ping)


Accepted = Callable[[], Sequence[Hook]]
"""What is accepted at this moment: secrets are added and taken out while the daemon runs."""


def routes(kind: Kind) -> list[Any]:
    """The handlers of one forge; without a secret for it in any environment there is no such path."""

    @post(f"/hooks/{kind}", opt={"right": OPEN}, status_code=202, name=f"hook-{kind}", summary=f"Deliveries of {kind}",
          operation_id=f"hook_{kind}", responses=ERRORS)  # fmt: skip
    async def hook(request: Ask) -> Response[dict[str, Any]]:
        accepted = await _accepted(request, kind)
        raw = await request.body()
        headers = list(request.headers.multi_items())
        genuine = [one for one in accepted if webhooks.verify(kind, headers, raw, one.secrets)]
        if not genuine:
            _refuse(request)
        said = webhooks.parse(kind, headers, raw)
        if isinstance(said, webhooks.Malformed):
            raise UsageFault(f"the delivery cannot be read: {said.why}", where=f"/hooks/{kind}", code="bad-delivery",
                             next="send it again, or look at the hook's settings on the forge")  # fmt: skip
        if isinstance(said, webhooks.Ignored):
            return Response({"accepted": False, "because": said.why}, status_code=202)
        told = [await _take(request, one, said) for one in genuine if one.concerns(said)]
        because = "; ".join(told) or "it is about another repository"
        return Response({"accepted": bool(told), "because": because}, status_code=202)

    @get(f"/hooks/{kind}", opt={"right": OPEN}, include_in_schema=False, name=f"hook-{kind}-get")
    async def looked_at(request: Ask) -> None:
        await _accepted(request, kind)
        raise MethodNotAllowedException

    return [hook, looked_at]


async def _accepted(request: Ask, kind: Kind) -> list[Hook]:
    """Raises NotFoundException where no environment takes deliveries of this kind now."""
    served: Served = request.app.state.served
    accepted: Accepted = request.app.state.hooks
    found = [one for one in await served.quickly(accepted) if one.kind == kind]
    if not found:
        raise NotFoundException
    return found


def _refuse(request: Ask) -> None:
    """Raises Denied: 401, or 429 for an address that keeps trying."""
    patience: Patience = request.app.state.patience
    address = address_of(request)
    wait = patience.over(address)
    patience.note(address)
    if wait:
        raise Denied(429, "too many wrong signatures from this address", code="slow-down", next=f"wait {wait:.0f} s")
    raise Denied(401, "no secret of this host signed this", where=request.url.path, code="bad-signature",
                 next="the same secret in the hook's settings and in [forge] webhook_secret")  # fmt: skip


async def _take(request: Ask, hook: Hook, delivery: webhooks.Delivery) -> str:
    """What was done about it, in words."""
    served: Served = request.app.state.served
    environment, subject = hook.environment, delivery.subject
    store, name = environment.site.store, environment.site.environment
    timers: dict[tuple[str, str], Timer] = request.app.state.timers
    if not await served.quickly(store.remember_delivery, delivery.id, delivery.event, type(subject).__name__.lower()):
        return f"{name}: seen before"
    if isinstance(subject, Finished):
        await served.quickly(store.cache, WOKEN, delivery.id)
        timers[environment.key].push()
        return f"{name}: the gate is looked at again"
    if isinstance(subject, Requested):
        return f"{name}: {await _check(served, environment, subject)}"
    if not isinstance(subject, Push) or subject.branch != environment.site.env.branch or subject.deleted:
        return f"{name}: not a push to its branch"
    timers[environment.key].push()
    log.info("a push to %s", environment.site.env.branch, extra={"told": {"delivery": delivery.id, "environment": name}})
    return f"{name}: looked for at once"


async def _check(served: Served, environment: Environment, asked: Requested) -> str:
    """The project's own checks of a request into this branch; never of one from a fork."""
    if asked.base != environment.site.env.branch:
        return "a request into another branch"
    if asked.fork:
        return "a request from a fork: nothing of it is run here"
    if asked.merged or asked.action in OVER:
        return "the request is over"

    def locked() -> bool:
        with environment.looking:
            return ask_for(environment.now(), asked.head_sha, asked.head)

    return "its checks are run" if await served.slowly(locked) else "there is nothing to check"
