"""The events of deploys over a WebSocket (C4): read from the journals, resumable by byte, and nobody is waited for."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery, QueryParameter

from homeport.daemon.access import Denied, as_websocket
from homeport.daemon.deploying import find
from homeport.daemon.served import Environment, Served
from homeport.daemon.serving import Framed, framed
from homeport.flow.ending import done_event
from homeport.model.deploys import Deploy
from homeport.model.errors import HomeportError, UsageFault
from homeport.model.events import DeployCancelled

FRAME = 256 * 1024
"""Bytes of a journal in one message, at most (a single longer line makes a longer one)."""
SLOW = 3.0
"""Seconds that a message may wait for its reader; then the reader is dropped and told where to go on."""
LIVE, QUIET = 0.02, 0.2
"""Seconds between two looks at a journal: while it grows, and when it does not."""
ROW = 0.5
"""Seconds between two looks at the deploy itself, for one that ends without a journal."""
CHATTER = 100
"""Messages a client may send; it has nothing to say here."""
MOST = 500
"""Clients at a time."""
NOBODY = "__self__"
"""`requestedBy` of deploys that no user's clients are to see."""
SHOWN = 20
"""Deploys that are looked through for one that was not told yet."""
_LAST = b'{"type":"deploy.done"'


class Tails:
    """Pieces of journals that were read last, so that clients side by side are served from one reading."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._read: OrderedDict[tuple[str, int], Piece] = OrderedDict()
        self._reading: dict[tuple[str, int], asyncio.Task[Piece]] = {}
        self.clients = 0

    async def piece(self, environment: Environment, deploy: str, offset: int) -> Piece:
        """Whole lines from that byte on. Pieces end at the same bytes whoever reads, so that clients which fall behind
        by different amounts meet again."""
        path = environment.site.journal_path(deploy)
        key = (path, offset)
        if key in self._read:
            return self._read[key]
        try:
            if os.stat(path).st_size <= offset:
                return Piece(None, False, offset)
        except FileNotFoundError:
            return Piece(None, False, offset)
        reading = self._reading.get(key)
        if reading is None:
            # a task of its own: a client that goes meanwhile takes nothing from the others
            reading = self._reading[key] = asyncio.create_task(self._piece_at(environment, deploy, path, offset))
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(reading)

    async def _piece_at(self, environment: Environment, deploy: str, path: str, offset: int) -> Piece:
        most = FRAME - offset % FRAME
        lines, after = await self._served.quickly(environment.site.read_journal, path, offset,
                                                  most if most > FRAME // 8 else most + FRAME)  # fmt: skip
        found = _piece(deploy, lines, after)
        if after > offset:
            self._read[path, offset] = found
            if len(self._read) > 32:
                self._read.popitem(last=False)
        return found


@dataclass(frozen=True)
class Piece:
    """Some lines of a journal, ready to be sent, with the one that says where to go on."""

    message: Framed | None
    """None: there is nothing more yet."""
    last: bool
    """It ends with `deploy.done`."""
    after: int


def _piece(deploy: str, lines: bytes, after: int) -> Piece:
    if not lines:
        return Piece(None, False, after)
    mark = msgspec.json.encode({"type": "events.offset", "deployId": deploy, "next": after})
    return Piece(framed(lines + mark), lines[lines.rfind(b"\n", 0, -1) + 1 :].startswith(_LAST), after)


@websocket("/events", opt={"right": "read"})
async def events(
    socket: WebSocket[Any, Any, Any], deploy: FromQuery[str | None] = None,
    start: Annotated[str, QueryParameter(name="from")] = "0", user: FromQuery[str | None] = None,
) -> None:  # fmt: skip
    """With `deploy` its whole journal from a byte on, until it ends; without, every deploy from now on.

    With `user` only deploys which that user of the platform asked for, or joined.
    """
    tails: Tails = socket.app.state.tails
    environment: Environment = socket.scope["state"]["environment"]
    served: Served = socket.app.state.served
    try:
        row = await _asked_for(served, environment, tails, deploy, user)
        offset = _byte(start)
    except HomeportError as fault:
        raise as_websocket(fault) from None
    stream = _Stream(socket, environment, served, tails, user)
    if row is None:
        await stream.begin()
    await socket.accept()
    tails.clients += 1
    listener = asyncio.create_task(_listen(socket))
    sender = asyncio.create_task(stream.run(row, offset))
    stop = asyncio.create_task(socket.app.state.outcomes.stopping.wait())
    try:
        await asyncio.wait({listener, sender, stop}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()
        elif stop.done():
            await _close(socket, 1012, "the daemon stops; go on from the last events.offset")
        else:
            await _close(socket, *listener.result())
    except WebSocketDisconnect:
        return
    finally:
        tails.clients -= 1
        for task in (listener, sender, stop):
            task.cancel()


def _byte(said: str) -> int:
    if not (said.isascii() and said.isdigit() and len(said) <= 15):
        raise UsageFault(f"from={said[:40]!r} is no byte of a journal", next="the last events.offset", code="usage")
    return int(said)


async def _asked_for(served: Served, environment: Environment, tails: Tails, deploy: str | None,
                     user: str | None) -> Deploy | None:  # fmt: skip
    if tails.clients >= MOST:
        raise Denied(503, "too many clients listen already", code="too-many", next="come back later")
    row = await served.quickly(find, environment.site, deploy) if deploy else None
    if row is not None and user is not None and not await _concerns(served, environment, row.id, user):
        raise Denied(403, "that deploy is not this user's", where=row.id, code="audience", next="leave out `user`")
    return row


async def _listen(socket: WebSocket[Any, Any, Any]) -> tuple[int, str]:
    """Ends when the client goes, or talks although it has nothing to say."""
    for _ in range(CHATTER):
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return 1000, ""
    return 1008, "this stream takes no messages"


async def _close(socket: WebSocket[Any, Any, Any], code: int, reason: str) -> None:
    try:
        await socket.close(code, reason)
    except (WebSocketDisconnect, RuntimeError, OSError):
        return


async def _concerns(served: Served, environment: Environment, deploy: str, user: str) -> bool:
    return user != NOBODY and user in await served.quickly(environment.site.store.callers, deploy)


class _Stream:
    """What one client gets."""

    def __init__(self, socket: WebSocket[Any, Any, Any], environment: Environment, served: Served, tails: Tails,
                 user: str | None) -> None:  # fmt: skip
        self._socket, self._environment, self._served, self._tails = socket, environment, served, tails
        self._user = user
        self._floor, self._told = "", set[str]()
        """Whoever listens to all of them: nothing up to that deploy is told any more, nor are these."""

    async def run(self, deploy: Deploy | None, start: int) -> None:
        try:
            if deploy is not None:
                await self._follow(deploy.id, start)
                await _close(self._socket, 1000, "")
                return
            await self._all()
        except _TooSlow as slow:
            await _close(self._socket, 1013, f"too slow; go on with from={slow.offset}")

    async def begin(self) -> None:
        """From now on: what has ended already is not told to whoever listens to all."""
        before = await self._served.quickly(self._environment.site.store.history, SHOWN)
        self._told = {row.id for row in before if row.state == "done"}
        self._floor = min(self._told, default="")

    async def _all(self) -> None:
        """Every deploy from now on; the one that runs now from its beginning. Only one runs at a time; what is cancelled
        or replaced while it waits behind that one is told in between."""
        while True:
            await self._ended_waiting()
            for row in await self._untold():
                if await self._concerned(row):
                    await self._follow(row.id, 0, self._ended_waiting)
                self._floor = max(self._floor, row.id)
                self._told = {told for told in self._told if told > self._floor}
            await asyncio.sleep(QUIET)

    async def _untold(self) -> list[Deploy]:
        """What was asked for since, waits no more and was not told; the oldest first."""
        rows = await self._served.quickly(self._environment.site.store.history, SHOWN)
        return sorted((row for row in rows if row.id > self._floor and row.id not in self._told), key=lambda row: row.id)

    async def _concerned(self, row: Deploy) -> bool:
        if row.id in self._told:
            return False
        self._told.add(row.id)
        return self._user is None or await _concerns(self._served, self._environment, row.id, self._user)

    async def _ended_waiting(self) -> None:
        """Tells of those that ended before they ran."""
        for row in await self._untold():
            if row.state == "done" and not row.started_at and await self._concerned(row):
                await self._send(_piece(row.id, _ended(row), 0), 0)

    async def _follow(self, deploy: str, offset: int, beside: Callable[[], Awaitable[None]] | None = None) -> None:
        """Its journal to the end; what is done `beside` meanwhile is done about twice a second."""
        clock = asyncio.get_running_loop().time
        pause, quiet, looked = LIVE, 0.0, clock()
        while True:
            piece = await self._tails.piece(self._environment, deploy, offset)
            await self._send(piece, offset)
            if piece.last:
                return
            if beside is not None and clock() - looked >= ROW:
                await beside()
                looked = clock()
            if piece.after > offset:
                offset, pause, quiet = piece.after, LIVE, 0.0
                continue
            if quiet >= ROW:
                quiet = 0.0
                row = await self._served.quickly(self._environment.site.store.deploy, deploy)
                left = await self._tails.piece(self._environment, deploy, offset)
                if row is not None and row.state == "done" and left.message is None:
                    await self._send(_piece(deploy, _ended(row), offset), offset)
                    return
            await asyncio.sleep(pause)
            quiet += pause
            pause = min(pause * 1.3, QUIET)

    async def _send(self, piece: Piece, offset: int) -> None:
        if piece.message is None:
            return
        try:
            async with asyncio.timeout(SLOW):
                await self._socket.send_bytes(piece.message)
        except TimeoutError:
            raise _TooSlow(offset) from None


class _TooSlow(Exception):
    def __init__(self, offset: int) -> None:
        super().__init__(str(offset))
        self.offset = offset


def _ended(row: Deploy) -> bytes:
    """For a deploy that ended before it had a journal, or whose journal lost its end."""
    cancelled = DeployCancelled(deploy_id=row.id, at=row.ended_at or "")
    said = [cancelled] if row.status in ("cancelled", "superseded") else []
    return b"".join(msgspec.json.encode(event) + b"\n" for event in [*said, done_event(row)])
