"""How adopted commits and the ledger of edits look. Pure: values in, text out."""

from __future__ import annotations

from typing import Any

from homeport.cli.show.again import after_edits
from homeport.cli.show.results import joined, next_lines, table
from homeport.cli.show.words import Ink, ago, count, short, text, when, whose

_STATES = {"open": "warn", "accepted": "dim", "adopted": "next", "merged": "good", "closed": "dim", "discarded": "dim"}


def adopted(said: dict[str, Any], *, color: bool = False) -> str:
    """The branch that was made, what it holds, what was left out and why."""
    ink = Ink(color)
    lines: list[str] = []
    if said["branch"] is None:
        lines.append("nothing to adopt" if not said["skipped"] else "nothing was adopted")
    else:
        commit, base = ink("sha", short(said["commit"])), ink("sha", short(said["base"]))
        lines.append(f"{ink('good', 'adopted')} {count(len(said['paths']), 'path')} as {commit}, on {base}, "
                     f"branch {ink('strong', text(said['branch']))}")  # fmt: skip
        lines += [f"  {text(path)}" for path in said["paths"]]
    if said["skipped"]:
        lines += ["", "left out:", *table([[("", text(row["path"])), ("dim", text(row["because"]))]
                                           for row in said["skipped"]], ink, "  ")]  # fmt: skip
    if said["branch"] is not None:
        lines += ["", *_after(said, ink)]
    return joined(lines)


def _after(said: dict[str, Any], ink: Ink) -> list[str]:
    if said["merged"]:
        done = f"{ink('good', 'merged')}: {text(said['request'])}"
        return [done, *next_lines(ink, [("homeport deploy", "closes the edit")])]
    if said["request"]:
        then = ("homeport deploy", "once somebody else has merged it") if said.get("review") else (
            "homeport adopt --merge", "or merge it there")  # fmt: skip
        return [f"request: {text(said['request'])}", *next_lines(ink, [then])]
    if said.get("page"):
        return next_lines(ink, [(f"open {text(said['page'])}", "")])
    return next_lines(ink, [(f"merge branch {text(said['branch'])}", "then: homeport deploy")])


def edits(said: dict[str, Any], *, color: bool = False) -> str:
    """One line for each edit, and what can be done."""
    ink = Ink(color)
    rows = said["edits"]
    if not rows:
        return "no edits: live, deployed and git agree\n"
    shown = [[("dim", name) for name in ("edit", "path", "state", "since", "")]]
    for row in rows:
        since = ago(row["since"]) or text(row["since"])
        shown.append([("sha", text(row["id"])), ("", f"{whose(row['service'])}:{text(row['path'])}"),
                      (_STATES.get(row["state"], ""), row["state"]), ("warn" if row.get("old") else "dim", since),
                      ("dim", _more(row))])  # fmt: skip
    commands = after_edits(rows, said.get("observe"))
    return joined([*table(shown, ink), "", *next_lines(ink, commands)])


def _more(row: dict[str, Any]) -> str:
    words = []
    if row["because"]:
        words.append(f"{text(row['because'])} (by {text(row['by'] or '')}, until {when(row['until'])})")
    if row.get("unsure"):
        words.append(f"or not: the push of {text(row['branch'])} was cut, and the origin cannot be asked")
    elif row["request"] or row["branch"]:
        words.append(text(row["request"] or row["branch"]))
    return "; ".join(words)
