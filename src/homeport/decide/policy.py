"""What the rules say to a deed (`[[rules]]`): allow, confirm, review or deny, and which rule decides.

A rule speaks of a deed when its action is the deed's and one of its patterns takes it. The host's rules win: where
one of them speaks, those of the deployed configuration are not asked. Among the rest the strictest decides:
deny, review, confirm, allow. Where several ask for a confirmation, each wants its own. No rule: allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from homeport.model.config import Deeds, Rule
from homeport.model.patterns import Matcher
from homeport.model.plan import Refusal
from homeport.model.rules import ActorKind, Confirmation, Deed, Rulebook, Verdict

STRICTNESS = ("allow", "confirm", "review", "deny")
NAMED: tuple[Deeds, ...] = ("deploy", "rollback", "restart", "migrate", "run", "push")
"""Actions whose patterns are names with `*`; those of the others are paths in gitignore syntax."""


class Judge:
    """The rules of one environment, ready to be asked about many deeds."""

    def __init__(self, book: Rulebook, environment: str) -> None:
        holding = [(rule, from_host) for rules, from_host in ((book.host, True), (book.deployed, False)) for rule in rules
                   if not rule.environments or environment in rule.environments]  # fmt: skip
        actions = dict.fromkeys(rule.action for rule, _ in holding)
        self._on: dict[Deeds, _Rules] = {
            action: _Rules([(rule, own) for rule, own in holding if rule.action == action]) for action in actions
        }

    def __bool__(self) -> bool:
        return bool(self._on)

    def asks(self, action: Deeds, effect: str = "") -> bool:
        """Whether any rule is on this action, with this effect when one is given."""
        return any(not effect or rule.effect == effect for rule, _ in self.about(action))

    def about(self, action: Deeds) -> list[tuple[Rule, bool]]:
        """(rule, is it the host's) of every rule on this action."""
        return self._on[action].rules if action in self._on else []

    def says(self, deed: Deed, seconded: Collection[str] = ()) -> Verdict:
        """What holds for this deed. `seconded` are rules for whose review a second person gave its word."""
        rules = self._on.get(deed.action)
        if rules is None or not rules.may_speak_of(deed):
            return ALLOWED
        speaking = [(ready.rule, from_host) for ready, from_host in rules.ready if ready.speaks_of(deed)]
        found = [rule for rule, from_host in speaking if from_host]
        weaker = [rule for rule, from_host in speaking if not from_host]
        from_host = bool(found)
        if not found:
            found, weaker = weaker, []
        counting = [rule for rule in found if not (rule.effect == "review" and (deed.reviewed or rule.id in seconded))]
        if not counting:
            return Verdict(effect="allow", rule=found[0] if found else None, from_host=from_host)
        strictest = max(counting, key=lambda rule: STRICTNESS.index(rule.effect))
        equal = tuple(rule for rule in counting if rule.effect == strictest.effect)
        others = tuple(rule.id for rule in (*found, *weaker) if rule not in equal)
        return Verdict(effect=strictest.effect, rule=strictest, equal=equal, from_host=from_host, others=others)


ALLOWED = Verdict(effect="allow")


class _Rules:
    """The rules on one action."""

    def __init__(self, rules: list[tuple[Rule, bool]]) -> None:
        self.rules = rules
        self.ready = [(_Ready(rule), from_host) for rule, from_host in rules]
        patterns = [p for rule, _ in rules for p in ([rule.match] if isinstance(rule.match, str) else rule.match)]
        self._named = rules[0][0].action in NAMED
        self._any = _Patterns([pattern for pattern in patterns if not pattern.startswith("!")])

    def may_speak_of(self, deed: Deed) -> bool:
        """One quick look for all rules, so that a deploy of many files costs no more with many rules."""
        return self._named or self._any.take(deed)


class _Patterns:
    """Path patterns; those with `/` in front are compared with the place on the host too."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._paths = Matcher(patterns, dir_only_matches_files=True)
        self._absolute = Matcher([p for p in patterns if p.startswith(("/", "!/"))], dir_only_matches_files=True)

    def take(self, deed: Deed) -> bool:
        if deed.subject.startswith("/"):
            return self._paths.match(deed.subject.lstrip("/"))
        if self._paths.match(deed.subject):
            return True
        return bool(self._absolute) and any(self._absolute.match(name.lstrip("/")) for name in deed.names)


class _Ready:
    """A rule with its patterns compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._patterns = [rule.match] if isinstance(rule.match, str) else rule.match
        self._paths = _Patterns([] if rule.action in NAMED else self._patterns)

    def speaks_of(self, deed: Deed) -> bool:
        if deed.action in NAMED:
            return any(fnmatchcase(name, pattern) for name in (deed.subject, *deed.names) for pattern in self._patterns)
        return self._paths.take(deed)


def refusals(judge: Judge, deeds: Iterable[Deed], actor: ActorKind = "person",
             confirmed: Collection[str] = (), seconded: Collection[str] = ()) -> list[Refusal]:  # fmt: skip
    """Every rule that stops one of the deeds, the strictest first, each with all it stops.

    `confirmed` are ids of rules that a person allowed an exception from; from an agent or a trigger they count nothing.
    `seconded` are those of them that lift a review: it is the word of a second person.
    """
    stopped: dict[tuple[bool, str], tuple[Verdict, Rule, list[Deed]]] = {}
    for deed in deeds:
        verdict = judge.says(deed, seconded)
        for rule in _standing(verdict, actor, confirmed):
            stopped.setdefault((verdict.from_host, rule.id), (verdict, rule, []))[2].append(deed)
    rows = sorted(stopped.values(), key=lambda row: -STRICTNESS.index(row[1].effect))
    return [_refusal(rule, found, actor) for _, rule, found in rows]


def _standing(verdict: Verdict, actor: ActorKind, confirmed: Collection[str]) -> Sequence[Rule]:
    if verdict.rule is None or verdict.effect == "allow":
        return ()
    if verdict.effect != "confirm":
        return (verdict.rule,)
    return [rule for rule in verdict.equal if actor != "person" or rule.id not in confirmed]


def used(judge: Judge, deeds: Iterable[Deed], confirmed: Sequence[Confirmation]) -> list[tuple[Confirmation, list[Deed]]]:
    """The exceptions that were needed, each with what it let through."""
    by_rule: dict[str, list[Deed]] = {}
    given = {one.rule for one in confirmed}
    for deed in deeds:
        found = (judge.says(deed), judge.says(deed, given))
        for rule in dict.fromkeys(r.id for said in found if said.effect in ("confirm", "review") for r in said.equal):
            by_rule.setdefault(rule, []).append(deed)
    return [(one, by_rule[one.rule]) for one in confirmed if one.rule in by_rule]


WORDS: dict[Deeds, str] = {
    "deploy": "deploying {}", "try": "trying {}", "rollback": "rolling back {}", "restart": "restarting {}",
    "write": "writing {}", "delete": "deleting {}", "discard": "discarding {}", "push": "pushing to {}",
    "hostfile": "changing {}", "migrate": "the migrations of {}", "run": "running a command for {}",
}  # fmt: skip
ASKED_WHEN: dict[Deeds, str] = {
    "deploy": "a deploy changes the service", "try": "a try, or a rebuild of an edit, makes the path live",
    "rollback": "a rollback changes the service", "restart": "`homeport restart`, or a deploy that restarts the service",
    "migrate": "`homeport migrate`, or a deploy that migrates",
    "run": "`homeport run`, `homeport shell`, or the command of an [[actions]] in a deploy",
    "write": "a deploy, try, rebuild, `discard`, `rescue restore` or `hostfile edit` writes the path",
    "delete": "a deploy, try or `discard` deletes the path",
    "discard": "`homeport discard`, or a deploy that discards drift, throws the edit away",
    "push": "`homeport adopt` pushes the branch, or merges into it", "hostfile": "`homeport hostfile edit` or `record`",
}  # fmt: skip
"""When the rules on an action are asked, in words."""
SHOWN = 3
"""Subjects named in one message."""


def _refusal(rule: Rule, deeds: Sequence[Deed], actor: ActorKind) -> Refusal:
    subjects = list(dict.fromkeys(deed.subject for deed in deeds))
    more = f" and {len(subjects) - SHOWN} more" if len(subjects) > SHOWN else ""
    what = WORDS[rule.action].format(", ".join(subjects[:SHOWN]) + more)
    why = f": {rule.because}" if rule.because else ""
    why += f"; {deeds[0].lacking}" if rule.effect == "review" and deeds[0].lacking else ""
    paths = tuple(subjects) if rule.action not in NAMED else ()
    return Refusal(rule=rule.id, message=f"rule {rule.id} {_stops(rule.effect, what, actor)}{why}", paths=paths,
                   next=_next(rule, deeds[0], actor), effect=rule.effect)  # fmt: skip


def _stops(effect: str, what: str, actor: ActorKind) -> str:
    if effect == "deny":
        return f"forbids {what}"
    if effect == "review":
        return f"wants a review before {what}"
    who = {"person": "a person's word", "agent": "a person's word, and an agent cannot give it",
           "trigger": "a person's word, and a trigger cannot give it"}[actor]  # fmt: skip
    return f"wants {who} before {what}"


def _next(rule: Rule, deed: Deed, actor: ActorKind) -> str:
    if rule.effect == "confirm":
        end = "" if actor == "person" else "   (a person, from a shell of their own)"
        return f'the same command with: --confirm {rule.id} --because "..."{end}'
    if rule.effect == "review" and deed.lacking:
        return f'somebody else runs the same command with: --confirm {rule.id} --because "..."'
    if rule.effect == "review":
        return "bring it by a request that is merged into the environment's branch, then: homeport deploy"
    return f"homeport rules --explain {deed.action}:{deed.subject}"
