"""The keeper: holds descriptors and reads the children's output, so that both outlive a killed supervisor.

Run as a file of its own with the standard library only (`python -I -S keeper.py STATE`), its listening socket
as descriptor 3. One supervisor at a time talks to it in packets of JSON, descriptors attached:

    put KEY +fd    drop KEY    take -> item KEY +fd ..., end    pipe ID LOG ... +fd    unpipe ID
    sync ID -> synced ID    quit

and it says `seen ID` when an awaited text appeared in the output of ID. It reads `out/ID`, a FIFO that each child
holds open in both directions, so a child never sees a broken pipe, whoever is killed.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys

CHUNK = 64 * 1024
"""Bytes read at once; a line that is longer is written in pieces."""
IDLE = 200
"""Milliseconds after which an unfinished line is written."""
ALONE = 1000
"""Milliseconds between two looks, without a supervisor, whether one could still find us."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Message = dict[str, Any]


class Log:
    """One unit's log file, put aside by size. What cannot be written is dropped: output never stops a child."""

    def __init__(self, path: str, most: int, keep: int) -> None:
        self.path, self.most, self.keep = path, most, keep
        self.file, self.size = -1, 0

    def write(self, data: bytes) -> None:
        while data:
            if self.file < 0 and not self._open():
                return
            if self.size and self.size + len(data) > self.most:
                self._put_aside()
                continue
            piece = data[: self.most]
            try:
                self.size += os.write(self.file, piece)
            except OSError:
                return
            data = data[len(piece) :]

    def _open(self) -> bool:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = os.open(self.path, flags, 0o600)
            self.size = os.fstat(self.file).st_size
        except OSError:
            self.file = -1
        return self.file >= 0

    def _put_aside(self) -> None:
        self.close()
        self.size = 0
        with contextlib.suppress(OSError):
            for number in range(self.keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            os.replace(self.path, f"{self.path}.1")
            return
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = -1


class Pipe:
    """The output of one child: whole lines are written to its log, so that lines of two never mix."""

    def __init__(self, name: str, file: int, log: Log, awaited: str) -> None:
        self.name, self.file, self.log = name, file, log
        self.awaited, self.rest = awaited.encode(), b""

    def read(self) -> bool | None:
        """True when the awaited text was seen now; None when there is nothing to read."""
        try:
            data = os.read(self.file, CHUNK)
        except BlockingIOError:
            return None
        if not data:
            return None
        data = self.rest + data
        end = data.rfind(b"\n") + 1
        if len(data) - end >= CHUNK:
            end = len(data)
        seen = bool(self.awaited) and self.awaited in data
        if seen:
            self.awaited = b""
        self.rest = data[end:]
        self.log.write(data[:end])
        return seen

    def flush(self) -> None:
        if self.rest:
            self.log.write(self.rest)
            self.rest = b""

    def finish(self) -> None:
        """Reads what is left, a bounded amount: others may still write."""
        for _ in range(64):
            if self.read() is None:
                break
        if self.rest:
            self.log.write(self.rest + b"\n")
        os.close(self.file)


class Keeper:
    def __init__(self, state: str) -> None:
        self.state = state
        self.door = socket.socket(fileno=3)
        self.door.setblocking(False)
        self.peer: socket.socket | None = None
        self.held: dict[str, int] = {}
        self.pipes: dict[int, Pipe] = {}
        self.logs: dict[str, Log] = {}
        self.poll = select.poll()
        self.poll.register(self.door, select.POLLIN)
        self.here = self.place()

    def serve(self) -> None:
        while True:
            unfinished = any(pipe.rest for pipe in self.pipes.values())
            ready = self.poll.poll(IDLE if unfinished else ALONE if self.peer is None else None)
            if not ready:
                for pipe in self.pipes.values():
                    pipe.flush()
                if self.peer is None and not (self.here and self.place() == self.here):
                    return
            for file, _ in ready:
                if file == self.door.fileno():
                    self.accept()
                elif self.peer is not None and file == self.peer.fileno():
                    self.listen()
                elif file in self.pipes:
                    pipe = self.pipes[file]
                    if pipe.read():
                        self.say({"op": "seen", "id": pipe.name})

    def place(self) -> int:
        """Inode of our socket's file; 0 when it is gone, and with it the way to whatever we hold."""
        with contextlib.suppress(OSError):
            return os.lstat(f"{self.state}/keeper.sock").st_ino
        return 0

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self.door.accept()
            ucred = array.array("i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if ucred[1] not in (0, os.geteuid()):
                peer.close()
                return
            self.leave()
            self.peer = peer
            self.poll.register(peer, select.POLLIN)

    def leave(self) -> None:
        if self.peer is not None:
            self.poll.unregister(self.peer)
            self.peer.close()
            self.peer = None

    def say(self, message: Message, files: Sequence[int] = ()) -> None:
        if self.peer is None:
            return
        try:
            socket.send_fds(self.peer, [json.dumps(message).encode()], list(files))
        except OSError:
            self.leave()

    def listen(self) -> None:
        if self.peer is None:
            return
        try:
            data, files, _, _ = socket.recv_fds(self.peer, CHUNK, 4)
        except OSError:
            data, files = b"", []
        if not data:
            self.leave()
            return
        message: Message = json.loads(data)
        operation = OPERATIONS.get(message["op"])
        if operation is None:
            for file in files:
                os.close(file)
            return
        operation(self, message, files)

    def put(self, message: Message, files: Sequence[int]) -> None:
        self.drop(message, ())
        if files:
            self.held[message["key"]] = files[0]

    def drop(self, message: Message, files: Sequence[int]) -> None:
        file = self.held.pop(message["key"], None)
        if file is not None:
            os.close(file)

    def take(self, message: Message, files: Sequence[int]) -> None:
        for key, file in list(self.held.items()):
            self.say({"op": "item", "key": key}, [file])
        self.say({"op": "end", "pipes": [pipe.name for pipe in self.pipes.values()]})

    def pipe(self, message: Message, files: Sequence[int]) -> None:
        name, path = message["id"], message["log"]
        log = self.logs.setdefault(path, Log(path, message["bytes"], message["files"]))
        log.most, log.keep = message["bytes"], message["files"]
        if any(pipe.name == name for pipe in self.pipes.values()):
            for file in files:
                os.close(file)
            return
        with contextlib.suppress(OSError):
            how = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            file = files[0] if files else os.open(f"{self.state}/out/{name}", how)
            self.pipes[file] = Pipe(name, file, log, message.get("await") or "")
            self.poll.register(file, select.POLLIN)

    def unpipe(self, message: Message, files: Sequence[int]) -> None:
        for file, pipe in list(self.pipes.items()):
            if pipe.name == message["id"]:
                self.poll.unregister(file)
                del self.pipes[file]
                pipe.finish()
                if not any(other.log is pipe.log for other in self.pipes.values()):
                    pipe.log.close()
                    self.logs.pop(pipe.log.path, None)
        with contextlib.suppress(OSError):
            os.unlink(f"{self.state}/out/{message['id']}")

    def sync(self, message: Message, files: Sequence[int]) -> None:
        """All that came before is done: the last words of a child are in its log."""
        self.say({"op": "synced", "id": message["id"]})

    def quit(self, message: Message, files: Sequence[int]) -> None:
        for pipe in self.pipes.values():
            pipe.finish()
        sys.exit(0)


OPERATIONS: dict[str, Callable[[Keeper, Message, Sequence[int]], None]] = {
    "put": Keeper.put, "drop": Keeper.drop, "take": Keeper.take,
    "pipe": Keeper.pipe, "unpipe": Keeper.unpipe, "sync": Keeper.sync,
    "quit": Keeper.quit,
}  # fmt: skip


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Keeper(sys.argv[1]).serve()
