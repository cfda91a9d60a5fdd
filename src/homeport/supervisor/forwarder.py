"""The door of a unit with `handoff = "port"`: takes connections at the held socket and carries them to the port that
the unit's newest process listens on.

Run as a file of its own with the standard library only (`python -I -S forwarder.py [USER]`), the listening socket as
descriptor 3, and the ports (text, "41001 41002") in the file that is descriptor 97. SIGHUP: they changed. A connection
stays with its process while an answer is on its way; an HTTP/1 connection between two answers moves on, unseen by its
client. SIGTERM: no new connections, until the last one has ended.
"""

from __future__ import annotations

import asyncio
import functools
import os
import pwd
import re
import signal
import socket
import sys

PORTS = 97
"""Descriptor of the file with the ports."""
PATIENCE = 30.0
"""Seconds that a new connection waits for a process that takes it."""
AGAIN = 0.02
MOST = 256 * 1024
"""Bytes that wait for a slow reader before the other side is paused."""
REQUEST = re.compile(rb"([A-Z]{3,16}) [^ \r\n]{1,8000} HTTP/1\.[01]\r\n")
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
LONGEST_HEAD = 64 * 1024


class Answer:
    """Reads along to know when an HTTP/1 answer is complete. `opaque`: that cannot be known for this connection."""

    def __init__(self) -> None:
        self.opaque = False
        self.pending = False
        """A request is on its way, or its answer."""
        self._bodiless = False
        self._head = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._in_body = False

    def request(self, data: bytes) -> None:
        if self.pending or self.opaque:
            return
        found = REQUEST.match(data)
        self.opaque = found is None
        self.pending = True
        self._bodiless = found is not None and found[1] == b"HEAD"

    def feed(self, data: bytes) -> None:
        while data and not self.opaque:
            data = self._body(data) if self._in_body else self._heading(data)

    def _heading(self, data: bytes) -> bytes:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            self.opaque = len(self._head) > LONGEST_HEAD
            return b""
        head, rest = self._head[: end + 4], self._head[end + 4 :]
        self._head = b""
        status = STATUS.match(head)
        if status is None or status[1] == b"101":
            self.opaque = True
            return b""
        if status[1].startswith(b"1"):
            return rest
        length = LENGTH.search(head)
        if self._bodiless or status[1] in (b"204", b"304"):
            self.pending = False
        elif CHUNKED.search(head):
            self._in_body, self._chunks = True, Chunks()
        elif length:
            self._left = int(length[1])
            self._in_body, self.pending = self._left > 0, self._left > 0
        else:
            self.opaque = True
        return rest

    def _body(self, data: bytes) -> bytes:
        if self._chunks is not None:
            rest = self._chunks.feed(data)
            if self._chunks.ended:
                self._in_body, self._chunks, self.pending = False, None, False
            return rest
        taken = min(self._left, len(data))
        self._left -= taken
        if not self._left:
            self._in_body = self.pending = False
        return data[taken:]


class Chunks:
    """A chunked body; `ended` after its last line."""

    def __init__(self) -> None:
        self.ended = False
        self._line = b""
        self._left = 0
        self._trailing = False

    def feed(self, data: bytes) -> bytes:
        while data and not self.ended:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            end = data.find(b"\n") + 1
            if not end:
                self._line = (self._line + data)[:1024]
                return b""
            line, data = (self._line + data[:end]).strip(), data[end:]
            self._line = b""
            if self._trailing:
                self.ended = not line
            elif line:
                try:
                    size = int(line.split(b";")[0], 16)
                except ValueError:
                    size = 0
                self._trailing = size == 0
                self._left = size + 2 if size else 0
        return data


class Client(asyncio.Protocol):
    """A connection from outside."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.line: asyncio.Transport | None = None
        self.backend: Backend | None = None
        self.answer = Answer()
        self.waiting: list[bytes] = []
        self.ended = False
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.line = transport
        transport.set_write_buffer_limits(high=MOST)
        self.door.clients.add(self)
        self.connect()

    def connect(self) -> None:
        if self.connecting is None:
            assert self.line is not None
            self.line.pause_reading()
            self.connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        backend = await self.door.backend(self)
        self.connecting = None
        if backend is None or self.line is None or self.line.is_closing():
            if backend is not None and backend.line is not None:
                backend.line.abort()
            self.close()
            return
        self.backend = backend
        for data in self.waiting:
            self._send(data)
        self.waiting.clear()
        self.line.resume_reading()
        if self.ended:
            self.eof_received()

    def data_received(self, data: bytes) -> None:
        if self.backend is None:
            self.waiting.append(data)
            self.connect()
            return
        self._send(data)

    def _send(self, data: bytes) -> None:
        self.answer.request(data)
        if self.backend is not None and self.backend.line is not None:
            self.backend.line.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        line = self.backend.line if self.backend is not None else None
        if line is None:
            return self.connecting is not None
        if line.can_write_eof():
            line.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.lost(self)
        self.line = None
        if self.backend is not None and self.backend.line is not None:
            self.backend.line.abort() if exc else self.backend.line.close()

    def pause_writing(self) -> None:
        if self.backend is not None and self.backend.line is not None:
            self.backend.line.pause_reading()

    def resume_writing(self) -> None:
        if self.backend is not None and self.backend.line is not None:
            self.backend.line.resume_reading()

    def close(self) -> None:
        if self.line is not None:
            self.line.close()

    def settle(self) -> None:
        """When nothing is on its way: ends with the door, and leaves a process that is leaving, so that the next
        request meets the new one."""
        backend = self.backend
        if self.answer.pending or self.answer.opaque or self.connecting is not None:
            return
        if self.door.leaving:
            self.close()
        elif backend is not None and backend.port not in self.door.ports:
            self.backend = None
            if backend.line is not None:
                backend.line.abort()


class Backend(asyncio.Protocol):
    """The connection to the unit's own process."""

    def __init__(self, client: Client, port: int) -> None:
        self.client, self.port = client, port
        self.line: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.line = transport
        transport.set_write_buffer_limits(high=MOST)

    def data_received(self, data: bytes) -> None:
        if self.client.line is not None:
            self.client.line.write(data)
        self.client.answer.feed(data)
        self.client.settle()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.line = None
        if self.client.backend is not self:
            return
        self.client.backend = None
        if exc is not None and self.client.line is not None:
            self.client.line.abort()
        else:
            self.client.close()

    def pause_writing(self) -> None:
        if self.client.line is not None:
            self.client.line.pause_reading()

    def resume_writing(self) -> None:
        if self.client.line is not None:
            self.client.line.resume_reading()


class Door:
    def __init__(self) -> None:
        self.ports: list[int] = []
        self.clients: set[Client] = set()
        self.leaving = False
        self.empty = asyncio.Event()
        self._turn = 0

    def read(self) -> None:
        self.ports = [int(word) for word in os.pread(PORTS, 4096, 0).split() if word.isdigit()]
        for client in list(self.clients):
            client.settle()

    async def backend(self, client: Client) -> Backend | None:
        """A connection to one of the processes, in turn; waits while none takes one."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE
        while loop.time() < ends and client.line is not None:
            for _ in self.ports:
                self._turn += 1
                port = self.ports[self._turn % len(self.ports)]
                try:
                    _, found = await loop.create_connection(functools.partial(Backend, client, port), "127.0.0.1", port)
                except OSError:
                    continue
                return found
            await asyncio.sleep(AGAIN)
            self.read()
        return None

    def lost(self, client: Client) -> None:
        self.clients.discard(client)
        if self.leaving and not self.clients:
            self.empty.set()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, self.read)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        self.read()
        listening = socket.socket(fileno=3)
        listening.setblocking(False)
        server = await loop.create_server(lambda: Client(self), sock=listening)
        await stop.wait()
        self.leaving = True
        server.close()
        for client in list(self.clients):
            client.settle()
        if self.clients:
            await self.empty.wait()


def become(user: str) -> None:
    """The unit's user: the interpreter itself may lie where that user cannot start it."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid != os.geteuid():
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        become(name)
    asyncio.run(Door().serve())
