"""Pull and merge requests, the same on every forge: found, opened, merged, and the page to do it by hand."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.forge import ForgeFault, NewRequest, Status

from .conftest import World
from .fakes import MERGED, OTHER, SHA

ASKED = NewRequest(head="homeport/adopt-1", base="main", title="Adopt nginx.conf", body="From *prod-1*")


def test_a_request_is_opened_once(world: World) -> None:
    world.fake.branches.add(ASKED.head)
    forge = world.client()
    assert forge.find_request(ASKED.head, ASKED.base) is None
    first, opened = forge.open_request(ASKED)
    again, opened_again = world.client().open_request(ASKED)
    assert (opened, opened_again) == (True, False)
    assert first.number == again.number == 1
    assert (first.state, first.head, first.base, first.head_sha) == ("open", ASKED.head, "main", SHA)
    assert first.same_repository and first.merged_as is None
    assert str(first.number) in first.url
    assert len(world.fake.pulls) == 1


def test_one_that_another_opened_at_the_same_moment_is_found(world: World) -> None:
    number = world.fake.add_pull(ASKED.head, ASKED.base)
    ordinary = world.fake.open_between
    hidden = {"left": 1}
    listing = world.fake.answer

    def blind_once(seen):  # type: ignore[no-untyped-def]
        if seen.method == "GET" and hidden["left"]:
            hidden["left"] -= 1
            held, world.fake.pulls = world.fake.pulls, []
            try:
                return listing(seen)
            finally:
                world.fake.pulls = held
        return listing(seen)

    world.fake.answer = blind_once
    request, opened = world.client().open_request(ASKED)
    assert ordinary(ASKED.head, ASKED.base)
    assert (request.number, opened) == (number, False)


def test_other_requests_are_not_taken_for_it(world: World) -> None:
    world.fake.add_pull("homeport/adopt-1", "main", state="closed")
    world.fake.add_pull("homeport/adopt-1", "release")
    world.fake.add_pull("homeport/adopt-10", "main")
    assert world.client().find_request("homeport/adopt-1", "main") is None


@pytest.mark.parametrize("mergeable", [True, False])
def test_a_request_says_whether_it_can_be_merged(world: World, mergeable: bool) -> None:
    number = world.fake.add_pull()
    world.fake.mergeable = mergeable
    assert world.client().request(number).mergeable is mergeable


def test_not_worked_out_yet_is_neither_yes_nor_no(github: World, gitlab: World) -> None:
    for world in (github, gitlab):
        number = world.fake.add_pull()
        world.fake.mergeable = None
        assert world.client().request(number).mergeable is None


def test_merging_squashes_and_deletes_the_branch(world: World) -> None:
    number = world.fake.add_pull("feature/a b".replace(" ", "-"))
    done = world.client().merge(number, sha=SHA, title="Adopt nginx.conf", body="because")
    assert (done.state, done.merged_as) == ("merged", MERGED)
    assert world.fake.branches == set()
    asked = len(world.fake.seen)
    assert world.client().merge(number, sha=SHA, title="Adopt nginx.conf").state == "merged"
    assert not any(seen.path.endswith("/merge") for seen in world.fake.seen[asked:])


def test_a_forks_branch_is_not_ours_to_delete(world: World) -> None:
    number = world.fake.add_pull("patch", fork=True)
    world.fake.branches.add("patch")
    request = world.client().request(number)
    assert not request.same_repository
    world.client().merge(number, sha=SHA, title="x")
    assert world.fake.branches == {"patch"}


def test_new_commits_since_it_was_looked_at_are_not_merged(world: World) -> None:
    number = world.fake.add_pull(sha=OTHER)
    with pytest.raises(Refused) as caught:
        world.client().merge(number, sha=SHA, title="x")
    assert caught.value.code == "head-moved"
    assert world.fake.pulls[0]["state"] == "open"
    world.fake.pulls[0]["sha"] = SHA
    world.fake.refuse_merge = 409
    with pytest.raises(Refused) as caught:
        world.client().merge(number, sha=SHA, title="x")
    assert caught.value.code == "head-moved"
    assert world.fake.branches


def test_what_the_forge_does_not_let_through_stays_open(world: World) -> None:
    number = world.fake.add_pull()
    world.fake.refuse_merge = 405
    with pytest.raises(Refused) as caught:
        world.client().merge(number, sha=SHA, title="x")
    assert caught.value.code == "not-mergeable"
    assert world.fake.branches


def test_a_forks_request_of_the_same_name_is_not_ours(gitea: World) -> None:
    gitea.fake.add_pull(ASKED.head, ASKED.base, fork=True)
    assert gitea.client().find_request(ASKED.head, ASKED.base) is None


def test_giteas_conflicts_are_no_moved_head(gitea: World) -> None:
    """It answers 409 for both."""
    number = gitea.fake.add_pull()
    gitea.fake.refuse_merge, gitea.fake.merge_message = 409, "merge conflict in nginx.conf"
    with pytest.raises(Refused) as caught:
        gitea.client().merge(number, sha=SHA, title="x")
    assert caught.value.code == "not-mergeable"


def test_a_closed_request_is_not_merged(world: World) -> None:
    number = world.fake.add_pull(state="closed")
    with pytest.raises(Refused) as caught:
        world.client().merge(number, sha=SHA, title="x")
    assert caught.value.code == "request-closed"


def test_nothing_to_merge_is_said_so(github: World, gitea: World) -> None:
    for world in (github, gitea):
        with pytest.raises(Refused) as caught:
            world.client().open_request(ASKED)
        assert caught.value.code == "nothing-to-merge"


@pytest.mark.parametrize("verdict", ["pending", "passed", "failed", "error"])
def test_a_status_is_written_and_can_be_written_again(world: World, verdict: str) -> None:
    status = Status(name="homeport/check/lint", verdict=verdict, text="line one\nline two " + "x" * 300,  # type: ignore[arg-type]
                    url="https://deploy.example.com/1")  # fmt: skip
    for _ in range(2):
        world.client().set_status(SHA, status)
    body = world.fake.seen[-1].body
    assert len(body["description"]) == 140 and "\n" not in body["description"]
    assert body["target_url"] == "https://deploy.example.com/1"
    found = world.client().checks(SHA)
    assert {(check.name, check.verdict) for check in found} == {
        ("homeport/check/lint", "failed" if verdict == "error" else verdict)
    }


def test_the_page_by_hand_names_both_branches_and_asks_nobody(world: World) -> None:
    asked = NewRequest(head="feature/a&b", base="main", title="Save 5% & more", body="#1")
    page = world.client().new_request_page(asked)
    parts = urlsplit(page)
    assert page.startswith(f"{world.fake.url}/octo/shop/") and not world.fake.seen
    assert "a&b" not in page
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if world.fake.kind == "gitlab":
        assert query["merge_request[source_branch]"] == "feature/a&b"
        assert query["merge_request[title]"] == "Save 5% & more"
    else:
        assert parts.path.endswith("/compare/main...feature/a%26b")


@pytest.mark.parametrize("head", ["-x", "--upload-pack=x", "a..b", "a b", "a\nb", "", "main"])
def test_what_cannot_be_a_branch_is_never_asked_for(world: World, head: str) -> None:
    with pytest.raises(UsageFault):
        world.client().open_request(NewRequest(head=head, base="main", title="t"))
    assert not world.fake.seen


@pytest.mark.parametrize("sha", ["main", "0" * 40, "A" * 40, "../../user", ""])
def test_what_is_no_commit_is_never_asked_for(world: World, sha: str) -> None:
    for call in (
        lambda: world.client().checks(sha),
        lambda: world.client().set_status(sha, Status(name="x", verdict="passed")),
        lambda: world.client().merge(1, sha=sha, title="x"),
    ):
        with pytest.raises(UsageFault):
            call()
    assert not world.fake.seen


def test_an_unknown_request_is_an_infrastructure_fault(world: World) -> None:
    from .server import Answer

    world.fake.queued = [Answer(404, {"message": "Not Found"})]
    with pytest.raises(ForgeFault) as caught:
        world.client().request(7)
    assert caught.value.code == "forge-missing" and isinstance(caught.value, InfrastructureFault)


def test_the_open_requests_into_a_branch_are_listed_the_newest_first_and_not_without_end(world: World) -> None:
    for number in range(65):
        world.fake.add_pull(f"feature-{number}", "main", f"{number:02}" + "a" * 38, fork=number == 63)
    world.fake.add_pull("elsewhere", "release")
    world.fake.add_pull("over", "main", state="merged")
    found = world.client().open_requests("main")
    first = [(one.head, one.head_sha[:2], one.same_repository) for one in found[:3]]
    assert first == [("feature-64", "64", True), ("feature-63", "63", False), ("feature-62", "62", True)]
    assert {(one.state, one.base) for one in found} == {("open", "main")} and len(found) in (59, 60)
    assert world.client().open_requests("main") == found
    assert ["if-none-match" in seen.headers for seen in world.fake.seen] == [False] * 3 + [True] * 3


def test_a_forge_without_requests_is_asked_once(world: World) -> None:
    assert world.client().open_requests("main") == [] and len(world.fake.seen) == 1
    with pytest.raises(UsageFault):
        world.client().open_requests("--upload-pack=x")
