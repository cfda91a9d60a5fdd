"""Durations as people write them: `250ms`, `30s`, `15m`, `4h`, `7d`, or a plain number of seconds."""

from __future__ import annotations

import math
import re

from homeport.model.config import Seconds

PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h|d)$"
EXPECTED = 'a duration such as "250ms", "30s", "15m", "4h", "7d", or a number of seconds'
LONGEST = 3650 * 86400
"""Seconds; about ten years, so that no sum of durations leaves what clocks and timers can hold."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Milliseconds."""
_WRITTEN = re.compile(PATTERN, re.ASCII)


def parse(value: object) -> Seconds:
    """The duration; ValueError (without a text fit for people) for what is none, is negative or too long."""
    if isinstance(value, str):
        written = _WRITTEN.fullmatch(value)
        if written is None:
            raise ValueError(value)
        unit = written[2]
        whole, _, part = value.removesuffix(unit).partition(".")
        seconds = int(whole + part) * _UNITS[unit] / (1000 * 10 ** len(part))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= LONGEST else math.inf
    else:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        raise ValueError(value)
    return Seconds(seconds)


def text(seconds: float) -> str:
    """The shortest exact way to write it in whole units, down to milliseconds: `90m`, `1500ms`, `1d`."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def minute(at: str | None) -> str:
    """A moment of the record as a message has it, which is read on any machine: `2026-03-01 14:05 UTC`."""
    return f"{at[:16].replace('T', ' ')} UTC" if at else "further notice"
