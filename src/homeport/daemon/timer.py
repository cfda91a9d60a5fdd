"""What the daemon does by itself: a converge tick now and then, one right after a push, and a look at the queue."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from homeport.daemon.served import Environment, Served
from homeport.flow.asking import RunnerWatch
from homeport.flow.converge import tick
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.daemon")
JITTER = 0.1
"""Part of the interval by which a tick comes earlier or later, so that many hosts do not ask at once."""
FIRST = 30.0
"""Seconds after the start, at most, until the first tick: what was pushed while nothing listened is found soon."""
QUEUE = 1.0
"""Seconds between two looks whether something waits that nobody carries out."""
GIVE_UP = 60.0
"""Seconds without a look after every runner died."""


class Timer:
    """One for each environment. Times are the event loop's, which no change of the clock moves."""

    def __init__(self, served: Served, environment: Environment) -> None:
        self._served, self._environment = served, environment
        self._pushed = asyncio.Event()
        self.last: dict[str, Any] = {}
        """What the newest tick said."""

    def push(self) -> None:
        """A push came in: look at once. Several before the look are one."""
        self._pushed.set()

    async def run(self) -> None:
        every = await self._interval()
        wait = random.uniform(0, min(FIRST, every or FIRST))  # noqa: S311  # spreads load, guards nothing
        while True:
            pushed = await self._wait(wait if every else None)
            self.last = await self._tick(pushed)
            every = await self._interval()
            wait = every * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311

    async def _wait(self, seconds: float | None) -> bool:
        try:
            await asyncio.wait_for(self._pushed.wait(), seconds)
        except TimeoutError:
            return False
        self._pushed.clear()
        return True

    async def _interval(self) -> float:
        """0: no timer, only pushes."""
        return float((await self._served.slowly(self._environment.now)).env.converge)

    async def _tick(self, pushed: bool) -> dict[str, Any]:
        def locked() -> dict[str, Any]:
            with self._environment.looking:
                return tick(self._environment.now(), "webhook" if pushed else "timer", pushed=pushed)

        site = self._environment.site
        try:
            said = await self._served.slowly(locked)
        except HomeportError as fault:
            said = {"due": False, "code": fault.code or "failed", "because": str(fault), "sha": None, "deployId": None}
        except Exception as fault:
            log.exception("a tick of %s failed", site.environment)
            said = {"due": False, "code": "internal", "because": type(fault).__name__, "sha": None, "deployId": None}
        log.info("converge %s/%s: %s", site.project, site.environment, said["because"], extra={"told": said})
        return said


async def mind_queue(served: Served, environment: Environment) -> None:
    """Starts a runner for what waits or was interrupted, whoever asked for it and however the runner was lost."""
    watch: tuple[str, RunnerWatch] | None = None
    while True:
        pause = QUEUE
        try:
            row = await served.quickly(_unfinished, environment)
            if row is None:
                watch = None
            elif watch is None or watch[0] != row:
                watch = (row, RunnerWatch(environment.site, row))
            if watch is not None:
                await served.quickly(watch[1].look)
        except HomeportError as fault:
            log.error("the queue of %s: %s", environment.site.environment, fault)  # noqa: TRY400  # told, not traced
            watch, pause = None, GIVE_UP
        await asyncio.sleep(pause)


def _unfinished(environment: Environment) -> str | None:
    store = environment.site.store
    row = store.running() or store.waiting()
    return row.id if row is not None else store.untold() or None
