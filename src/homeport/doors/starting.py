"""Starts the processes of homeport's own that outlive the terminal: the runner of one environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from homeport.doors.branching import Become, Copy, Prepare, branch_off
from homeport.doors.shell import detach, still_runs

_started: dict[str, int] = {}
"""The runner that this process started last, by state folder."""
_ready: dict[str, tuple[int, int]] = {}
"""A runner that has loaded everything and waits for its word: (pid, the pipe whose end is the word), by state folder."""
_copies: list[Copy] = []
"""A copy of this process that becomes the next runner."""


def ahead(load: Callable[[], None], become: Become, prepare: Prepare) -> None:
    """Has a copy of this process load what a runner needs, while this one works out what to ask for; it ends with this
    one when no runner is wanted. To be called before anything is opened."""
    unwanted()
    copy = branch_off("homeport.runner", load, become, prepare)
    if copy is not None:
        _copies.append(copy)


def unwanted() -> None:
    """Lets the copy go that `ahead` made: no runner is needed here."""
    while _copies:
        _copies.pop().dismiss()


class Runners:
    """Of one environment."""

    def __init__(self, root: str, project: str, environment: str, state: str) -> None:
        self._argv = [sys.executable, "-m", "homeport.runner", root, project, environment]
        self._root, self._state = root, state
        self._log = os.path.join(state, "runner.log")

    def start(self) -> int:
        """Starts a runner in its own session, so that it outlives the terminal; returns its pid.

        One that this process started before and that is still on its way is enough.
        """
        if self.on_its_way():
            return _started[self._state]
        if self._state in _ready:
            pid, poke = _ready.pop(self._state)
            os.close(poke)
            if still_runs(pid):
                _started[self._state] = pid
                return pid
        while _copies:
            copy = _copies.pop()
            if copy.told(self._log, self._argv[3:]):
                _started[self._state] = copy.pid
                return copy.pid
        _started[self._state] = self._detach(self._argv)
        return _started[self._state]

    def on_its_way(self) -> bool:
        return self._state in _started and still_runs(_started[self._state])

    def ready(self) -> None:
        """Starts a runner that waits until `start` wants one, or this process has ended; then there may be nothing to
        do for it."""
        for copy in _copies:
            copy.expects(self._argv[3:])
        if _copies or (self._state in _ready and still_runs(_ready[self._state][0])):
            return
        word, poke = os.pipe()
        try:
            _ready[self._state] = (self._detach([*self._argv, "--wait"], word), poke)
        except BaseException:
            os.close(poke)
            raise
        finally:
            os.close(word)

    def apart(self, what: str, log: str) -> None:
        """Starts a process that no deploy waits for: `send` empties the outbox, `check` runs checks before."""
        detach([*self._argv, what], {**os.environ, "HOMEPORT_STATE": self._root}, os.path.join(self._state, log))

    def _detach(self, argv: list[str], stdin: int | None = None) -> int:
        return detach(argv, {**os.environ, "HOMEPORT_STATE": self._root}, self._log, stdin)
