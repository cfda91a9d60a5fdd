"""Looks at live folders that begin while it is still worked out what to deploy (docs/decisions/0019)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping

from homeport.model.abreast import Turn, begun
from homeport.model.errors import HomeportError
from homeport.model.live import Scan

OLDEST = 3.0
"""Seconds after its beginning for which a look counts: whoever is asked something meanwhile has another one made."""
Ground = Callable[[], Hashable]


class LooksAhead:
    """What was seen ahead of time, by target; each look counts once. One at a time, as the deploy makes them."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn[tuple[float, Hashable, Scan]]] = {}
        self._all: Turn[None] | None = None
        self._wanted = True

    def begin(self, looks: Mapping[str, tuple[Ground, Callable[[], Scan]]]) -> None:
        """Looks meanwhile. With each look its ground: all that has to be the same for it to count."""

        def turn_of(ground: Ground, look: Callable[[], Scan]) -> Turn[tuple[float, Hashable, Scan]]:
            return Turn(lambda: (time.monotonic(), ground(), look()))

        self._turns = {target: turn_of(*both) for target, both in looks.items()}
        turns = list(self._turns.values())

        def one_after_the_other() -> None:
            for turn in turns:
                if self._wanted:
                    turn.do()

        self._all = Turn(one_after_the_other)
        if not begun(self._all.do):
            self._turns = {}

    def taken(self, target: str, ground: Ground) -> Scan | None:
        """What was seen; None where no look began, it is too old, failed, or anything it stands on is not the same."""
        turn = self._turns.pop(target, None)
        if turn is None:
            return None
        try:
            since, before, scan = turn.result()
            same = scan.syncing is None and before == ground()
        except (HomeportError, OSError):
            return None
        return scan if same and time.monotonic() - since < OLDEST else None

    def drop(self) -> None:
        """Nobody asks any more; no look is under way when this returns."""
        self._wanted = False
        self._turns.clear()
        if self._all is not None:
            self._all.do()
            self._all.ended()
