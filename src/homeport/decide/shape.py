"""What in a configuration does not have the shape of its Structs; loaded only to explain a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

from msgspec import inspect

from homeport.decide import durations
from homeport.decide.locate import Path, dotted

Fault = Callable[[Path, str], NoReturn]


def explain(data: dict[str, object], kind: type, fault: Fault) -> None:
    """Calls `fault` with the path and the words for the first thing of parsed TOML that does not fit the Struct."""
    _Shape(fault).check(data, inspect.type_info(kind), ())


class _Shape:
    """Compares parsed TOML with the Structs, key by key, so that a message can name the very key."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def check(self, value: object, kind: inspect.Type, path: Path) -> None:
        fitting = [k for k in _alternatives(kind) if _fits(value, k)]
        if not fitting:
            self._fault(path, _mismatch(value, kind))
        chosen = fitting[0]
        if isinstance(chosen, inspect.StructType):
            assert isinstance(value, dict)
            self._struct(value, chosen, path)
        elif isinstance(chosen, inspect.DictType):
            assert isinstance(value, dict)
            for key, item in value.items():
                self.check(item, chosen.value_type, (*path, key))
        elif isinstance(chosen, inspect.ListType):
            assert isinstance(value, list)
            for position, item in enumerate(value):
                self.check(item, chosen.item_type, (*path, position))

    def _struct(self, value: dict[str, object], kind: inspect.StructType, path: Path) -> None:
        fields = {f.encode_name: f for f in kind.fields}
        for key in value:
            if key not in fields:
                self._fault((*path, key), _unknown(key, list(fields)))
        for key, field in fields.items():
            if key in value:
                self.check(value[key], field.type, (*path, key))
            elif field.required:
                article = f"[{dotted(path)}]" if path else "the file"
                expected = _expected(field.type)
                self._fault(path, f"{article} lacks the key `{key}` ({expected})")


def _unknown(key: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"unknown key `{key}`; did you mean `{near[0]}`?"
    return f"unknown key `{key}`; known here: {', '.join(sorted(known))}"


def _mismatch(value: object, kind: inspect.Type) -> str:
    expected = _expected(kind)
    words = [k.values for k in _alternatives(kind) if isinstance(k, inspect.LiteralType)]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return f"must be {expected}, not {_named(value)}"
    if words and isinstance(value, str):
        import difflib

        near = difflib.get_close_matches(value, [str(w) for w in words[0]], n=1, cutoff=0.6)
        hint = f"; did you mean {json.dumps(near[0])}?" if near else ""
        return f"must be {expected}, not {json.dumps(value, ensure_ascii=False)}{hint}"
    if any(isinstance(k, inspect.CustomType) for k in _alternatives(kind)):
        return f"must be {expected}, not {json.dumps(value, ensure_ascii=False)}"
    return f"must be {expected}, not {_named(value)}"


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    kinds = list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]
    return [k for k in kinds if not isinstance(k, inspect.NoneType)]


def _fits(value: object, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.CustomType):
        try:
            durations.parse(value)
        except ValueError:
            return False
        return True
    if isinstance(kind, inspect.LiteralType):
        return isinstance(value, str) and value in kind.values
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    python = _PYTHON.get(type(kind))
    return python is not None and isinstance(value, python)


_PYTHON: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.BoolType: bool,
    inspect.ListType: list,
    inspect.DictType: dict,
    inspect.StructType: dict,
}
_WORDS: dict[type[inspect.Type], str] = {
    inspect.StrType: "a string",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.DictType: "a table",
}
_PLURALS: dict[type[inspect.Type], str] = {inspect.StrType: "strings", inspect.IntType: "whole numbers"}


def _expected(kind: inspect.Type) -> str:
    return " or ".join(_word(k) for k in _alternatives(kind))


def _word(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.CustomType):
        return durations.EXPECTED
    if isinstance(kind, inspect.LiteralType):
        return ("one of " if len(kind.values) > 1 else "") + ", ".join(json.dumps(v) for v in kind.values)
    if isinstance(kind, inspect.ListType):
        return f"a list of {_PLURALS.get(type(kind.item_type), 'tables')}"
    if isinstance(kind, inspect.StructType):
        keys = [f.encode_name for f in kind.fields]
        return f"a table ({', '.join(keys)})" if len(keys) <= 3 else "a table"
    return _WORDS[type(kind)]


def _named(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for python, word in (
        (str, "a string"), (int, "a whole number"), (float, "a number with a fraction"),
        (list, "a list"), (dict, "a table"),
    ):  # fmt: skip
        if isinstance(value, python):
            return word
    return "a date or time"
