"""The keeper: holds descriptors and reads the children's output, so that both outlive a killed supervisor.

Run as a file of its own with the standard library only (`python -I -S keeper.py STATE`), its listening socket
as descriptor 3. One supervisor at a time talks to it in packets of JSON, descriptors attached:

    put KEY +fd    drop KEY    take -> item KEY +fd ..., end    pipe ID LOG ... +fd    unpipe ID
    sync ID -> synced ID    quit

and it says `seen ID` when an awaited text appeared in the output of ID. It reads `out/ID`, a FIFO that each child
holds open in both directions, so a child never sees a broken pipe, whoever is killed. What was said is looked at in the
FIFO and moved to the log by one call of the kernel: a keeper that is killed has lost no line, and its successor finds none
a second time.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys

CHUNK = 64 * 1024
"""Bytes looked at at once; a line that is longer is written in pieces."""
IDLE = 0.2
"""Seconds after which an unfinished line is written."""
ALONE = 1.0
"""Seconds between two looks, without a supervisor, whether one could still find us."""
AT_ONCE = 2
"""`SPLICE_F_NONBLOCK`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Message = dict[str, Any]


class Log:
    """One unit's log file, put aside by size. What cannot be written is dropped: output never stops a child."""

    def __init__(self, path: str, most: int, keep: int) -> None:
        self.path, self.most, self.keep = path, most, keep
        self.file = -1

    def take(self, fifo: int, count: int) -> None:
        """Moves so many bytes from there to the end of the log."""
        while count > 0:
            piece = min(count, self.most)
            end = self._end(piece)
            moved = self._move(fifo, piece, end) if end >= 0 else 0
            if moved <= 0:
                break
            count -= moved
        with contextlib.suppress(BlockingIOError):
            while count > 0:
                count -= len(os.read(fifo, count))

    def end_line(self) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self.file, b"\n", os.fstat(self.file).st_size)

    def _end(self, piece: int) -> int:
        """Where so much may be added: to this file or to the next; -1 when there is none."""
        if self.file < 0 and not self._open():
            return -1
        end = os.fstat(self.file).st_size
        if end and end + piece > self.most:
            self._put_aside()
            return os.fstat(self.file).st_size if self._open() else -1
        return end

    def _move(self, fifo: int, piece: int, end: int) -> int:
        """A file system that cannot be moved to is written to."""
        try:
            return os.splice(fifo, self.file, piece, offset_dst=end, flags=AT_ONCE)
        except OSError as fault:
            if fault.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                return 0
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(fifo, piece)
            os.pwrite(self.file, data, end)
        return len(data)

    def _open(self) -> bool:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = os.open(self.path, flags, 0o600)
        except OSError:
            self.file = -1
        return self.file >= 0

    def _put_aside(self) -> None:
        self.close()
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
    """The output of one child: whole lines are moved to its log, so that lines of two never mix."""

    def __init__(self, name: str, file: int, log: Log, awaited: str) -> None:
        self.name, self.file, self.log = name, file, log
        self.awaited = awaited.encode()
        self.whole = self.rest = 0
        """Bytes of whole lines that wait there, and of the unfinished one behind them."""
        self.waits = False
        """We are woken only when something is added."""

    def look(self) -> bool:
        """Looks at what waits; true when the awaited text is seen now."""
        data = peek(self.file)
        self.whole = data.rfind(b"\n") + 1
        self.rest = len(data) - self.whole
        if not self.whole and self.is_full():
            self.whole, self.rest = len(data), 0
        seen = bool(self.awaited) and self.awaited in data
        if seen:
            self.awaited = b""
        return seen

    def is_full(self) -> bool:
        """Whether the child has to wait before it can go on with its line."""
        looks = select.poll()
        looks.register(self.file, select.POLLOUT)
        return not looks.poll(0)

    def move(self) -> None:
        self.log.take(self.file, self.whole)
        self.whole = 0

    def flush(self) -> None:
        """The beginning of a line that is not finished soon."""
        self.whole, self.rest = self.whole + self.rest, 0
        self.move()

    def finish(self) -> None:
        """Moves what is left, a bounded amount: others may still write."""
        for _ in range(64):
            self.look()
            if not self.whole:
                break
            self.move()
        if self.rest:
            self.flush()
            self.log.end_line()
        os.close(self.file)


def make_peek() -> Callable[[int], bytes]:
    """What waits in a FIFO, which stays there: a copy of it goes through a pipe of our own."""
    tee = ctypes.CDLL(None, use_errno=True).tee
    tee.restype, tee.argtypes = ctypes.c_ssize_t, (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
    back, forth = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def peek(fifo: int) -> bytes:
        return os.read(back, CHUNK) if tee(fifo, forth, CHUNK, AT_ONCE) > 0 else b""

    return peek


peek = make_peek()


class Keeper:
    def __init__(self, state: str) -> None:
        self.state = state
        self.door = socket.socket(fileno=3)
        self.door.setblocking(False)
        self.peer: socket.socket | None = None
        self.held: dict[str, int] = {}
        self.pipes: dict[int, Pipe] = {}
        self.logs: dict[str, Log] = {}
        self.poll = select.epoll()
        self.poll.register(self.door, select.EPOLLIN)
        self.here = self.place()

    def serve(self) -> None:
        while True:
            unfinished = any(pipe.rest for pipe in self.pipes.values())
            ready = self.poll.poll(IDLE if unfinished else ALONE if self.peer is None else None)
            if not ready:
                for pipe in self.pipes.values():
                    if pipe.rest:
                        pipe.flush()
                        self.watch(pipe)
                if self.peer is None and not (self.here and self.place() == self.here):
                    return
            for file, _ in ready:
                if file == self.door.fileno():
                    self.accept()
                elif self.peer is not None and file == self.peer.fileno():
                    self.listen()
                elif file in self.pipes:
                    self.hear(self.pipes[file])

    def hear(self, pipe: Pipe) -> None:
        seen = pipe.look()
        pipe.move()
        self.watch(pipe)
        if seen:
            self.say({"op": "seen", "id": pipe.name})

    def watch(self, pipe: Pipe) -> None:
        """An unfinished line stays where it is, and wakes us again when something is added to it. That is told once:
        each telling wakes us for what is there already."""
        if pipe.waits != bool(pipe.rest):
            pipe.waits = bool(pipe.rest)
            self.poll.modify(pipe.file, select.EPOLLIN | (select.EPOLLET if pipe.waits else 0))

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
            self.poll.register(peer, select.EPOLLIN)

    def leave(self) -> None:
        if self.peer is not None:
            self.poll.unregister(self.peer)
            self.peer.close()
            self.peer = None

    def say(self, message: Message, files: Sequence[int] = ()) -> None:
        if self.peer is None:
            return
        with contextlib.suppress(OSError):  # it has left: what it said before is still to be heard
            socket.send_fds(self.peer, [json.dumps(message).encode()], list(files))

    def listen(self) -> None:
        if self.peer is None:
            return
        data, files = b"", list[int]()
        with contextlib.suppress(OSError):
            try:
                data, files, _, _ = socket.recv_fds(self.peer, CHUNK, 4)
            except ConnectionResetError:  # told once, when it has left without reading all; its own words come behind
                data, files, _, _ = socket.recv_fds(self.peer, CHUNK, 4)
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
            self.poll.register(file, select.EPOLLIN)

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
