"""Who besides its author stood for what was merged, the same on every forge."""

from __future__ import annotations

from typing import Any

import pytest

from homeport.model.forge import ForgeFault

from .conftest import World
from .fakes import MERGED, OTHER, SHA
from .schema import stored
from .server import Answer

APPROVED = {"by": "bob"}
LOOKS: list[tuple[str, dict[str, Any], list[dict[str, Any]], tuple[str, ...]]] = [
    ("nobody looked", {}, [], ()),
    ("another merged it", {"merger": "bob"}, [], ("bob",)),
    ("another approved it", {}, [APPROVED], ("bob",)),
    ("its author approved it", {}, [{"by": "Ann"}], ()),
    ("another commented", {}, [{"by": "bob", "says": "commented"}], ()),
    ("another refused it", {}, [{"by": "bob", "says": "refused"}], ()),
    ("refused after approving", {}, [APPROVED, {"by": "bob", "says": "refused"}], ()),
    ("approved after refusing", {}, [{"by": "bob", "says": "refused"}, APPROVED], ("bob",)),
    ("dismissed", {}, [{"by": "bob", "says": "dismissed"}], ()),
    ("approved before more was pushed", {}, [{"by": "bob", "of": OTHER}], ()),
    ("two of them", {"merger": "eve"}, [APPROVED], ("bob", "eve")),
    ("one that did both", {"merger": "Bob"}, [APPROVED], ("Bob",)),
]


@pytest.mark.parametrize(("given", "said", "by"), [row[1:] for row in LOOKS], ids=[row[0] for row in LOOKS])
def test_only_another_person_who_stood_for_what_was_merged_is_named(
    world: World, given: dict[str, Any], said: list[dict[str, Any]], by: tuple[str, ...]
) -> None:
    number = world.fake.add_pull(state="merged", **given)
    for one in said:
        world.fake.looked_at(number, **one)
    (found,) = world.client().reviews(MERGED)
    assert (found.number, found.base, found.author, found.by) == (number, "main", "ann", by)


def test_a_commit_that_no_merged_request_brought_has_no_review(world: World) -> None:
    number = world.fake.add_pull(state="open")
    world.fake.looked_at(number, "bob")
    world.fake.add_pull(state="closed", sha=OTHER)
    assert world.client().reviews(SHA) == []
    assert world.client().reviews("d" * 40) == []


def test_a_bot_is_nobody(github: World, gitlab: World) -> None:
    number = github.fake.add_pull(state="merged", merger="renovate[bot]")
    github.fake.looked_at(number, "helper[bot]")
    number = gitlab.fake.add_pull(state="merged", merger="project_12_bot_3f")
    gitlab.fake.looked_at(number, "group_3_bot")
    assert [world.client().reviews(MERGED)[0].by for world in (github, gitlab)] == [(), ()]


def test_a_forge_that_does_not_answer_reviewed_nothing(world: World) -> None:
    world.fake.queued += [Answer(403, {"message": "no"})]
    with pytest.raises(ForgeFault):
        world.client().reviews(MERGED)


def test_recorded_reviews_of_github_are_read(github: World) -> None:
    """Every request and review that GitHub recorded as an example, in the shape of its answers."""
    recorded = [one["payload"] for one in stored("payloads/github-webhooks") if one["event"] == "pull_request_review"]
    assert recorded
    for payload in recorded:
        pull = {**payload["pull_request"], "merged_at": "2026-01-02T03:04:05Z"}
        review = {**payload["review"], "state": "APPROVED", "commit_id": pull["head"]["sha"]}
        github.fake.queued = [Answer(200, [pull]), Answer(200, pull), Answer(200, [review])]
        (found,) = github.client().reviews(MERGED)
        assert found.author == pull["user"]["login"]
        another = review["user"] and review["user"]["login"] != found.author and review["user"]["type"] == "User"
        assert found.by == ((review["user"]["login"],) if another else ())
