"""D17: four outcomes, and messages that call nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from homeport.decide.notices import FEWEST, GIVE_UP, LONGEST_TAIL, is_old_news, message, outcome, wait
from homeport.doors.clock import SystemClock
from homeport.doors.database import Database
from homeport.doors.outbox import OutboxTable
from homeport.flow.checking import due_by_clock
from homeport.model.config import CiCheck
from homeport.model.notices import Facts, Letter

if TYPE_CHECKING:
    from homeport.flow.site import Site

ROUTINE = Facts(project="shop", environment="production", host="host-1", deploy="d1", kind="commit", status="deployed",
                sha="a" * 40, previous_sha="b" * 40, subject="Prices", author="Ada", services=("api",),
                paths=("api/app.py",), duration_ms=72_500, requested_by="webhook")  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, "condensed"),
        ({"kind": "try"}, "condensed"),
        ({"status": "failed"}, "failure"),
        ({"status": "rolled_back"}, "failure"),
        ({"status": "refused", "error_code": "drift"}, "failure"),
        ({"status": "refused", "repeated": True}, "suppressed"),
        ({"status": "superseded"}, "suppressed"),
        ({"status": "cancelled"}, "suppressed"),
        ({"status": "unchanged"}, "suppressed"),
        ({"kind": "restart"}, "suppressed"),
        ({"recovered": True}, "full"),
        ({"recovered": True, "paths": ("docs/a.md",), "services": ()}, "full"),
        ({"kind": "rollback"}, "full"),
        ({"paths": ("api/app.py", "compose.yaml")}, "full"),
        ({"paths": ("stack/docker-compose.prod.yml",)}, "full"),
        ({"paths": ("db/migrations/0002.py",), "migrates": True}, "full"),
        ({"paths": ("db/migrations/0002.py",)}, "condensed"),
        ({"paths": ("docs/a.md", ".github/workflows/ci.yml", "tests/test_a.py"), "services": ()}, "suppressed"),
        ({"paths": ("docs/a.md",)}, "condensed"),
        ({"paths": ("docs/a.md", "api/app.py"), "services": ()}, "suppressed"),
        ({"paths": (), "services": ()}, "suppressed"),
    ],
)
def test_the_outcome_of_a_deploy(changes: dict[str, object], how: str) -> None:
    assert outcome(replace(ROUTINE, **changes), []) == how


def test_the_projects_own_quiet_paths_count_instead_of_the_built_in_ones() -> None:
    site = replace(ROUTINE, paths=("site/index.html",), services=("site",))
    assert (outcome(site, []), outcome(site, ["site/"])) == ("condensed", "suppressed")
    assert outcome(replace(ROUTINE, paths=("docs/a.md",)), ["site/"]) == "condensed"


def test_a_failure_says_what_where_and_what_next_and_calls_nobody() -> None:
    facts = replace(ROUTINE, status="rolled_back", subject="@everyone look <@123> <!here> a@example.com", author="@here",
                    error="api: GET /health answered 500 @channel", next="homeport logs d1",
                    tail=tuple(f"@ops line {n}" for n in range(500)),
                    page="https://git.example.com/o/r/commit/a")  # fmt: skip
    said = message(facts, "failure")
    assert said.title == "shop production: failed and was rolled back"
    shown = "\n".join([said.title, said.text, said.tail, *(f"{n}: {v}" for n, v in said.fields)])
    for mention in ("@everyone", "@here", "@channel", "@ops", "<@1", "<!"):
        assert mention not in shown
    fields = dict(said.fields)
    assert (fields["Took"], fields["Services"], fields["Next"], fields["Host"]) == (
        "1 min 12 s", "api", "homeport logs d1", "host-1")  # fmt: skip
    assert fields["Commit"].startswith("a" * 12)
    assert (len(said.tail) <= LONGEST_TAIL, said.tail.endswith("line 499"), said.page) == (True, True, facts.page)


def test_a_routine_message_is_one_line_and_a_dead_channel_is_asked_less_and_less() -> None:
    said = message(ROUTINE, "condensed")
    assert (said.text, said.fields, said.tail) == ("aaaaaaaaaaaa Prices by Ada (api, 1 min 12 s)", (), "")
    assert [wait(n) for n in (1, 2, 3, 4, 9)] == [30.0, 120.0, 480.0, 1920.0, 3600.0]


DAYS = 400 * 86_400.0


def test_a_message_that_was_put_off_while_the_clock_was_ahead_does_not_wait_for_that_day(tmp_path: Path) -> None:
    database, now = Database(str(tmp_path / "homeport.db"), SystemClock()), 1_800_000_000.0
    box = OutboxTable(database)
    try:
        box.put([Letter(deploy="d-1", channel=None, sha="a" * 40)], now)
        (letter,) = box.due(now)
        box.failed(letter, now + wait(1))
        assert box.due(now) == [], "it waits its time"
        box.failed(letter, now + DAYS + wait(2))
        assert [due.deploy for due in box.due(now)] == ["d-1"]
    finally:
        database.close()


def test_a_clock_that_jumps_ahead_makes_no_message_old_news_before_it_was_tried_a_few_times() -> None:
    tries = [is_old_news(0.0, attempts, DAYS) for attempts in range(FEWEST)]
    assert tries == [False] * (FEWEST - 1) + [True]
    assert not is_old_news(0.0, 100, GIVE_UP - 1)


def test_a_check_by_the_clock_that_was_begun_in_the_future_waits_for_its_next_time_and_not_for_that_day() -> None:
    held: dict[str, str] = {}
    moment = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

    def now() -> str:
        return moment.isoformat()

    site = cast("Site", SimpleNamespace(
        store=SimpleNamespace(cached=held.get, cache=held.__setitem__),
        clock=SimpleNamespace(now=now),
        config=SimpleNamespace(checks={"nightly": CiCheck(run="true", cron="0 * * * *")}),
    ))  # fmt: skip
    assert due_by_clock(site) == []
    (seen,) = held
    held[seen] = (moment + timedelta(days=400)).isoformat()
    assert due_by_clock(site) == []
    moment += timedelta(hours=1)
    assert due_by_clock(site) == ["nightly"]
