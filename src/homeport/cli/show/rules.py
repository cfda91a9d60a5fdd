"""Rules and the audit, as a person reads them."""

from __future__ import annotations

from typing import Any

from homeport.cli.show.results import table
from homeport.cli.show.words import Ink, clock_time, text


def listed(said: dict[str, Any]) -> str:
    """`homeport rules`."""
    if not said["rules"]:
        return "there are no rules: everything is allowed that the rest of the configuration allows"
    rows = []
    for row in said["rules"]:
        match = row["match"] if isinstance(row["match"], str) else " ".join(row["match"])
        off = "" if row["inForce"] else "(not in force)"
        why = "  ".join(filter(None, [text(row["because"] or ""), off]))
        rows.append([("", word) for word in (row["effect"], row["action"], text(match), text(row["id"]), row["from"], why)])
    return "\n".join(table(rows, Ink(False)))


def explained(said: dict[str, Any]) -> str:
    """`homeport rules --explain`."""
    about = f"{said['action']} {text(said['match'])}" if said["match"] else said["action"]
    because = f"\nbecause: {text(said['because'])}" if said["because"] and said["rule"] else ""
    others = f"\nrules about it: {', '.join(map(text, said['others']))}" if said["others"] and not said["match"] else ""
    when = f"\nasked when: {said['askedWhen']}" if not said["match"] else ""
    return f"{about}: {said['effect']}\n{text(said['why'])}{because}{others}{when}"


def audited(said: dict[str, Any]) -> str:
    """`homeport audit`, a line each."""
    lines = []
    for row in said["audit"]:
        who = text(row["who"]) + ("" if row["actor"] == "person" else f" ({row['actor']})")
        place = f" from {text(row['from'])}" if row["from"] else ""
        at = clock_time(row["at"], seconds=True)
        lines.append(f"{at}  {row['outcome']:<11} {who}{place}: {text(row['action'])}   {text(row['detail'])}")
    return "\n".join(lines) or "nothing was changed yet"
