"""dotenv files: `KEY=VALUE`, `export`, quotes and comments; nothing is interpolated or run.

A `$` or a backquote in a value stays what it is: the file is data, whoever wrote it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_START = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_COMMENT = re.compile(r"(?<![ \t])[ \t]+#.*|^#.*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


def parse(text: str) -> dict[str, str]:
    """The variables of a dotenv file, the last of a name wins.

    Single quotes are literal; double quotes know `\\n \\r \\t \\" \\\\ \\$`; both may span lines. Unquoted
    values end at ` #` and are trimmed. Lines that are no assignment and values with a NUL are left out.
    """
    found: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        start = _START.match(text, at, end)
        if start is None:
            at = end + 1
            continue
        value, after = _value(text, start.end(), end)
        if "\0" not in value:
            found[start.group(1)] = value
        at = after + 1
    return found


def _value(text: str, at: int, end: int) -> tuple[str, int]:
    """The value that starts there, and where the line it ends on ends."""
    quote = text[at : at + 1]
    if quote in ("'", '"'):
        close = _closing(text, at + 1, quote)
        if close is not None:
            inner = text[at + 1 : close]
            line_end = text.find("\n", close)
            return (_unescape(inner) if quote == '"' else inner), len(text) if line_end < 0 else line_end
    return _COMMENT.sub("", text[at:end], count=1).strip(), end


def _closing(text: str, at: int, quote: str) -> int | None:
    """Where the closing quote stands; None when there is none, and the quote is then part of the value."""
    while at < len(text):
        if quote == '"' and text[at] == "\\":
            at += 2
            continue
        if text[at] == quote:
            return at
        at += 1
    return None


def _unescape(inner: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(0)), inner)


def fingerprint(values: Mapping[str, str]) -> str:
    """One hash (64 hex digits) over names and values, whatever their order; tells nothing about them."""
    digest = hashlib.sha256()
    for name in sorted(values):
        for part in (name, values[name]):
            raw = part.encode("utf-8", "surrogateescape")
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
