"""Whoever follows a deploy reads its last events, also when its row has ended a moment before them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from homeport.doors import journal
from homeport.flow import asking
from homeport.flow.site import Site


def _site(path: Path, untold: list[str]) -> Site:
    """One deploy `d` that has ended in the database; `untold` gives, look for look, what its runner has yet to tell."""
    row = SimpleNamespace(id="d", state="done", stage="build", attempts=1)

    def told() -> str:
        now = untold.pop(0) if len(untold) > 1 else untold[0]
        if not now:
            with path.open("a") as file:
                file.write('{"type":"deploy.cancelled"}\n{"type":"deploy.done"}\n')
        return now

    store = SimpleNamespace(deploy=lambda _: row, untold=told)
    made = SimpleNamespace(
        store=store, clock=SimpleNamespace(monotonic=time.monotonic), lock=SimpleNamespace(free=lambda: False),
        follow_journal=journal.follow, journal_path=lambda _: str(path), runner_on_its_way=lambda: False,
    )  # fmt: skip
    return cast("Site", cast("Any", made))


def test_the_last_events_are_waited_for_when_the_row_is_there_before_them(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"type":"deploy.start"}\n')
    kinds = [json.loads(line)["type"] for line in asking.follow(_site(path, ["d", "d", "d", ""]), "d")]
    assert kinds == ["deploy.start", "deploy.cancelled", "deploy.done"]
