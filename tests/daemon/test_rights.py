"""Who is let in (C3, P8): every route with every right, tokens of every kind, evil Host and Origin, guessing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from homeport.daemon.access import TRIES, Patience
from homeport.daemon.app import rights
from homeport.model.tokens import EVERY_RIGHT
from tests.daemon.conftest import App, problem

ONE_OF_EACH = ("read", "deploy:platform", "try", "adopt", "hold", "confirm")


def routes(app: App) -> list[tuple[str, str, Any]]:
    return [(method, path, right) for (method, path), right in sorted(rights(app.app).items(), key=str)]


def test_every_route_asks_for_its_right_and_for_nothing_else(app: App) -> None:
    """Each route with each right: 403 without, past the guard with; without a token 401."""
    shown = {right: app.token(f"only-{right.partition(':')[0]}", right, kind="person") for right in ONE_OF_EACH}
    seen = 0
    app.app.state.patience = Patience(lambda: float(seen * 100))
    for method, path, right in routes(app):
        if right == "open" or method == "WS":
            continue
        url = path.replace("{deploy_id:str}", "none").replace("{path:str}", "openapi.json")
        bare = app.ask(method, url)
        assert (bare.status_code, problem(bare) if method != "HEAD" else "no-token") == (401, "no-token"), (method, path)
        for held, token in shown.items():
            answer = app.ask(method, url, token=token)
            allowed = right is not None and held.partition(":")[0] == right
            assert (answer.status_code != 403) == allowed, (method, path, held, answer.text)
            seen += 1
    assert seen > 100
    app.app.state.patience = Patience()


def test_a_route_without_a_declared_right_lets_nobody_in(app: App, every: str) -> None:
    undeclared = [(method, path) for method, path, right in routes(app) if right is None]
    assert undeclared and {method for method, _ in undeclared} == {"OPTIONS"}, "every handler of ours declares one"
    for method, path in undeclared:
        answer = app.ask(method, path.replace("{deploy_id:str}", "x"), token=every)
        assert answer.status_code == 403, path
    signed = {"/hooks/github", "/hooks/gitea", "/hooks/gitlab"}
    assert {path for _, path, right in routes(app) if right == "open"} == {"/healthz", *signed}


def test_health_says_that_it_lives_and_nothing_else(app: App) -> None:
    assert app.ask("GET", "/healthz").json() == {"ok": True}


@pytest.mark.parametrize(
    "shown",
    [["Bearer "], ["Bearer homeport_x"], ["Basic cm9vdDo="], ["bearer"], [""], ["Bearer " + "x" * 9000],
     ["Bearer homeport_\xe9"], ["Bearer homeport_a", "Bearer homeport_b"], ["Bearer\x00"]],
)  # fmt: skip
def test_what_is_no_token_is_401(app: App, shown: list[str]) -> None:
    app.app.state.patience = Patience()
    headers = [("authorization", value.encode("latin-1")) for value in shown]
    answer = app.ask("GET", "/api/v1/status", headers=headers)
    assert answer.status_code == 401 and problem(answer) == "no-token"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_token_is_a_stranger_at_once(app: App) -> None:
    token = app.token("short-lived", "read")
    assert app.ask("GET", "/api/v1/deploys", token=token).status_code == 200
    app.site.tokens.revoke("short-lived", "2026-01-01")
    assert app.ask("GET", "/api/v1/deploys", token=token).status_code == 401


def test_a_token_bound_to_a_scope_reaches_its_scope_only(app: App) -> None:
    token = app.token("bound", "read", "deploy:platform")
    for body in ({"scope": "all"}, {}, {"scope": "platforms"}):
        answer = app.ask("POST", "/api/v1/self/deploy", token=token, json=body)
        assert answer.status_code in (403, 404), body
    for body in ({"services": ["web"]}, {"services": ["api", "web"]}, {}, {"kind": "rollback"},
                 {"kind": "restart", "services": ["web"]}, {"scope": "all"}):  # fmt: skip
        answer = app.ask("POST", "/api/v1/deploys", token=token, json=body)
        assert (answer.status_code, problem(answer)) == (403, "no-right"), body
    assert not app.site.store.history() and app.site.store.waiting() is None, "nothing was asked for"
    good = app.ask("POST", "/api/v1/self/deploy?wait=false", token=token, json={"scope": "platform"})
    assert good.status_code == 202
    ended = app.ask("POST", "/api/v1/self/deploy", token=token, json={"scope": "platform"})
    assert ended.json()["services"] in (["api"], [])


def test_only_a_persons_token_with_that_right_confirms(app: App, every: str) -> None:
    body = {"services": ["web"], "confirm": ["calls"], "because": "agreed"}
    agent, plain = app.token("robot", "deploy:*"), app.token("plain", "deploy:*", kind="person")
    for token in (agent, plain):
        answer = app.ask("POST", "/api/v1/deploys", token=token, json=body)
        assert (answer.status_code, problem(answer)) == (409, "no-confirm")
    asked = app.ask("POST", "/api/v1/deploys", token=every, json=body)
    assert asked.status_code == 202
    row = app.site.store.deploy(asked.json()["deployId"])
    assert row is not None
    (confirmed,) = row.request.confirmed
    assert (confirmed.rule, confirmed.by, confirmed.because) == ("calls", "every", "agreed")


def test_peers_of_the_socket_are_who_the_kernel_says(app: App) -> None:
    made = app.own("POST", "/api/v1/hold", json={"because": "looking"})
    assert made.json()["hold"]["by"] == "root"
    less = app.own("POST", "/api/v1/unhold", token=app.token("reader", "read"))
    assert less.status_code == 403, "a token that is shown counts, on the socket too"
    forged = app.ask("POST", "/api/v1/unhold", headers=[("x-homeport-client", "uid:0")])
    assert forged.status_code == 401, "the network cannot say that it is the socket"
    assert app.own("POST", "/api/v1/unhold").json()["ended"] == 1


def test_every_change_and_every_denied_one_is_in_the_audit(app: App, every: str) -> None:
    app.ask("POST", "/api/v1/hold", token=every, json={"because": "x"}, headers=[("x-homeport-client", "192.0.2.7")])
    app.ask("POST", "/api/v1/unhold", token=app.token("curious", "read"))
    app.ask("POST", "/api/v1/unhold", token=every)
    rows = [(row.who, row.action, row.outcome, row.origin) for row in app.site.store.audited(8)]
    assert ("every", "api POST /api/v1/hold", "asked", "net:192.0.2.7") in rows
    assert ("curious", "api POST /api/v1/unhold", "denied", "net:unknown") in rows
    assert app.site.store.holds() == []


@pytest.mark.parametrize(
    ("name", "value", "status", "code"),
    [("host", "evil.example.com", 421, "bad-host"), ("host", "localhost.example.com", 421, "bad-host"),
     ("host", "localhost@evil.example.com", 421, "bad-host"), ("host", "", 421, "bad-host"),
     ("host", "localhost:99999", 421, "bad-host"), ("host", "[::1", 421, "bad-host"),
     ("origin", "https://evil.example.com", 403, "bad-origin"), ("origin", "null", 403, "bad-origin"),
     ("origin", "http://localhost.example.com", 403, "bad-origin"), ("origin", "file://", 403, "bad-origin")],
)  # fmt: skip
def test_evil_host_and_origin_are_refused_before_anything_is_read(app: App, name: str, value: str, status: int,
                                                                  code: str) -> None:  # fmt: skip
    answer = app.own("POST", "/api/v1/hold", headers=[(name, value)], content=b"{")
    assert (answer.status_code, problem(answer)) == (status, code)


def test_the_names_of_this_host_are_accepted_with_any_port(app: App) -> None:
    for host in ("localhost", "127.0.0.1:7420", "[::1]:80", "deploy.example.com", "DEPLOY.example.com:443"):
        origin = [("origin", f"https://{host}")]
        assert app.ask("GET", "/healthz", headers=[("host", host), *origin]).status_code == 200, host


def test_guessing_is_slow_and_a_good_token_never_waits(app: App, every: str) -> None:
    app.app.state.patience = Patience()
    said = [app.ask("GET", "/api/v1/status", token=f"homeport_{n}").status_code for n in range(TRIES + 3)]
    assert said == [401] * TRIES + [429] * 3
    assert app.ask("GET", "/api/v1/deploys", token=every).status_code == 200
    elsewhere = app.ask("GET", "/api/v1/status", token="homeport_x", headers=[("x-homeport-client", "192.0.2.9")])
    assert elsewhere.status_code == 401
    app.app.state.patience = Patience()


def test_patience_ends_and_its_memory_is_bounded() -> None:
    now = [0.0]
    patience = Patience(lambda: now[0])
    for _ in range(TRIES):
        patience.note("a")
    assert patience.over("a") > 0 and patience.over("b") == 0
    now[0] = 61
    assert patience.over("a") == 0
    for number in range(10_050):
        now[0] += 0.1
        patience.note(str(number))
    assert len(patience._wrong) <= 10_000


def test_several_environments_have_to_be_named(app: App) -> None:
    for query in ("?environment=staging", "?project=other"):
        answer = app.own("GET", f"/api/v1/deploys{query}")
        assert (answer.status_code, problem(answer)) == (404, "environment")
    assert app.own("GET", "/api/v1/deploys?project=shop&environment=production").status_code == 200


def test_answers_may_not_be_framed_sniffed_or_kept(app: App) -> None:
    answer: httpx.Response = app.ask("GET", "/healthz")
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_all_rights_are_told_apart() -> None:
    assert len(EVERY_RIGHT) == len(ONE_OF_EACH)
