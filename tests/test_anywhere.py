"""The shared options may stand before the verb or after it; nothing else moves."""

from __future__ import annotations

import click
import pytest

from homeport.cli.anywhere import in_front
from homeport.cli.main import cli
from homeport.cli.show import again


@pytest.mark.parametrize(("typed", "meant"), [
    ("status --json", "--json | status"),
    ("deploy -e staging v1 api --json", "-e staging --json | deploy v1 api"),
    ("deploy -estaging --environment=production", "-estaging --environment=production | deploy"),
    ("-q deploy -v -C /srv -p shop", "-q -v -C /srv -p shop | deploy"),
    ("rescue list --json", "--json | rescue list"),
    ("rescue --json show r-1", "--json | rescue show r-1"),
    ("logs -n 5 api -q", "-q | logs -n 5 api"),
    ("hold --because --json", "| hold --because --json"),
    ("hold --because=x --json", "--json | hold --because=x"),
    ("run -s api --json -- env --json -e x", "--json | run -s api -- env --json -e x"),
    ("run env --json -e x", "| run env --json -e x"),
    ("drift -- --json", "| drift -- --json"),
    ("status --help", "| status --help"),
    ("status --caller x", "| status --caller x"),
    ("nosuch --json", "| nosuch --json"),
    ("--json", "--json |"),
    ("deploy --ref", "| deploy --ref"),
    ("setup -e production --host web-1", "| setup -e production --host web-1"),
])  # fmt: skip
def test_a_shared_option_after_the_verb_counts_as_before_it(typed: str, meant: str) -> None:
    before, verb = in_front(cli, typed.split())
    assert " ".join([*before, "|", *verb]).strip() == meant


def test_a_shared_option_that_lacks_its_value_is_an_error() -> None:
    with pytest.raises(click.UsageError, match="-e"):
        in_front(cli, ["status", "-e"])


def test_a_hint_names_the_place_that_the_person_named() -> None:
    again.remember("/srv/a b", None, "staging", None)
    try:
        assert again.again("homeport drift") == "homeport -C '/srv/a b' -e staging drift"
        assert again.again("homeport -e production diff api   (then: homeport adopt)") == (
            "homeport -C '/srv/a b' -e production diff api   (then: homeport -C '/srv/a b' -e staging adopt)")  # fmt: skip
        assert again.again("install a newer homeport first") == "install a newer homeport first"
    finally:
        again.remember(None, None, None, None)
    assert again.again("homeport drift") == "homeport drift"
