"""One unit: which processes serve, how they are replaced, and what happens when one ends by itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine

from msgspec import Struct
from msgspec.structs import replace

from homeport.supervisor.addresses import parse
from homeport.supervisor.instance import Instance, first
from homeport.supervisor.messages import Outcome, UnitSpec, UnitStatus
from homeport.supervisor.readiness import wait_ready
from homeport.supervisor.records import UnitRecord
from homeport.supervisor.spawning import LaunchFault
from homeport.supervisor.tailing import tail
from homeport.supervisor.yard import Yard

FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
STABLE = 10.0
"""Seconds a process has to run for its earlier crashes to be forgotten."""
GIVEN_UP = 5
"""Crashes in a row after which the unit is called failed; it is still tried again."""
TAIL = 10


class Backoff(Struct):
    """How long to wait before a process that ended by itself is started again."""

    crashes: int = 0

    def after(self, ran: float) -> float:
        """The delay in seconds, after a process that ran so long."""
        self.crashes = 1 if ran >= STABLE else self.crashes + 1
        return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.crashes - 1, 20)))


class Unit:
    def __init__(self, record: UnitRecord, yard: Yard) -> None:
        self.record = record
        self.slots: dict[int, Instance] = {}
        self.leaving: set[Instance] = set()
        self.detail = ""
        self._yard = yard
        yard.console.meet(self.name, yard.log_of(self.name))
        self._lock = asyncio.Lock()
        self._backoff: dict[int, Backoff] = {}
        self._revivals: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: UnitSpec | None = None
        self._told_to_stop = asyncio.Event()
        self.front: Unit | None = None
        """Carries connections to its processes, with `handoff = "port"`."""
        self.closed = ""
        """Why nothing of it is to be started any more."""

    @property
    def name(self) -> str:
        return self.record.desired.name

    @property
    def spec(self) -> UnitSpec:
        """What a process is started with when nobody asked for something new."""
        return self.record.current or self.record.desired

    def addresses(self) -> set[str]:
        """Of the sockets that have to stay open for it."""
        specs = [self.spec] if self.record.wanted else []
        specs += [self._opening] if self._opening else []
        return {parse(text).key for spec in specs for text in spec.listen}

    async def replace(self) -> Outcome:
        """Starts what is configured and, once it is ready, retires what served before. Never raises."""
        async with self._lock:
            if self.closed:
                return Outcome(service=self.name, ok=False, why=self.closed)
            began = time.monotonic()
            spec = self.record.desired
            outcome = self._lead_elsewhere(spec) or await self._replace(spec, self.record.current is None)
            return Outcome(
                service=self.name, ok=outcome.ok, pid=outcome.pid, why=outcome.why, tail=outcome.tail,
                seconds=time.monotonic() - began, first=outcome.first,
            )  # fmt: skip

    async def _replace(self, spec: UnitSpec, never: bool) -> Outcome:
        self._opening = spec
        self._cancel_revivals()
        self._backoff.clear()
        overlap = spec.how != "stop-first"
        fresh: list[Instance] = []
        try:
            self._yard.open(spec)
            stuck = [] if overlap else await self._retire_all()
            why = f"the old process {stuck[0].pid} cannot be ended" if stuck else await self._raise(spec, fresh)
        except (OSError, LaunchFault) as fault:
            why = str(fault)
        self._opening = None
        if why:
            await self._end(fresh)
            await self._yard.keeping.written()
            lines = tail(self._yard.log_of(self.name), TAIL, min((one.log_from for one in fresh), default=None))
            self.detail = why
            self._tell(f"the new version did not come up: {why}")
            self.record.wanted = self.record.wanted and not never
            self._yard.close_unused()
            self._yard.save()
            self.ensure()
            return Outcome(service=self.name, ok=False, pid=self._pid(), why=why, tail=lines, first=never)
        old = list(self.slots.values())
        self._serve(spec, fresh)
        if self.front is not None:
            # Only now that somebody serves behind it; and one of an earlier handoff is not needed any more.
            opened = await (self.front.open() if spec.how == "port" else self.front.stop())
            if not opened.ok:
                self.detail = f"nothing is carried to it: {opened.why}"
        self._yard.close_unused()
        await self._show_out(old)
        return Outcome(service=self.name, ok=True, pid=self._pid(), first=never)

    def _lead_elsewhere(self, spec: UnitSpec) -> Outcome | None:
        """A forwarder to processes of somebody else's serves on and is told where they are now; None when it has to be
        started."""
        now = self.record.current
        serves = bool(self.slots) and all(one.alive and one.child.phase == "ready" for one in self.slots.values())
        if not spec.carries or now is None or not serves or replace(now, carries=spec.carries) != spec:
            return None
        self.record.current, self.record.wanted, self.detail = spec, True, ""
        self._yard.save()
        self._publish()
        return Outcome(service=self.name, ok=True, pid=self._pid())

    async def open(self) -> Outcome:
        """Starts it where it does not run already."""
        return Outcome(service=self.name, ok=True) if self.slots else await self.replace()

    def _publish(self) -> None:
        """Says where its processes listen to whoever carries connections to them."""
        ports = [one.child.port for _, one in sorted(self.slots.items()) if one.alive and one.child.phase == "ready"]
        ports = [*self.spec.carries.values()] or ports
        if not any(ports):
            return
        self._yard.publish(self.name, [port for port in ports if port])
        told = self if self.spec.carries else self.front
        for front in told.slots.values() if told is not None else ():
            if front.child.phase == "ready":
                front.signal_main(signal.SIGHUP)

    async def _raise(self, spec: UnitSpec, fresh: list[Instance]) -> str:
        """All processes of the unit, ready; empty, or why one is not."""
        for slot in range(spec.replicas):
            fresh.append(self._yard.start(spec, slot))
        waiting = {asyncio.ensure_future(wait_ready(one)) for one in fresh}
        stop = asyncio.ensure_future(self._told_to_stop.wait())
        try:
            while waiting:
                done, _ = await asyncio.wait({*waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
                why = next((task.result() or "" for task in done - {stop} if task.result()), "")
                if why or stop in done:
                    return str(why or "it was told to stop before it was ready")
                waiting -= done
        finally:
            for task in (*waiting, stop):
                task.cancel()
        ended = next((one for one in fresh if not one.alive), None)
        return f"{ended.said()} right after it was ready" if ended else ""

    def _serve(self, spec: UnitSpec, fresh: list[Instance]) -> None:
        """The switch: one record says that the new ones serve and the old ones leave."""
        for old in self.slots.values():
            old.child.phase = "leaving"
            self.leaving.add(old)
        for one in fresh:
            one.child.phase = "ready"
        self.slots = {one.child.slot: one for one in fresh}
        self.record.current, self.record.wanted, self.detail = spec, True, ""
        self._yard.save()
        self._publish()
        self._tell(f"serves, process {', '.join(str(one.pid) for one in fresh)}")
        for one in fresh:
            self._do(self._mind(one))

    async def _show_out(self, old: list[Instance]) -> None:
        """Waits until the old ones take no more connections; what they still answer ends in the background."""
        closed = await asyncio.gather(*(one.leave() for one in old))
        for one, drains in zip(old, closed, strict=True):
            self._do(self._finish(one, drains))
        still = [one.ended() for one, drains in zip(old, closed, strict=True) if not drains and one.alive]
        if still:
            await first(asyncio.gather(*still), timeout=max(one.spec.drain + one.spec.stop_timeout for one in old))

    def ensure(self) -> None:
        """Starts what should run and does not."""
        self._publish()
        if self.record.wanted:
            for slot in range(self.spec.replicas):
                if slot not in self.slots and slot not in self._revivals:
                    self._revive_after(slot, 0.0)

    def adopt(self, instance: Instance) -> None:
        """A process of an earlier supervisor serves on; of two in one place the newer one does."""
        other = self.slots.get(instance.child.slot)
        if other is not None and other.child.at > instance.child.at:
            self.retire_soon(instance)
            return
        if other is not None:
            self.retire_soon(other)
        self._tell(f"found again, process {instance.pid}")
        self.slots[instance.child.slot] = instance
        self._do(self._mind(instance))

    def retire_soon(self, instance: Instance) -> None:
        self._do(self._retire(instance))

    async def stop(self) -> Outcome:
        """Ends its processes; a start that is going on is given up."""
        self._told_to_stop.set()
        async with self._lock:
            self._told_to_stop.clear()
            began = time.monotonic()
            self.record.wanted = False
            self.detail = ""
            self._cancel_revivals()
            if self.front is not None:
                await self.front.stop()
            # The door is closed first: who comes now is refused and not left waiting.
            self._yard.close_unused()
            self._yard.save()
            if self.slots:
                self._tell("stops")
            await self._retire_all()
            return Outcome(service=self.name, ok=True, seconds=time.monotonic() - began)

    def reload(self) -> Outcome:
        """SIGHUP to the processes themselves: whom of their own they tell is theirs to decide."""
        running = [one for one in self.slots.values() if one.alive]
        for one in running:
            one.signal_main(signal.SIGHUP)
        return Outcome(service=self.name, ok=bool(running), pid=self._pid(), why="" if running else "it does not run")

    async def settle(self) -> None:
        """Until everything that leaves has left."""
        while self.leaving:
            await asyncio.sleep(0.02)

    def abandon(self) -> None:
        """Forgets every task; the processes run on."""
        self._cancel_revivals()
        for task in list(self._tasks):
            task.cancel()

    async def _retire_all(self) -> list[Instance]:
        """Those that could not be ended: not even SIGKILL ends one that waits for a dead disk."""
        old, self.slots = list(self.slots.values()), {}
        await asyncio.gather(*(self._retire(one) for one in old), self.settle())
        return [one for one in old if one.alive]

    async def _retire(self, instance: Instance) -> None:
        self.leaving.add(instance)
        instance.child.phase = "leaving"
        self._yard.save()
        await self._finish(instance, await instance.leave())

    async def _finish(self, instance: Instance, drains: bool) -> None:
        await instance.finish(drains)
        self.leaving.discard(instance)
        self._yard.forget(instance)

    async def _end(self, instances: list[Instance]) -> None:
        """At once: they never served."""
        await asyncio.gather(*(one.kill() for one in instances))
        for one in instances:
            self._yard.forget(one)

    async def _mind(self, instance: Instance) -> None:
        """Starts it again when it ends by itself."""
        began = time.monotonic()
        await instance.ended()
        slot = instance.child.slot
        if self.slots.get(slot) is not instance:
            return
        del self.slots[slot]
        self.record.restarts += 1
        self.detail = self.detail or instance.said()
        delay = self._backoff.setdefault(slot, Backoff()).after(time.monotonic() - began)
        self._tell(f"{instance.said()}; started again in {delay:g} s")
        await instance.kill()
        self._yard.forget(instance)
        self._revive_after(slot, delay)

    def _revive_after(self, slot: int, delay: float) -> None:
        if self.record.wanted:
            self._revivals[slot] = task = asyncio.ensure_future(self._revive(slot, delay))
            task.add_done_callback(lambda done: self._revived(slot, done))

    def _revived(self, slot: int, task: asyncio.Task[None]) -> None:
        if self._revivals.get(slot) is task:
            del self._revivals[slot]

    async def _revive(self, slot: int, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._lock:
            spec = self.spec
            if self.closed or not self.record.wanted or slot in self.slots or slot >= spec.replicas:
                return
            try:
                self._yard.open(spec)
                instance = self._yard.start(spec, slot)
            except (OSError, LaunchFault) as fault:
                if self.detail != str(fault):
                    self._tell(str(fault))
                self.detail = str(fault)
                again = self._backoff.setdefault(slot, Backoff()).after(0.0)
                asyncio.get_running_loop().call_soon(self._revive_after, slot, again)
                return
            self.slots[slot] = instance
        self._do(self._mind(instance))
        instance.watch = asyncio.ensure_future(self._watch(instance))

    async def _watch(self, instance: Instance) -> None:
        why = await wait_ready(instance)
        if not instance.alive or self.slots.get(instance.child.slot) is not instance:
            return
        if why:
            self.detail = why
            self._tell(why)
            await instance.kill()
            return
        self._tell(f"serves, process {instance.pid}")
        instance.child.phase = "ready"
        self.detail = ""
        self.record.current = instance.spec
        self._yard.save()
        self._publish()

    def _cancel_revivals(self) -> None:
        for task in self._revivals.values():
            task.cancel()
        self._revivals.clear()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, text: str) -> None:
        self._yard.console.event(self.name, text)

    def _pid(self) -> int | None:
        return next((one.pid for _, one in sorted(self.slots.items()) if one.alive), None)

    def status(self) -> UnitStatus:
        running = [one for _, one in sorted(self.slots.items()) if one.alive]
        ready = [one for one in running if one.child.phase == "ready"]
        crashes = max((one.crashes for one in self._backoff.values()), default=0)
        if self._opening is not None and not ready:
            state = "restarting"
        elif not self.record.wanted and not running:
            state = "failed" if self.detail else "stopped"
        elif len(ready) == self.spec.replicas:
            state = "running"
        else:
            state = "failed" if crashes >= GIVEN_UP else "restarting"
        return UnitStatus(
            service=self.name, state=state, pid=self._pid(), pids=[one.pid for one in running],
            restarts=self.record.restarts, started_at=running[0].child.at if running else None, detail=self.detail,
            replicas=self.spec.replicas, listen=list(self.spec.listen), draining=[one.pid for one in self.leaving],
            carries=self.record.current.carries if self.record.current is not None else {},
            pending=self.record.current is not None and self.record.current != self.record.desired,
        )  # fmt: skip
