"""Tokens: shown once, kept as a digest, refused when revoked, and never more than their rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homeport.doors.clock import SystemClock
from homeport.doors.store import SqliteStore
from homeport.doors.tokenbook import TokenBook
from homeport.flow import tokens
from homeport.model.errors import Refused, StateFault, UsageFault
from homeport.model.tokens import EVERY_RIGHT, may


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    store = SqliteStore(str(tmp_path / "homeport.db"), SystemClock())
    yield SimpleNamespace(store=store, tokens=TokenBook(store.database), clock=SystemClock(), environment="production")
    store.close()


def test_a_token_is_known_again_and_lies_nowhere_in_the_state(site: Any, tmp_path: Path) -> None:
    shown, record = tokens.create(site, "builder", ["read", "deploy:platform", "read"], "agent", "ann")
    assert record.rights == ("read", "deploy:platform")
    assert tokens.presented(site, shown) == record == tokens.named(site, "builder")
    site.store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert shown.encode() not in kept and shown.removeprefix(tokens.PREFIX).encode() not in kept
    assert record.digest.encode() in kept


@pytest.mark.parametrize("other", ["", "builder", "homeport_", "homeport_x", "x" * 5000, "homeport_\udcff", "homeport_é"])
def test_what_is_no_token_lets_nobody_in(site: Any, other: str) -> None:
    tokens.create(site, "builder", ["read"], "agent", "ann")
    assert tokens.presented(site, other) is None
    assert tokens.presented(site, "homeport_" + tokens.named(site, "builder").digest) is None


def test_a_revoked_token_lets_nobody_in_and_its_name_is_never_given_out_again(site: Any) -> None:
    shown, _ = tokens.create(site, "ci", ["deploy:*"], "forge", "ann")
    tokens.revoke(site, "ci", "bob")
    assert tokens.presented(site, shown) is None
    for act, name in ((tokens.named, "ci"), (tokens.named, "no")):
        with pytest.raises(Refused) as caught:
            act(site, name)
        assert caught.value.code == "no-token"
    with pytest.raises(Refused):
        tokens.revoke(site, "ci", "bob")
    with pytest.raises(Refused) as twice:
        tokens.create(site, "ci", ["read"], "forge", "ann")
    assert twice.value.code == "token-exists"
    assert [(row.who, row.action) for row in site.store.audited()] == [("bob", "token revoke"), ("ann", "token create")]


@pytest.mark.parametrize(
    "right", ["", "write", "deploy", "deploy:", "read:x", "deploy:a b", "deploy:-x", "READ", "deploy:\n", "confirm"]
)
def test_rights_that_there_are_not_and_confirm_for_an_agent_are_refused(site: Any, right: str) -> None:
    with pytest.raises(UsageFault) as caught:
        tokens.create(site, "x", [right], "agent", "ann")
    assert caught.value.code == "bad-right"
    assert site.tokens.all() == []


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "é", "x" * 65, "x\n"])
def test_names_that_could_be_taken_for_something_else_are_refused(site: Any, name: str) -> None:
    with pytest.raises(UsageFault):
        tokens.create(site, name, ["read"], "agent", "ann")


def test_what_each_right_allows(site: Any) -> None:
    _, record = tokens.create(site, "x", ["deploy:web", "hold"], "agent", "ann")
    tokens.require(record, "deploy:web")
    tokens.require(record, "deploy")
    for right in ("deploy:api", "deploy:*", "read", "try", "confirm"):
        with pytest.raises(Refused) as caught:
            tokens.require(record, right)
        assert caught.value.code == "no-right"
    assert all(may(EVERY_RIGHT, right) for right in ("read", "deploy", "deploy:any", "try", "adopt", "hold", "confirm"))
    assert not may(("read", "hold"), "deploy")
    assert not may((), "read")


def test_a_row_that_cannot_be_read_is_no_right(site: Any) -> None:
    shown, _ = tokens.create(site, "x", ["read"], "agent", "ann")
    site.store.database.write("UPDATE tokens SET body = '{}'")
    with pytest.raises(StateFault):
        tokens.presented(site, shown)
