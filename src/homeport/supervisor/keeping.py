"""The supervisor's side of the keeper: starts it, finds it again, and starts another when it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from homeport.model.errors import StateFault
from homeport.supervisor import keeper as program
from homeport.supervisor.records import start_of
from homeport.supervisor.spawning import Launch, LaunchFault, launch

WRITTEN = 2.0
"""Seconds that the last words of an ended child are waited for."""
FIFO = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
PATIENCE = 5.0
"""Seconds the keeper may take to hand over what it holds."""


class Keeping:
    """Descriptors are held here too: the keeper may die, and the next one is given everything again."""

    def __init__(self, state: str, seen: Callable[[str], None]) -> None:
        self._state = state
        self._noted = os.path.join(state, "keeper.pid")
        self._seen = seen
        self._held: dict[str, int] = {}
        self._pipes: dict[str, Mapping[str, Any]] = {}
        self._open: dict[str, int] = {}
        """The FIFO of each child, open here as well: what it said stays in there, however soon it ends."""
        self._ended: set[str] = set()
        """Children that have ended, and whose last words no keeper has written yet."""
        self._asked = 0
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._peer: socket.socket | None = None
        self._closing = False

    def connect(self) -> dict[str, int]:
        """What an earlier supervisor left with the keeper, by key; starts a keeper when none lives."""
        peer = self._dial()
        found: dict[str, int] = {}
        if peer is not None:
            try:
                found = _taken(peer)
            except (OSError, ValueError, LookupError):
                self._kill()
                peer.close()
                peer = None
        self._held = dict(found)
        self._attach(peer or self._begin())
        if peer is None:
            self._tell_all()
        return found

    def put(self, key: str, file: int) -> None:
        """Hands over a descriptor; it stays ours to close with `drop`."""
        self._held[key] = file
        self._say({"op": "put", "key": key}, file)

    def drop(self, key: str) -> None:
        file = self._held.pop(key, None)
        if file is not None:
            os.close(file)
            self._say({"op": "drop", "key": key})

    def pipe(self, id: str, log: str, most: int, keep: int, awaited: str) -> None:
        message = {"op": "pipe", "id": id, "log": log, "bytes": most, "files": keep, "await": awaited}
        self._pipes[id] = message
        with contextlib.suppress(OSError):
            self._open[id] = os.open(os.path.join(self._state, "out", id), FIFO)
        self._say(message, *self._file_of(id))

    def unpipe(self, id: str) -> None:
        """It has ended. Its FIFO stays open here until a keeper has written the rest: that may be the next one."""
        self._ended.add(id)
        self._say_ended(id)

    def _say_ended(self, id: str) -> None:
        self._say({"op": "unpipe", "id": id})
        self._say({"op": "sync", "id": id})

    def _forget(self, id: str) -> None:
        self._ended.discard(id)
        self._pipes.pop(id, None)
        for file in self._file_of(id):
            os.close(file)
        self._open.pop(id, None)

    async def written(self) -> None:
        """Until everything that ended children said is in their logs; not longer than a keeper that lives needs."""
        if self._peer is None:
            return
        self._asked += 1
        id = str(self._asked)
        self._awaited[id] = asyncio.get_running_loop().create_future()
        self._say({"op": "sync", "id": id})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awaited[id], WRITTEN)
        del self._awaited[id]

    def _file_of(self, id: str) -> list[int]:
        return [self._open[id]] if id in self._open else []

    def quit(self) -> None:
        self._closing = True
        self._say({"op": "quit"})

    def leave(self) -> None:
        """Lets go of the keeper and leaves it everything."""
        self._closing = True

    def _dial(self) -> socket.socket | None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(PATIENCE)
        try:
            with self._place() as path:
                peer.connect(path)
        except OSError:
            peer.close()
            return None
        return peer

    def _begin(self) -> socket.socket:
        """Starts a keeper and connects to it; the door is open before it runs, so there is nothing to wait for."""
        with self._place() as path, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            door.bind(path)
            door.listen(4)
            argv = [sys.executable, "-I", "-S", program.__file__, self._state]
            pid = launch(Launch(argv=argv, env={"LANG": "C.UTF-8"}, files={3: door.fileno()}))
        with open(f"{self._noted}.new", "w", encoding="ascii") as file:
            file.write(f"{pid} {start_of(pid)}")
        os.replace(f"{self._noted}.new", self._noted)
        peer = self._dial()
        if peer is None:
            raise StateFault("the keeper does not answer", where=self._state, next="homeport doctor", code="keeper")
        return peer

    def _attach(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._peer = peer
        asyncio.get_running_loop().add_reader(peer, self._hear)

    def _tell_all(self) -> None:
        for key, file in self._held.items():
            self._say({"op": "put", "key": key}, file)
        for id, message in self._pipes.items():
            self._say(message, *self._file_of(id))
            if id in self._ended:
                self._say_ended(id)
        for id in self._awaited:
            self._say({"op": "sync", "id": id})

    def _say(self, message: Mapping[str, Any], *files: int) -> None:
        if self._peer is None:
            return
        try:
            socket.send_fds(self._peer, [json.dumps(message).encode()], files)
        except BlockingIOError:
            # It is alive and does not read: a stopped keeper keeps nothing. `_hear` starts the next.
            self._kill()
        except OSError:
            return

    def _hear(self) -> None:
        peer = self._peer
        if peer is None:
            return
        try:
            data = peer.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            message = json.loads(data)
            id = str(message.get("id"))
            if message.get("op") == "seen":
                self._seen(id)
            elif message.get("op") == "synced" and id in self._ended:
                self._forget(id)
            elif message.get("op") == "synced" and id in self._awaited and not self._awaited[id].done():
                self._awaited[id].set_result(None)
            return
        asyncio.get_running_loop().remove_reader(peer)
        peer.close()
        self._peer = None
        self._again()

    def _again(self) -> None:
        """Another keeper; where none can be started just now, a little later."""
        if self._closing:
            return
        try:
            self._attach(self._begin())
        except (LaunchFault, StateFault, OSError) as fault:
            sys.stderr.write(f"homeport supervisor: no keeper can be started: {fault}\n")
            asyncio.get_running_loop().call_later(1.0, self._again)
            return
        self._tell_all()

    def _kill(self) -> None:
        """By the noted pid and start time: the socket's peer credentials are those of who opened the door, us."""
        with contextlib.suppress(OSError, ValueError):
            with open(self._noted, encoding="ascii") as file:
                pid, start = map(int, file.read().split())
            if start and start_of(pid) == start:
                os.kill(pid, signal.SIGKILL)

    def _place(self) -> _Place:
        return _Place(self._state)


class _Place:
    """A short path of the keeper's socket: that of a Unix socket may have 107 bytes, a state folder's more."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._folder = -1

    def __enter__(self) -> str:
        self._folder = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/keeper.sock"

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def _taken(peer: socket.socket) -> dict[str, int]:
    peer.send(b'{"op":"take"}')
    found: dict[str, int] = {}
    while True:
        data, files, _, _ = socket.recv_fds(peer, 65536, 1)
        if not data:
            raise OSError("the keeper closed the connection")
        message = json.loads(data)
        if message["op"] == "end":
            return found
        if message["op"] == "item":
            found[message["key"]] = files[0]
