"""Runners that get ready before they are wanted, and looks that begin before it is known that they are."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeport.flow.site import Site
    from homeport.model.abreast import Turn
    from homeport.model.trying import WorkingTree


def runner_ahead() -> None:
    """For a verb that is about to ask for a deploy: see `doors.starting.ahead`. Only before a site is opened."""
    from homeport.doors.starting import ahead

    opened: list[tuple[list[str], Site]] = []

    def prepare(words: list[str]) -> None:
        from homeport.model.errors import HomeportError
        from homeport.wiring import site_from_state

        os.environ["HOMEPORT_STATE"] = words[0]
        os.chdir("/")
        with suppress(HomeportError, OSError):
            opened.append((words, site_from_state(*words)))

    def become(words: list[str]) -> int:
        from homeport.runner import main

        os.environ["HOMEPORT_STATE"] = words[0]
        return main(words, [site for expected, site in opened if expected == words])

    ahead(load_ahead, become, prepare)


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


def load_ahead() -> None:
    """Loads what a deploy will need."""
    from homeport.doors import builds, checkouts, live, probes, tries
    from homeport.doors.runtimes import pm2
    from homeport.flow import runner

    del builds, checkouts, live, probes, tries, pm2, runner
