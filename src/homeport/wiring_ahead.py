"""Runners that get ready before they are wanted, and looks that begin before it is known that they are."""

from __future__ import annotations

import os


def runner_ahead() -> None:
    """For a verb that is about to ask for a deploy: see `doors.starting.ahead`. Only before a site is opened."""
    from homeport.doors.starting import ahead

    def become(words: list[str]) -> int:
        from homeport.runner import main

        os.environ["HOMEPORT_STATE"] = words[0]
        return main(words)

    ahead(load_ahead, become)


def no_runner() -> None:
    """Takes `runner_ahead` back, for work that turns out to be another machine's."""
    from homeport.doors.starting import unwanted

    unwanted()


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
