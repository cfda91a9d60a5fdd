"""Which of several hosts are dealt with at the same time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.fleet import IN_WAVES, Strategy, waves

HOSTS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("strategy", "verb", "migrates", "expected"),
    [
        ("rolling", "deploy", False, [["a"], ["b"], ["c"]]),
        ("canary", "deploy", False, [["a"], ["b", "c"]]),
        ("canary", "rollback", True, [["a"], ["b", "c"]]),
        ("all", "deploy", False, [["a", "b", "c"]]),
        ("all", "deploy", True, [["a"], ["b", "c"]]),
        ("all", "restart", False, [["a", "b", "c"]]),
        ("all", "drift", False, [["a"], ["b"], ["c"]]),
        ("canary", "try", False, [["a"], ["b"], ["c"]]),
    ],
)
def test_turns(strategy: Strategy, verb: str, migrates: bool, expected: list[list[str]]) -> None:
    assert waves(HOSTS, strategy, verb, migrates=migrates) == expected


@given(
    st.lists(st.integers(), max_size=6), st.sampled_from(["rolling", "canary", "all"]),
    st.sampled_from([*sorted(IN_WAVES), "status"]), st.booleans(),
)  # fmt: skip
def test_every_host_has_one_turn_in_its_order(hosts: list[int], strategy: Strategy, verb: str, migrates: bool) -> None:
    turns = waves(hosts, strategy, verb, migrates=migrates)
    assert [host for turn in turns for host in turn] == hosts and all(turns)
