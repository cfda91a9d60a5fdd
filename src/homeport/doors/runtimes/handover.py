"""A restart without a failed request for process managers that cannot do one: `handoff = "port"`.

The supervisor holds the service's address and carries connections to one of two processes, which the process manager
knows under two names. A restart starts the one that does not serve, on a free port, waits until it is ready, leads new
connections to it, and ends the other when nobody is connected to it any more. Which one serves is what the supervisor
says, and nothing else: whatever else is found was left by a restart that was cut short, and is ended by the next.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from homeport.doors.runtimes import listening
from homeport.doors.runtimes.supervisor import SupervisorRuntime
from homeport.model.errors import Failed, HomeportError, InfrastructureFault
from homeport.model.ports import OnLine, Shell
from homeport.model.running import Restarted, Runtime, Unit, UnitState

EVERY = 0.03
"""Seconds between two looks whether the new process is ready."""
STATE_EVERY = 0.5
"""Seconds between two looks whether it still runs: some process managers take that long to say so."""
TAIL = 10


class Handover:
    """Satisfies Runtime: the wrapped one for services that do not ask for this."""

    def __init__(self, runtime: Runtime, supervisor: SupervisorRuntime, shell: Shell,
                 ours: Callable[[Unit], bool] = lambda _: True) -> None:  # fmt: skip
        self._runtime, self._supervisor, self._shell, self._ours = runtime, supervisor, shell, ours
        self.name = runtime.name

    def inspect(self, unit: Unit) -> UnitState:
        """Of the process that serves. `unreachable` when no supervisor answers: then nothing can be started."""
        if unit.handoff != "port":
            return self._runtime.inspect(unit)
        try:
            name = next(iter(self._supervisor.carried(unit)), unit.name)
        except InfrastructureFault as fault:
            names = [name for name in both(unit) if self._there(unit, name)] or [unit.name]
            state = self._runtime.inspect(replace(unit, name=names[0]))
            return replace(state, unreachable=fault.what, returning=self._supervisor.returns())
        return self._runtime.inspect(replace(unit, name=name))

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises what the wrapped runtime raises, and Failed: the old process keeps serving, except with code `no-door`;
        InfrastructureFault (code `no-supervisor`): it is not known which one serves."""
        if unit.handoff != "port":
            self._go_back(unit)
            return self._runtime.restart(unit, on_line)
        carried = self._supervisor.carried(unit)
        known = [name for name in both(unit) if self._there(unit, name)]
        self._refuse_foreign(unit, [name for name in known if name not in carried])
        fresh = _other(unit, next(iter(carried), None) or (unit.name if unit.name in known else None))
        if fresh in known:
            self._runtime.forget(replace(unit, name=fresh))
        port = listening.free_port()
        new = replace(unit, name=fresh, env={**unit.env, "PORT": str(port)}, on_change="restart")
        began = self._raise(new, port, on_line)
        try:
            self._lead(unit, fresh, port, known if not carried else [], on_line)
        except Failed as fault:
            if not isinstance(fault, InfrastructureFault):  # without an answer it may be the one that serves
                self._end(new)
            raise
        for name, old in carried.items():
            if not listening.until_left(old, unit.drain):
                on_line("stdout", f"{name}: still answers somebody after {unit.drain:g} s, and is stopped")
        for name in sorted({*carried, *known} - {fresh}):
            self._retire(unit, name, on_line)
        return Restarted(pid=began.pid, registered=not carried and not known)

    def forget(self, unit: Unit) -> None:
        if unit.handoff == "port":
            self._supervisor.close_door(unit)
        for name in both(unit) if unit.handoff == "port" else (unit.name,):
            self._runtime.forget(replace(unit, name=name))

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        name = unit.name
        if unit.handoff == "port":
            with contextlib.suppress(InfrastructureFault):
                name = next(iter(self._supervisor.carried(unit)), name)
        return self._runtime.logs(replace(unit, name=name), lines, follow)

    def _refuse_foreign(self, unit: Unit, names: list[str]) -> None:
        """Before anything is touched: what homeport may not take away would run beside those two."""
        for name in names:
            if not self._ours(replace(unit, name=name)):
                raise Failed(
                    f'{name} is a unit of your own; with handoff = "port" homeport writes and removes the units itself',
                    where=f"services.{unit.service}.handoff", code="foreign-unit",
                    next=f"take {name} away (homeport makes it from `command`), or take `handoff` out",
                )  # fmt: skip

    def _raise(self, new: Unit, port: int, on_line: OnLine) -> Restarted:
        """A second process, ready; nothing is left of it when it does not get there."""
        try:
            began = self._runtime.restart(new, on_line)
            self._until_ready(new, port)
        except BaseException as fault:
            if isinstance(fault, Failed):
                self._tell_end(new, on_line)
            self._end(new)
            raise
        return began

    def _until_ready(self, new: Unit, port: int) -> None:
        patience = float(new.ready.timeout) if new.ready is not None else 30.0
        ends, look = time.monotonic() + patience, 0.0
        while not listening.answers(new.ready, port):
            self._shell.go_on(f"until {new.service} is ready")
            now = time.monotonic()
            why = f"it does not answer on $PORT, {port}, after {patience:g} s" if now > ends else ""
            if not why and now > look:
                state = self._runtime.inspect(new)
                why = f"{self.name} says {state.detail or state.state}" if _has_ended(state) else ""
                look = time.monotonic() + STATE_EVERY
            if why:
                raise Failed(f"{new.service} did not come up, the old process keeps serving: {why}", where=new.cwd,
                             next=f"homeport logs {new.service}", code="not-ready")  # fmt: skip
            time.sleep(EVERY)

    def _lead(self, unit: Unit, name: str, port: int, before: list[str], on_line: OnLine) -> None:
        """New connections go to that process. The very first time the old one may hold the address itself: then, and only
        then, it has to leave before the door opens."""
        try:
            self._supervisor.carry(unit, {name: port})
            return
        except InfrastructureFault:
            raise
        except Failed:
            held = [one for one in before if one != name and self._holds(unit, one)]
            if not held:
                raise
        on_line("stdout", f"{held[0]}: leaves {unit.listen[0]} to the supervisor, this once with a gap")
        self._runtime.forget(replace(unit, name=held[0]))
        try:
            self._supervisor.carry(unit, {name: port})
        except InfrastructureFault:
            raise
        except Failed as fault:
            raise Failed(f"{fault.what}; {held[0]} was stopped for it", where=fault.where, next=fault.next,
                         code="no-door") from fault  # fmt: skip

    def _holds(self, unit: Unit, name: str) -> bool:
        pid = self._runtime.inspect(replace(unit, name=name)).pid
        return pid is not None and listening.listens(pid, unit.listen[0])

    def _retire(self, unit: Unit, name: str, on_line: OnLine) -> None:
        """Ends what served before. The new one serves already: a fault is told, and the next restart tries again."""
        try:
            if self._there(unit, name):
                self._runtime.forget(replace(unit, name=name))
        except Failed as fault:
            on_line("stderr", f"{name} could not be ended: {fault.what}")

    def _go_back(self, unit: Unit) -> None:
        """A service that no longer asks for this has its address for itself again, and one process."""
        if self._supervisor.has_door(unit):
            for name in {*self._supervisor.carried(unit), both(unit)[1]} - {unit.name}:
                if self._there(unit, name):
                    self._runtime.forget(replace(unit, name=name))
            self._supervisor.close_door(unit)

    def _there(self, unit: Unit, name: str) -> bool:
        return self._runtime.inspect(replace(unit, name=name)).state != "missing"

    def _end(self, new: Unit) -> None:
        """What never served. When it cannot be ended now, the next restart ends it."""
        with contextlib.suppress(HomeportError):
            self._runtime.forget(new)

    def _tell_end(self, new: Unit, on_line: OnLine) -> None:
        with contextlib.suppress(HomeportError):
            for line in self._runtime.logs(new, TAIL, False):
                on_line("stderr", line)


def both(unit: Unit) -> tuple[str, str]:
    """The names of the two processes that serve in turn."""
    return unit.name, f"{unit.name.removesuffix('.service')}.b"


def _other(unit: Unit, serving: str | None) -> str:
    first, second = both(unit)
    return second if serving == first else first


def _has_ended(state: UnitState) -> bool:
    return state.state in ("failed", "stopped", "missing") or bool(state.restarts)
