"""A real supervisor in a folder of its own, a client for its socket, free ports, and a steady load on a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.ports import claimed_port

PATIENCE = 20.0
QUIET = 2.0
"""Seconds without an answer, after which a connection is not used again; a process that leaves closes it after three."""
CLAIMS: list[socket.socket] = []


def free_port() -> int:
    """A loopback port that no other test gets while this process runs."""
    port, claim = claimed_port()
    CLAIMS.append(claim)
    return port


def eventually(look: Callable[[], Any], what: str, within: float = PATIENCE) -> Any:
    """The first true answer; fails with `what` when there is none in time."""
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {within:g} s: {what}")


def alive(pid: int) -> bool:
    """It runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


class Client:
    """Speaks the protocol over one connection."""

    def __init__(self, path: Path) -> None:
        self.line = socket.socket(socket.AF_UNIX)
        try:
            folder = os.open(path.parent, os.O_PATH)
            try:
                # the address of a Unix socket has room for 107 bytes, the folders of tests need more
                self.line.connect(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
        except OSError:
            self.line.close()
            raise
        self.line.settimeout(60)
        self.file = self.line.makefile("rb")

    def send(self, data: bytes) -> None:
        self.line.sendall(data)

    def read(self) -> dict[str, Any]:
        line = self.file.readline()
        assert line, "the supervisor closed the connection"
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, op: str, **more: Any) -> list[dict[str, Any]]:
        """Every answer up to the one that ends the request."""
        self.send(json.dumps({"id": 1, "op": op, **more}).encode() + b"\n")
        found = [self.read()]
        while not (found[-1]["type"] in ("error", "status", "shutdown.ack") or found[-1]["type"].endswith(".end")):
            found.append(self.read())
        return found

    def close(self) -> None:
        self.file.close()
        self.line.close()


def status_at(path: Path) -> dict[str, Any] | None:
    """What the supervisor behind a socket says of itself; None while none answers."""
    try:
        client = Client(path)
    except OSError:
        return None
    try:
        return client.ask("status")[-1]
    except (AssertionError, OSError):
        return None
    finally:
        client.close()


def working_in(folder: Path) -> list[int]:
    """Every process that runs and whose folder lies below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(f"{folder}/"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(pid for pid in found if alive(pid))


def started_again(argv: list[str], cwd: Path, env: dict[str, str], out: Path) -> subprocess.Popen[bytes]:
    """Starts a program whenever it ends, in a session of its own; its output goes behind what is in `out`."""
    with out.open("ab") as output:
        return subprocess.Popen(
            ["sh", "-c", 'while :; do "$@"; done', "keeper", *argv], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = folder / "s.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        with open(self.folder / "supervisor.err", "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "homeport.supervisor", "--socket", str(self.socket), "--state", str(self.state)],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd="/",
            )  # fmt: skip
        self.processes.append(self.process)
        eventually(self.answers, "the supervisor answers")

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.errors()
        with contextlib.suppress(OSError, AssertionError):
            return self.one("status")["ok"] is True
        return False

    def errors(self) -> str:
        return (self.folder / "supervisor.err").read_text(errors="replace")

    def ask(self, op: str, **more: Any) -> list[dict[str, Any]]:
        client = Client(self.socket)
        try:
            return client.ask(op, **more)
        finally:
            client.close()

    def one(self, op: str, **more: Any) -> dict[str, Any]:
        return self.ask(op, **more)[-1]

    def unit(self, name: str, command: list[str] | str, **more: Any) -> None:
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **more.pop("env", {})}
        spec = {"name": name, "command": command, "cwd": str(self.folder), "env": env, **more}
        answer = self.one("configure", units=[spec])
        assert answer["type"] == "configure.end", answer

    def restart(self, scope: str) -> dict[str, Any]:
        answers = self.ask("restart", scope=scope)
        assert answers[0]["type"] == "restart.ack", answers
        return answers[-2]

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.one("status", scope=name)["services"][0]
        return found

    def log(self, name: str) -> str:
        path = self.state / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """As the kernel would: nothing can be tidied."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def keeper(self) -> int:
        return int((self.state / "keeper.pid").read_text().split()[0])

    def end(self) -> None:
        """Stops everything by its own means; what is left is a failure, and is killed."""
        if self.process is not None and self.process.poll() is not None:
            self.begin()
        pids = [pid for service in self.one("status")["services"] for pid in (*service["pids"], *service["draining"])]
        pids.append(self.keeper())
        self.one("shutdown")
        assert self.process is not None
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        left = [pid for pid in pids if not _gone_soon(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left and "Traceback" not in self.errors(), (left, self.errors())


def _gone_soon(pid: int) -> bool:
    with contextlib.suppress(AssertionError):
        eventually(lambda: not alive(pid), "gone", 20.0)
        return True
    return False


def rigged(folder: Path) -> Iterator[Rig]:
    rig = Rig(folder)
    rig.begin()
    try:
        yield rig
    finally:
        rig.end()


class Load:
    """A steady stream of requests, half over kept-alive connections, some slow; every answer is looked at."""

    def __init__(self, port: int, rate: float = 200.0, slow: str = "/slow") -> None:
        self.port, self.rate, self.slow = port, rate, slow
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._idle: list[tuple[float, tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = []
        """With the time of its last answer."""

    async def during(self, work: Callable[[], Any], before: float = 0.3, after: float = 0.3) -> Any:
        """Loads while `work` runs in a thread, a little before and after too."""
        stop = asyncio.Event()
        stream = asyncio.ensure_future(self._stream(stop))
        await asyncio.sleep(before)
        try:
            return await asyncio.to_thread(work)
        finally:
            await asyncio.sleep(after)
            stop.set()
            await stream
            for _, (_, writer) in self._idle:
                writer.close()
            await asyncio.sleep(0.01)

    async def _stream(self, stop: asyncio.Event) -> None:
        running: set[asyncio.Task[None]] = set()
        number, began = 0, asyncio.get_running_loop().time()
        while not stop.is_set():
            number += 1
            task = asyncio.ensure_future(self._request(number))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, began + number / self.rate - asyncio.get_running_loop().time()))
        await asyncio.gather(*running)

    async def _request(self, number: int) -> None:
        keep = number % 2 == 0
        path = self.slow if number % 20 == 0 else "/"
        try:
            async with asyncio.timeout(15):
                self.answers.append(await self._ask(path, keep))
        except Exception as fault:
            self.failures.append(f"{path} keep={keep}: {type(fault).__name__} {fault}")

    async def _ask(self, path: str, keep: bool) -> str:
        line = self._kept() if keep else None
        line = line or await asyncio.open_connection("127.0.0.1", self.port)
        again = False
        try:
            answer, again = await self._speak(line, path, keep)
            return answer
        finally:
            if again:
                self._idle.append((time.monotonic(), line))
            else:
                line[1].close()

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that was used lately; one that was silent for seconds may be closed by whoever serves it."""
        now = time.monotonic()
        for _, (_, writer) in (one for one in self._idle if now - one[0] > QUIET):
            writer.close()
        self._idle = [one for one in self._idle if now - one[0] <= QUIET]
        return self._idle.pop()[1] if self._idle else None

    async def _speak(
        self, line: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, keep: bool
    ) -> tuple[str, bool]:
        """The body, and whether the connection may be used again."""
        reader, writer = line
        kind = "keep-alive" if keep else "close"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {kind}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head.split("\r\n")[0], head
        length = next((int(row.split(":")[1]) for row in head.split("\r\n") if row.startswith("content-length:")), None)
        body = await (reader.readexactly(length) if length is not None else reader.read())
        again = keep and "connection: close" not in head and head.startswith("http/1.1") and length is not None
        return body.decode().strip(), again
