"""Host files, as a person reads them."""

from __future__ import annotations

from typing import Any

from homeport.cli.show.results import table
from homeport.cli.show.words import Ink, text

SAID = {"recorded": "as recorded", "changed": "CHANGED OUTSIDE", "missing": "REMOVED OUTSIDE", "new": "not there yet",
        "odd": "CANNOT BE TAKEN", "interrupted": "EDIT WAS CUT"}  # fmt: skip


def listed(said: dict[str, Any]) -> str:
    """`homeport hostfile list`."""
    rows = []
    for row in said["hostfiles"]:
        more = "  ".join(filter(None, ["secret" if row["secret"] else "", text(row["because"] or "")]))
        rows.append([("", word) for word in (SAID[row["state"]], text(row["path"]), text(row["purpose"]), more)])
    rows += [[("", "not deployed"), ("", text(path)), ("", "(homeport deploy)"), ("", "")] for path in said["notDeployed"]]
    none = f"no host file is registered for {said['host']} ([[hostfiles]] in homeport.toml)"
    return "\n".join(table(rows, Ink(False))) or none


def history(said: dict[str, Any]) -> str:
    """`homeport hostfile list PATH`."""
    lines = [f"{text(said['path'])}   {text(said['purpose'])}"]
    for row in said["versions"]:
        what = "removed" if row["digest"] is None else f"{row['mode']} {row['digest'][:12]}"
        lines.append(f"{row['id']}  {row['at'][:19]}  {row['how']:<7} {what}  {text(row['by'])}  {text(row['because'])}")
    return "\n".join(lines)


def edited(said: dict[str, Any]) -> str:
    """`homeport hostfile edit`."""
    if not said["changed"]:
        return f"{said['path']}: nothing was changed"
    done = "put in place and reloaded" if said["reloaded"] else "put in place"
    kept = f"; the old content: {text(said['backup'])}" if said["backup"] else ""
    note = said.get("note")
    if note is None:
        return f"{said['path']}: {done}{kept}"
    if note["pushed"]:
        where = note["request"] or note.get("page") or f"branch {note['branch']}"
        return f"{said['path']}: {done}{kept}\nnote {note['path']}: {text(where)}"
    return f"{said['path']}: {done}{kept}\nno note was pushed: {text(note['because'])}"


def recorded(said: dict[str, Any]) -> str:
    """`homeport hostfile record`."""
    return "\n".join(f"{row['path']}: {'recorded' if row['changed'] else 'nothing new'}" for row in said["recorded"])
