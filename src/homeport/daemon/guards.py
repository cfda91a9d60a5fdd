"""Before anything is read: Host, Origin, the size of a body while it comes, and what it is wrapped in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
BODY = 64 * 1024
"""Bytes of a request to the API."""
HOOK_BODY = 25 * 1024 * 1024
"""Bytes of a delivery: GitHub sends nothing larger."""
HOOKS_AT_ONCE = 4
"""Deliveries that are read at a time; the others wait, so that memory is bounded."""
BODY_WITHIN = 30.0
"""Seconds in which a body must have come."""
ALWAYS = frozenset({"localhost", "127.0.0.1", "[::1]", "homeport"})
"""Names under which the daemon is asked on this machine; `homeport` for clients of the Unix socket."""
SAFE = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]  # fmt: skip


class _Refused(Exception):
    def __init__(self, status: int, code: str, what: str, next: str = "") -> None:
        super().__init__(what)
        self.status, self.code, self.what, self.next = status, code, what, next


class Guards:
    """ASGI around the application. `names` are the hosts it may be asked as, beside those of this machine."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = ALWAYS | {name.lower() for name in names}
        self._hooks = asyncio.Semaphore(HOOKS_AT_ONCE)
        self._reading: set[asyncio.Timeout] = set()

    def stop(self) -> None:
        """Gives up bodies that have not come: whoever sends them by drops keeps nobody from stopping."""
        for one in self._reading:
            one.reschedule(asyncio.get_running_loop().time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        told = _with_safe_headers(send) if scope["type"] == "http" else _denial_as_http(scope, send)
        try:
            headers = _headers(scope)
            self._check_names(headers)
            if scope["type"] == "websocket":
                await self._app(scope, receive, told)
            elif scope["path"].startswith("/hooks/"):
                async with self._hooks:
                    body = await self._body(headers, receive, HOOK_BODY)
                await self._app(scope, _replay(body, receive), told)
            else:
                body = await self._body(headers, receive, BODY)
                _sound(body, headers)
                await self._app(scope, _replay(body, receive), told)
        except _Refused as refused:
            await _answer(scope, told, refused)

    async def _body(self, headers: dict[str, list[str]], receive: Receive, most: int) -> bytes:
        _check_size(headers, most)
        try:
            async with asyncio.timeout(BODY_WITHIN) as within:
                self._reading.add(within)
                try:
                    return await _read(receive, most)
                finally:
                    self._reading.discard(within)
        except TimeoutError:
            raise _Refused(408, "too-slow", f"the body did not come within {BODY_WITHIN:.0f} s") from None

    def _check_names(self, headers: dict[str, list[str]]) -> None:
        """Against DNS rebinding and pages of other sites, on loopback too. Raises _Refused."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or _name_of(f"//{hosts[0]}") not in self._names:
            raise _Refused(421, "bad-host", "it is not this host that was meant", "set `url` of [listen] in host.toml")
        origins = headers.get("origin", [])
        if origins and (len(origins) > 1 or _name_of(origins[0]) not in self._names):
            raise _Refused(403, "bad-origin", "pages of other sites may not ask here")


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _name_of(url: str) -> str:
    """The host of a URL or `//host:port`, in lower case; empty for what has none, or hides one behind a user."""
    try:
        parts = urlsplit(url)
        if not parts.hostname or "@" in parts.netloc or parts.path not in ("", "/") or parts.query or parts.fragment:
            return ""
        _ = parts.port
    except ValueError:
        return ""
    return f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname


def _check_size(headers: dict[str, list[str]], most: int) -> None:
    """What the headers say of the body. Raises _Refused."""
    if any(value.strip().lower() not in ("", "identity") for value in headers.get("content-encoding", [])):
        raise _Refused(415, "encoding", "compressed bodies are not read", "send it as it is")
    said = headers.get("content-length", ["0"])
    if len(said) > 1 or not said[0].isdigit() or int(said[0][:20]) > most:
        raise _Refused(413, "too-large", f"the body is larger than {most} bytes")


async def _read(receive: Receive, most: int) -> bytes:
    """The whole body, never more than `most` bytes of it. Raises _Refused."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Refused(400, "cut", "the connection ended in the middle of the body")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _Refused(413, "too-large", f"the body is larger than {most} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


def _sound(body: bytes, headers: dict[str, list[str]]) -> None:
    """An API's body is one JSON object in UTF-8 without doubled keys, or nothing. Raises _Refused."""
    if not body:
        return
    kind = headers.get("content-type", ["application/json"])[0].partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, "media-type", "the body is not said to be JSON", "Content-Type: application/json")
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:
        told = str(fault) if isinstance(fault, _Odd) else "it is no JSON in UTF-8, or cut off, or nested too deeply"
        raise _Refused(400, "bad-body", f"the body cannot be read: {told}") from None
    if not isinstance(document, dict):
        raise _Refused(400, "bad-body", "the body is no JSON object")


class _Odd(ValueError):
    pass


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Odd("a key comes twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise _Odd(f"{name} is no JSON")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; then whatever comes from the connection."""
    given = False

    async def again() -> Any:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _with_safe_headers(send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *SAFE]
        await send(message)

    return told


def _denial_as_http(scope: Scope, send: Send) -> Send:
    """A WebSocket that is refused before it opened is answered with the HTTP status that says why."""
    opened = False

    async def told(message: Message) -> None:
        nonlocal opened
        opened = opened or message["type"] == "websocket.accept"
        status = int(message.get("code") or 0) - 4000 if message["type"] == "websocket.close" else 0
        if opened or not 400 <= status < 600 or "websocket.http.response" not in (scope.get("extensions") or {}):
            await send(message)
            return
        said = {"code": "denied", "what": str(message.get("reason") or "not let in"), "where": scope["path"], "next": ""}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": json.dumps(said).encode()})

    return told


async def _answer(scope: Scope, send: Send, refused: _Refused) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000 + refused.status, "reason": refused.what})
        return
    said = {"code": refused.code, "what": refused.what, "where": scope["path"], "next": refused.next}
    body = json.dumps(said).encode()
    size = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", size), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
