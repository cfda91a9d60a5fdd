"""The commands that a person is told to run next, with what they said before this verb: folder, project, environment."""

from __future__ import annotations

import re

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
