"""How a deploy that waits for its turn looks. Pure."""

from __future__ import annotations

from typing import Any

from homeport.cli.show.words import Ink, ago, short, text


def lines(row: dict[str, Any] | None, ink: Ink) -> list[str]:
    """What waits, who asked for it, and since when; nothing where nothing waits."""
    if row is None:
        return []
    what = [row["kind"], text(row["ref"]) if row["ref"] else short(row["sha"], ""), *map(text, row["services"])]
    by = f", asked for by {text(row['requestedBy'])}" if row["requestedBy"] else ""
    said = f"waiting its turn: {text(row['deployId'])}, {' '.join(word for word in what if word)}{by}, {ago(row['since'])}"
    return [ink("next", said.removesuffix(", "))]
