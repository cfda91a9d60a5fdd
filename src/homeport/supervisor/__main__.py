"""`python -m homeport.supervisor --socket PATH --state DIR`: one supervisor per state folder.

Exit status: 0 left as asked, 2 cannot start (said on standard error).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys

from homeport.model.errors import HomeportError, Refused, StateFault
from homeport.supervisor.crew import Crew
from homeport.supervisor.protocol import Door
from homeport.supervisor.sockets import remove_socket


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m homeport.supervisor")
    parser.add_argument("--socket", required=True, help="the Unix socket to listen on")
    parser.add_argument("--state", required=True, help="a folder of its own, readable by nobody else")
    parser.add_argument("--ephemeral", action="store_true", help="as PID 1: the state may end with the container")
    given = parser.parse_args()
    os.umask(0o077)
    try:
        state = _state_folder(given.state)
        _must_outlive_us(state, given.ephemeral)
        lock = _only_one(state)
        try:
            asyncio.run(_run(given.socket, state))
        finally:
            os.close(lock)
    except HomeportError as fault:
        sys.stderr.write(f"homeport supervisor: {fault}\nnext: {fault.next}\n")
        return 2
    return 0


async def _run(path: str, state: str) -> None:
    listening = _listen(path)
    loop = asyncio.get_running_loop()
    ask: asyncio.Future[bool] = loop.create_future()

    def leave(keep: bool) -> None:
        if not ask.done():
            ask.set_result(keep)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, False)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    crew = Crew(state)
    crew.begin()
    door = Door(crew, leave)
    server = await door.serve(listening)
    keep = await ask
    await crew.end(keep=keep)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server.close()
    door.close()
    await asyncio.sleep(0)
    # The loop closes its wake-up socket before its handlers: a child that ends just then must not write to it.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.remove_signal_handler(number)


def _state_folder(path: str) -> str:
    state = os.path.abspath(path)
    try:
        for folder in (state, os.path.join(state, "out"), os.path.join(state, "logs")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            found = os.lstat(folder)
            if found.st_uid != os.geteuid():
                raise StateFault("the state folder belongs to somebody else", where=folder,
                                 next="choose another with --state", code="state-owner")  # fmt: skip
            os.chmod(folder, 0o700)
    except OSError as fault:
        raise StateFault(f"the state folder cannot be made: {fault}", where=state,
                         next="choose another with --state", code="state") from fault  # fmt: skip
    return state


def _must_outlive_us(state: str, ephemeral: bool) -> None:
    """As PID 1 everything ends with the container: the state must lie on a volume."""
    if os.getpid() == 1 and not ephemeral and os.stat(state).st_dev == os.stat("/").st_dev:
        raise Refused("the state folder would end with this container", where=state,
                      next="mount a volume there, or say --ephemeral", code="state-volume")  # fmt: skip


def _only_one(state: str) -> int:
    lock = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        raise Refused("another supervisor has this state folder", where=state, next="homeport status",
                      code="running") from fault  # fmt: skip
    return lock


def _listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                probe.connect(path)
                raise Refused("another supervisor listens there", where=path, next="homeport status", code="running")
        remove_socket(path)
        before = os.umask(0o177)
        try:
            # 0600 from its first moment.
            listening.bind(path)
        finally:
            os.umask(before)
        listening.listen(128)
        listening.setblocking(False)
    except OSError as fault:
        raise StateFault(f"cannot listen on the socket: {fault}", where=path, next="choose another with --socket",
                         code="socket") from fault  # fmt: skip
    return listening


if __name__ == "__main__":
    sys.exit(main())
