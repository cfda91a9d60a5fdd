"""Runners that get ready before they are wanted, and looks that begin before it is known that they are."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homeport.doors.live import LiveTargets
    from homeport.flow.site import Site
    from homeport.model.abreast import Turn
    from homeport.model.trying import WorkingTree


def runner_ahead(tried: Sequence[str] | None = None) -> None:
    """For a verb that is about to ask for a deploy: see `doors.starting.ahead`. Only before a site is opened.

    `tried`: the words of a try; its live folders are looked at while the checkout is.
    """
    from homeport.doors.starting import ahead

    opened: list[tuple[list[str], Site]] = []

    def prepare(words: list[str]) -> Callable[[], None] | None:
        from homeport.model.errors import HomeportError
        from homeport.wiring import site_from_state

        os.environ["HOMEPORT_STATE"] = words[0]
        os.chdir("/")
        with suppress(HomeportError, OSError):
            site = site_from_state(*words)
            opened.append((words, site))
            return _look_ahead(site, tried) if tried is not None else None
        return None

    def become(words: list[str]) -> int:
        from homeport.runner import main

        os.environ["HOMEPORT_STATE"] = words[0]
        return main(words, [site for expected, site in opened if expected == words])

    ahead(load_ahead, become, prepare)


def _look_ahead(site: Site, words: Sequence[str]) -> Callable[[], None] | None:
    """Begins to look at the live folders of the services that are named in these words, of all where none is. Not while
    a deploy is at work there."""
    from homeport.decide import layout

    if site.store.running() is not None or site.store.looks_only:
        return None
    services = layout.services_of(site.config, site.environment)
    named = [name for name in services if name in words] or list(services)
    targets = {target.name: target for name in named if (target := layout.target_of(site.config, name)) is not None}
    return cast("LiveTargets", site.targets).look_ahead(list(targets.values()), site.env.branch)


def no_runner() -> None:
    """Takes `runner_ahead` back, for work that turns out to be another machine's."""
    from homeport.doors.starting import unwanted

    unwanted()


def tree_ahead(folder: str) -> Turn[WorkingTree]:
    """The checkout around a folder, which is looked at beside all else; only after `runner_ahead`."""
    from homeport.doors.shell import LocalShell
    from homeport.doors.workingtree import Checkout
    from homeport.model.abreast import Turn, begun

    def look() -> WorkingTree:
        tree = Checkout(folder, LocalShell())
        tree.begin()
        return tree

    turn: Turn[WorkingTree] = Turn(look)
    begun(turn.do)
    return turn


def look_anew() -> None:
    """What was seen of live folders since this program began counts no more."""
    from homeport.doors.early import EARLY

    EARLY.forget()


def load_verb(verb: str) -> None:
    """Loads what a verb will need that another machine asks for."""
    if verb != "try":
        return
    from homeport import wiring_hosts
    from homeport.cli import questions
    from homeport.cli.show import events, plain
    from homeport.doors import senttree, tries
    from homeport.flow import asking, guarding, trying

    del asking, events, guarding, plain, questions, senttree, tries, trying, wiring_hosts


def goes_away() -> bool:
    """Whether this command began with a call to another machine."""
    from homeport.doors.early import EARLY

    return EARLY.call is not None


def load_ahead() -> None:
    """Loads what a deploy will need."""
    from homeport import runner as entry
    from homeport import wiring_runtimes
    from homeport.doors import builds, checkouts, ledger, leftbehind, live, obstacles, probes, swap, tries
    from homeport.doors.runtimes import compose, handover, pm2, supervisor, swarm, systemd
    from homeport.flow import reviewing, runner

    del builds, checkouts, leftbehind, ledger, live, obstacles, probes, swap, tries
    del compose, handover, pm2, supervisor, swarm, systemd
    del entry, reviewing, runner, wiring_runtimes
