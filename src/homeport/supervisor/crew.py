"""All units of a supervisor: their configuration, what is recorded of them, and the take-over after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from homeport.supervisor.addresses import parse
from homeport.supervisor.console import Console
from homeport.supervisor.messages import (
    ConfigureRequest,
    Outcome,
    SpecFault,
    UnitSpec,
    UnitStatus,
    check_spec,
    front_for,
)
from homeport.supervisor.records import Child, Records, Saved, UnitRecord, leader_with, start_of, this_boot
from homeport.supervisor.sockets import bring_back, listens_at
from homeport.supervisor.spawning import LaunchFault, account_of
from homeport.supervisor.unit import Unit
from homeport.supervisor.yard import Yard

KEEP_LOGS = 30 * 86400.0
"""Seconds that a log stays after it was last written; the current one of a unit always does."""
AT_ONCE = 4
"""Units that are restarted at the same time."""


class UnknownScope(ValueError):
    """No unit and no scope has that name."""


class Crew:
    def __init__(self, state: str, console: Console) -> None:
        self._records = Records(state)
        self._saved = self._records.load()
        self._yard = Yard(state, self.save, self._in_use, console)
        self.units: dict[str, Unit] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._configuring = asyncio.Lock()

    def begin(self, told: ConfigureRequest | None = None) -> None:
        """Finds again what an earlier supervisor left running, ends what it left half-done, starts what is missing.

        `told` is what should run as far as the records do not say; with `replace`, exactly that runs.
        """
        saved, here = self._saved, this_boot()
        left = saved.children if saved.boot == here else []
        sockets = saved.sockets if saved.boot == here else {}
        self._saved = Saved(boot=here, units=saved.units, scopes=saved.scopes)
        self.units = {name: Unit(record, self._yard) for name, record in saved.units.items()}
        self._yard.reaper.begin()
        found = self._yard.keeping.connect()
        alive = [child for child in left if _still_there(child)]
        self._take_sockets(found, sockets, alive)
        for child in alive:
            self._adopt(child, found)
        for key in [key for key in found if key.startswith("control:")]:
            if key.removeprefix("control:") not in self._yard.instances:
                self._yard.keeping.drop(key)
        self._sweep(left)
        if told is not None:
            self._learn(told)
        self._marry()
        self._yard.close_unused()
        self.save()
        for unit in self.units.values():
            unit.ensure()

    def _learn(self, told: ConfigureRequest) -> None:
        """Units that are deployed and not in the records, as after a lost state folder, run from now on."""
        for name in set(self.units) - {spec.name for spec in told.units} if told.replace else ():
            self.units[name].record.wanted = False
        for spec in told.units:
            try:
                check_spec(spec)
                account_of(spec.user)
                _no_address_twice([*(unit.record.desired for unit in self.units.values() if unit.name != spec.name), spec])
            except (SpecFault, LaunchFault) as fault:
                self._yard.console.event(spec.name[:100], f"cannot be run: {fault}")
                continue
            if spec.name not in self.units:
                self.units[spec.name] = Unit(UnitRecord(desired=spec, wanted=True), self._yard)
            elif told.replace:
                record = self.units[spec.name].record
                record.desired, record.current, record.wanted = spec, None, True
        self._saved.scopes = {**self._saved.scopes, **told.scopes}

    def _take_sockets(self, found: dict[str, int], known: dict[str, int], alive: list[Child]) -> None:
        for key, file in found.items():
            if not key.startswith("control:"):
                self._yard.sockets[key] = file
        addresses = {address.key: address for unit in self.units.values()
                     for spec in (unit.spec, unit.record.desired) for address in map(parse, spec.listen)}  # fmt: skip
        for key, number in known.items():
            if key in self._yard.sockets or key not in addresses:
                continue
            # The keeper was killed as well: the children still have the socket.
            copy = bring_back([child.pid for child in alive], number)
            if copy is not None and listens_at(copy, addresses[key]):
                self._yard.hold(key, copy)
            elif copy is not None:
                os.close(copy)

    def _adopt(self, child: Child, found: dict[str, int]) -> None:
        unit = self.units.get(child.unit)
        if unit is None:
            nobody = UnitRecord(desired=UnitSpec(name=child.unit, command=["true"]))
            unit = Unit(nobody, self._yard)
        instance = self._yard.adopt(child, unit.spec, found.get(f"control:{child.id}"))
        if start_of(child.pid) != child.start:
            self._yard.forget(instance)
        elif child.phase == "ready" and unit.record.wanted:
            unit.adopt(instance)
        else:
            # A start that nobody waits for any more, or one that was leaving already.
            unit.retire_soon(instance)

    def _sweep(self, left: list[Child]) -> None:
        """Output files of processes that are gone."""
        for child in left:
            if child.id not in self._yard.instances:
                self._yard.keeping.unpipe(child.id)
        self._forget_old_logs()
        self._yard.sweep_groups()
        folder = os.path.join(self._yard.state, "out")
        for name in os.listdir(folder):
            if name not in self._yard.instances:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))

    def _forget_old_logs(self) -> None:
        """Logs put aside, and those of units that are gone, stay for so many days."""
        folder = os.path.join(self._yard.state, "logs")
        current = {f"{name}.log" for name in self.units}
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if name not in current and time.time() - os.lstat(path).st_mtime > KEEP_LOGS:
                    os.unlink(path)

    def save(self, *, durable: bool = False) -> None:
        """A full disk does not stop what runs: it is said, and the next change tries again."""
        self._saved.units = {name: unit.record for name, unit in self.units.items()}
        self._saved.children = list(self._yard.children)
        self._saved.sockets = {}
        for key, file in self._yard.sockets.items():
            with contextlib.suppress(OSError):
                self._saved.sockets[key] = os.fstat(file).st_ino
        try:
            self._records.save(self._saved, durable=durable)
        except OSError as fault:
            sys.stderr.write(f"homeport supervisor: cannot write {self._records.path}: {fault}\n")

    def _in_use(self) -> set[str]:
        return {key for unit in self.units.values() for key in unit.addresses()}

    async def configure(self, request: ConfigureRequest) -> list[str]:
        """All of it or nothing. Raises SpecFault, naming the unit and the key; starts nothing."""
        async with self._configuring:
            return await self._configure(request)

    async def _configure(self, request: ConfigureRequest) -> list[str]:
        wanted = {name: unit.record.desired for name, unit in self.units.items() if not unit.record.desired.front_of}
        gone = set(request.remove) | (set(wanted) - {spec.name for spec in request.units} if request.replace else set())
        kept = {name: spec for name, spec in wanted.items() if name not in gone}
        kept |= {spec.name: spec for spec in request.units}
        for spec in request.units:
            try:
                check_spec(spec)
                account_of(spec.user)
            except (SpecFault, LaunchFault) as fault:
                raise SpecFault(f"{spec.name[:100]}: {fault}") from fault
        _no_address_twice(kept.values())
        scopes = {} if request.replace else self._saved.scopes
        self._saved.scopes = {**scopes, **request.scopes}
        for spec in request.units:
            if spec.name in self.units:
                self.units[spec.name].record.desired = spec
            else:
                self.units[spec.name] = Unit(UnitRecord(desired=spec), self._yard)
        self._marry()
        self.save(durable=True)
        await self._remove(gone - {spec.name for spec in request.units})
        return sorted(kept)

    def _marry(self) -> None:
        """Each unit with `handoff = "port"` and the one that carries connections to it."""
        for unit in list(self.units.values()):
            if unit.record.desired.how == "port":
                front = front_for(unit.record.desired)
                if front.name in self.units:
                    self.units[front.name].record.desired = front
                else:
                    self.units[front.name] = Unit(UnitRecord(desired=front), self._yard)
            unit.front = self.units.get(f"{unit.name}@front")

    async def _remove(self, names: set[str]) -> None:
        names = names | {f"{name}@front" for name in names}
        there = [self.units[name] for name in sorted(names) if name in self.units]
        for unit in there:
            unit.closed = "it was removed"
        await asyncio.gather(*(unit.stop() for unit in there))
        for unit in there:
            del self.units[unit.name]
            self._yard.unpublish(unit.name)
        if there:
            self._yard.close_unused()
            self.save(durable=True)

    def named(self, scope: str) -> list[Unit]:
        """The units of a scope. Raises UnknownScope."""
        if scope == "all":
            return [unit for unit in self.units.values() if not unit.record.desired.front_of]
        if scope in self._saved.scopes:
            return [self.units[name] for name in self._saved.scopes[scope] if name in self.units]
        if scope in self.units:
            return [self.units[scope]]
        raise UnknownScope(f"there is no unit and no scope named {scope[:100]}")

    async def each(self, units: list[Unit], work: Callable[[Unit], Awaitable[Outcome]]) -> AsyncIterator[Outcome]:
        """The outcomes as they come; a few units at a time."""
        tasks = [asyncio.ensure_future(self._one(unit, work)) for unit in units]
        for done in asyncio.as_completed(tasks):
            yield await done
        self.save(durable=True)

    async def _one(self, unit: Unit, work: Callable[[Unit], Awaitable[Outcome]]) -> Outcome:
        async with self._at_once:
            return await work(unit)

    def status(self, units: list[Unit]) -> list[UnitStatus]:
        return [unit.status() for unit in units]

    def log_of(self, unit: str) -> str:
        return self._yard.log_of(unit)

    async def end(self, *, keep: bool) -> None:
        """Leaves: with `keep` everything runs on for the next supervisor, else all of it is stopped first."""
        for unit in self.units.values():
            unit.closed = "the supervisor leaves"
        if keep:
            for unit in self.units.values():
                unit.abandon()
            self.save(durable=True)
            self._yard.keeping.leave()
            return
        wanted = {name: unit.record.wanted for name, unit in self.units.items()}
        await asyncio.gather(*(unit.stop() for unit in self.units.values()))
        # Stopped because the supervisor leaves: the next one starts them again.
        for name, unit in self.units.items():
            unit.record.wanted = wanted.get(name, False)
        self.save(durable=True)
        self._yard.keeping.quit()


def _still_there(child: Child) -> bool:
    if child.pid == 0:
        child.pid = leader_with(f"HOMEPORT_INSTANCE={child.id}".encode())
        child.start = start_of(child.pid) if child.pid else 0
    return child.start != 0 and start_of(child.pid) == child.start


def _no_address_twice(specs: Iterable[UnitSpec]) -> None:
    owners: dict[str, str] = {}
    for spec in (spec for spec in specs if spec.front_of is None):
        for text in spec.listen:
            owner = owners.setdefault(parse(text).key, spec.name)
            if owner != spec.name:
                raise SpecFault(f"{spec.name}: listen: {text} is that of {owner} already")
