"""Takes secrets out of text before it is written anywhere (P9)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from homeport.model.config import Secret
from homeport.model.errors import ConfigFault

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
    from urllib.parse import quote

    return quote(value, safe="", errors="surrogateescape") if len(value) >= SHORTEST else ""


def value_of(secret: Secret, where: str) -> str:
    """What a reference to a secret stands for, without the white space around it.

    Raises ConfigFault (code `no-secret`) when it is not there, naming the key and never the value.
    """
    if secret.env is not None:
        found, source = os.environ.get(secret.env, ""), f"the variable {secret.env}"
    else:
        source = f"the file {secret.file}"
        try:
            with open(secret.file or "", encoding="utf-8") as file:
                found = file.read()
        except (OSError, UnicodeDecodeError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else "it is not text"
            raise ConfigFault(f"{source} cannot be read: {why}", where=where, next="homeport check",
                              code="no-secret") from fault  # fmt: skip
    if not found.strip():
        raise ConfigFault(f"{source} is empty or not set", where=where, next="homeport check", code="no-secret")
    return found.strip()
