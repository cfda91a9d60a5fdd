"""Rules: which one decides, what it stops, and who may allow an exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.policy import STRICTNESS, Judge, refusals, used
from homeport.model.config import Rule
from homeport.model.rules import Confirmation, Deed, Rulebook


def rule(id: str, action: str, match: str | list[str] = "*", effect: str = "deny", **more: Any) -> Rule:
    return Rule(id=id, action=action, match=match, effect=effect, **more)  # type: ignore[arg-type]


def deed(action: str, subject: str, *names: str, reviewed: bool = False) -> Deed:
    return Deed(action=action, subject=subject, names=names, reviewed=reviewed)  # type: ignore[arg-type]


def judge(*deployed: Rule, host: tuple[Rule, ...] = (), environment: str = "production") -> Judge:
    return Judge(Rulebook(host=host, deployed=deployed), environment)


MATCHES = [
    ("restart", "asterisk", deed("restart", "asterisk"), True),
    ("restart", "asterisk", deed("restart", "pbx", "asterisk"), True),
    ("restart", ["sip-*", "asterisk"], deed("restart", "sip-edge"), True),
    ("restart", "aster", deed("restart", "asterisk"), False),
    ("restart", "*", deed("write", "asterisk"), False),
    ("write", "api/auth/", deed("write", "api/auth/login.js", "/opt/api/auth/login.js"), True),
    ("write", "auth/", deed("write", "api/auth/login.js"), True),
    ("write", "/auth/", deed("write", "api/auth/login.js"), False),
    ("write", ["api/auth/", "!api/auth/docs/"], deed("write", "api/auth/docs/a.md"), True),
    ("write", ["api/auth/*", "!api/auth/docs"], deed("write", "api/auth/docs"), False),
    ("write", "/etc/nginx/", deed("write", "conf/site.conf", "/etc/nginx/site.conf"), True),
    ("write", "/etc/nginx/", deed("write", "etc/nginx/site.conf", "/opt/x/etc/nginx/site.conf"), True),
    ("write", "api/", deed("write", "web/a.js", "/opt/api/a.js"), False),
    ("delete", ".env*", deed("delete", "api/.env"), True),
    ("delete", "**/*.bak*", deed("delete", "api/a.bak-1"), True),
    ("hostfile", "/etc/asterisk/*", deed("hostfile", "/etc/asterisk/pjsip.conf"), True),
    ("hostfile", "/etc/asterisk/", deed("hostfile", "/etc/asterisk/keys/a.pem"), True),
    ("hostfile", "/etc/asterisk/*", deed("hostfile", "/etc/nginx/nginx.conf"), False),
    ("hostfile", ".env", deed("hostfile", "/opt/api/.env"), True),
    ("push", "main", deed("push", "main"), True),
    ("push", "ma?n", deed("push", "homeport/x"), False),
    ("try", "*", deed("try", "a/b/c"), True),
    ("run", "aster*", deed("run", "pbx", "asterisk"), True),
    ("run", "conf/*.conf", deed("run", "conf/*.conf", "conf/*.conf", "other"), True),
    ("migrate", "api", deed("migrate", "api"), True),
    ("restart", "pbx", deed("run", "pbx"), False),
]


@pytest.mark.parametrize(("action", "match", "asked", "speaks"), MATCHES)
def test_a_rule_speaks_of_what_its_patterns_take(action: str, match: str | list[str], asked: Deed, speaks: bool) -> None:
    assert (judge(rule("r", action, match)).says(asked).effect == "deny") == speaks


ORDER = [
    (["allow", "confirm"], [], "confirm"),
    (["confirm", "deny", "review"], [], "deny"),
    (["review", "confirm"], [], "review"),
    (["deny"], ["allow"], "allow"),
    (["deny"], ["confirm"], "confirm"),
    (["allow"], ["deny", "allow"], "deny"),
    ([], ["review"], "review"),
    ([], [], "allow"),
]


@pytest.mark.parametrize(("deployed", "host", "effect"), ORDER)
def test_the_host_wins_and_the_strictest_of_the_rest_decides(deployed: list[str], host: list[str], effect: str) -> None:
    asked = judge(*(rule(f"d{n}", "try", effect=e) for n, e in enumerate(deployed)),
                  host=tuple(rule(f"h{n}", "try", effect=e) for n, e in enumerate(host)))  # fmt: skip
    said = asked.says(deed("try", "a"))
    assert said.effect == effect
    assert said.from_host == bool(host)
    assert {r.id for r in said.equal} | set(said.others) == {
        *(f"d{n}" for n in range(len(deployed))), *(f"h{n}" for n in range(len(host)))
    }  # fmt: skip


@given(st.lists(st.sampled_from(STRICTNESS), min_size=1, max_size=6))
def test_no_order_of_rules_makes_them_weaker(effects: list[str]) -> None:
    said = judge(*(rule(f"r{n}", "write", effect=e) for n, e in enumerate(effects))).says(deed("write", "a"))
    assert STRICTNESS.index(said.effect) == max(map(STRICTNESS.index, effects))


def test_a_rule_of_another_environment_says_nothing() -> None:
    only = rule("r", "try", environments=["production"])
    assert judge(only, environment="staging").says(deed("try", "a")).effect == "allow"
    assert judge(only, environment="production").says(deed("try", "a")).effect == "deny"
    assert not judge(only, environment="staging")


def test_what_came_by_the_branch_has_its_review() -> None:
    asked = judge(rule("r", "write", "auth/", "review"), rule("c", "write", "auth/", "confirm"))
    assert asked.says(deed("write", "auth/a")).effect == "review"
    assert asked.says(deed("write", "auth/a", reviewed=True)).effect == "confirm"
    alone = judge(rule("r", "write", "auth/", "review")).says(deed("write", "auth/a", reviewed=True))
    assert (alone.effect, alone.rule and alone.rule.id) == ("allow", "r")


def test_only_a_person_lifts_a_rule_that_wants_a_confirmation() -> None:
    asked = judge(rule("calls", "restart", "asterisk", "confirm", because="calls drop"))
    deeds = [deed("restart", "asterisk")]
    assert refusals(asked, deeds, "person", {"calls"}) == []
    for actor in ("agent", "trigger"):
        (left,) = refusals(asked, deeds, actor, {"calls"})  # type: ignore[arg-type]
        assert f"{actor} cannot give it" in left.message
    (left,) = refusals(asked, deeds, "person", {"other"})
    assert left.message == "rule calls wants a person's word before restarting asterisk: calls drop"
    assert "--confirm calls" in left.next


def test_a_confirmation_lifts_neither_a_denial_nor_a_review() -> None:
    asked = judge(rule("no", "write", "a/"), rule("four", "write", "b/", "review"))
    found = refusals(asked, [deed("write", "a/1"), deed("write", "b/1"), deed("write", "a/2")], "person", {"no", "four"})
    assert [(r.rule, r.effect, r.paths) for r in found] == [("no", "deny", ("a/1", "a/2")), ("four", "review", ("b/1",))]


def test_each_rule_that_wants_a_word_gets_its_own() -> None:
    asked = judge(rule("one", "deploy", effect="confirm"), rule("two", "deploy", "api", "confirm"))
    deeds = [deed("deploy", "api")]
    assert [r.rule for r in refusals(asked, deeds)] == ["one", "two"]
    assert [r.rule for r in refusals(asked, deeds, "person", {"one"})] == ["two"]
    assert refusals(asked, deeds, "person", {"one", "two"}) == []


def test_exceptions_that_were_needed_are_told_with_what_they_let_through() -> None:
    asked = judge(rule("one", "deploy", effect="confirm"))
    given_words = [Confirmation(rule="one", by="ada", because="sale"), Confirmation(rule="unused", by="ada")]
    assert used(asked, [deed("deploy", "api"), deed("push", "main")], given_words) == [
        (given_words[0], [deed("deploy", "api")])
    ]


def test_many_paths_are_named_in_part_and_listed_in_full() -> None:
    (found,) = refusals(judge(rule("r", "write")), [deed("write", f"f{n}") for n in range(9)])
    assert found.message == "rule r forbids writing f0, f1, f2 and 6 more"
    assert len(found.paths) == 9
