"""Whether a job has to stop because its deploy is being cancelled."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from homeport.flow.work import tools_for


def test_a_cancel_that_was_seen_a_moment_ago_does_not_cut_off_the_way_back() -> None:
    """The answer was kept for a fifth of a second; a rollback that was quicker failed at its first job."""
    row = SimpleNamespace(stage="restart")
    seen: list[Callable[[], bool]] = []
    site: Any = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: 100.0),
        store=SimpleNamespace(deploy=lambda _: row, cancel_asked=lambda _: "ada"),
        shell_for=lambda _, cancelled: seen.append(cancelled), journal_for=lambda _: None, runtimes_for=lambda _: {},
        prober_for=lambda _: None,
    )  # fmt: skip
    tools_for(site, "d1")
    (cancelled,) = seen
    assert cancelled()
    row.stage = "rollback:restart"
    assert not cancelled()
