"""D1 and what bad input gets: every recorded payload of GitHub through the application, as it is and damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from homeport.daemon.accepting import Accepting
from homeport.daemon.access import Patience
from homeport.flow.site import Site
from homeport.flow.stages.gating import WOKEN
from homeport.model.config import Forge, Secret
from homeport.model.errors import ConfigFault
from homeport.wiring_daemon import secret_of
from tests.daemon.conftest import SECRETS, App, problem
from tests.forges.schema import stored

RECORDED: list[dict[str, Any]] = stored("payloads/github-webhooks")
OLD, NEW, ZEROS = "a" * 40, "b" * 40, "0" * 40
_number = itertools.count()


@pytest.fixture(scope="module")
def forged(site: Site) -> Iterator[App]:
    """An environment that takes deliveries of all three forges, two secrets each."""
    made = App(site, ("github", "gitea", "gitlab"))
    yield made
    made.close()


def headers_of(kind: str, event: str, body: bytes, secret: bytes = SECRETS[0], **more: str) -> list[tuple[str, str]]:
    """As that forge sends them, with a delivery id of its own."""
    digest, id = hmac.new(secret, body, hashlib.sha256).hexdigest(), f"id-{next(_number)}"
    if kind == "gitlab":
        found = {"X-Gitlab-Event": event, "X-Gitlab-Token": secret.decode(), "X-Gitlab-Event-UUID": id}
    else:
        found = {"X-GitHub-Event": event, "X-GitHub-Delivery": id, "X-Hub-Signature-256": f"sha256={digest}"}
    if kind == "gitea":
        found |= {"X-Gitea-Event": event, "X-Gitea-Delivery": id, "X-Gitea-Signature": digest}
    return list({"Content-Type": "application/json", **found, **more}.items())


def push(**changes: object) -> dict[str, Any]:
    document = {"ref": "refs/heads/main", "before": OLD, "after": NEW, "deleted": False,
                "repository": {"full_name": "octo/shop"}, "project": {"path_with_namespace": "octo/shop"}}  # fmt: skip
    return {**document, **changes}


def deliver(app: App, payload: Any, event: str = "push", kind: str = "github", secret: bytes = SECRETS[0],
            **more: str) -> Any:  # fmt: skip
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return app.ask("POST", f"/hooks/{kind}", headers=headers_of(kind, event, body, secret, **more), content=body)


def test_every_recorded_payload_is_answered_and_damaged_ones_are_refused(forged: App, tmp_path: Path) -> None:
    """As it is 202; cut 400; signed wrongly 401; nothing is about our repository, so nothing is deployed."""
    for one in RECORDED:
        body = json.dumps(one["payload"]).encode()
        forged.app.state.patience = Patience()
        said = {
            "as it is": deliver(forged, body, one["event"]).status_code,
            "cut": deliver(forged, body[: len(body) // 2], one["event"]).status_code,
            "signed wrongly": deliver(forged, body, one["event"], secret=b"another").status_code,
            "as a form": deliver(forged, urlencode({"payload": body.decode()}).encode(), one["event"],
                                 **{"Content-Type": "application/x-www-form-urlencoded"}).status_code,
            "with a BOM": deliver(forged, b"\xef\xbb\xbf" + body, one["event"]).status_code,
        }  # fmt: skip
        right = {"as it is": 202, "cut": 400, "signed wrongly": 401, "as a form": 202, "with a BOM": 400}
        assert said == right, one["event"]
    assert not forged.pushed() and len(RECORDED) > 300
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "event"), [("github", "push"), ("gitea", "push"), ("gitlab", "Push Hook")])
def test_a_push_to_the_branch_is_looked_for_at_once_with_either_secret(forged: App, kind: str, event: str) -> None:
    for secret in SECRETS:
        answer = deliver(forged, push(), event, kind, secret)
        assert (answer.status_code, answer.json()["accepted"]) == (202, True), answer.text
        assert forged.pushed()


@pytest.mark.parametrize(
    "change",
    [{"ref": "refs/heads/$(touch${IFS}x)"}, {"ref": "refs/heads/`id`;reboot"}, {"ref": "refs/tags/main"},
     {"ref": "refs/heads/other"}, {"ref": "refs/heads/main2"}, {"after": ZEROS, "deleted": True},
     {"repository": {"full_name": "fork/shop"}}, {"repository": {"full_name": "octo/shop2"}}],
)  # fmt: skip
def test_a_push_that_is_not_to_this_branch_is_taken_and_does_nothing(forged: App, change: dict[str, Any]) -> None:
    """A tag that bears the branch's name, another branch, a deletion, a fork."""
    assert deliver(forged, push(**change)).status_code == 202
    assert not forged.pushed()


@pytest.mark.parametrize(
    "change",
    [{"ref": "refs/heads/$(touch x)"}, {"ref": "refs/heads/--upload-pack=x"}, {"ref": "refs/heads/-x"}, {"ref": 5},
     {"ref": "refs/heads/a\x00b"}, {"ref": "refs/heads/../main"}, {"after": "main"}, {"after": "B" * 40},
     {"before": ZEROS, "after": ZEROS}, {"after": "--upload-pack=x"}, {"repository": {"full_name": "../../etc/passwd"}},
     {"repository": {"full_name": "$(touch x)/y"}}, {"repository": None}, {"ref": None}],
)  # fmt: skip
def test_a_hostile_push_is_refused_and_nothing_is_executed(forged: App, change: dict[str, Any], monkeypatch: Any,
                                                           tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    answer = deliver(forged, push(**change))
    assert (answer.status_code, problem(answer)) == (400, "bad-delivery"), answer.text
    assert not forged.pushed() and list(tmp_path.iterdir()) == []


def test_a_secret_that_is_added_or_rotated_counts_at_the_next_delivery(site: Site, tmp_path: Path) -> None:
    beside = Path(os.environ["HOMEPORT_HOST_FILE"]).parent
    first, second = beside / f"first-{tmp_path.name}", beside / f"second-{tmp_path.name}"
    first.write_text("the first secret of this hook\n")
    made = App(site)
    accepting = Accepting(made.app.state.served, secret_of, lambda *_: "octo/shop")
    made.app.state.hooks = accepting

    def configured(*files: Path) -> None:
        forge = Forge(kind="github", webhook_secret=[Secret(file=str(file)) for file in files])
        config = msgspec.structs.replace(site.config, forge=forge if files else None)
        made.environment.site, made.environment.asked = dataclasses.replace(site, config=config), float("inf")

    def answer(secret: str) -> int:
        made.app.state.patience = Patience()
        status: int = deliver(made, push(), secret=secret.encode()).status_code
        return status

    old, new = "the first secret of this hook", "another one, for the time after"
    try:
        configured()
        assert (answer(old), made.ask("GET", "/hooks/github").status_code) == (404, 404), "no secret: no such path"
        configured(first, second)
        with pytest.raises(ConfigFault):
            accepting.check()
        assert (answer(old), answer("")) == (202, 401), "one that is not there yet keeps the other from nothing"
        second.write_text(f"{new}\n")
        accepting.check()
        assert (answer(old), answer(new), made.ask("GET", "/hooks/github").status_code) == (202, 202, 405)
        first.write_text("")
        assert (answer(old), answer(""), answer(new)) == (401, 401, 202), "an empty one signs nothing"
        configured(second)
        assert (answer(old), answer(new)) == (401, 202)
    finally:
        made.close()


def test_a_delivery_that_comes_twice_counts_once(forged: App) -> None:
    body = json.dumps(push()).encode()
    headers = headers_of("github", "push", body)
    first = forged.ask("POST", "/hooks/github", headers=headers, content=body)
    assert forged.pushed() and first.status_code == 202
    again = forged.ask("POST", "/hooks/github", headers=headers, content=body)
    assert again.status_code == 202 and "seen before" in again.json()["because"]
    assert not forged.pushed()


def test_something_that_ended_on_the_forge_wakes_the_gate(forged: App) -> None:
    before = forged.site.store.cached(WOKEN)
    run = {"action": "completed", "workflow_run": {"head_sha": NEW, "name": "ci"}, "repository": {"full_name": "octo/shop"}}
    assert deliver(forged, run, "workflow_run").json()["accepted"]
    assert forged.site.store.cached(WOKEN) != before and forged.pushed()


def test_gitea_is_told_apart_from_github_although_it_sends_both(forged: App) -> None:
    body = json.dumps(push()).encode()
    headers = headers_of("gitea", "push", body)
    wrong = forged.ask("POST", "/hooks/github", headers=headers, content=body)
    assert (wrong.status_code, problem(wrong)) == (401, "bad-signature")
    assert forged.ask("POST", "/hooks/gitea", headers=headers, content=body).status_code == 202
    assert forged.pushed()
    unsigned = {"X-Gitea-Signature": "", "X-Hub-Signature-256": "sha256="}
    assert deliver(forged, push(), kind="gitea", **unsigned).status_code == 401


def test_whoever_keeps_signing_wrongly_has_to_wait(forged: App) -> None:
    forged.app.state.patience = Patience()
    said = [deliver(forged, b"{}", secret=b"wrong").status_code for _ in range(25)]
    assert said == [401] * 20 + [429] * 5
    assert deliver(forged, push()).status_code == 202, "a genuine one is not kept waiting"
    forged.app.state.patience = Patience()


def test_a_delivery_larger_than_any_forge_sends_is_refused_while_it_comes(forged: App) -> None:
    answer = deliver(forged, b" " * (25 * 1024 * 1024 + 1))
    assert (answer.status_code, problem(answer)) == (413, "too-large")


def test_without_a_secret_there_is_no_such_address(app: App) -> None:
    for kind in ("github", "gitea", "gitlab"):
        assert deliver(app, push(), kind=kind).status_code == 404
