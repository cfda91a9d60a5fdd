"""The process that listens on TCP: `python -m homeport.daemon.front LISTENING PIPE ASK_AT USER`.

It parses what the network sends, as a user that can do nothing, and asks the daemon with the caller's own token. It
knows no state, no keys and no rights; everything is decided by the daemon.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import socket
import ssl
import sys
from typing import Any

import httpx
import uvicorn
import websockets.exceptions
from websockets.asyncio.client import unix_connect

from homeport.daemon import serving

HOP = {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade",
       b"transfer-encoding", b"x-homeport-client", b"forwarded"}  # fmt: skip
"""Headers of one connection, and the one with which this process says where a request comes from."""
WS_HOP = {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol", b"host"}
AT_ONCE = 500
SLOW = 10.0
"""Seconds that a reader may keep a message waiting; the daemon itself lets go earlier."""
NO_NEW_PRIVILEGES = 38


def main(argv: list[str]) -> int:
    """Ends when the daemon does: the pipe closes then."""
    listening, pipe, ask_at, user = socket.socket(fileno=int(argv[0])), int(argv[1]), "\0" + argv[2], argv[3]
    config = serving.config_for(Front(ask_at), _network, at_once=AT_ONCE)
    config.load()
    asyncio.run(_warm_up())
    _become(user)
    asyncio.run(_run(config, listening, pipe))
    return 0


async def _warm_up() -> None:
    """Asks where nobody is, so that what is imported late is imported now: its user may not be able to read the files."""
    nobody = Front("\0homeport-nobody")
    scope = {"type": "http", "method": "GET", "raw_path": b"/", "query_string": b"", "client": ("-", 0), "headers": []}
    for kind, first in (("http", "http.request"), ("websocket", "websocket.connect")):
        await nobody({**scope, "type": kind}, _saying({"type": first}), _deaf)
    await nobody.close()


def _saying(message: dict[str, Any]) -> Any:
    async def receive() -> dict[str, Any]:
        return message

    return receive


async def _deaf(_: Any) -> None:
    return


def _become(user: str) -> None:
    """Gives up everything: the user, the groups, and the way back."""
    if user and os.geteuid() == 0:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    ctypes.CDLL(None, use_errno=True).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _network(transport: Any) -> tuple[str, int] | None:
    peer = transport.get_extra_info("peername")
    return (str(peer[0]), int(peer[1])) if peer else None


async def _run(config: uvicorn.Config, listening: socket.socket, pipe: int) -> None:
    server = serving.Server(config, lambda: None, lambda: None)
    asyncio.get_running_loop().add_reader(pipe, server.end)
    await server.serve(sockets=[listening])


class Front:
    """ASGI: hands every request and WebSocket on, and every answer back."""

    def __init__(self, ask_at: str) -> None:
        self._ask_at = ask_at
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=50)
        never_used = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.AsyncHTTPTransport(uds=ask_at, limits=limits, verify=never_used)
        self._client = httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(None, connect=5), trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP]
        headers.append((b"x-homeport-client", scope["client"][0].encode()))
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        sized = any(name == b"content-length" for name, _ in scope["headers"])
        path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        content = _body(receive) if chunked or sized else None
        try:
            request = httpx.Request(scope["method"], httpx.URL("http://daemon").copy_with(raw_path=path),
                                    headers=headers, content=content)  # fmt: skip
            answer = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            await _unavailable(send)
            return
        try:
            told = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": told})
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
                   if name not in HOP and name not in WS_HOP]  # fmt: skip
        headers.append(("x-homeport-client", scope["client"][0]))
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        path = scope["raw_path"].decode("latin-1")
        query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
        try:
            asked = await unix_connect(
                self._ask_at, f"ws://{host}{path}{query}", additional_headers=headers, compression=None, max_size=None,
                max_queue=4, ping_interval=None, open_timeout=10, user_agent_header=None,
            )  # fmt: skip
        except websockets.exceptions.InvalidStatus as refused:
            code, kind = refused.response.status_code, [(b"content-type", b"application/json")]
            await send({"type": "websocket.http.response.start", "status": code, "headers": kind})
            await send({"type": "websocket.http.response.body", "body": bytes(refused.response.body or b"")})
            return
        except (OSError, websockets.exceptions.WebSocketException, ValueError, TimeoutError):
            await send({"type": "websocket.close", "code": 1013})
            return
        async with asked:
            await send({"type": "websocket.accept"})
            await _pump(asked, receive, send)


async def _pump(asked: Any, receive: Any, send: Any) -> None:
    """Both ways until one side ends."""

    async def down() -> None:
        try:
            while True:
                message = await asked.recv(decode=False)
                async with asyncio.timeout(SLOW):
                    await send({"type": "websocket.send", "bytes": serving.framed(message)})
        except (websockets.exceptions.ConnectionClosed, TimeoutError):
            pass
        await send({"type": "websocket.close", "code": asked.close_code or 1013, "reason": asked.close_reason or ""})

    async def up() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await asked.send(message.get("text") or message.get("bytes") or "")

    tasks = [asyncio.create_task(down()), asyncio.create_task(up())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _body(receive: Any) -> Any:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise httpx.ReadError("the client went away in the middle of the body")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _unavailable(send: Any) -> None:
    body = b'{"code":"no-daemon","what":"the daemon does not answer","where":"","next":"try again in a moment"}'
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"2"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
