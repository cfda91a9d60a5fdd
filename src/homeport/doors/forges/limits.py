"""When a forge may be asked again: its rate limits, remembered across processes, and how long to stay away after
faults. Times are Unix seconds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from homeport.model.forge import Cache

LONGEST_WAIT = 3600.0
"""Seconds; no forge's limit lasts longer, so what asks for more is not believed."""
FIRST_WAIT = 60.0
"""Seconds, doubled each time, after a limit that does not say when it ends."""
FIRST_PAUSE = 15.0
"""Seconds, doubled each time, after silence or a 5xx."""
LONGEST_PAUSE = 900.0


class Limits:
    def __init__(self, cache: Cache, base: str, now: Callable[[], float]) -> None:
        self._cache, self._now = cache, now
        self._key = "forge:until:" + hashlib.sha256(base.encode()).hexdigest()[:32]
        self._limited, self._failed = 0, 0

    def pause(self) -> float | None:
        """The moment until which the forge asked us to stay away, when that is still to come."""
        until = _number(self._cache.cached(self._key) or "")
        now = self._now()
        return until if until is not None and now < until <= now + LONGEST_WAIT else None

    def learn(self, status: int, headers: Mapping[str, str], body: bytes) -> float | None:
        """Reads an answer; the moment to come back when it says that we asked too much.

        An answer that used up the last request counts as an answer, and only the next question is held back.
        """
        until = self._asked_to_wait(status, headers, body)
        if until is not None:
            self._limited += 1
            self._remember(until)
            return until
        reset = _number(_either(headers, "ratelimit-reset"))
        if _either(headers, "ratelimit-remaining") == "0" and reset is not None:
            self._remember(self._within(reset))
        return None

    def worked(self) -> None:
        self._limited = self._failed = 0

    def failed(self) -> float:
        """After silence or a 5xx: when to try again."""
        self._failed += 1
        return self._now() + min(FIRST_PAUSE * 2.0 ** min(self._failed - 1, 10), LONGEST_PAUSE)

    def _asked_to_wait(self, status: int, headers: Mapping[str, str], body: bytes) -> float | None:
        after = headers.get("retry-after", "")
        exhausted = _either(headers, "ratelimit-remaining") == "0"
        limit = status == 403 and (after or exhausted or b"rate limit" in body[:4096].lower())
        if status != 429 and not limit and not (status == 503 and after):
            return None
        wait = _number(after)
        if wait is not None:
            return self._within(self._now() + wait)
        moment = _date(after)
        if moment is None and exhausted:
            moment = _number(_either(headers, "ratelimit-reset"))
        if moment is not None:
            return self._within(moment)
        return self._within(self._now() + FIRST_WAIT * 2.0 ** min(self._limited, 10))

    def _within(self, moment: float) -> float:
        now = self._now()
        return min(max(moment, now + 1), now + LONGEST_WAIT)

    def _remember(self, until: float) -> None:
        self._cache.cache(self._key, repr(until))


def _either(headers: Mapping[str, str], name: str) -> str:
    """GitHub writes `x-ratelimit-*`, GitLab `ratelimit-*`."""
    return headers.get(f"x-{name}") or headers.get(name) or ""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
