"""What bad input gets over the API: an answer in our shape, never a crash, never a change."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from homeport.daemon import events, guards
from tests.daemon.conftest import App, problem

JSON = [("content-type", "application/json")]
DEEP = b'{"because":' + b"[" * 30_000 + b"]" * 30_000 + b"}"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", JSON, 400, "bad-request"),
        (b"{", JSON, 400, "bad-body"),
        (b'{"because": "x"', JSON, 400, "bad-body"),
        (b"[]", JSON, 400, "bad-body"),
        (b'"because"', JSON, 400, "bad-body"),
        (b"null", JSON, 400, "bad-body"),
        (b'{"because": NaN}', JSON, 400, "bad-body"),
        (b'{"because": "x", "because": "y"}', JSON, 400, "bad-body"),
        (b'{"because": "x"}\xff', JSON, 400, "bad-body"),
        (b'\xef\xbb\xbf{"because": "x"}', JSON, 400, "bad-body"),
        (DEEP, JSON, 400, "bad-body"),
        (b'{"because": 5}', JSON, 400, "bad-request"),
        (b'{"because": ""}', JSON, 400, "bad-request"),
        (b'{"because": "' + b"x" * 3000 + b'"}', JSON, 400, "bad-request"),
        (b'{"because": "x", "seconds": "soon"}', JSON, 400, "bad-request"),
        (b'{"because": "x", "seconds": -1}', JSON, 400, "bad-request"),
        (b'{"because": "x", "seconds": 1e999}', JSON, 400, "bad-request"),
        (b'{"because": "x", "becuase": "y"}', JSON, 400, "bad-request"),
        (b'{"because": "' + b"x" * 70_000 + b'"}', JSON, 413, "too-large"),
        (b'{"because": "x"}', [("content-type", "text/plain")], 415, "media-type"),
        (b"because=x", [("content-type", "application/x-www-form-urlencoded")], 415, "media-type"),
        (gzip.compress(b"0" * 10_000_000), [*JSON, ("content-encoding", "gzip")], 415, "encoding"),
        (b'{"because": "x"}', [*JSON, ("content-encoding", "br, gzip")], 415, "encoding"),
    ],
    ids=range(23),
)
def test_a_bad_body_is_told_and_changes_nothing(app: App, body: bytes, headers: Any, status: int, code: str) -> None:
    answer = app.own("POST", "/api/v1/hold", headers=headers, content=body)
    assert (answer.status_code, problem(answer)) == (status, code), answer.text
    assert app.site.store.holds() == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scope": "none"}, 404, "no-scope"),
        ({"scope": "../../etc"}, 404, "no-scope"),
        ({"scope": ""}, 400, "bad-request"),
        ({"scope": "a\nb"}, 400, "bad-request"),
        ({"scope": ["all"]}, 400, "bad-request"),
        ({"mode": "try"}, 400, "bad-request"),
        ({"mode": None}, 400, "bad-request"),
        ({"requestId": "x" * 201}, 400, "bad-request"),
        ({"requestId": 7}, 400, "bad-request"),
        ({"requestedBy": "\x1b[2J"}, 400, "bad-request"),
        ({"ref": "main"}, 400, "bad-request"),
        ({"deployId": "x"}, 400, "bad-request"),
    ],
)
def test_a_self_deploy_that_makes_no_sense_asks_for_nothing(app: App, body: Any, status: int, code: str) -> None:
    answer = app.own("POST", "/api/v1/self/deploy", json=body)
    assert (answer.status_code, problem(answer)) == (status, code), answer.text
    assert app.site.store.waiting() is None and app.site.store.history() == []


STRICT = [
    ("hold", b'{"because": "x", "seconds": "60"}', "seconds"),
    ("hold", b'{"because": "x", "seconds": true}', "seconds"),
    ("hold", b'{"because": true}', "because"),
    ("deploys", b'{"allowMassDelete": "true"}', "allowMassDelete"),
    ("deploys", b'{"allowMassDelete": 1}', "allowMassDelete"),
    ("deploys", b'{"services": "api"}', "services"),
    ("deploys", b'{"services": [1]}', "services[0]"),
    ("deploys", b'{"services": {"api": 1}}', "services"),
    ("deploys", b'{"ref": 1234567}', "ref"),
    ("deploys", b'{"ref": "main", "r\\u0065f": "other"}', "twice"),
    ("self/deploy", b'{"scope": "all", "scope": "platform"}', "twice"),
    ("self/deploy", b'{"requestId": 5}', "requestId"),
    ("block", b'{"sha": 1234567}', "sha"),
    ("unblock", b'{"sha": null}', "sha"),
    ("adopt", b'{"author": {"name": "a", "email": "b"}, "merge": "yes"}', "merge"),
    ("adopt", b'{"author": {"name": "a", "email": "b"}, "foreign": 0}', "foreign"),
    ("adopt", b'{"author": ["a", "b"]}', "author"),
    ("adopt", b'{"author": {"name": "a", "name": "c", "email": "b"}}', "twice"),
]


@pytest.mark.parametrize(("route", "body", "names"), STRICT)
def test_a_value_of_another_json_type_is_not_bent_into_shape(app: App, route: str, body: bytes, names: str) -> None:
    answer = app.own("POST", f"/api/v1/{route}", headers=JSON, content=body)
    assert (answer.status_code, names in answer.text) == (400, True), answer.text
    assert problem(answer) in ("bad-request", "bad-body")
    assert app.site.store.holds() == [] and app.site.store.waiting() is None and app.site.store.blocks() == []


def test_every_route_with_a_body_declares_its_shape(app: App) -> None:
    """What is read strictly is what the route declares: a new route must be of the table above."""
    taking = {route.path.removeprefix("/api/v1/") for route in app.app.routes
              for handler in getattr(route, "route_handlers", ()) if handler.parsed_data_field is not None}  # fmt: skip
    assert taking == {route for route, _, _ in STRICT}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/deploys/none", 404, "no-deploy"),
        ("GET", "/api/v1/deploys/..%2f..%2fetc", 404, "no-such-path"),
        ("GET", "/api/v1/deploys/A;B", 400, "bad-request"),
        ("GET", "/api/v1/deploys/none/log", 404, "no-deploy"),
        ("GET", "/api/v1/deploys?limit=0", 400, "bad-request"),
        ("GET", "/api/v1/deploys?limit=many", 400, "bad-request"),
        ("GET", "/api/v1/deploys?limit=99999999999999999999999", 400, "bad-request"),
        ("GET", "/api/v1/deploys?requestId=" + "x" * 300, 400, "bad-request"),
        ("GET", "/api/v1/drift?service=none", 404, "no-service"),
        ("GET", "/api/v1/plan?ref=--upload-pack%3Dx", 400, "bad-ref"),
        ("GET", "/api/v1/plan?ref=nowhere", 404, "no-commit"),
        ("GET", "/api/v1/plan?scope=none", 404, "no-scope"),
        ("POST", "/api/v1/deploys/none/cancel", 404, "no-deploy"),
        ("PUT", "/api/v1/hold", 405, "method"),
        ("GET", "/api/v1", 404, "no-such-path"),
        ("GET", "/hooks/github", 404, "no-such-path"),
        ("POST", "/hooks/gitea", 404, "no-such-path"),
    ],
)
def test_a_bad_path_or_query_is_told(app: App, method: str, path: str, status: int, code: str) -> None:
    answer = app.own(method, path)
    assert (answer.status_code, problem(answer)) == (status, code), answer.text


@pytest.mark.parametrize("sha", ["main", "HEAD", "zzzzzzz", "abc", "-" * 7, "a" * 65, "$(touch x)", 1234567])
def test_a_block_takes_commits_only(app: App, sha: Any) -> None:
    answer = app.own("POST", "/api/v1/block", json={"sha": sha})
    assert (answer.status_code, problem(answer)) == (400, "bad-request")


def test_a_commit_that_is_not_there_is_not_blocked(app: App) -> None:
    for verb in ("block", "unblock"):
        answer = app.own("POST", f"/api/v1/{verb}", json={"sha": "a" * 40})
        assert answer.status_code == 404, answer.text
    assert app.site.store.blocks() == []


async def _asked(app: App, messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]]) -> tuple[int, Any]:
    """One request as raw ASGI messages, for clients that lie about what they send."""
    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": "/api/v1/hold", "raw_path": b"/api/v1/hold", "query_string": b"",
             "headers": [(b"host", b"localhost"), *headers], "client": ("uid:0", 0), "http_version": "1.1",
             "scheme": "http", "root_path": "", "server": None, "asgi": {"version": "3.0"}, "state": {}}  # fmt: skip
    coming = iter(messages)

    async def receive() -> Any:
        try:
            return next(coming)
        except StopIteration:
            await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        sent.append(message)

    await app.guarded(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


def test_a_body_is_cut_off_while_it_comes_whatever_its_length_said(app: App) -> None:
    piece = {"type": "http.request", "body": b"x" * 32_768, "more_body": True}
    status, said = app.loop.run_until_complete(_asked(app, [piece] * 100, [(b"content-length", b"10")]))
    assert (status, said["code"]) == (413, "too-large")
    for length in (b"99999999999", b"-1", b"1e3", b"0x10", b""):
        status, said = app.loop.run_until_complete(_asked(app, [], [(b"content-length", length)]))
        assert (status, said["code"]) == (413, "too-large"), length
    gone = [piece, {"type": "http.disconnect"}]
    assert app.loop.run_until_complete(_asked(app, gone, []))[1]["code"] == "cut"


def test_a_body_that_never_ends_is_given_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODY_WITHIN", 0.02)
    drop = {"type": "http.request", "body": b"{", "more_body": True}
    status, said = app.loop.run_until_complete(_asked(app, [drop], []))
    assert (status, said["code"]) == (408, "too-slow")


def test_a_flood_of_listeners_is_bounded_and_the_others_are_served(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.app.state.tails, "clients", events.MOST)
    scope = {"type": "websocket", "path": "/api/v1/events", "raw_path": b"/api/v1/events", "query_string": b"",
             "headers": [(b"host", b"localhost")], "client": ("uid:0", 0), "http_version": "1.1", "scheme": "ws",
             "root_path": "", "server": None, "subprotocols": [], "asgi": {"version": "3.0"}, "state": {},
             "extensions": {"websocket.http.response": {}}}  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app.loop.run_until_complete(app.guarded(scope, receive, send))
    assert not any(message["type"] == "websocket.accept" for message in sent), sent
    assert "503" in str(sent[0]) or "4503" in str(sent[0]), sent
    assert app.own("GET", "/api/v1/status").status_code == 200


def test_the_schema_tells_of_every_route(app: App) -> None:
    document = app.own("GET", "/api/v1/schema").json()
    assert document["openapi"].startswith("3.")
    told = set(document["paths"])
    for path in ("/api/v1/self/deploy", "/api/v1/deploys/{deploy_id}", "/api/v1/plan", "/api/v1/adopt", "/metrics"):
        assert path in told
    schemas = document["components"]["schemas"]
    assert {"scope", "mode", "requestId", "requestedBy", "sessionId", "itself"} == set(schemas["SelfDeploy"]["properties"])
    outcome = set(schemas["Outcome"]["properties"])
    assert {"deployId", "status", "durationMs", "exitCode", "errorSummary", "logTail"} <= outcome
    asked = document["paths"]["/api/v1/self/deploy"]["post"]["responses"]
    assert {"200", "202", "400", "401", "403", "404", "409", "500", "503"} <= set(asked)


def test_figures_for_prometheus_hold_no_names_of_commits_or_people(app: App) -> None:
    app.own("POST", "/api/v1/hold", json={"because": "a canary in the mine"})
    text = app.own("GET", "/metrics").text
    app.own("POST", "/api/v1/unhold")
    assert 'homeport_holds{environment="production",project="shop"} 1.0' in text
    assert "canary" not in text and "process_resident_memory_bytes" in text
