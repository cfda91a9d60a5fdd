"""Times of day as cron writes them, in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_NAMED = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_WORDS = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
LONGEST = 4 * 366 + 1
"""Days to look back: the 29th of February comes every four years, as a rule."""


def latest(text: str, now: datetime) -> datetime | None:
    """The newest of its times that is not after `now`; None when it never comes. Raises ValueError as `fields`."""
    minutes, hours, days, months, weekdays = fields(text)
    either = not {*range(1, 32)} <= days and not {*range(7)} <= weekdays
    day = now.astimezone(UTC).replace(second=0, microsecond=0)
    for back in range(LONGEST):
        here = day - timedelta(days=back)
        on_day, on_weekday = here.day in days, here.isoweekday() % 7 in weekdays
        if here.month not in months or not (on_day or on_weekday if either else on_day and on_weekday):
            continue
        times = [here.replace(hour=hour, minute=minute) for hour in hours for minute in minutes]
        if found := max((time for time in times if time <= day), default=None):
            return found
    return None


def fields(text: str) -> tuple[set[int], ...]:
    """Minutes, hours, days, months, weekdays (0 is Sunday). Raises ValueError that says what is wrong."""
    words = _NAMED.get(text.strip().lower(), text).split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"`{text}` must be five fields (minute hour day month weekday) or {', '.join(_NAMED)}")
    found = [_field(word, *each) for word, each in zip(words, _FIELDS, strict=True)]
    if 7 in found[4]:
        found[4] = found[4] - {7} | {0}
    return tuple(found)


def _field(word: str, name: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if slash and not (step.isascii() and step.isdigit() and int(step)):
            raise ValueError(f"`{part}` is no step of the {name}")
        begin, end = (least, most) if span == "*" else (_number(first, name), _number(last if dash else first, name))
        if slash and not dash and span != "*":
            end = most
        if not least <= begin <= end <= most:
            raise ValueError(f"`{part}` is no {name} from {least} to {most}")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return found


def _number(word: str, name: str) -> int:
    words = _WORDS.get(name, ())
    if word.lower() in words:
        return words.index(word.lower()) + (name == "month")
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"`{word}` is no {name}")
    return int(word)
