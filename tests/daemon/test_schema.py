"""Every route of `/api/v1/schema`, driven with what the document allows and with what it does not (schemathesis).

What is allowed may be refused for what it asks (there is no such deploy), never as malformed; what is not allowed is
refused; every answer is one that the document tells of, in the shape it tells. No runner is started: what is asked for
waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi

from homeport.flow.site import Site
from tests.daemon.conftest import App

EXAMPLES = 6
"""Of each kind for each route; a soak tries many more."""
LOOKED_AT = [checks.not_a_server_error, openapi.status_code_conformance, openapi.content_type_conformance,
             openapi.response_schema_conformance]  # fmt: skip
METHODS = {"get", "post"}


@pytest.fixture(scope="module")
def still(site: Site) -> Iterator[App]:
    """The application, whose requests are put into the queue and carried out by nobody."""
    made = App(replace(site, start_runner=lambda: 0, runner_on_its_way=lambda: True))
    yield made
    made.close()


def ask(app: App, case: Any) -> httpx.Response:
    """The case as it is, except that nobody waits for a deploy."""
    words = case.as_transport_kwargs()
    told = {parameter.name for parameter in case.operation.iter_parameters()}
    query = {name: value for name, value in (words.get("params") or {}).items() if name in told}
    waits = case.path.endswith(("/self/deploy", "/api/v1/deploys")) and case.method.lower() == "post"
    if waits and query.get("wait", True) in (True, "true"):
        query["wait"] = "false"
    body = {"content": words["data"]} if words.get("data") is not None else {}
    if "json" in words:
        body = {"json": words["json"]}
    headers = [(name, value) for name, value in (words.get("headers") or {}).items() if name.lower() != "user-agent"]
    return app.own(case.method, httpx.URL(words["url"]).raw_path.decode(), params=query or None, headers=headers, **body)


def is_a_text(operation: Any, name: str, value: Any) -> bool:
    """What is no text goes into a query as one, each of a list by itself: nothing is wrong with a `requestId` of `{}`."""
    known = {parameter.name: parameter for parameter in operation.iter_parameters()}
    if isinstance(value, str) or name not in known:
        return False
    words = value if isinstance(value, list) else [value]
    return not words or any(known[name].is_valid(str(word)) for word in words)


def drive(app: App, operation: Any, mode: GenerationMode, examples: int) -> int:
    """How many requests were made."""
    seen = 0

    @seed(7)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        nonlocal seen
        seen += 1
        answer = ask(app, case)
        case.validate_response(answer, checks=LOOKED_AT)
        unknown = set(case.query or {}) - {parameter.name for parameter in operation.iter_parameters()}
        code = answer.json().get("code") if answer.headers.get("content-type", "").startswith("application/json") else None
        if mode is GenerationMode.POSITIVE:
            assert code not in ("bad-body", "bad-request", "media-type"), (case.body, answer.text)
        elif not unknown and not any(is_a_text(operation, *word) for word in (case.query or {}).items()):
            # further words in a query mean nothing, here as elsewhere
            assert answer.status_code >= 400, (case.method, case.path, case.query, case.body, answer.text)

    one()
    return seen


def takes_something(operation: Any) -> bool:
    return bool(operation.body) or any(True for _ in operation.iter_parameters())


def test_every_route_answers_as_the_document_says(still: App, request: pytest.FixtureRequest) -> None:
    examples = 200 if request.config.getoption("--soak") else EXAMPLES
    document = still.own("GET", "/api/v1/schema").json()
    schema = schemathesis.openapi.from_dict(document)
    driven: dict[tuple[str, str], int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        key = (operation.method.lower(), operation.path)
        driven[key] = drive(still, operation, GenerationMode.POSITIVE, examples)
        if takes_something(operation):
            driven[key] += drive(still, operation, GenerationMode.NEGATIVE, examples)
    told = {(method, path) for path, item in document["paths"].items() for method in item if method in METHODS}
    assert set(driven) == told and len(told) > 15
    assert all(driven.values()), driven
