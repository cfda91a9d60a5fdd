"""The installed program in a process that has loaded it once and forks for each command.

A start from nothing costs a tenth of a second of a core, and a scenario has dozens of them. The forked process has
its own folder, variables, standard streams and exit code, as any start has; what it shares with the others is what
`LOADED` names and what a deploy loads ahead: libraries, and the program's core without any verb. Run as a script,
this file is that process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

LOADED = ("homeport.cli.main", "homeport.wiring", "rich.console", "rich.table")
LONGEST = 20_000
"""Bytes of a command and its variables; a longer one is started from nothing."""
STARTED_WITH = ("LANG", "LC_", "PYTHON", "LD_", "TZ")
"""Variables that decide how an interpreter starts; a command that has its own is started from nothing."""
RUNNER = ["-m", "homeport.runner"]
"""The one command besides the program's own; it stops before it begins."""
BEFORE = "HOMEPORT_TEST_BEFORE"
"""A variable: the file of Python that a runner carries out before it begins."""
LANGUAGE = {"LANG": "C.UTF-8"}
ROOM = "-" * 20_000
"""Kept free in the command line and the variables of the process that forks, for those of each command."""


class Loaded:
    """The process that forks, and what is asked of it; `preload` is a library that stands before all others there."""

    def __init__(self, preload: str = "") -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            env = {**LANGUAGE, "ROOM": ROOM, **({"LD_PRELOAD": preload} if preload else {})}
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), ROOM], env=env, cwd="/",
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._one_at_a_time = threading.Lock()

    @staticmethod
    def takes(argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether this command can be forked: its variables change nothing of how an interpreter starts."""
        odd = {k: v for k, v in env.items() if k.startswith(STARTED_WITH)} != LANGUAGE
        return not odd and sum(len(word) + 1 for word in (*argv, *env, *env.values())) < LONGEST

    def run(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with its output captured; raises TimeoutExpired, after it has killed the process."""
        return self._end(argv, self._fork(argv, cwd, env), timeout)

    def run_beside(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], beside: Sequence[str], timeout: float
    ) -> int:
        """The same for a runner, which begins when the tracer that `beside` starts (with `-p PID`), if it names one, looks
        on; its exit code.

        `argv` is `-m homeport.runner …`; what the tracer counts begins after everything is loaded.
        """
        ours = self._fork(argv, cwd, env)
        pid = _first_word(ours[2])
        _until(pid, "State:\tT")
        if not beside:
            os.kill(int(pid), signal.SIGCONT)
            return self._end(argv, ours, timeout, pid).returncode
        with subprocess.Popen([*beside, "-p", pid], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
            _until(pid, "State:\tT", "State:\tt", tracer=tracer.pid)
            os.kill(int(pid), signal.SIGCONT)
            return self._end(argv, ours, timeout, pid).returncode

    def _fork(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, ...]:
        """Where it will write its output, its errors, and how it went."""
        request = json.dumps({"argv": list(argv), "cwd": str(cwd), "env": dict(env)}).encode()
        ours, inner = zip(*(os.pipe() for _ in range(3)), strict=True)
        try:
            with self._one_at_a_time:
                socket.send_fds(self._door, [request], list(inner))
        finally:
            for end in inner:
                os.close(end)
        return ours

    def _end(
        self, argv: Sequence[str], ours: tuple[int, ...], timeout: float, known: str = ""
    ) -> subprocess.CompletedProcess[str]:
        try:
            out, err, told = _read_all(ours, time.monotonic() + timeout)
        finally:
            for end in ours:
                os.close(end)
        pid, *code = known.encode().split() + told.split()
        if not code:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(argv), timeout)
        return subprocess.CompletedProcess(list(argv), int(code[0]), _text(out), _text(err))

    def close(self) -> None:
        self._door.close()
        self._process.wait(20)


@cache
def loaded(preload: str = "") -> Loaded:
    """That of this worker; it ends with it."""
    made = Loaded(preload)
    atexit.register(made.close)
    return made


def _text(said: bytes) -> str:
    return said.decode().replace("\r\n", "\n").replace("\r", "\n")


def _read_all(ends: Sequence[int], deadline: float) -> list[bytes]:
    """What comes out of each pipe until all are closed, or until the deadline."""
    said, poll = dict.fromkeys(ends, b""), select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    left = set(ends)
    while left and time.monotonic() < deadline:
        for end, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            piece = os.read(end, 65536)
            said[end] += piece
            if not piece:
                poll.unregister(end)
                left.discard(end)
    return [said[end] for end in ends]


def _first_word(end: int) -> str:
    """What is written there first, up to a space."""
    said = b""
    while not said.endswith(b" "):
        said += os.read(end, 1)
    return said.decode().strip()


def _until(pid: str, *states: str, tracer: int = 0) -> None:
    """Waits until that process has stopped, and until that tracer looks on."""
    deadline = time.monotonic() + 20
    while True:
        said = Path(f"/proc/{pid}/status").read_text()
        if any(state in said for state in states) and f"TracerPid:\t{tracer}\n" in said:
            return
        assert time.monotonic() < deadline, said
        time.sleep(0.001)


# the process itself


class Forking:
    """Forks for every request; whoever asked is told the process id, and when it has ended its exit code."""

    def __init__(self, door: socket.socket) -> None:
        self.door, self.poll = door, select.poll()
        self.poll.register(door, select.POLLIN)
        self.running: dict[int, tuple[int, int]] = {}
        """What says that a process has ended -> its id, and where its exit code is waited for."""

    def serve(self) -> list[str] | None:
        """Returns in each forked process what it was asked to run, in the first one None when nobody asks any more."""
        while True:
            for ready, _ in self.poll.poll():
                if ready in self.running:
                    self.ended(ready)
                    continue
                request, ends, _, _ = socket.recv_fds(self.door, 8 * LONGEST, 3, socket.MSG_CMSG_CLOEXEC)
                if not request:
                    return None
                pid = os.fork()
                if pid == 0:
                    return self.become(json.loads(request), ends)
                os.write(ends[2], b"%d " % pid)
                os.close(ends[0])
                os.close(ends[1])
                watch = os.pidfd_open(pid)
                self.running[watch] = (pid, ends[2])
                self.poll.register(watch, select.POLLIN)

    def ended(self, watch: int) -> None:
        pid, told = self.running.pop(watch)
        self.poll.unregister(watch)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(BrokenPipeError):
            os.write(told, b"%d" % code)
        os.close(told)
        os.close(watch)

    def become(self, request: dict[str, object], ends: list[int]) -> list[str]:
        """This process is the command from here on."""
        self.door.close()
        for watch, (_, told) in self.running.items():
            os.close(watch)
            os.close(told)
        os.dup2(ends[0], 1)
        os.dup2(ends[1], 2)
        for end in ends:
            os.close(end)
        argv, env = request["argv"], request["env"]
        assert isinstance(argv, list) and isinstance(env, dict)
        os.chdir(str(request["cwd"]))
        os.environ.clear()
        os.environ.update(env)
        _show([sys.executable, *argv], 45)
        _show([f"{name}={value}" for name, value in env.items()], 47)
        return argv


def _show(words: list[str], field: int) -> None:
    """Puts these words where `/proc/PID/cmdline` (field 45 of its stat, from 0) or `environ` (47) are read from."""
    with open("/proc/self/stat", "rb") as stat:
        start, end = map(int, stat.read().rpartition(b")")[2].split()[field : field + 2])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(text[: end - start].ljust(end - start, b"\0"))


def main() -> int | None:
    for name in LOADED:
        importlib.import_module(name)
    importlib.import_module("homeport.wiring_ahead").load_ahead()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as door:
        argv = Forking(door).serve()
    if argv is None:
        return 0
    sys.argv = argv
    if argv[:2] == RUNNER:
        from homeport.runner import main as runner

        os.kill(os.getpid(), signal.SIGSTOP)
        before = os.environ.pop(BEFORE, "")
        if before:
            exec(Path(before).read_text(), {})
        os._exit(runner(argv[2:]))
    from homeport.cli.main import main as program

    return program()


if __name__ == "__main__":
    sys.exit(main())
