"""A restart behind the supervisor's socket is cut short at every step: the next one ends with exactly one process, and
at no moment do connections lead to one that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest

from homeport.doors.runtimes import listening
from homeport.doors.runtimes.handover import Handover
from homeport.doors.runtimes.supervisor import SupervisorRuntime
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import OnLine, Shell
from homeport.model.running import Restarted, Runtime, Unit, UnitState


class Cut(BaseException):
    """kill -9 of the process that restarts."""


class Machine:
    """A process manager and a supervisor that do as they are told, until the process that asks is killed."""

    name = "pm2"

    def __init__(self) -> None:
        self.running: dict[str, tuple[str, int]] = {}
        """By name: its version, and its port."""
        self.carries: dict[str, int] = {}
        self.address: str | None = None
        """Who listens on the service's own address, if not the supervisor."""
        self.bad: set[str] = set()
        self.cut_at = -1
        """After so many steps; each is cut before it and after it."""
        self.steps = 0
        self.gap = 0
        self.dead = False
        self.going_back = False
        self.silent = False
        """The supervisor does as it is told, and ends before it has answered."""

    def step(self, change: Callable[[], Any]) -> Any:
        """One thing that is asked of somebody else."""
        if self.dead:
            raise Cut
        self.steps += 1
        if self.steps * 2 == self.cut_at:
            self.dead = True
            raise Cut
        try:
            said = change()
        finally:
            if self.steps * 2 + 1 == self.cut_at:
                self.dead = True
                raise Cut
        led = all(self.running.get(name, ("", 0))[1] == port for name, port in self.carries.items())
        assert led or self.going_back, "connections lead to a process that is not there"
        self.gap += not self.carries and self.address is None
        return said

    # the process manager

    def inspect(self, unit: Unit) -> UnitState:
        def look() -> UnitState:
            found = self.running.get(unit.name)
            return UnitState(state="missing") if found is None else UnitState(state="running", pid=found[1])

        return cast(UnitState, self.step(look))

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        def start() -> Restarted:
            version, port = unit.env["VERSION"], int(unit.env["PORT"])
            if port == PUBLIC:
                assert not self.carries, "the address is the supervisor's"
                self.address = unit.name
            if unit.env["VERSION"] in self.bad:
                raise Failed("it ended", code="not-online")
            self.running[unit.name] = (version, port)
            return Restarted(pid=port, registered=True)

        return cast(Restarted, self.step(start))

    def forget(self, unit: Unit) -> None:
        def end() -> None:
            self.running.pop(unit.name, None)
            self.address = None if self.address == unit.name else self.address

        self.step(end)

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        yield f"{unit.name} has said this"

    # the supervisor

    def has_door(self, unit: Unit) -> bool:
        return bool(self.carries)

    def carried(self, unit: Unit) -> dict[str, int]:
        return cast(dict[str, int], self.step(lambda: dict(self.carries)))

    def carry(self, unit: Unit, to: Mapping[str, int]) -> None:
        def lead() -> None:
            if self.address is not None:
                raise Failed("cannot listen", code="not-ready")
            self.carries = dict(to)
            if self.silent:
                raise InfrastructureFault("the supervisor cannot be asked", code="no-supervisor")

        self.step(lead)

    def close_door(self, unit: Unit) -> None:
        self.step(lambda: setattr(self, "carries", {}))

    def again(self, version: str, *, cut_at: int = -1, handoff: str | None = "port") -> int:
        """Restarts with that version; how many steps it took."""
        self.steps, self.cut_at, self.dead, self.gap, self.going_back = 0, cut_at, False, 0, handoff is None
        handover = Handover(cast(Runtime, self), cast(SupervisorRuntime, self), cast(Shell, Going()))
        unit = Unit(service="api", name="api", target="/opt/api", command=["x"], cwd="/opt/api",
                    env={"VERSION": version, "PORT": str(PUBLIC)}, listen=(f"127.0.0.1:{PUBLIC}",),
                    handoff=cast(Any, handoff))  # fmt: skip
        handover.restart(unit, lambda *_: None)
        return self.steps

    def serves(self) -> str:
        """The version of the one process that there is, which connections lead to."""
        assert len(self.running) == 1, self.running
        ((name, (version, port)),) = self.running.items()
        assert self.carries == {name: port} or (self.address == name and not self.carries)
        return version


class Going:
    def go_on(self, where: str) -> None: ...


PUBLIC = 3000


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(20_000, 30_000))
    monkeypatch.setattr(listening, "free_port", lambda: next(numbers))
    monkeypatch.setattr(listening, "answers", lambda ready, port: True)
    monkeypatch.setattr(listening, "until_left", lambda port, within: True)
    monkeypatch.setattr(listening, "listens", lambda pid, address: pid == PUBLIC)


def fresh() -> Machine:
    return Machine()


def by_itself() -> Machine:
    """pm2 runs it, and it listens on its address itself."""
    machine = Machine()
    machine.again("one", handoff=None)
    return machine


def handed_over() -> Machine:
    machine = Machine()
    machine.again("one")
    return machine


def handed_over_twice() -> Machine:
    machine = handed_over()
    machine.again("one")
    return machine


def lost() -> Machine:
    """The supervisor's state is gone: nothing is carried, and the process is still there."""
    machine = handed_over()
    machine.carries = {}
    return machine


STARTS = [fresh, by_itself, handed_over, handed_over_twice, lost]


@pytest.mark.parametrize("begin", STARTS)
def test_cut_short_at_any_step_the_next_restart_ends_with_one_process_that_serves(begin: Callable[[], Machine]) -> None:
    steps = begin().again("two")
    assert steps > 4
    for cut_at in range(2, 2 * steps + 2):
        machine = begin()
        served = bool(machine.carries)
        with pytest.raises(Cut):
            machine.again("two", cut_at=cut_at)
        machine.dead = False
        assert not served or machine.gap == 0
        machine.again("three")
        assert machine.serves() == "three"
        assert not served or machine.gap == 0


@pytest.mark.parametrize("begin", [handed_over, handed_over_twice])
def test_a_version_that_does_not_come_up_is_ended_and_the_old_one_serves_on(begin: Callable[[], Machine]) -> None:
    machine = begin()
    machine.bad = {"two"}
    with pytest.raises(Failed):
        machine.again("two")
    assert machine.serves() == "one" and machine.gap == 0


@pytest.mark.parametrize("begin", [fresh, handed_over, handed_over_twice])
def test_without_an_answer_from_the_supervisor_neither_process_is_ended(begin: Callable[[], Machine]) -> None:
    machine = begin()
    machine.silent = True
    with pytest.raises(InfrastructureFault):
        machine.again("two")
    ((name, port),) = machine.carries.items()
    assert machine.running[name] == ("two", port)
    machine.silent = False
    machine.again("three")
    assert machine.serves() == "three" and machine.gap == 0


def test_the_first_time_is_the_only_one_with_a_gap() -> None:
    machine = by_itself()
    machine.again("two")
    assert machine.serves() == "two" and machine.gap == 1
    machine.again("three")
    assert machine.serves() == "three" and machine.gap == 0


def test_an_address_that_somebody_else_holds_stops_nothing() -> None:
    machine = by_itself()
    machine.address = "somebody else"
    machine.running["api"] = ("one", PUBLIC + 1)
    with pytest.raises(Failed):
        machine.again("two")
    assert machine.running == {"api": ("one", PUBLIC + 1)}


@pytest.mark.parametrize("begin", [handed_over, handed_over_twice])
def test_a_service_that_no_longer_asks_for_it_has_its_address_and_one_process(begin: Callable[[], Machine]) -> None:
    steps = begin().again("two", handoff=None)
    for cut_at in range(2, 2 * steps + 2):
        machine = begin()
        with pytest.raises(Cut):
            machine.again("two", cut_at=cut_at, handoff=None)
        machine.dead = False
        machine.again("three", handoff=None)
        assert machine.serves() == "three" and machine.address == "api"
