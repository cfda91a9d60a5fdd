"""The supervisor's Unix socket: one JSON object a line, from the same user or root only.

Whatever a client sends gets an answer for that request alone; whatever it does not read is not waited for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from homeport.supervisor.crew import Crew, UnknownScope
from homeport.supervisor.messages import (
    ConfigureRequest,
    Envelope,
    Leaving,
    LogsRequest,
    Outcome,
    RequestId,
    ScopeRequest,
    ShutdownRequest,
    SpecFault,
    encode,
)  # fmt: skip
from homeport.supervisor.tailing import follow, from_here, tail
from homeport.supervisor.unit import Unit

LONGEST_LINE = 64 * 1024
"""Bytes of a request."""
MOST_UNREAD = 1024 * 1024
"""Bytes of answers that a client may leave unread before it is dropped."""
MOST_CONNECTIONS = 128
MOST_RUNNING = 32
"""Requests of one connection that are worked on at the same time."""
MOST_LINES = 10_000

ITSELF = "supervisor"
"""The scope that is this process alone, and its name among the services of `restart all`."""

Answer = dict[str, Any]


class Door:
    """Accepts connections; `leave` is called when a client asks this process to end."""

    def __init__(self, crew: Crew, leave: Callable[[Leaving], None]) -> None:
        self.crew = crew
        self.leave = leave
        self.run = secrets.token_hex(8)
        """Names this very process: another one answers with another."""
        self._open: set[Connection] = set()

    async def serve(self, listening: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 13):
            # it would look for the file by the address, which is one of /proc/self/fd where the path is long
            return await loop.create_unix_server(lambda: Connection(self), sock=listening, cleanup_socket=False)
        return await loop.create_unix_server(lambda: Connection(self), sock=listening)

    def admit(self, connection: Connection) -> bool:
        if len(self._open) >= MOST_CONNECTIONS:
            return False
        self._open.add(connection)
        return True

    def gone(self, connection: Connection) -> None:
        self._open.discard(connection)

    def close(self) -> None:
        """Lets what is already written go out."""
        for connection in list(self._open):
            connection.close()


class Connection(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._skipping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._followers: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=MOST_UNREAD)
        why = "" if _is_ours(transport.get_extra_info("socket")) else "not your supervisor"
        if not why and not self._door.admit(self):
            why = "too many connections"
        if why:
            self.say(None, "error", code="refused", message=why)
            transport.close()
            self._transport = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._door.gone(self)
        for task in self._followers:
            task.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while self._transport is not None:
            end = self._rest.find(b"\n")
            if end < 0:
                break
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            if self._skipping:
                self._skipping = False
            elif len(line) > LONGEST_LINE:
                self._too_long()
            elif line.strip():
                self._request(line)
        if len(self._rest) > LONGEST_LINE:
            if not self._skipping:
                self._too_long()
            self._skipping = True
            self._rest.clear()

    def _too_long(self) -> None:
        self.say(None, "error", code="too-long", message=f"a line may have {LONGEST_LINE} bytes")

    def eof_received(self) -> bool:
        # A client that closed only its sending side still gets its answers.
        return bool(self._tasks - self._followers)

    def _request(self, line: bytes) -> None:
        id: RequestId = None
        try:
            envelope = msgspec.json.decode(line, type=Envelope)
            id = envelope.id
            operation = OPERATIONS.get(envelope.op)
            if operation is None:
                self.say(id, "error", code="unknown-op", message=f"the operations are {', '.join(sorted(OPERATIONS))}")
                return
            kind, work = operation
            request = msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as fault:
            self.say(id, "error", code="bad-request", message=str(fault)[:300])
            return
        if len(self._tasks) >= MOST_RUNNING:
            self.say(id, "error", code="busy", message=f"{MOST_RUNNING} requests of this connection are running")
            return
        task = asyncio.ensure_future(self._work(id, envelope.op, work(self, request)))
        self._tasks.add(task)
        if isinstance(request, LogsRequest):
            self._followers.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._followers.discard(task)

    async def _work(self, id: RequestId, op: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except UnknownScope as fault:
            self.say(id, "error", code="unknown-scope", message=str(fault))
        except SpecFault as fault:
            self.say(id, "error", code="bad-unit", message=str(fault)[:1000])
        except Exception as fault:
            # A fault of ours in one request must not take the supervisor, and so every service, with it.
            self.say(id, "error", code="internal", message=f"{op}: {type(fault).__name__}: {fault}"[:300])

    def say(self, id: RequestId, type: str, **rest: Any) -> None:
        """Never waits: a client that does not read is dropped."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode({"id": id, "type": type, **rest}) + b"\n")
        if transport.get_write_buffer_size() > MOST_UNREAD:
            transport.abort()

    async def _each(self, request: ScopeRequest, work: Callable[[Unit], Awaitable[Outcome]],
                    itself: bool = False) -> bool:  # fmt: skip
        """Whether all of it went well."""
        units = [] if itself and request.scope == ITSELF else self._door.crew.named(request.scope)
        op = request.op
        self.say(request.id, f"{op}.ack", services=[unit.name for unit in units] + [ITSELF] * itself)
        ok = True
        async for outcome in self._door.crew.each(units, work):
            ok = ok and outcome.ok
            more: Answer = {} if outcome.ok else {"why": outcome.why, "tail": outcome.tail}
            self.say(
                request.id, f"{op}.done", service=outcome.service, ok=outcome.ok, pid=outcome.pid,
                durationMs=round(outcome.seconds * 1000), registered=outcome.first, **more,
            )  # fmt: skip
        self.say(request.id, f"{op}.end", ok=ok)
        return ok

    async def restart(self, request: ScopeRequest) -> None:
        """`all` has this process in it, and ITSELF is it alone: it leaves, last and only when all else went well, so
        that its keeper starts it again. As PID 1 everything goes with it."""
        leaves = request.scope in ("all", ITSELF) and request.scope not in self._door.crew.units
        if await self._each(request, lambda unit: unit.replace(), itself=leaves) and leaves:
            self._door.leave(Leaving(keep=os.getpid() != 1, again=True))

    async def start(self, request: ScopeRequest) -> None:
        async def begin(unit: Unit) -> Outcome:
            state = unit.status()
            if state.state == "running" and not state.pending:
                return Outcome(service=unit.name, ok=True, pid=state.pid)
            return await unit.replace()

        await self._each(request, begin)

    async def stop(self, request: ScopeRequest) -> None:
        await self._each(request, lambda unit: unit.stop())

    async def reload(self, request: ScopeRequest) -> None:
        async def tell(unit: Unit) -> Outcome:
            return unit.reload()

        await self._each(request, tell)

    async def status(self, request: ScopeRequest) -> None:
        crew = self._door.crew
        services = crew.status(crew.named(request.scope))
        self.say(request.id, "status", ok=True, pid=os.getpid(), run=self._door.run, services=services)

    async def configure(self, request: ConfigureRequest) -> None:
        names = await self._door.crew.configure(request)
        self.say(request.id, "configure.end", ok=True, services=names)

    async def logs(self, request: LogsRequest) -> None:
        unit = self._door.crew.named(request.service)
        if len(unit) != 1:
            raise UnknownScope("logs are those of one unit")
        path = self._door.crew.log_of(unit[0].name)
        # Opened before the last lines are read: what is written between the two is not missed.
        file, here = from_here(path) if request.follow else (-1, None)
        try:
            for line in tail(path, min(request.lines, MOST_LINES), end=here):
                await self._log_line(request.id, line)
        except BaseException:
            if file >= 0:
                os.close(file)
            raise
        if request.follow:
            async for line in follow(path, file):
                await self._log_line(request.id, line)
        self.say(request.id, "logs.end", ok=True)

    async def _log_line(self, id: RequestId, line: str) -> None:
        """A log may be long: this request alone waits for its reader."""
        self.say(id, "logs.line", line=line)
        while self._transport is not None and self._transport.get_write_buffer_size() > MOST_UNREAD // 4:
            await asyncio.sleep(0.02)

    async def shutdown(self, request: ShutdownRequest) -> None:
        self.say(request.id, "shutdown.ack", ok=True)
        self._door.leave(Leaving(keep=request.keep))


def _is_ours(peer: socket.socket) -> bool:
    uid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return uid in (0, os.geteuid())


OPERATIONS: dict[str, tuple[Any, Callable[[Connection, Any], Coroutine[Any, Any, None]]]] = {
    "configure": (ConfigureRequest, Connection.configure),
    "restart": (ScopeRequest, Connection.restart),
    "start": (ScopeRequest, Connection.start),
    "stop": (ScopeRequest, Connection.stop),
    "reload": (ScopeRequest, Connection.reload),
    "status": (ScopeRequest, Connection.status),
    "logs": (LogsRequest, Connection.logs),
    "shutdown": (ShutdownRequest, Connection.shutdown),
}
"""The whole list: a name that is not in it is an error, never a look-up."""
