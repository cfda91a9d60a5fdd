"""The forges' published schemas, for checking what the fake server is asked and what it answers."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

HERE = Path(__file__).parent


@cache
def stored(name: str) -> Any:
    """A stored document, `schemas/github` or `payloads/github-webhooks`; never change what this returns."""
    return json.loads(gzip.decompress((HERE / f"{name}.json.gz").read_bytes()))


@cache
def _validator(forge: str, text: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**json.loads(text), "$defs": stored(f"schemas/{forge}")["$defs"]})


def faults(forge: str, schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value."""
    found = _validator(forge, json.dumps(schema, sort_keys=True)).iter_errors(value)
    return [f"{'/'.join(map(str, fault.absolute_path))}: {fault.message[:200]}" for fault in found]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, but nothing undocumented may be sent."""
    return {**schema, "additionalProperties": False}


def filled(forge: str, schema: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A complete object: `given` where it says something, the plainest allowed value for all else required."""
    value = _plainest(stored(f"schemas/{forge}")["$defs"], schema)
    merged = _over(value, given)
    assert not faults(forge, schema, merged), faults(forge, schema, merged)
    return merged


def _plainest(defs: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _plainest(defs, defs[schema["$ref"].removeprefix("#/$defs/")])
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema.get("type", "null")
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return _plainest(defs, choice)
    kind = "null" if "null" in kinds else kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _plainest(defs, properties[name]) for name in schema.get("required", ())}
    return {"null": None, "array": [], "string": "", "number": 0, "integer": 0, "boolean": False}[kind]


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{name: _over(below.get(name), value) for name, value in above.items()}}
    return above
