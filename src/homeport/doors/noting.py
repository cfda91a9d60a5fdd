"""What is written down of a live folder while the service that runs from it is started again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from homeport.model.abreast import Turn, begun


class Noting:
    """Work that goes on beside who asked for it, which holds on to what it needs. At most one at a time."""

    def __init__(self) -> None:
        self._turn: Turn[None] | None = None

    def begin(self, note: Callable[[], None], held: ExitStack) -> None:
        """Starts it; `held` is let go when it has ended. Raises what the one before raised."""
        self.ended()

        def work() -> None:
            with held:
                note()

        self._turn = Turn(work)
        begun(self._turn.do)

    def wait(self) -> None:
        """Until it has ended, however."""
        if self._turn is not None:
            self._turn.do()
            self._turn.ended()

    def ended(self) -> None:
        """As `wait`. Raises, once, what it raised."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.result()
