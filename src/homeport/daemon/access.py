"""Who asks, and whether they may: the peer of the socket, or the token that it shows."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import WebSocketException
from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from homeport.daemon.served import Environment, Served
from homeport.daemon.serving import FRONT, LOCAL
from homeport.flow import tokens
from homeport.model.errors import HomeportError
from homeport.model.rules import Actor, ActorKind
from homeport.model.tokens import EVERY_RIGHT, may

OPEN = "open"
"""The right of a route that asks for none: health, and webhooks, which prove themselves by their signature."""
TRIES, PER = 20, 60.0
"""Wrong tokens (or signatures) of one address in so many seconds, before it has to wait."""


class Denied(HomeportError):
    """Not let in; `status` is HTTP's."""

    def __init__(self, status: int, what: str, *, where: str = "", next: str = "", code: str) -> None:
        super().__init__(what, where=where, next=next, code=code)
        self.status = status


class Caller(Struct, frozen=True, kw_only=True):
    name: str
    """The login of a local peer, or the token's name."""
    kind: str
    rights: tuple[str, ...]
    origin: str
    """For the audit: `socket`, or the address behind the listening process."""

    def may(self, right: str) -> bool:
        return may(self.rights, right)

    @property
    def actor(self) -> Actor:
        """As the rules see it: a forge is a trigger, and only a person with that right confirms."""
        kind: ActorKind = "trigger" if self.kind == "forge" else "agent" if self.kind == "agent" else "person"
        return Actor(name=self.name, kind=kind, origin=self.origin, confirms=self.may("confirm"))


class Patience:
    """Counts what each address got wrong, so that guessing is slow. Whoever shows a good token is never made to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}

    def over(self, address: str) -> float:
        """Seconds to wait; 0 while it may go on."""
        since, wrong = self._wrong.get(address, (0.0, 0))
        left = since + PER - self._clock()
        return left if wrong >= TRIES and left > 0 else 0.0

    def note(self, address: str) -> None:
        now = self._clock()
        since, wrong = self._wrong.get(address, (now, 0))
        self._wrong[address] = (since, wrong + 1) if now - since < PER else (now, 1)
        if len(self._wrong) > 10_000:
            self._wrong = {one: row for one, row in self._wrong.items() if now - row[0] < PER}


def peer_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """`uid:0` for a peer of the socket, `front` for the listening process: as the kernel says, never a header."""
    client = connection.scope.get("client")
    return client[0] if client else "unknown"


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Where it comes from, for counting and for the audit only: the address that the listening process saw."""
    peer = peer_of(connection)
    return "net:" + connection.headers.get("x-homeport-client", "unknown")[:64] if peer == FRONT else peer


def bearer_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The token shown; None for none. Raises Denied for a header that comes twice or is another scheme."""
    shown = connection.headers.getall("authorization", [])
    if not shown:
        return None
    scheme, _, token = shown[0].partition(" ")
    if len(shown) > 1 or scheme.lower() != "bearer":
        raise Denied(401, "the Authorization header is not one bearer token", where="Authorization", code="no-token",
                     next="Authorization: Bearer TOKEN")  # fmt: skip
    return token.strip()


async def caller_of(connection: ASGIConnection[Any, Any, Any, Any], environment: Environment) -> Caller:
    """Who asks. Raises Denied (codes `no-token`, `slow-down`)."""
    app, address = connection.app, address_of(connection)
    served: Served = app.state.served
    patience: Patience = app.state.patience
    token = bearer_of(connection)
    local = peer_of(connection).startswith(f"{LOCAL}:")
    if token is None and local:
        return Caller(name=_login(address), kind="person", rights=EVERY_RIGHT, origin="socket")
    found = await served.quickly(tokens.presented, environment.site, token) if token else None
    if found is not None:
        return Caller(name=found.name, kind=found.kind, rights=found.rights, origin="socket" if local else address)
    wait = patience.over(address)
    if wait:
        raise Denied(429, "too many wrong tokens from this address", code="slow-down", next=f"wait {wait:.0f} s")
    patience.note(address)
    what = "this token is not known here, or was revoked" if token else "this needs a token"
    raise Denied(401, what, where="Authorization", code="no-token", next="homeport token create NAME --right read")


async def check_right(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of every route: finds the environment and the caller, and asks for the right that the route declares.

    A route that declares none lets nobody in. Every change leaves an audit row before it happens, a denied one too.
    """
    right = handler.opt.get("right")
    if right == OPEN:
        return
    try:
        await _admit(connection, right)
    except HomeportError as fault:
        raise as_websocket(fault) if connection.scope["type"] == ScopeType.WEBSOCKET else fault from None


async def _admit(connection: ASGIConnection[Any, Any, Any, Any], right: Any) -> None:
    served: Served = connection.app.state.served
    query = connection.query_params
    environment = served.pick(query.get("project"), query.get("environment"))
    caller = await caller_of(connection, environment)
    allowed = bool(right) and caller.may(str(right))
    method = connection.scope.get("method", "GET")
    if method not in ("GET", "HEAD"):
        act = f"api {method} {connection.scope['path']}"
        await served.quickly(environment.site.store.audit, caller.name, act[:200], "", origin=caller.origin,
                             actor=caller.kind, outcome="asked" if allowed else "denied")  # fmt: skip
    if not allowed:
        raise Denied(403, f"{caller.name} has no right to {right}", where=f"it has: {' '.join(caller.rights)}",
                     code="no-right", next="a token with that right, from whoever runs this host")  # fmt: skip
    connection.scope["state"]["caller"] = caller
    connection.scope["state"]["environment"] = environment


def as_websocket(fault: HomeportError) -> WebSocketException:
    """For a WebSocket that is not opened: the HTTP status above 4000, and the words."""
    known = 404 if fault.code.startswith("no-") or fault.code == "environment" else 400
    status = fault.status if isinstance(fault, Denied) else known if fault.exit_code == 2 else 503
    return WebSocketException(detail=fault.what, code=4000 + status)


def _login(address: str) -> str:
    number = address.partition(":")[2]
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (KeyError, ValueError):
        return number
