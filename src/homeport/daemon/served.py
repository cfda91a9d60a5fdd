"""The environments that this daemon serves, and the pools of threads in which their doors are asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from homeport.flow.site import Site
from homeport.model.errors import HomeportError, UsageFault

FRESH = 0.2
"""Seconds in which many callers are served from one look at the branch."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Environment:
    """One environment: its site with the configuration of the branch's newest known commit."""

    site: Site
    tip: str | None = None
    """The commit that the configuration was read at."""
    asked: float = -FRESH
    """When git was asked for the newest commit; monotonic."""
    looking: threading.Lock = field(default_factory=threading.Lock)
    """Held while live folders are looked at or the origin is asked: one at a time is enough."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.site.project, self.site.environment)

    def now(self) -> Site:
        """The site with today's configuration; with the last good one while today's cannot be read."""
        if time.monotonic() - self.asked < FRESH:
            return self.site
        self.asked = time.monotonic()
        try:
            site, tip = self.site, self.site.git.tip(self.site.env.branch)
            if tip != self.tip:
                self.tip = tip
                raw = site.git.file_at(tip, "homeport.toml")
                if raw is not None:
                    config = site.load_config(raw, f"{tip[:12]}:homeport.toml")
                    told = config.environments.get(site.environment, site.env)
                    self.site = replace(site, config=config, env=told if told.branch == site.env.branch else site.env)
        except HomeportError:
            return self.site
        return self.site


class Served:
    """Every environment, found by project and name. Raises UsageFault (code `environment`) where it has to guess."""

    def __init__(self, environments: list[Environment]) -> None:
        self._by_key = {environment.key: environment for environment in environments}
        self._quick = ThreadPoolExecutor(16, thread_name_prefix="quick")
        self._asking = ThreadPoolExecutor(16, thread_name_prefix="asking")
        self._slow = ThreadPoolExecutor(4, thread_name_prefix="slow")

    def __iter__(self) -> Iterator[Environment]:
        return iter(self._by_key.values())

    def pick(self, project: str | None, environment: str | None) -> Environment:
        found = [one for (its, name), one in self._by_key.items()
                 if project in (None, its) and environment in (None, name)]  # fmt: skip
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"project={its}&environment={name}" for its, name in self._by_key)
        raise UsageFault("which environment?" if found else "there is no such environment here",
                         where="query: project, environment", next=f"one of: {known}", code="environment")  # fmt: skip

    async def quickly(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For what takes a moment: the database, the queue."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, lambda: act(*args, **kwargs))

    async def soon(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For asking for a deploy: a few git processes, and after a crash the end of what it left."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, lambda: act(*args, **kwargs))

    async def slowly(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For what may take long: live folders, git, the forge. Never keeps a quick question waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, lambda: act(*args, **kwargs))

    def close(self) -> None:
        for pool in (self._quick, self._asking, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)
