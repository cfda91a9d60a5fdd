"""A look at a live folder that begins before the deploy is asked for: it counts once, and only while nothing it stands on
has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from homeport.doors import lookahead, scanning
from homeport.model.live import Scan, Target
from tests.targets.conftest import Host

FILES = {"a.txt": "one", "lib/b.txt": "two"}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each look at a live folder."""
    seen: list[str] = []
    look = scanning.differences

    def told(*args: Any, **more: Any) -> Any:
        seen.append("look")
        return look(*args, **more)

    monkeypatch.setattr(scanning, "differences", told)
    return seen


def ahead(host: Host) -> Callable[[], None]:
    """A look begins, and has ended."""
    drop = host.targets.look_ahead([host.target], "main")
    host.targets._ahead._turns["api"].result()
    return drop


def test_a_look_ahead_counts_once_and_sees_what_was_edited_before_it(host: Host, looks: list[str]) -> None:
    host.put(FILES)
    host.write("a.txt", "by hand")
    host.write("new.txt", "mine")
    ahead(host)
    looks.clear()
    assert host.states() == {"a.txt": "modified", "new.txt": "added"}
    assert not looks, "it had looked already"
    host.write("lib/b.txt", "later")
    assert host.states() == {"a.txt": "modified", "lib/b.txt": "modified", "new.txt": "added"}
    assert looks


def a_deploy(host: Host) -> None:
    host.deploy(host.commit({"a.txt": "three"}))


def a_sync_that_was_cut(host: Host) -> None:
    record = host.store.target("api")
    assert record is not None
    host.store.begin_sync("api", "d-9", record.tree, record.tree)


def other_rules(host: Host) -> None:
    host.target = replace(host.target, protect=(*host.target.protect, "*.log"))


def a_fetch(host: Host) -> None:
    host.commit({"a.txt": "four"})


def no_index(host: Host) -> None:
    (host.state / "targets/api.index").unlink()


@pytest.mark.parametrize("change", [a_deploy, a_sync_that_was_cut, other_rules, a_fetch, no_index])
def test_a_look_ahead_does_not_count_after(change: Callable[[Host], None], host: Host, looks: list[str]) -> None:
    host.put(FILES)
    ahead(host)
    begun = host.targets._ahead._turns.copy()
    change(host)
    host.targets._ahead._turns = begun  # a deploy takes it
    looks.clear()
    host.write("lib/b.txt", "by hand")
    host.write("note.txt", "by hand")
    assert {"lib/b.txt", "note.txt"} <= host.states().keys()
    assert looks


def test_an_old_look_or_one_that_failed_does_not_count(
    host: Host, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.targets.look_ahead([host.target], "main")  # nothing is recorded, so it fails
    host.put(FILES)
    monkeypatch.setattr(lookahead, "OLDEST", 0.0)
    ahead(host)
    host.write("a.txt", "by hand")
    looks.clear()
    assert (host.states(), looks) == ({"a.txt": "modified"}, ["look"])


def test_folders_are_looked_at_one_after_the_other_and_no_more_when_nobody_wants_to_know(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(FILES)
    many = [replace(host.target, name=f"api-{number}") for number in range(5)]
    entered, leave, under_way = threading.Event(), threading.Event(), list[str]()

    def look(target: Target, branch: str) -> Scan:
        under_way.append(target.name)
        entered.set()
        assert leave.wait(30)
        return Scan(target=target.name, recorded_tree="")

    monkeypatch.setattr(host.targets, "_scan", look)
    monkeypatch.setattr(host.targets, "_ground", lambda target, branch: target.name)
    drop = host.targets.look_ahead(many, "main")
    assert entered.wait(30) and under_way == ["api-0"]

    def leave_once_dropped() -> None:
        while host.targets._ahead._wanted:
            time.sleep(0.001)
        leave.set()

    threading.Thread(target=leave_once_dropped, daemon=True).start()
    drop()
    assert under_way == ["api-0"] and host.targets._ahead.taken("api-1", lambda: "api-1") is None
