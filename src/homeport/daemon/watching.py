"""The live folders of an environment, watched: a hand edit is in the ledger within a second, and nobody asked (E6).

At rest it does nothing at all: the kernel wakes it. What cannot be watched is tried again later and never ends anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from homeport.daemon.served import Environment, Served
from homeport.flow import watching
from homeport.flow.looking import met, targets_of
from homeport.flow.site import Site
from homeport.flow.watching import LONGEST, QUIET, Change, Watched
from homeport.model.errors import HomeportError
from homeport.model.live import Target
from homeport.model.paths import exact
from homeport.model.watching import FolderWatch, Stir, Watches

log = logging.getLogger("homeport.daemon")
SHARE, SAVED, PAUSE = 0.1, 2.0, 3.0
"""Part of the time that may go into looking, however much moves; seconds of it that quiet times save up; and the longest
wait for more."""
LINES, BURST, SILENCE = 0.1, 20.0, 60.0
"""The same for lines of the log that name a path."""
TURN = 0.3
"""Seconds that it waits for another look at the environment; who takes longer asks an origin, which may be silent."""
SYNCING = 0.5
"""Seconds between two looks whether homeport has done writing."""
SOON, LATE = 1.0, 60.0
"""Seconds until a folder that is gone is looked for again: at first, and at most."""
ROUND = 900.0
"""Seconds after which everything is gone through in any case: what no event tells of (a mount, a folder above that was
exchanged), and what the kernel lets nobody watch any more."""
MANY = 2000
"""Paths that differ of one folder, beyond which they are not kept in mind and it is looked at as a whole."""
RECORDS = ""
"""In place of a live folder's name: what is recorded of them, and where the branch is."""


class Allowance:
    """So much a second, and what quiet times saved up: who spends more waits until that has caught up, if not longer than
    `longest`."""

    def __init__(self, share: float, most: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._most, self._least, self._clock = share, most, -longest * share, clock
        self._left, self._at = most, clock()

    def spend(self, much: float) -> None:
        self._count()
        self._left = max(self._least, self._left - much)

    def wait(self) -> float:
        """Seconds until more may be spent."""
        self._count()
        return max(0.0, -self._left / self._share)

    def _count(self) -> None:
        now = self._clock()
        self._left, self._at = min(self._most, self._left + (now - self._at) * self._share), now


@dataclass(frozen=True)
class Away:
    """A live folder that cannot be watched now."""

    wait: float
    due: float
    """When it is tried again; monotonic."""


class Watcher:
    """One for each environment. Its own work takes turns; the folders are looked at in the threads for slow things."""

    def __init__(self, served: Served, environment: Environment) -> None:
        self._served, self._environment = served, environment
        self._wake = asyncio.Event()
        self._due = 0.0
        """When everything is gone through; monotonic."""
        self._allowance, self._lines = Allowance(SHARE, SAVED, PAUSE), Allowance(LINES, BURST, SILENCE)
        self._silent = False
        """More paths change than the log names."""
        self._watches: Watches | None = None
        self._records: FolderWatch | None = None
        self._watched: dict[str, Watched] = {}
        self._away: dict[str, Away] = {}
        self._faults: dict[str, HomeportError] = {}
        """What a watch said when it was asked what moved."""
        self._said: dict[str, str] = {}
        """The newest warning about each live folder: it is given once."""
        self._tips: dict[str, str | None] = {}
        self._many: set[str] = set()
        self.folders = self.unwatched = 0
        """How many folders are watched, and how many live folders cannot be."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._allowance.wait())
            try:
                await self._round()
                pause = self._until()
            except Exception as fault:
                site, pause = self._environment.site, LATE
                for folder in self._watched.values():
                    folder.stamp = None
                if self._said.get(RECORDS) != repr(fault):
                    self._said[RECORDS] = repr(fault)
                    log.exception("the watch of %s/%s failed; it goes on", site.project, site.environment)
            await self._woken(pause)

    async def _woken(self, within: float) -> None:
        loop, heard = asyncio.get_running_loop(), -1 if self._watches is None else self._watches.fileno()
        if heard >= 0:
            loop.add_reader(heard, self._wake.set)
        try:
            await asyncio.wait_for(self._wake.wait(), within)
        except TimeoutError:
            pass
        finally:
            if heard >= 0:
                loop.remove_reader(heard)
        self._wake.clear()
        if within > QUIET:
            await asyncio.sleep(QUIET)

    def _until(self) -> float:
        """Seconds until something is to be done that no event tells of."""
        due = min([self._due, *(away.due for away in self._away.values())]) - time.monotonic()
        writes = any(folder.stamp is None for folder in self._watched.values())
        return max(0.0, min(due, SYNCING) if writes else due)

    async def _round(self) -> None:
        stirs = await self._gathered()
        now = time.monotonic()
        everything = self._due <= now or RECORDS in stirs
        due = {name for name, away in self._away.items() if away.due <= now}
        stale = {name for name, folder in self._watched.items() if folder.stamp is None}
        if everything or stirs or due or stale or self._faults:
            await self._served.slowly(self._pass, stirs, due | stale, everything)
        if everything:
            self._due = now + ROUND

    async def _gathered(self) -> dict[str, Stir]:
        """What moved, by live folder, once it is quiet."""
        loop = asyncio.get_running_loop()
        began, stirs = loop.time(), dict[str, Stir]()
        while fresh := await self._served.quickly(self._drained):
            for name, stir in fresh.items():
                stirs[name] = stirs[name].with_more(stir) if name in stirs else stir
            if loop.time() - began >= LONGEST:
                break
            await asyncio.sleep(QUIET)
        return stirs

    def _drained(self) -> dict[str, Stir]:
        began, found = time.monotonic(), dict[str, Stir]()
        watches = {name: folder.watch for name, folder in self._watched.items()}
        for name, watch in {**watches, **({RECORDS: self._records} if self._records is not None else {})}.items():
            try:
                if stir := watch.wait(0):
                    found[name] = stir
            except HomeportError as fault:
                self._faults[name] = fault
        self._allowance.spend(time.monotonic() - began)
        return found

    def _pass(self, stirs: Mapping[str, Stir], asked: Collection[str], everything: bool) -> None:
        """Looks at what moved; with `everything` also whether other folders are to be watched than so far."""
        with self._turn():
            began, site = time.monotonic(), self._environment.now()
            try:
                faults, self._faults = self._faults, {}
                first = self._watches is None
                self._renew_records(site, stirs)
                if everything:
                    with contextlib.suppress(HomeportError):  # each of the folders says so
                        self._opened(site)
                if everything or asked:
                    wanted = _wanted(site)
                    self._let_go(wanted)
                else:
                    wanted = {name: (folder.service, folder.target) for name, folder in self._watched.items()}
                tip = _tip(site) if everything else None
                for name in wanted if everything else [name for name in wanted if name in {*stirs, *asked, *faults}]:
                    self._one(site, name, *wanted[name], stirs.get(name, Stir()), tip, faults.get(name))
                self.folders = sum(folder.watch.folders for folder in self._watched.values())
                self.unwatched = len(self._away)
                if first and self._watches is not None:
                    self._log(site, logging.INFO, "watching for hand edits", {"folders": self.folders})
            finally:
                if not everything:  # the start and each deploy are no noise
                    self._allowance.spend(time.monotonic() - began)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        looking = self._environment.looking
        held = looking.acquire(timeout=TURN)
        try:
            yield
        finally:
            if held:
                looking.release()

    def _let_go(self, wanted: Mapping[str, tuple[str, Target]]) -> None:
        """Of folders that are no longer live folders, or are so in another way."""
        for name, folder in [*self._watched.items()]:
            if name not in wanted or wanted[name][1] != folder.target:
                folder.watch.close()
                del self._watched[name]
        for name in self._away.keys() - wanted.keys():
            del self._away[name]

    def _one(self, site: Site, name: str, service: str, target: Target, stir: Stir, tip: str | None,
             fault: HomeportError | None) -> None:  # fmt: skip
        try:
            if fault is not None:
                raise fault
            folder = self._watched.get(name)
            if folder is None:
                folder, changes = self._begun(site, service, target)
                self._watched[name] = folder
            else:
                lost = stir.lost or (tip is not None and not folder.watch.there())
                other = tip is not None and self._tips.get(name) != tip and bool(folder.known or site.edits.living(name))
                stir = Stir(stir.paths, lost, stir.folders)
                changes = watching.look(site, folder, self._opened(site), stir, whole=other or name in self._many)
            self._tips[name] = tip or self._tips.get(name)
            self._tell(site, folder, changes)
            if self._away.pop(name, None) is not None:
                self._said.pop(name, None)
                self._log(site, logging.INFO, f"{service} is watched again", {"service": service})
        except HomeportError as found:
            self._turn_away(site, name, service, target, found)

    def _opened(self, site: Site) -> Watches:
        if self._watches is None:
            watches = site.watches()
            try:
                self._records = watches.of_records(site.env.branch)
            except BaseException:
                watches.close()
                raise
            self._watches = watches
        return self._watches

    def _renew_records(self, site: Site, stirs: Mapping[str, Stir]) -> None:
        if self._watches is not None and self._records is not None and stirs.get(RECORDS, Stir()).lost:
            self._records.close()
            self._records = self._watches.of_records(site.env.branch)

    def _begun(self, site: Site, service: str, target: Target) -> tuple[Watched, list[Change]]:
        """What the ledger knew before is no news."""
        known = {edit.path for edit in site.edits.living(target.name)}
        folder = watching.begin(site, self._opened(site), service, target)
        return folder, [Change(path, None, found) for path, found in folder.known.items() if exact(path) not in known]

    def _turn_away(self, site: Site, name: str, service: str, target: Target, fault: HomeportError) -> None:
        """Gives its watches back; told once."""
        folder = self._watched.pop(name, None)
        if folder is not None:
            folder.watch.close()
        limited = fault.code == "watch-limit"
        before = self._away.get(name)
        wait = ROUND if limited else min(LATE, before.wait * 2 if before is not None else SOON)
        self._away[name] = Away(wait, time.monotonic() + wait)
        told = "watch-limit" if limited else name
        if self._said.get(told) != fault.what:
            self._said[told] = fault.what
            self._log(site, logging.WARNING, f"{service} is not watched: {fault} next: {fault.next}",
                      {"service": service, "code": fault.code, "next": fault.next})  # fmt: skip
        if limited:
            try:
                met(site, target)
            except HomeportError as found:
                self._log(site, logging.WARNING, f"{service} cannot be looked at: {found}", {"service": service})

    def _tell(self, site: Site, folder: Watched, changes: list[Change]) -> None:
        """One line for each path that differs in another way than before; of very many only how many they are."""
        name = folder.target.name
        many = len(folder.known) > MANY
        if many or name in self._many:
            if name not in self._many or not many:
                self._log(site, logging.INFO, f"{folder.service}: {len(folder.known)} paths differ",
                          {"service": folder.service, "paths": len(folder.known)})  # fmt: skip
            (self._many.add if many else self._many.discard)(name)
            folder.known = {} if many else folder.known
            return
        news = [change for change in changes if _kind(change.before) != _kind(change.now)]
        for change in news:
            if self._lines.wait():
                if not self._silent:
                    self._log(site, logging.INFO, "more paths change than are named here; homeport edits lists them", {})
                self._silent = True
                return
            self._lines.spend(1)
            self._silent = False
            row = watching.told(site, folder, change)
            row.pop("type"), row.pop("at")
            self._log(site, logging.INFO, f"{row['service']}: {row['path']} is {row['state']}", row)

    def _log(self, site: Site, level: int, what: str, told: dict[str, Any]) -> None:
        of = {"project": site.project, "environment": site.environment}
        log.log(level, "%s", what, extra={"told": {**of, **told}})


def _kind(difference: Any) -> tuple[str, str | None] | None:
    return None if difference is None else (difference.state, difference.oddity)


def _wanted(site: Site) -> dict[str, tuple[str, Target]]:
    """The live folders that were met, and were there; of the others nothing is recorded that they could differ from."""
    found = {}
    for service, target in targets_of(site, []):
        record = site.store.target(target.name)
        if record is not None and record.path == target.path and record.inode:
            found[target.name] = (service, target)
    return found


def _tip(site: Site) -> str:
    return site.git.tip(site.env.branch) if site.git.has(f"refs/heads/{site.env.branch}") else ""
