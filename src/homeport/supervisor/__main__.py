"""`python -m homeport.supervisor --socket PATH --state DIR`: one supervisor per state folder.

Exit status: 0 left as asked, 2 cannot start (said on standard error), 75 left to be started again.
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

import msgspec

from homeport.model.errors import HomeportError, Refused, StateFault
from homeport.supervisor.console import Console, tell_systemd
from homeport.supervisor.crew import Crew
from homeport.supervisor.messages import ConfigureRequest, Leaving
from homeport.supervisor.protocol import Door
from homeport.supervisor.sockets import remove_socket, short
from homeport.supervisor.spawning import Launch, LaunchFault, launch

AGAIN = 75
"""Exit status: whoever keeps this process is to start it again."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m homeport.supervisor")
    parser.add_argument("--socket", required=True, action="append", help="a Unix socket to listen on")
    parser.add_argument("--state", required=True, help="a folder of its own, readable by nobody else")
    parser.add_argument("--ephemeral", action="store_true", help="as PID 1: the state may end with the container")
    parser.add_argument("--units", help="a file with what to run, as in `configure`; removed when it was read")
    parser.add_argument("--dev", action="store_true", help="run exactly those units and show what they print")
    parser.add_argument("--then", nargs=3, metavar=("ROOT", "PROJECT", "ENVIRONMENT"), help="a runner to start then")
    given = parser.parse_args()
    os.umask(0o077)
    try:
        state = _state_folder(given.state)
        _must_outlive_us(state, given.ephemeral)
        lock = _only_one(state)
        try:
            return AGAIN if asyncio.run(_run(given, state)) else 0
        finally:
            os.close(lock)
    except HomeportError as fault:
        sys.stderr.write(f"homeport supervisor: {fault}\nnext: {fault.next}\n")
        return 2


async def _run(given: argparse.Namespace, state: str) -> bool:
    """Until it is to leave; True when it is to be started again."""
    listening = [_listen(path) for path in given.socket]
    loop = asyncio.get_running_loop()
    ask: asyncio.Future[Leaving] = loop.create_future()

    def leave(how: Leaving) -> None:
        if not ask.done():
            ask.set_result(how)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, Leaving(keep=False))
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    console = Console(sys.stdout.fileno() if given.dev else sys.stderr.fileno(), output=given.dev)
    crew = Crew(state, console)
    crew.begin(_units(given.units))
    door = Door(crew, leave)
    servers = [await door.serve(one) for one in listening]
    tell_systemd("READY=1")
    if given.then:
        _start_runner(given.then)
    how = await ask
    tell_systemd("STOPPING=1")
    await crew.end(keep=how.keep)
    for path in given.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for server in servers:
        server.close()
    door.close()
    console.close()
    await asyncio.sleep(0)
    # The loop closes its wake-up socket before its handlers: a child that ends just then must not write to it.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.remove_signal_handler(number)
    return how.again


def _units(path: str | None) -> ConfigureRequest | None:
    """What to run, from the file that `homeport supervise` wrote: it holds environments, so it does not stay."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=ConfigureRequest)
        os.unlink(path)
    except (OSError, msgspec.MsgspecError) as fault:
        raise StateFault(f"what to run cannot be read: {fault}", where=path, next="homeport supervise",
                         code="units") from fault  # fmt: skip
    return found


def _start_runner(words: list[str]) -> None:
    """Ends or resumes the deploy that was interrupted; it outlives this process."""
    argv = [sys.executable, "-m", "homeport.runner", *words]
    try:
        launch(Launch(argv=argv, env={**os.environ, "HOMEPORT_STATE": words[0]}))
    except LaunchFault as fault:
        sys.stderr.write(f"homeport supervisor: the interrupted deploy is not resumed: {fault}\n")


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
        with short(path) as place:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    probe.connect(place)
                    raise Refused("another supervisor listens there", where=path, next="homeport status",
                                  code="running")  # fmt: skip
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_uid not in (os.geteuid(), 0):
                    raise Refused("the socket belongs to another user", where=path, next="choose another with --socket",
                                  code="socket-owner")  # fmt: skip
            remove_socket(path)
            before = os.umask(0o177)
            try:
                # 0600 from its first moment.
                listening.bind(place)
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
