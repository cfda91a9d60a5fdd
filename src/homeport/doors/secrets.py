"""Takes secrets out of text before it is written anywhere (P9)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

SHORTEST = 6
"""Characters; shorter values would blacken ordinary words."""
_CREDENTIALS = re.compile(r"(?:(?<=://)[^/\s:@'\"]*:[^/\s'\"]+|(?:(?<=https://)|(?<=http://))[^/\s'\"]+)@")


class Redactor:
    """Satisfies `Secrets`: known values, and credentials in URLs, become `***`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Values to hide from now on; of those with several lines each line, and the form they have in a URL."""
        for value in values:
            for part in {value.strip(), *(line.strip() for line in value.splitlines())}:
                self._known |= {form for form in (part, _in_url(part)) if len(form) >= SHORTEST}
        longest_first = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def redact(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub("***", text)
        return _CREDENTIALS.sub("***@", text) if "://" in text else text


def _in_url(value: str) -> str:
    return quote(value, safe="", errors="surrogateescape") if len(value) >= SHORTEST else ""
