"""JSON of our structs. Names on disk need not be UTF-8, JSON must be: what is not is made visible first."""

from __future__ import annotations

from typing import Any

import msgspec


def encodable(text: str) -> str:
    """The text with lone surrogates shown as `\\udcNN`; as it is when there are none."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode(value: Any) -> bytes:
    """Compact JSON of a struct, mapping or sequence."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(msgspec.to_builtins(value)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, (list, tuple)) else value
