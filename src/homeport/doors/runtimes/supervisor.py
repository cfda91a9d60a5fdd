"""The `supervisor` runtime: asks the built-in supervisor over its socket, one JSON object a line.

Each restart hands over the unit as it should be and then asks for the restart, so the supervisor needs no
configuration of its own; until the new process is ready, the old configuration stays the one that counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, cast

import msgspec

from homeport.doors.runtimes.surroundings import environment_of
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import OnLine
from homeport.model.running import Restarted, Unit, UnitState

QUICK = 10.0
"""Seconds an answer may take that needs no process to start or stop."""
MARGIN = 30.0
"""Seconds beyond its own deadlines that a restart may take."""
RETURN = 15.0
"""Seconds in which a supervisor that ended while it was asked has to be started again."""
EVERY = 0.05
LONGEST_ANSWER = 4 * 1024 * 1024
STATES = {"running", "stopped", "failed", "restarting"}


class SupervisorRuntime:
    """Satisfies Runtime and Overseer. `path` is the socket of the supervisor that serves this project."""

    name = "supervisor"

    def __init__(self, path: str) -> None:
        self._path = path

    def inspect(self, unit: Unit) -> UnitState:
        """`unknown` when no supervisor answers: its children may run all the same."""
        try:
            with _Line(self._path, QUICK) as line:
                answer = line.ask({"op": "status", "scope": unit.name})
        except InfrastructureFault as fault:
            return UnitState(state="unknown", detail=fault.what, unreachable=fault.what, returning=self.returns())
        if answer.get("type") == "error":
            return UnitState(state="missing", detail="the supervisor does not know it")
        found = answer["services"][0]
        state = found["state"] if found["state"] in STATES else "unknown"
        return UnitState(
            state=cast(Any, state), pid=found["pid"], restarts=found["restarts"], started_at=found["startedAt"],
            detail=found["detail"],
        )  # fmt: skip

    def returns(self) -> bool:
        """Whether one that does not answer was killed: one that leaves takes its socket with it."""
        return os.path.lexists(self._path)

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises Failed: codes `unregistered`, `bad-unit`, `not-ready` (the old process keeps serving);
        InfrastructureFault (code `no-supervisor`) when none answers."""
        if not unit.command:
            raise Failed(
                f"{unit.service} has no command for the supervisor to run", where=f"services.{unit.service}.command",
                next="homeport check", code="unregistered",
            )  # fmt: skip
        done, answer = self._started(unit, spec_of(unit))
        if not done.get("ok"):
            for text in done.get("tail", []):
                on_line("stderr", text)
            raise Failed(
                f"{unit.service} did not come up: {done.get('why') or answer.get('message') or 'no reason was given'}",
                where=unit.cwd, next=f"homeport logs {unit.service}", code="not-ready",
            )  # fmt: skip
        return Restarted(pid=done.get("pid"), registered=bool(done.get("registered")))

    def _started(self, unit: Unit, spec: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer for this unit, and the last answer. One that ended since the deploy began, or ends meanwhile, is
        waited for and asked again: what it had begun, its successor has ended."""
        before = self.run()
        try:
            return self._start(unit, spec)
        except InfrastructureFault:
            ends = time.monotonic() + RETURN
            while time.monotonic() < ends:
                time.sleep(EVERY)
                if self.run() not in (None, before):
                    return self._start(unit, spec)
            raise

    def _start(self, unit: Unit, spec: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        with _Line(self._path, _patience(unit)) as line:
            answer = line.ask({"op": "configure", "units": [spec], "scopes": unit.scopes})
            if answer.get("type") == "error":
                raise Failed(f"the supervisor cannot run {unit.service}: {answer.get('message')}",
                             where=f"services.{unit.service}", next="homeport check", code="bad-unit")  # fmt: skip
            running = line.ask({"op": "status", "scope": spec["name"]})["services"][0]["pid"] is not None
            op = "reload" if unit.on_change == "reload" and running and "carries" not in spec else "restart"
            done: dict[str, Any] = {}
            for answer in line.each({"op": op, "scope": spec["name"]}):
                if answer.get("type") == f"{op}.done":
                    done = answer
        return done, answer

    def run(self) -> str | None:
        """As `Overseer.run`."""
        try:
            with _Line(self._path, QUICK) as line:
                return str(line.ask({"op": "status"}).get("run") or "") or None
        except InfrastructureFault:
            return None

    def leave(self) -> None:
        """As `Overseer.leave`; one that is gone before it has answered has left too."""
        with contextlib.suppress(InfrastructureFault), _Line(self._path, QUICK) as line:
            line.ask({"op": "restart", "scope": "supervisor"})

    def has_door(self, unit: Unit) -> bool:
        """Whether a supervisor was ever told to carry connections to this service; asks nobody."""
        return os.path.exists(os.path.join(os.path.dirname(self._path), "supervisor", f"ports.{door_of(unit)}"))

    def carried(self, unit: Unit) -> dict[str, int]:
        """Which processes connections to this service are carried to: their names and ports. Raises
        InfrastructureFault (code `no-supervisor`)."""
        with _Line(self._path, QUICK) as line:
            answer = line.ask({"op": "status", "scope": door_of(unit)})
        return {} if answer.get("type") == "error" else dict(answer["services"][0].get("carries", {}))

    def carry(self, unit: Unit, to: Mapping[str, int]) -> None:
        """New connections to what the unit listens on are carried there from now on.

        Raises Failed (code `not-ready`: nothing has changed, the address belongs to somebody else perhaps),
        InfrastructureFault.
        """
        done, answer = self._started(unit, {
            "name": door_of(unit), "listen": list(unit.listen), "carries": dict(to), "user": unit.user,
            "drain": float(unit.drain), "stop_timeout": float(unit.stop_timeout),
        })  # fmt: skip
        if not done.get("ok"):
            raise Failed(
                f"{unit.service} has no door: {done.get('why') or answer.get('message') or 'no reason was given'}",
                where=f"services.{unit.service}.listen", next=f"homeport logs {unit.service}", code="not-ready",
            )  # fmt: skip

    def close_door(self, unit: Unit) -> None:
        """Nothing is carried to this service any more, and its address is free."""
        self._remove(unit, door_of(unit))

    def forget(self, unit: Unit) -> None:
        """Stops and removes it; nothing to do when it is not known."""
        self._remove(unit, unit.name)

    def _remove(self, unit: Unit, name: str) -> None:
        with _Line(self._path, _patience(unit)) as line:
            answer = line.ask({"op": "configure", "remove": [name]})
        if answer.get("type") == "error":
            raise Failed(f"the supervisor could not remove {unit.service}: {answer.get('message')}", where=self._path,
                         next="homeport doctor", code="forget")  # fmt: skip

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        with _Line(self._path, None if follow else MARGIN) as line:
            for answer in line.each({"op": "logs", "service": unit.name, "lines": lines, "follow": follow}):
                if answer.get("type") == "logs.line":
                    yield str(answer["line"])
                elif answer.get("type") == "error":
                    yield f"the supervisor does not know {unit.name}"


def door_of(unit: Unit) -> str:
    """The supervisor's unit that carries connections to processes of another runtime."""
    return f"{unit.service}@door"


def _patience(unit: Unit) -> float:
    """Seconds of silence that a restart may need: getting ready, then draining and stopping the old, both bounded."""
    ready = float(unit.ready.timeout) if unit.ready else 30.0
    return ready + 2 * (unit.drain + unit.stop_timeout) + MARGIN


def spec_of(unit: Unit) -> dict[str, Any]:
    """The unit with the keys of the supervisor's own UnitSpec."""
    spec: dict[str, Any] = {
        "name": unit.name, "command": unit.command, "cwd": unit.cwd, "env": environment_of(unit), "user": unit.user,
        "listen": list(unit.listen), "handoff": unit.handoff, "replicas": unit.replicas, "signal": unit.signal,
        "stop_timeout": float(unit.stop_timeout), "drain": float(unit.drain),
    }  # fmt: skip
    if unit.ready is not None:
        ready = unit.ready
        spec["ready"] = {"http": ready.http, "tcp": ready.tcp, "line": ready.line, "notify": ready.notify,
                         "timeout": float(ready.timeout)}  # fmt: skip
    return spec


def _connect(line: socket.socket, path: str) -> None:
    """Also where the path is longer than the 107 bytes that an address of a Unix socket has room for."""
    if len(os.fsencode(path)) <= 107:
        line.connect(path)
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        line.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


class _Line:
    """One connection. Raises InfrastructureFault (code `no-supervisor`) on anything that is not an answer."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(self._socket, path)
            self._socket.settimeout(timeout)
            peer = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if peer[1] not in (0, os.geteuid()):
                raise self._fault("it belongs to another user")
        except OSError as fault:
            self._socket.close()
            raise self._fault(fault.strerror or str(fault)) from fault
        except BaseException:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._file.close()
        self._socket.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last answer of a request."""
        return list(self.each(request))[-1]

    def each(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Every answer of a request, the one that ends it last."""
        data = msgspec.json.encode({"id": 1, **request}) + b"\n"
        if len(data) > 64 * 1024:
            raise Failed("its configuration and environment are larger than the supervisor takes (64 KiB)",
                         where=self._path, next="homeport check", code="bad-unit")  # fmt: skip
        try:
            self._socket.sendall(data)
            while True:
                line = self._file.readline(LONGEST_ANSWER)
                if not line.endswith(b"\n"):
                    raise self._fault("it closed the connection")
                answer = msgspec.json.decode(line, type=dict[str, Any])
                yield answer
                kind = str(answer.get("type"))
                if kind.endswith(".end") or kind in ("error", "status"):
                    return
        except TimeoutError as fault:
            raise self._fault("it did not answer in time") from fault
        except (OSError, msgspec.MsgspecError) as fault:
            raise self._fault(str(fault)) from fault

    def _fault(self, why: str) -> InfrastructureFault:
        return InfrastructureFault(f"the supervisor cannot be asked: {why}", where=self._path,
                                   next="homeport supervise", code="no-supervisor")  # fmt: skip
