"""The published JSON Schema of homeport.toml, made from the very Structs that read it.

Not msgspec's own generator: that one cannot write the default of a duration, and it allows `null`,
which TOML has not.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from homeport.decide import durations, spelling
from homeport.decide.sense import CHECK_KINDS
from homeport.model.config import Config, Seconds

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "homeport.toml"
DESCRIPTION = "How a git repository and the servers that run it are kept in step by homeport."
_TOP = {
    "project": "The repository: its name, and what holds for all of its live folders.",
    "environments": "A branch, its hosts and its rules, by name: staging, production.",
    "services": "What runs, is published, or is built from part of the repository, by name.",
    "forge": "Where the repository is hosted.",
    "hosts": "Machines that are reached over ssh, by name.",
    "actions": "What to do when certain paths change, besides what the services do.",
    "scopes": "Names for groups of services.",
    "migrate": "Runs once per deploy, before anything live changes.",
    "checks": "homeport's own CI checks, by name.",
    "gate": "What must hold before a commit may be deployed.",
    "rules": "Allow, confirm, review or deny, for an action on a match.",
    "hostfiles": "Files of the machine that are watched and kept with their history.",
    "notify": "Who is told about deploys.",
}
_ONE_OF = {"Check": CHECK_KINDS, "Secret": ("env", "file"), "Action": ("run", "service")}
_DURATION = {
    "title": "Duration",
    "description": f"{durations.EXPECTED[0].upper()}{durations.EXPECTED[1:]}.",
    "anyOf": [
        {"type": "string", "pattern": durations.PATTERN},
        {"type": "number", "minimum": 0, "maximum": durations.LONGEST},
    ],
}


def json_schema() -> dict[str, Any]:
    """A fresh JSON Schema (2020-12) that editors and other tools can check homeport.toml against."""
    made = _Definitions()
    top = made.struct(inspect.type_info(Config))
    for key, description in _TOP.items():
        top["properties"][key]["description"] = description
    return {
        "$schema": DIALECT,
        "title": TITLE,
        "description": DESCRIPTION,
        **{key: value for key, value in top.items() if key not in ("title", "description")},
        "$defs": {"Duration": _DURATION, **made.named},
    }


class _Definitions:
    """The named tables met so far."""

    def __init__(self) -> None:
        self.named: dict[str, dict[str, Any]] = {}

    def struct(self, kind: inspect.Type) -> dict[str, Any]:
        assert isinstance(kind, inspect.StructType)
        table: dict[str, Any] = {
            "title": kind.cls.__name__,
            "type": "object",
            "properties": {f.encode_name: self._field(f) for f in kind.fields},
            "required": [f.encode_name for f in kind.fields if f.required],
            "additionalProperties": False,
        }
        own = kind.cls.__dict__.get("__doc__")
        if own:
            table["description"] = " ".join(own.split())
        if kind.cls.__name__ in _ONE_OF:
            table["oneOf"] = [{"required": [key]} for key in _ONE_OF[kind.cls.__name__]]
        return table

    def _field(self, field: inspect.Field) -> dict[str, Any]:
        shown = self._type(field.type)
        default = field.default
        if isinstance(default, Seconds):
            default = durations.text(default)
        elif isinstance(field.default_factory, type):
            default = field.default_factory()
        if default is None or isinstance(default, msgspec.Struct) or field.required or default is msgspec.NODEFAULT:
            return shown
        return {**shown, "default": default}

    def _type(self, kind: inspect.Type) -> dict[str, Any]:
        if isinstance(kind, inspect.UnionType):
            kinds = [self._type(k) for k in kind.types if not isinstance(k, inspect.NoneType)]
            return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if isinstance(kind, inspect.StructType):
            name = kind.cls.__name__
            if name not in self.named:
                self.named[name] = {}
                self.named[name] = self.struct(kind)
            return {"$ref": f"#/$defs/{name}"}
        if isinstance(kind, inspect.ListType):
            return {"type": "array", "items": self._type(kind.item_type)}
        if isinstance(kind, inspect.DictType):
            table = {"type": "object", "additionalProperties": self._type(kind.value_type)}
            if isinstance(kind.value_type, inspect.StructType):
                table["propertyNames"] = {"pattern": spelling.NAME}
            return table
        if isinstance(kind, inspect.LiteralType):
            return {"enum": list(kind.values)}
        if isinstance(kind, inspect.CustomType) and kind.cls is Seconds:
            return {"$ref": "#/$defs/Duration"}
        return {"type": _SIMPLE[type(kind)]}


_SIMPLE = {inspect.StrType: "string", inspect.IntType: "integer", inspect.BoolType: "boolean"}
