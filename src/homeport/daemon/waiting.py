"""Callers that wait for a deploy: one look for all of them, and a true answer when the daemon stops first."""

from __future__ import annotations

import asyncio

from homeport.daemon.access import Denied
from homeport.daemon.served import Environment, Served
from homeport.flow.asking import RunnerWatch
from homeport.model.deploys import Deploy
from homeport.model.errors import UsageFault

SOON, LATER = 0.02, 0.2
"""Seconds between two looks at a deploy: soon after it was asked for, and later on."""


class Outcomes:
    """`stopping` is set once, when the daemon ends: whoever waits is told to ask again."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._waits: dict[tuple[tuple[str, str], str], asyncio.Task[Deploy]] = {}
        self.stopping = asyncio.Event()

    async def of(self, environment: Environment, deploy: str) -> Deploy:
        """The final row. Raises Denied (code `stopping`), InfrastructureFault (code `runner`)."""
        key = (environment.key, deploy)
        if key not in self._waits:
            self._waits[key] = asyncio.create_task(self._until_end(environment, deploy))
            self._waits[key].add_done_callback(lambda task: self._over(key, task))
        return await asyncio.shield(self._waits[key])

    def _over(self, key: tuple[tuple[str, str], str], task: asyncio.Task[Deploy]) -> None:
        self._waits.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _until_end(self, environment: Environment, deploy: str) -> Deploy:
        watch, pause = RunnerWatch(environment.site, deploy), SOON
        while True:
            row = await self._served.quickly(watch.look)
            if row is None:
                raise UsageFault(f"there is no deploy {deploy}", next="GET /api/v1/deploys", code="no-deploy")
            if row.state == "done":
                return row
            if self.stopping.is_set():
                raise Denied(503, f"the daemon stops; deploy {deploy} goes on without it", where=deploy, code="stopping",
                             next="ask again with the same requestId, or GET /api/v1/deploys/" + deploy)  # fmt: skip
            pause = min(pause * 1.2, LATER)
            try:
                await asyncio.wait_for(self.stopping.wait(), pause)
            except TimeoutError:
                continue
