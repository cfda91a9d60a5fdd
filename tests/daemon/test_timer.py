"""D1 D14: when the timer ticks: soon after the start, then unevenly around its interval, and at once after a push."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from homeport.daemon.timer import FIRST, JITTER, Timer

NOBODY: Any = None


def waits(every: float, rounds: int) -> list[float | None]:
    """How long such a timer waits before each of its ticks."""
    found: list[float | None] = []

    class Noted(Timer):
        async def _interval(self) -> float:
            return every

        async def _wait(self, seconds: float | None) -> bool:
            found.append(seconds)
            if len(found) == rounds:
                raise asyncio.CancelledError
            return False

        async def _tick(self, pushed: bool) -> dict[str, Any]:
            return {"pushed": pushed}

    with suppress(asyncio.CancelledError):
        asyncio.run(Noted(NOBODY, NOBODY).run())
    return found


def test_the_first_tick_comes_soon_and_the_others_unevenly_around_the_interval() -> None:
    first, *others = [seconds for seconds in waits(900.0, 200) if seconds is not None]
    assert 0 <= first <= FIRST
    assert len(others) == 199 and all(900 * (1 - JITTER) <= seconds <= 900 * (1 + JITTER) for seconds in others)
    assert max(others) - min(others) > 900 * JITTER, "many hosts do not ask at once"


def test_without_an_interval_only_a_push_makes_it_tick() -> None:
    assert waits(0.0, 3) == [None, None, None]


def test_a_push_is_not_waited_for_and_several_before_the_look_are_one() -> None:
    async def asked() -> tuple[bool, bool]:
        timer = Timer(NOBODY, NOBODY)
        timer.push()
        timer.push()
        return await timer._wait(60.0), await timer._wait(0.001)

    assert asyncio.run(asked()) == (True, False)
