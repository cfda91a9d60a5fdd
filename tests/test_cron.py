"""D3: when a check by the clock is due: cron's fields, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from homeport.decide.cron import fields, latest

NOW = datetime(2026, 11, 21, 15, 30, 12, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2026-11-21 15:30"),
        ("0 9 * * 0", "2026-11-15 09:00"),
        ("0 9 * * 7", "2026-11-15 09:00"),
        ("0 9 * * sun", "2026-11-15 09:00"),
        ("0 4 * * Mon-Fri", "2026-11-20 04:00"),
        ("*/20 * * * *", "2026-11-21 15:20"),
        ("5/20 15,16 * * *", "2026-11-21 15:25"),
        ("31 15 * * *", "2026-11-20 15:31"),
        ("0 0 1 jan *", "2026-01-01 00:00"),
        ("0 0 29 2 *", "2024-02-29 00:00"),
        ("0 0 13 * 5", "2026-11-20 00:00"),
        ("@weekly", "2026-11-15 00:00"),
        ("0 0 31 2 *", None),
    ],
)
def test_the_newest_time_that_has_come(text: str, expected: str | None) -> None:
    found = latest(text, NOW)
    assert (f"{found:%Y-%m-%d %H:%M}" if found else None) == expected


@pytest.mark.parametrize("text", [
    "", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *",
    "x * * * *", "1- * * * *", "\u0663 * * * *", "@yearly-ish",
])  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        fields(text)
