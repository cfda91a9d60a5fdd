"""homeport.toml and host.toml from text to Structs: strict, and every error names file, line and key."""

from __future__ import annotations

import re
import tomllib
from typing import Any, NoReturn, TypeVar

import msgspec

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
    try:
        config = msgspec.convert(data, kind, dec_hook=duration)
    except (msgspec.ValidationError, ValueError) as error:
        from homeport.decide import shape

        shape.explain(data, kind, source.fault)
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
