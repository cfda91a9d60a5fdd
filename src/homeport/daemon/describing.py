"""The OpenAPI document: what the framework makes of the routes, with the shapes as they are really read and written."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.openapi.plugins import JsonRenderPlugin

from homeport.daemon import shapes
from homeport.daemon.answers import Problem
from homeport.flow.telling import Outcome

SHAPES = (shapes.SelfDeploy, shapes.DeployWanted, shapes.HoldWanted, shapes.BlockWanted, shapes.UnblockWanted,
          shapes.AdoptWanted, shapes.Asked, Outcome, Problem)  # fmt: skip
ITSELF = "/api/v1/schema"
_REFERENCE = "#/components/schemas/{name}"


class Document(JsonRenderPlugin):
    """Answers with the completed document."""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, completed(openapi_schema))


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """With the shapes as msgspec tells them (limits of what lies within a list, no unknown keys), and the document's own
    route once."""
    _, components = msgspec.json.schema_components(SHAPES, ref_template=_REFERENCE)
    (word,), _ = msgspec.json.schema_components([shapes.Word], ref_template=_REFERENCE)
    paths = {path: item for path, item in document["paths"].items() if not path.startswith(f"{ITSELF}/")}
    for item in paths.values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "service":
                    parameter["schema"] = {"type": "array", "items": word}
    if ITSELF in paths:
        content = {"application/json": {"schema": {"type": "object"}}}
        paths[ITSELF]["get"]["responses"]["200"] = {"description": "This document", "content": content}
    within = document["components"]
    return {**document, "paths": paths, "components": {**within, "schemas": {**within["schemas"], **components}}}
