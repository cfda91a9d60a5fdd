"""The answers of verbs in words, from what they print with `--json`: the same here and from another machine."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from homeport.cli.show import edits, results
from homeport.cli.show.words import several, text, when, whose
from homeport.model.deploys import Deploy
from homeport.model.live import Rescue
from homeport.model.plan import Plan

if TYPE_CHECKING:
    from homeport.cli.options import Options

Answer = dict[str, Any]


def discarded(said: Answer) -> str:
    saved = f"\nsaved as {_list(said['rescued'])} (homeport rescue show ID)" if said["rescued"] else ""
    return f"put back: {_list(said['discarded'])}{saved}"


def recorded(said: Answer) -> str:
    lines = []
    for row in said["services"]:
        left = f"; still drift: {_list(row['left'])}" if row["left"] else ""
        lines.append(f"{whose(row['service'])}: {len(row['recorded'])} recorded{left}")
    return "\n".join(lines)


def restored(said: Answer) -> str:
    saved = f" (what lay there is saved as {_list(said['rescued'])})" if said.get("rescued") else ""
    return f"restored to {text(said['path'])}{saved}"


def accepted(said: Answer) -> str:
    return "\n".join(f"accepted until {when(row['until'])}: {text(row['path'])}" for row in said["accepted"])


def blocked(said: Answer) -> str:
    because = f": {text(said['because'])}" if said.get("because") else ""
    return f"{text(said['sha'])[:12]} {'is blocked' + because if said['blocked'] else 'may be deployed again'}"


def held(said: Answer) -> str:
    hold = said["hold"]
    if hold is not None:
        return f"triggers are paused until {when(hold['until'])}: {text(hold['because'])}"
    return "triggers deploy again" if said["ended"] else "there was no hold"


def one_deploy(said: Answer, *, color: bool = False) -> str:
    stages = [(row["stage"], row["state"], row["at"]) for row in said["stages"]]
    return results.deploy(msgspec.convert(said, Deploy), stages, color=color)


def database(said: Answer) -> str:
    return f"{text(said['path'])} is sound" if said.get("ok") else f"copied to {text(said['path'])}"


def log_line(said: Answer) -> str | None:
    """A line of a deploy's journal, or of what a service prints; None for what is not shown."""
    if "type" not in said:
        return text(said["line"])
    kind = said["type"]
    if kind == "deploy.log":
        whose = f"{said['service']}: " if said.get("service") else ""
        return text(f"{whose}{said['line']}")
    if kind == "deploy.stage" and said.get("state") != "start":
        detail = f": {said['detail']}" if said.get("detail") else ""
        return text(f"-- {said['stage']} {said['state']}{detail}")
    return text(f"!! {said['message']}") if kind == "deploy.notice" else None


def _list(words: list[str]) -> str:
    return ", ".join(text(word) for word in words)


def ruled(said: Answer) -> str:
    from homeport.cli.show import rules

    return rules.listed(said) if "rules" in said else rules.explained(said)


def audited(said: Answer) -> str:
    from homeport.cli.show import rules

    return rules.audited(said)


def of_hostfiles(said: Answer) -> str:
    from homeport.cli.show import hostfiles

    if "versions" in said:
        return hostfiles.history(said)
    if "hostfiles" in said:
        return hostfiles.listed(said)
    return hostfiles.recorded(said) if "recorded" in said else hostfiles.edited(said)


def new_token(said: Answer) -> str:
    held = f"{text(said['name'])}: {' '.join(map(text, said['rights']))}"
    return f"{text(said['token'])}\nkeep it now: it is not shown again ({held})"


def tokens(said: Answer) -> str:
    return "\n".join(map(_token, said["tokens"])) or "there are no tokens"


def _token(row: Answer) -> str:
    gone = f"   revoked {text(row['revoked'])}" if row["revoked"] else ""
    rights = " ".join(map(text, row["rights"]))
    return f"{text(row['name']):<20} {text(row['kind']):<7} {rights}   by {text(row['by'])}, {text(row['at'])}{gone}"


def converged(said: Answer) -> str:
    asked = f"\nasked for: homeport logs -f {text(said['deployId'])}" if said["deployId"] else ""
    return text(said["because"]) + asked


_PLAIN: dict[str, Callable[[Answer], str]] = {
    "discard": discarded, "record": recorded, "rescue restore": restored, "accept": accepted, "block": blocked,
    "unblock": blocked, "hold": held, "unhold": held, "db check": database, "db backup": database,
    "rules": ruled, "audit": audited, "hostfile list": of_hostfiles, "hostfile edit": of_hostfiles,
    "hostfile record": of_hostfiles, "token create": new_token, "token list": tokens,
    "token revoke": lambda said: f"{text(said['name'])} is revoked", "converge": converged,
}  # fmt: skip
GROUPS = ("rescue", "db", "hostfile", "token", "notify")
_COLOURED: dict[str, Callable[[Answer, bool], str]] = {
    "plan": lambda said, color: results.plan(msgspec.convert(said, Plan), color=color),
    "status": lambda said, color: results.status(said, color=color),
    "drift": lambda said, color: results.drift(said, color=color),
    "history": lambda said, color: results.history(msgspec.convert(said["deploys"], list[Deploy]), color=color),
    "show": lambda said, color: one_deploy(said, color=color),
    "doctor": lambda said, color: results.doctor(said["checks"], color=color),
    "diff": lambda said, color: results.diff(said["diff"], color, escaped=sys.stdout.isatty()),
    "hostfile diff": lambda said, color: results.diff(said["diff"], color, escaped=sys.stdout.isatty()),
    "rescue list": lambda said, color: results.rescues(msgspec.convert(said["rescues"], list[Rescue]), color=color),
    "adopt": lambda said, color: edits.adopted(said, color=color),
    "edits": lambda said, color: edits.edits(said, color=color),
}


def shown(options: Options, said: Answer) -> None:
    """Prints an answer that came from another machine."""
    verb = options.words[0]
    name = f"{verb} {options.words[1]}" if verb in GROUPS and len(options.words) > 1 else verb
    if name == "rescue show":
        sys.stdout.buffer.write(base64.b64decode(said["base64"]))
        sys.stdout.buffer.flush()
    elif name == "logs":
        line = log_line(said)
        if line is not None:
            click.echo(line)
    elif said.get("type") in ("drift", "drift.scan"):
        from homeport.cli.watching import told

        told(options, said)
    elif name in ("diff", "hostfile diff") and not said["diff"]:
        return
    else:
        options.tell(said, lambda color: in_words(name, said, color))


def in_words(name: str, said: Answer, color: bool) -> str:
    """The answer of a verb; one that has no words of its own is shown as it came."""
    if name in _PLAIN:
        return _PLAIN[name](said)
    if name in _COLOURED:
        return _COLOURED[name](said, color)
    return several(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
