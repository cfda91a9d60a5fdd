"""Every place of homeport.toml and host.toml that takes text, derived from the Structs that read them, and the files that
result when hostile text is put there."""

from __future__ import annotations

import copy
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from homeport.model.config import Check, Config, HostConfig, Ready, Secret

Place = tuple[str, ...]
"""Keys from the top; `*` is an entry of a list or the values of a free table, `%` its name."""
ONE_OF: dict[type, set[str]] = {
    Check: {"http", "tcp", "command", "process", "containers", "version"}, Secret: {"env", "file"},
    Ready: {"http", "tcp", "line", "notify"},
}  # fmt: skip
"""Tables in which the other keys of the set have to go."""


COMMANDS = {"command", "run", "validate", "wait", "undo", "reload", "build", "version"}
"""A string there is shell text, written by the project's own people; a list is not."""


def is_shell_text(place: Place) -> bool:
    return place[-1] in COMMANDS


def places(table: type[msgspec.Struct], above: Place = ()) -> Iterator[Place]:
    """Every place below this table that takes a string."""
    hints = typing.get_type_hints(table)
    for field in msgspec.structs.fields(table):
        yield from _below(hints[field.name], (*above, field.encode_name))


def _below(hint: Any, at: Place) -> Iterator[Place]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is str or origin is typing.Literal or getattr(hint, "__name__", "") == "Seconds":
        yield at
    elif origin in (typing.Union, types.UnionType):
        yield from dict.fromkeys(place for one in inner for place in _below(one, at))
    elif origin is list:
        yield from _below(inner[0], (*at, "*"))
    elif origin is dict:
        yield (*at, "%")
        yield from _below(inner[1], (*at, "*"))
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield from places(hint, at)


def put(document: dict[str, Any], place: Place, text: str) -> dict[str, Any]:
    """A copy with the text at that place: in the first entry of each list and free table on the way."""
    made = copy.deepcopy(document)
    _put(made, place, text)
    for table in list(_tables(made)):
        for keys in ONE_OF.values():
            given = [key for key in table if key in keys]
            if len(given) > 1 and text in map(str, _leaves(table)):
                mine = next((key for key in given if text in str(table[key])), given[0])
                for key in set(given) - {mine}:
                    del table[key]
    return made


def _put(into: Any, place: Place, text: str, named: str = "") -> None:
    """`named`: the key above, for a command's words the one that is not first becomes the text."""
    key, *rest = place
    if key == "%":
        into[text] = into.pop(next(iter(into), ""), "value")
        return
    found: Any = (0 if isinstance(into, list) else next(iter(into), "NAME")) if key == "*" else key
    if not rest:
        if isinstance(into, list):
            into[:] = [*into[:1], text] if named in COMMANDS else [text, *into[1:]]
        else:
            into[found] = text
        return
    if isinstance(into, dict) and not isinstance(into.get(found), dict | list):
        into[found] = (["echo"] if found in COMMANDS else []) if rest[0] == "*" else {}
    if isinstance(into, list) and not into:
        into.append([] if rest[0] == "*" else {})
    _put(into[found], tuple(rest), text, found if isinstance(found, str) else named)


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _tables(one)


def _leaves(table: dict[str, Any]) -> Iterator[Any]:
    for value in table.values():
        yield from value if isinstance(value, list) else (value,)


def toml(document: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {_value(value)}\n" for key, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")


CONFIG_PLACES = tuple(places(Config))
HOST_PLACES = tuple(places(HostConfig))
