"""One line of JSON of anything homeport shows with `--json`."""

from __future__ import annotations

from typing import Any

import msgspec

from homeport.cli.show.words import text


def encode(obj: Any) -> str:
    """One line of valid JSON, without its line end. Text that is no valid Unicode (a path of other bytes) is
    escaped as it is on a terminal; all other text is passed as it is."""
    return msgspec.json.encode(_sound(msgspec.to_builtins(obj, str_keys=True))).decode("utf-8")


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value if _is_unicode(value) else text(value)
    if isinstance(value, dict):
        return {_sound(key): _sound(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sound(item) for item in value]
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
