"""uvicorn, fitted: peers are known by their credentials, slow ones are let go, and stopping takes no time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LOCAL, FRONT = "uid", "front"
"""First words of a connection's `client`: a peer of the daemon's own socket, or the process that listens on TCP."""
HEAD_WITHIN = 15.0
"""Seconds in which the head of a request must have come on a connection."""
FLUSH = 10.0
"""Seconds that a reader has to take what was written to it before it was let go."""
STOP_WITHIN = 5
"""Seconds for answers that are on their way when the daemon stops."""
_CREDENTIALS = struct.Struct("3i")


class Http(HttpToolsProtocol):
    """Tells who the peer is in `client`; a peer that says nothing is let go."""

    welcome: Callable[[Any], tuple[str, int] | None] = staticmethod(lambda transport: ("unknown", 0))
    """(name, number) for `client`; None: not let in."""
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.welcome(transport)
        if peer is None:
            transport.abort()
            return
        self.client = peer
        self._await_head()

    def _await_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_WITHIN, self.transport.abort)

    def _head_came(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)


class Framed(bytes):
    """A text message of a WebSocket as it goes over the wire: made once, sent to any number of clients as it is."""

    __slots__ = ()


def framed(text: bytes) -> Framed:
    """An unmasked text frame (RFC 6455, 5.2), as a server sends it."""
    size = len(text)
    if size < 126:
        return Framed(bytes((0x81, size)) + text)
    if size < 1 << 16:
        return Framed(struct.pack("!BBH", 0x81, 126, size) + text)
    return Framed(struct.pack("!BBQ", 0x81, 127, size) + text)


class Ws(WebSocketsSansIOProtocol):
    """Keeps the peer's name from the connection; closes also for a reader that takes nothing any more."""

    welcome: Callable[[Any], tuple[str, int] | None] = Http.welcome

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.client = self.welcome(transport)

    async def send(self, message: Any) -> None:
        ready = message.get("bytes") if message["type"] == "websocket.send" else None
        if isinstance(ready, Framed):
            await self.writable.wait()
            if self.disconnected or self.close_sent or self.transport.is_closing():
                raise ClientDisconnected
            self.transport.write(ready)
            return
        if message["type"] == "websocket.close":
            self.writable.set()
            self.loop.call_later(FLUSH, self.transport.abort)
        await super().send(message)


def peers(own: socket.socket | None, front: socket.socket | None, users: set[int], front_users: set[int]
          ) -> Callable[[Any], tuple[str, int] | None]:  # fmt: skip
    """Lets in on the daemon's own socket `users`, and on the one for the listening process `front_users`."""
    del own
    front_name = front.getsockname() if front is not None else None

    def welcome(transport: Any) -> tuple[str, int] | None:
        connection = transport.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            return None
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(raw)
        if front_name is not None and connection.getsockname() == front_name:
            return (FRONT, 0) if user in front_users else None
        return (f"{LOCAL}:{user}", 0) if user in users else None

    return welcome


def config_for(app: Any, welcome: Callable[[Any], tuple[str, int] | None], *, at_once: int = 4000) -> uvicorn.Config:
    http = type("ServedHttp", (Http,), {"welcome": staticmethod(welcome)})
    ws = type("ServedWs", (Ws,), {"welcome": staticmethod(welcome)})
    return uvicorn.Config(
        app, http=http, ws=ws, lifespan="off", log_config=None, access_log=False, server_header=False,
        date_header=False, proxy_headers=False, ws_max_size=4096, ws_per_message_deflate=False, ws_ping_interval=20,
        ws_ping_timeout=20, timeout_keep_alive=15, timeout_graceful_shutdown=STOP_WITHIN, limit_concurrency=at_once,
        h11_max_incomplete_event_size=64 * 1024, loop="asyncio",
    )  # fmt: skip


class Server(uvicorn.Server):
    """Waits for a signal instead of looking for one ten times a second."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._stopping = ready, stopping
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready()
        if not self.should_exit:
            await self._end.wait()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stopping()
        self._end.set()

    def end(self) -> None:
        """As a signal would."""
        self.should_exit = True
        self._stop()


async def run(server: Server, sockets: list[socket.socket], beside: list[asyncio.Task[Any]]) -> None:
    """Serves until a signal; what runs `beside` ends with it, and is heard when it fails."""
    serving = asyncio.create_task(server.serve(sockets=sockets))
    try:
        await asyncio.wait({serving, *beside}, return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done() and not task.cancelled() and task.exception() is not None:
                server.end()
        await serving
        for task in beside:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        for task in beside:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*beside, return_exceptions=True)


def signal_safe(server: Server) -> None:
    """uvicorn raises the signals that it caught once more at its end; by then they mean nothing."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.end())
