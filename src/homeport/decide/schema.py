"""The published JSON Schema of homeport.toml, made from the very Structs that read it."""

from __future__ import annotations

from typing import Any

import msgspec

from homeport.decide import durations, spelling
from homeport.model.config import Config, Seconds

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DESCRIPTIONS = {
    "project": "The repository: its name, and what holds for all of its live folders.",
    "environments": "A branch, its hosts and its rules, by name: staging, production.",
    "services": "What runs, is published, or is built from part of the repository, by name.",
    "forge": "Where the repository is hosted.",
    "hosts": "Machines that are reached over ssh, by name.",
    "actions": "What to do when certain paths change, besides the services' own.",
    "scopes": "Names for groups of services.",
    "migrate": "Runs once per deploy, before anything live changes.",
    "checks": "homeport's own CI checks, by name.",
    "gate": "What must hold before a commit may be deployed.",
    "rules": "Allow, confirm, review or deny, for an action on a match.",
    "hostfiles": "Files of the machine that are watched and kept with their history.",
    "notify": "Who is told about deploys.",
}


def json_schema() -> dict[str, Any]:
    """A fresh JSON Schema (2020-12) that editors and other tools can check homeport.toml against."""
    schema = msgspec.json.schema(Config, schema_hook=_hook)
    definitions = schema["$defs"]
    for key, description in DESCRIPTIONS.items():
        definitions["Config"]["properties"][key]["description"] = description
    for key in ("environments", "services", "hosts", "scopes", "checks"):
        definitions["Config"]["properties"][key]["propertyNames"] = {"pattern": spelling.NAME}
    return {
        "$schema": DIALECT,
        "title": "homeport.toml",
        "description": "How a git repository and the servers that run it are kept in step by homeport.",
        **schema,
    }


def _hook(kind: type) -> dict[str, Any]:
    if kind is not Seconds:
        raise NotImplementedError(kind)
    return {
        "title": "Duration",
        "description": f"{durations.EXPECTED[0].upper()}{durations.EXPECTED[1:]}.",
        "anyOf": [
            {"type": "string", "pattern": durations.PATTERN},
            {"type": "number", "minimum": 0, "maximum": durations.LONGEST},
        ],
    }
