"""homeport.toml and host.toml from text to Structs: strict, and every error names file, line and key."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from homeport.decide import durations, sense
from homeport.decide.locate import Path, dotted, line_at, lines_of
from homeport.model.config import Config, HostConfig, Seconds
from homeport.model.errors import ConfigFault
from homeport.model.paths import printable

NEXT = "correct the file, then run: homeport check"
LONGEST = 1_000_000
"""Bytes (or characters) of a configuration that are read at most."""
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_T = TypeVar("_T")


def load(text: str | bytes, file: str = "homeport.toml") -> Config:
    """The configuration of a project, from text or the bytes of its file. Raises ConfigFault for the first thing
    that is wrong."""
    return _loaded(decoded(text, file), file, Config, sense.faults)


def load_host(text: str | bytes, file: str = "/etc/homeport/host.toml") -> HostConfig:
    """The configuration of a host, as `load`. Raises ConfigFault for the first thing that is wrong."""
    return _loaded(decoded(text, file), file, HostConfig, sense.host_faults)


def decoded(raw: str | bytes, file: str) -> str:
    """UTF-8 without byte order mark, of a length that somebody can have written. Raises ConfigFault."""
    source = _Source("", file)
    if len(raw) > LONGEST:
        source.refuse(1, "the file is longer than 1 MB, which nobody can have written by hand")
    if isinstance(raw, str):
        return raw
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        source.refuse(1, "the file is written in UTF-16; save it as UTF-8")
    if raw[:3] == b"\xef\xbb\xbf":
        source.refuse(1, "the file begins with a byte order mark (BOM); save it as UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        source.refuse(line, f"the byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")


def duration(kind: type, value: object) -> object:
    """The `dec_hook` of msgspec for this configuration: builds Seconds."""
    if kind is Seconds:
        return durations.parse(value)
    raise NotImplementedError(kind)


def _loaded(text: str, file: str, kind: type[_T], judge: Any) -> _T:
    source = _Source(text, file)
    data = source.parsed()
    _Shape(source).check(data, inspect.type_info(kind), ())
    try:
        config = msgspec.convert(data, kind, dec_hook=duration)
    except (msgspec.ValidationError, ValueError) as error:  # the walk above is the one that explains
        source.fault((), str(error))
    for path, what in judge(config):
        source.fault(path, what)
    return config


class _Source:
    """The text at hand; knows how to say where something stands in it."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._lines: dict[Path, int] | None = None

    def parsed(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            line = int(found[1]) if found else self.text.rstrip("\n").count("\n") + 1
            self._raise(line, "", f"not valid TOML: {_AT_LINE.sub('', str(error))}")
        except RecursionError:
            self._raise(1, "", "not valid TOML: nested too deeply")
        except ValueError as error:  # a number with thousands of digits
            self._raise(1, "", f"not valid TOML: {error}")

    def fault(self, path: Path, what: str) -> NoReturn:
        if self._lines is None:
            self._lines = lines_of(self.text)
        self._raise(line_at(self._lines, path), dotted(path), what)

    def refuse(self, line: int, what: str) -> NoReturn:
        """For what stands at a line rather than at a key."""
        self._raise(line, "", what)

    def _raise(self, line: int, key: str, what: str) -> NoReturn:
        where = f"{self.file}:{line}: {key}" if key else f"{self.file}:{line}"
        raise ConfigFault(printable(what), where=printable(where), next=NEXT, code="config") from None


class _Shape:
    """Compares parsed TOML with the Structs, key by key, so that a message can name the very key."""

    def __init__(self, source: _Source) -> None:
        self.source = source

    def check(self, value: object, kind: inspect.Type, path: Path) -> None:
        fitting = [k for k in _alternatives(kind) if _fits(value, k)]
        if not fitting:
            self.source.fault(path, _mismatch(value, kind))
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
                self.source.fault((*path, key), _unknown(key, list(fields)))
        for key, field in fields.items():
            if key in value:
                self.check(value[key], field.type, (*path, key))
            elif field.required:
                article = f"[{dotted(path)}]" if path else "the file"
                expected = _expected(field.type)
                self.source.fault(path, f"{article} lacks the key `{key}` ({expected})")


def _unknown(key: str, known: list[str]) -> str:
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
