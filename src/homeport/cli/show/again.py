"""The commands that a person is told to run next, with what they said before this verb: folder, project, environment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_ACCEPT = ('homeport accept PATH --because "..." --until 7d', "leave it for now")
_SHARED = ("-C", "-p", "-e", "--host")
_COMMAND = re.compile(r"\bhomeport((?: (?:-C|-p|-e|--host) \S+)*)(?= ([a-z-]+))")
_said: dict[str, str] = {}


def remember(folder: str | None, project: str | None, environment: str | None, host: str | None) -> None:
    """Of this command line; None for what was not said."""
    given = dict(zip(_SHARED, (folder, project, environment, host), strict=True))
    _said.clear()
    _said.update({option: value for option, value in given.items() if value is not None})


def again(words: str) -> str:
    """Every `homeport VERB` in a hint, with the options it would need to mean the same place."""
    return _COMMAND.sub(_filled, words) if _said else words


def _filled(found: re.Match[str]) -> str:
    import shlex

    from homeport.cli.main import VERBS

    if found[2] not in VERBS:
        return found[0]
    there = found[1].split()
    missing = [(option, value) for option, value in _said.items() if option not in there]
    return " ".join(["homeport", *(f"{option} {shlex.quote(value)}" for option, value in missing), *there])


def after_drift(paths: Sequence[dict[str, Any]], observes: str | None) -> list[tuple[str, str]]:
    """What can be done about these paths that differ, each with what it is for."""
    commands = [("homeport diff", "what changed")]
    if any(path.get("foreign") and not path.get("adopted") for path in paths):
        commands.append(("homeport record", "take another deployer's files as deployed"))
    if not all(path.get("adopted") for path in paths):
        commands.append(("homeport adopt", "bring it into git, on a branch of its own"))
    elif not observes:
        merged = all(path.get("foreign") for path in paths)
        commands.append(("homeport deploy", "closes what is merged" if merged else "once it is merged: closes it"))
    return commands + (looking_on(observes) if observes else [
        ("homeport discard PATH", "put it back; the edit is saved first"),
        ("homeport deploy --keep-drift", "deploy and leave the edits as they are"),
    ])


def after_edits(rows: Sequence[dict[str, Any]], observes: str | None) -> list[tuple[str, str]]:
    """What can be done about these edits."""
    states = {row["state"] for row in rows}
    if "open" in states:
        end = looking_on(observes) if observes else [_ACCEPT, ("homeport discard PATH", "put it back; saved first")]
        return [("homeport adopt", "into git"), *end]
    if any(row.get("unsure") for row in rows):
        return [("homeport adopt", "looks whether the branch came, and goes on")]
    if observes:
        return [("homeport record", "takes what is merged as deployed")] if "merged" in states else []
    told = "closes what is merged" if "merged" in states else "once it is merged: closes it" if "adopted" in states else ""
    return [("homeport deploy", told)] if told else []


def looking_on(observes: str) -> list[tuple[str, str]]:
    """What can be done about an edit where `discard` and `deploy` are refused, because the host or the environment only
    observes."""
    end = ("homeport setup --no-observe", "ends the observing; until then nothing is put back or deployed")
    if observes == "environment":
        end = ("homeport deploy", "once observe = true is out of homeport.toml and pushed; until then nothing is put back")
    return [_ACCEPT, end]
