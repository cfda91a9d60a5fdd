"""What `homeport rules` and `homeport audit` say: the rules in force, which one decides about a deed, and what was done."""

from __future__ import annotations

from typing import Any, cast, get_args

from homeport.decide import layout
from homeport.decide.policy import ASKED_WHEN, NAMED, STRICTNESS, Judge
from homeport.flow import guarding
from homeport.flow.looking import below
from homeport.flow.site import Site
from homeport.model.config import Deeds, Rule
from homeport.model.errors import UsageFault
from homeport.model.paths import printable
from homeport.model.patterns import Matcher
from homeport.model.rules import Deed, Verdict


def rules_of(site: Site) -> dict[str, Any]:
    """The rules in force in this environment, the host's first, and those that wait for a deploy of theirs."""
    book = guarding.rulebook(site)
    rows = [_row(rule, "host.toml", site) for rule in book.host] + [_row(rule, "deployed", site) for rule in book.deployed]
    waiting = [_row(rule, "homeport.toml, not deployed", site) | {"inForce": False} for rule in site.config.rules
               if rule not in book.deployed]  # fmt: skip
    return {"environment": site.environment, "rules": [*rows, *waiting]}


def _row(rule: Rule, source: str, site: Site) -> dict[str, Any]:
    return {"id": rule.id, "action": rule.action, "match": rule.match, "effect": rule.effect, "because": rule.because,
            "from": source, "inForce": not rule.environments or site.environment in rule.environments}  # fmt: skip


def explain(site: Site, asked: str) -> dict[str, Any]:
    """Which rule decides about `ACTION:MATCH`, and why; without a match, what may be said of the action at most.

    Raises UsageFault (code `no-action`).
    """
    action, _, subject = asked.partition(":")
    if action not in get_args(Deeds):
        raise UsageFault(f"there is no action {printable(action)!r}", where="--explain", code="no-action",
                         next=f"one of: {', '.join(get_args(Deeds))}")  # fmt: skip
    judge = guarding.judge_of(site)
    said: dict[str, Any] = {"action": action, "match": printable(subject) or None, "environment": site.environment,
                            "actor": site.actor.kind, "askedWhen": ASKED_WHEN[cast("Deeds", action)]}  # fmt: skip
    if not subject:
        return said | _of_action(judge, cast("Deeds", action))
    deed = _deed(site, cast("Deeds", action), subject)
    built_in = _built_in(site, deed)
    if built_in is not None:
        return said | {"effect": "deny", "rule": None, "from": "homeport", "because": built_in, "others": [],
                       "mayConfirm": False, "why": built_in}  # fmt: skip
    verdict = judge.says(deed)
    may = verdict.effect == "confirm" and site.actor.kind == "person" and site.actor.confirms
    source = None if verdict.rule is None else "host.toml" if verdict.from_host else "deployed"
    return said | {
        "effect": verdict.effect, "rule": verdict.rule.id if verdict.rule else None, "from": source,
        "because": verdict.rule.because if verdict.rule else "", "others": list(verdict.others), "mayConfirm": may,
        "why": _why(verdict, may, site),
    }  # fmt: skip


def _of_action(judge: Judge, action: Deeds) -> dict[str, Any]:
    rules = judge.about(action)
    strictest = max((rule.effect for rule, _ in rules), key=STRICTNESS.index, default="allow")
    told = "some of it, as the patterns say" if rules else "no rule speaks of it"
    return {"effect": strictest, "rule": None, "from": None, "because": "", "others": [rule.id for rule, _ in rules],
            "mayConfirm": False, "why": told}  # fmt: skip


def _deed(site: Site, action: Deeds, subject: str) -> Deed:
    if action in NAMED:
        service = site.config.services.get(subject)
        return Deed(action=action, subject=subject, names=(service.unit,) if service is not None and service.unit else ())
    for target in layout.targets(site.config, site.environment).values():
        local = below(target, subject)
        if local is None:
            continue
        if subject.startswith("/") or not target.source or subject.startswith(target.source.strip("/") + "/"):
            return guarding.path_deed(action, target, local, False)
    return Deed(action=action, subject=subject)


def _built_in(site: Site, deed: Deed) -> str | None:
    """What no rule lifts."""
    if deed.action == "try" and not site.env.try_:
        return f"environment {site.environment} has try = false"
    if deed.action not in ("write", "delete", "discard", "try") or not deed.names:
        return None
    for target in layout.targets(site.config, site.environment).values():
        local = below(target, deed.names[0])
        if local is not None and Matcher(target.protect, dir_only_matches_files=True).match(local):
            return f"{deed.subject} is protected: it is never opened for writing"
    return None


def _why(verdict: Verdict, may: bool, site: Site) -> str:
    rule = verdict.rule
    if rule is None:
        return "no rule speaks of it"
    where = "of this host, whose rules win" if verdict.from_host else "of the deployed homeport.toml"
    gave = f"; {', '.join(verdict.others)} gave way" if verdict.others else ""
    said = f"rule {rule.id} {where}, says {rule.effect}{gave}"
    if verdict.effect == "confirm":
        return said + (f"; a person allows it with --confirm {rule.id}" if may else f"; {site.actor.name} cannot confirm")
    if verdict.effect == "review":
        return said + (f"; what came by branch {site.env.branch} counts once somebody other than its author stood for it: "
                       "on the forge, or with --confirm after another one asked")  # fmt: skip
    return said


def audit_of(site: Site, limit: int) -> dict[str, Any]:
    """What changed anything, or was refused: newest first."""
    return {"audit": [
        {"at": row.at, "who": row.who, "actor": row.actor, "action": row.action, "detail": row.detail, "from": row.origin,
         "outcome": row.outcome} for row in site.store.audited(limit)
    ]}  # fmt: skip
