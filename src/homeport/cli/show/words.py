"""Small words that every view shares: escaped text, short shas, durations, times, colour.

Nothing here imports rich: what is only printed needs no drawing.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TextIO

from homeport.model.live import PROJECT
from homeport.model.paths import printable

_COLOURS = re.compile("\x1b\\[[0-9;:]*[mK]")
_CODES = {
    "good": "32", "bad": "1;31", "warn": "33", "dim": "2", "strong": "1", "sha": "33", "next": "36",
    "added": "32", "removed": "31", "hunk": "36",
}  # fmt: skip


def text(raw: str) -> str:
    """Text fit for a terminal: one line, no control characters, whatever bytes it came from."""
    try:
        return printable(raw)
    except UnicodeEncodeError:
        return printable(raw.encode("utf-8", "backslashreplace").decode("utf-8"))


def output_line(raw: str) -> str:
    """A line of somebody's output: its colours are dropped, its tabs widened, the rest is escaped.

    Of a line that a progress bar wrote over itself, what stood there last is shown.
    """
    last = raw.rstrip("\r\n").rsplit("\r", 1)[-1]
    return text(_COLOURS.sub("", last).expandtabs(4)).rstrip()


def several(raw: str) -> str:
    """Text of one or more lines: those after the first are indented, empty ones left out."""
    return "\n    ".join(text(line.rstrip()) for line in raw.strip().split("\n") if line.strip())


def whose(service: str) -> str:
    """A service's name; files of a live checkout that no service holds are the project's."""
    return "(project)" if service == PROJECT else text(service)


def short(sha: str | None, none: str = "-") -> str:
    """The first seven characters of a commit's name."""
    return text(sha)[:7] if sha else none


def took(ms: int | None) -> str:
    """A duration given in milliseconds: `84 ms`, `2.1 s`, `3 min 04 s`, `1 h 05 min`; empty when unknown."""
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def moment(at: str | None) -> datetime | None:
    """An ISO 8601 time; UTC when it names no zone; None when it is none."""
    try:
        found = datetime.fromisoformat(at or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def clock_time(at: str | None, *, seconds: bool = False) -> str:
    """The time in this machine's zone, `2026-03-01 14:05`; the text itself when it is no time."""
    found = moment(at)
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M") if found else text(at or "")


def compact_time(at: str | None) -> str:
    """For tables: `09-19 14:05` this year, `2025-09-19` before."""
    found = moment(at)
    if found is None:
        return text(at or "")
    local = found.astimezone()
    return local.strftime("%m-%d %H:%M" if local.year == datetime.now(UTC).astimezone().year else "%Y-%m-%d")


def ago(at: str | None) -> str:
    """How long since, or until: `12 s ago`, `3 h ago`, `in 2 d`; empty when it is no time.

    What was is counted in whole units that passed; what comes, to the nearest one: four hours from now are four.
    """
    found = moment(at)
    if found is None:
        return ""
    seconds = int((datetime.now(UTC) - found).total_seconds())
    size = abs(seconds)
    if size < 5:
        return "now"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    if seconds < 0:
        unit, length = next(pair for pair in units if size >= 0.95 * pair[1])
        return f"in {round(size / length)} {unit}"
    unit, length = next(pair for pair in units if size >= pair[1])
    return f"{size // length} {unit} ago"


def when(at: str | None) -> str:
    """Absolute and relative: `2026-03-01 14:05 (3 h ago)`."""
    relative = ago(at)
    return f"{clock_time(at)} ({relative})" if relative else clock_time(at)


def count(number: int, one: str, many: str = "") -> str:
    """`1 path`, `3 paths`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def is_drawable(stream: TextIO) -> bool:
    """A terminal that understands cursor movements."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:
        return False


def wants_color(stream: TextIO) -> bool:
    """Colour is for terminals, unless NO_COLOR is set to anything."""
    return is_drawable(stream) and not os.environ.get("NO_COLOR")


class Ink:
    """Paints words, or leaves them as they are."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def __call__(self, style: str, words: str) -> str:
        return f"\x1b[{_CODES[style]}m{words}\x1b[0m" if self.color and style and words else words


def encodable(words: str, stream: TextIO) -> str:
    """The words as that stream can hold them: what its encoding lacks is escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        words.encode(encoding)
    except UnicodeEncodeError:
        plain = words.translate({0x2713: "+", 0x2717: "x", 0x2192: "->", 0x2502: "|", 0x00B7: "-", 0x2026: "..."})
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return words
