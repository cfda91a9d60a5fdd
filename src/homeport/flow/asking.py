"""Asks for a deploy and follows it: the runner is its own process, so it outlives whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import msgspec
from msgspec.structs import replace

from homeport.flow.ending import done_event
from homeport.flow.site import Site
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import InfrastructureFault
from homeport.model.paths import printable

STARTS = 4
"""Runners that may die one after the other without getting anywhere, before the follower says so."""
PATIENCE = 1.0
"""Seconds in which a runner that somebody else started must have taken the lock."""
TELLING = 5.0
"""Seconds that the last events of a deploy that has ended are waited for."""
BETWEEN = 0.2
"""Seconds between two looks at a runner of our own; one that is only slow to start is not started again."""


def stamped(site: Site, request: Request) -> Request:
    """The request with who asks and from where; the exceptions are those that a person brought."""
    actor, kind = site.actor, site.actor.kind if request.actor == "person" else request.actor
    return replace(request, actor=kind, origin=request.origin or actor.origin, asker=request.asker or actor.name,
                   confirmed=(*request.confirmed, *actor.confirmed) if kind == "person" else ())  # fmt: skip


def ask(site: Site, request: Request) -> str:
    """Ends what a crash left, then enqueues (or joins an equal request) and makes sure that a runner is there.

    Returns the deploy's id.
    """
    recover_if_needed(site)
    request = stamped(site, request)
    deploy, joined = site.store.enqueue(request)
    if not joined:
        site.store.audit(request.requested_by, f"ask {request.kind}", deploy, outcome="asked", actor=request.actor,
                         origin=request.origin)  # fmt: skip
    if not joined or site.lock.free():
        site.start_runner()
    return deploy


def follow(site: Site, deploy: str, offset: int = 0, tick: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """The journal's lines as they come, until `deploy.done`; starts a runner again when the old one died.

    `tick` is called again and again while nothing comes. Raises InfrastructureFault (code `runner`) when every
    runner dies without getting anywhere; the deploy stays where it is, and the next command ends it.
    """
    watch = RunnerWatch(site, deploy)

    def alive() -> bool:
        tick()
        row = watch.look()
        return row is not None and (row.state != "done" or watch.is_being_told(row))

    follow_file = cast("Callable[[str, int, Callable[[], bool]], Iterator[bytes]]", site.follow_journal)
    closing = b""
    for line in follow_file(site.journal_path(deploy), offset, alive):
        closing = line
        yield line
    row = site.store.deploy(deploy)
    if b'"deploy.done"' not in closing and row is not None and row.state == "done":
        yield msgspec.json.encode(done_event(row))


class RunnerWatch:
    """For whoever waits for a deploy: sees to it that a runner is there until the deploy has ended."""

    def __init__(self, site: Site, deploy: str) -> None:
        self._site, self._deploy = site, deploy
        self._looked = site.clock.monotonic()
        self._patience = BETWEEN if site.runner_on_its_way() else PATIENCE
        self._reached: list[tuple[object, ...]] = []
        self._ended: float | None = None
        self._has_told = False

    def look(self) -> Deploy | None:
        """The deploy's row as it is now. Raises InfrastructureFault (code `runner`) as `follow` does."""
        site = self._site
        row = site.store.deploy(self._deploy)
        if row is None or row.state == "done":
            if row is not None and not self._has_told:
                self._have_told(row.id)
            return row
        if site.lock.free() and site.clock.monotonic() - self._looked > self._patience:
            self._looked, self._patience = site.clock.monotonic(), BETWEEN
            if not site.runner_on_its_way():
                self._reached.append((row.state, row.stage, row.attempts))
                if self._reached[-STARTS:] == self._reached[-1:] * STARTS:
                    raise _never_ending(site, row)
                site.start_runner()
        return row

    def _have_told(self, deploy: str) -> None:
        """A runner tells the end of a deploy whose own died right before. Once: a full disk would be asked for ever."""
        site = self._site
        if site.store.untold() == deploy and site.lock.free() and not site.runner_on_its_way():
            self._has_told = True
            site.start_runner()

    def is_being_told(self, row: Deploy) -> bool:
        """It has ended, and its runner writes the last events: the row is there before they are."""
        if self._site.store.untold() != row.id:
            return False
        now = self._site.clock.monotonic()
        self._ended = now if self._ended is None else self._ended
        return now - self._ended < TELLING


def _never_ending(site: Site, deploy: Deploy) -> InfrastructureFault:
    """What the last runner said, from its log."""
    said = ""
    with suppress(OSError), open(f"{site.state}/runner.log", encoding="utf-8", errors="replace") as log:
        said = next((line.strip() for line in reversed(log.readlines()[-20:]) if line.strip()), "")
    why = f": {printable(said)}" if said else ", and could not even write why; is the disk full?"
    at = f" in {deploy.stage}" if deploy.stage else ""
    return InfrastructureFault(f"deploy {deploy.id} cannot go on: its process ends again and again{at}{why}",
                               where=site.state, next=f"df -h {site.state}   (once it is mended: homeport deploy)",
                               code="runner")  # fmt: skip


def cancel(site: Site, deploy: str, by: str) -> bool:
    """Asks the runner to stop and undo. False when the deploy has ended already."""
    asked = site.store.ask_cancel(deploy, by)
    if asked:
        site.store.audit(by, "cancel", deploy)
        if site.lock.free():
            site.start_runner()
    return asked


def recover_if_needed(site: Site) -> str | None:
    """Ends an interrupted deploy before anything else is done; the id of the deploy that was ended."""
    crashed = site.store.running()
    if crashed is None and site.store.untold() and site.lock.free():
        site.start_runner()
    if crashed is None or not site.lock.free():
        return None
    site.start_runner()
    for _ in follow(site, crashed.id):
        pass
    return crashed.id
