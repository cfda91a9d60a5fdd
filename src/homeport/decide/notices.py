"""What people are told after a deploy: four outcomes, and the words of the message. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from homeport.model.notices import LONGEST_WAIT, Facts, Message, Outcome
from homeport.model.patterns import Matcher

QUIET = ("docs/", "doc/", "*.md", "*.rst", "LICENSE*", "tests/", "test/", "__tests__/", "*.test.*", "*_test.*", ".github/",
         ".gitea/", ".forgejo/", ".gitlab-ci.yml", ".gitlab/")  # fmt: skip
"""Documentation, tests and workflows, where `quiet_paths` names nothing else."""
STACK = ("compose.yaml", "compose.yml", "docker-compose*.yml", "docker-compose*.yaml", "compose.override.y*ml")
MIGRATIONS = ("migrations/", "migrate/", "alembic/", "*.sql")
BADLY = ("failed", "rolled_back", "refused")
LONGEST_TAIL = 900
"""Characters: what a field of a chat message has room for."""
_MENTION = re.compile(r"@(?=\w)|<(?=[@!#&])")


def outcome(facts: Facts, quiet_paths: Sequence[str]) -> Outcome:
    """FAILURE: what a person has to look at. FULL: recovery, migrations, changes of the Compose file, rollbacks by hand.
    CONDENSED: routine. SUPPRESSED: nothing to tell, or only documentation, tests and workflows changed."""
    if facts.status in BADLY:
        return "suppressed" if facts.repeated else "failure"
    if facts.status != "deployed" or facts.kind in ("restart", "migrate"):
        return "suppressed"
    if facts.recovered or facts.kind == "rollback":
        return "full"
    if facts.paths:
        quiet = Matcher(quiet_paths or QUIET, dir_only_matches_files=True).match
        if all(quiet(path) for path in facts.paths) and (quiet_paths or not facts.services):
            return "suppressed"
        loud = Matcher([*STACK, *(MIGRATIONS if facts.migrates else ())], dir_only_matches_files=True).match
        if any(loud(path) for path in facts.paths):
            return "full"
    return "condensed" if facts.services else "suppressed"


def message(facts: Facts, how: Outcome) -> Message:
    """The message of an outcome that is not suppressed."""
    sha = (facts.sha or "")[:12]
    words = {"deployed": "deployed", "rolled_back": "failed and was rolled back", "failed": "failed",
             "refused": "was refused"}[facts.status]  # fmt: skip
    if facts.kind == "rollback" and facts.status == "deployed":
        words = "rolled back by hand"
    elif facts.recovered and facts.status == "deployed":
        words = "recovered"
    title = disarmed(f"{facts.project} {facts.environment}: {words}")
    commit = disarmed(f"{sha} {facts.subject}".strip())
    if how == "condensed":
        who = f" by {facts.author}" if facts.author else ""
        text = f"{commit}{disarmed(who)} ({', '.join(facts.services)}, {duration(facts.duration_ms)})"
        return Message(outcome=how, title=title, text=text, page=facts.page)
    fields = [
        ("Commit", commit), ("Author", disarmed(facts.author)), ("Services", ", ".join(facts.services)),
        ("Host", facts.host), ("Took", duration(facts.duration_ms)), ("Asked for by", disarmed(facts.requested_by)),
        ("Changed", _changed(facts)), ("Before", (facts.previous_sha or "")[:12]), ("Deploy", facts.deploy),
        ("Next", facts.next),
    ]  # fmt: skip
    tail = disarmed("\n".join(facts.tail))[-LONGEST_TAIL:] if how == "failure" else ""
    text = disarmed(facts.error)[:1500] if how == "failure" else commit
    return Message(outcome=how, title=title, text=text, page=facts.page, tail=tail,
                   fields=tuple((name, value) for name, value in fields if value))  # fmt: skip


def disarmed(text: str) -> str:
    """Nobody is called by what a commit, a branch or a log line says: a mention is cut by a space without width."""
    return _MENTION.sub(lambda found: found[0] + "\u200b", text)


def duration(ms: int) -> str:
    seconds = ms / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _changed(facts: Facts) -> str:
    if not facts.paths:
        return ""
    shown = ", ".join(disarmed(path) for path in facts.paths[:5])
    return shown + (f" and {len(facts.paths) - 5} more" if len(facts.paths) > 5 else "")


def wait(attempts: int) -> float:
    """Seconds until a message that was not taken is tried again."""
    return min(30.0 * 4.0 ** (attempts - 1), LONGEST_WAIT)


GIVE_UP = 24 * 3600.0
"""Seconds after which a message is old news."""
FEWEST = 5
"""Times that it is tried at least: the clock may have been set meanwhile."""


def is_old_news(since: float, attempts: int, now: float) -> bool:
    """Whether a message that was not taken again, after so many attempts before, is given up."""
    return now - since >= GIVE_UP and attempts + 1 >= FEWEST
