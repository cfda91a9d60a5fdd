"""Looks at live folders that begin while it is still worked out what to deploy (docs/decisions/0019)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import suppress

from homeport.model.abreast import Turn, begun
from homeport.model.errors import HomeportError
from homeport.model.live import Scan

OLDEST = 3.0
"""Seconds after its beginning for which a look counts: whoever is asked something meanwhile has another one made."""


class LooksAhead:
    """What was seen ahead of time, by target; each look counts once."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, Turn[tuple[Hashable, Scan]]]] = {}

    def begin(self, target: str, ground: Callable[[], Hashable], look: Callable[[], Scan]) -> None:
        """Looks meanwhile. `ground`: all that has to be the same for the look to count."""
        turn = Turn(lambda: (ground(), look()))
        if begun(turn.do):
            self._begun[target] = time.monotonic(), turn

    def taken(self, target: str, ground: Callable[[], Hashable]) -> Scan | None:
        """What was seen; None where no look began, it is too old, failed, or anything it stands on is not the same."""
        if target not in self._begun:
            return None
        since, turn = self._begun.pop(target)
        try:
            before, scan = turn.result()
            same = scan.syncing is None and before == ground()
        except (HomeportError, OSError):
            return None
        return scan if same and time.monotonic() - since < OLDEST else None

    def drop(self) -> None:
        """Nobody asks any more; every look has ended when this returns."""
        for _, turn in self._begun.values():
            with suppress(HomeportError, OSError):
                turn.result()
        self._begun.clear()
