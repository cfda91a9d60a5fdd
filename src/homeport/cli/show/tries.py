"""Live tries, as lines of `status`."""

from __future__ import annotations

from typing import Any

from homeport.cli.show.words import Ink, ago, short, text, when


def lines(said: dict[str, Any], ink: Ink) -> list[str]:
    """Whose tries run, and until when the pipeline leaves them alone."""
    found = []
    for row in said.get("tries") or ():
        name = text(str(row.get("author") or "")).partition("<")[0].strip() or text(row["who"])
        until = "deploys may end it" if row.get("expired") else f"left alone until {when(row['until'])}"
        style, word = ("bad", "old try") if row.get("old") else ("warn", "try")
        adopted = f", adopted as {text(row['branch'])}" if row.get("branch") else ""
        found.append(f"{ink(style, word)} {short(row['sha'])} by {name} of {', '.join(map(text, row['services']))}, "
                     f"since {ago(row['since']) or text(row['since'])}, {until}{adopted}")  # fmt: skip
    return found


def commands(said: dict[str, Any]) -> list[tuple[str, str]]:
    """What can be done about them."""
    if not any(not row.get("branch") for row in said.get("tries") or ()):
        return []
    return [("homeport adopt", "take the try into git"), ("homeport rollback", "back to the last commit")]
