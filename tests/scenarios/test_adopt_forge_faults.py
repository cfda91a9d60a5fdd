"""B5 B8 A10: a forge that answers badly, half or not at all, at any call of `adopt --merge`: never a second branch or
request, and no edit is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.forges.fakes import GitHubFake
from tests.forges.server import Answer, Seen
from tests.scenarios.hosted import Forged
from tests.scenarios.test_adopt import branches
from tests.world import World

Fault = Callable[[Callable[[], Answer]], Answer]


def refusing(status: int, **headers: str) -> Fault:
    return lambda _: Answer(status, {"message": "no"}, {name.replace("_", "-"): value for name, value in headers.items()})


def lost(ordinary: Callable[[], Answer]) -> Answer:
    """It is done, and nobody hears of it."""
    ordinary()
    return Answer(cut=-1)


def half(ordinary: Callable[[], Answer]) -> Answer:
    done = ordinary()
    return Answer(done.status, done.body, done.headers, cut=10)


def garbled(ordinary: Callable[[], Answer]) -> Answer:
    return Answer(ordinary().status, b"<html>bad gateway</html>")


FAULTS: dict[str, Fault] = {
    "401": refusing(401), "403": refusing(403), "404": refusing(404), "422": refusing(422), "500": refusing(500),
    "429": refusing(429), "429 with Retry-After": refusing(429, Retry_After="600"),
    "403 as a limit": refusing(403, X_RateLimit_Remaining="0"), "nothing": lambda _: Answer(cut=-1),
    "lost": lost, "half": half, "garbled": garbled,
}  # fmt: skip


def wait_over(world: World) -> None:
    """The forge asked to be left alone, and that time has passed."""
    world.sql("DELETE FROM cached WHERE key LIKE 'forge:until:%'")


def fault_at(forged: Forged, name: str, call: int) -> list[str]:
    """Adopts and merges an edit with that fault at that call; then again, as the message says. The call, where there was
    one: empty when the adoption takes fewer. Statuses are written by deploys, and not counted."""
    world, fake = forged.world, forged.fake
    before, base = len(fake.pulls), world.git("rev-parse", "main", cwd=world.origin)
    text = f"{name} at {call}"
    (world.live / "site/other.txt").write_text(f"{text}\n")
    met: list[str] = []
    count = iter(range(1000))

    def meddle(seen: Seen, ordinary: Callable[[], Answer]) -> Answer:
        if "/statuses/" in seen.path or next(count) != call:
            return ordinary()
        met.append(f"{seen.method} {seen.path}")
        return FAULTS[name](ordinary)

    fake.meddle = meddle
    first = forged.run("adopt", "--merge", ok=(0, 1, 3))
    fake.meddle = lambda _, ordinary: ordinary()
    told = (name, met, first.last)
    if not met:
        assert first.last["merged"]
        met.append("")
    if first.code:
        assert first.last["code"].startswith(("forge-", "rate-limited", "not-mergeable", "branch-left")), told
        assert "is pushed" in first.last["what"] or "is merged" in first.last["what"], told
        assert first.last["next"].startswith(("homeport adopt", "homeport deploy")), told
        wait_over(world)
        forged.run("adopt", "--merge")
    opened, left = fake.pulls[before:], [branch for branch in branches(world) if branch != "main"]
    assert [one["state"] for one in opened] == ["merged"], told
    # that is how a forge says that the branch is gone already; only GitHub says so by 422, elsewhere it is asked once more
    gone = ("404", "422") if isinstance(fake, GitHubFake) else ("404",)
    stays = first.last.get("code") == "branch-left" or (name in gone and "DELETE" in met[0])
    assert left == ([opened[0]["head"]] if stays else []), told
    assert len(world.git("rev-list", f"{base}..main", cwd=world.origin).split()) == 1, told
    assert world.git("show", "main:site/other.txt", cwd=world.origin) == text, "adopted exactly once"
    assert [row["state"] for row in forged.run("edits").last["edits"]] == ["merged"], told
    assert forged.run("deploy").last["ok"] and forged.run("edits").last["edits"] == []
    for branch in left:
        world.git("push", "-q", "origin", "--delete", branch)
    return [one for one in met if one]


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FAULTS)
def test_whatever_a_forge_answers_at_any_call_one_branch_one_request_and_one_commit_come_of_it(
    forged: Forged, name: str
) -> None:
    met, call = [], 0
    while found := fault_at(forged, name, call):
        met += found
        call += 1
    assert len(met) >= 4 and any(one.startswith("POST") for one in met), met


def test_a_forge_that_asks_to_wait_loses_an_answer_or_keeps_a_branch_is_told_as_it_is(gitea: Forged) -> None:
    world, fake, asked = gitea.world, gitea.fake, []
    slowly = Answer(429, {"message": "slowly"}, {"Retry-After": "600"})

    def limited(seen: Seen, ordinary: Callable[[], Answer]) -> Answer:
        asked.append(seen)
        return ordinary() if "/statuses/" in seen.path else slowly

    fake.meddle = limited
    (world.live / "site/other.txt").write_text("by hand\n")
    for _ in range(2):
        said = gitea.run("adopt", ok=(1,)).last
        assert said["code"] == "rate-limited" and "(goes on with that branch; not before " in said["next"], said
    assert len([one for one in asked if "/statuses/" not in one.path]) == 1, "asked once, then left alone"
    fake.meddle = lambda _, ordinary: ordinary()
    wait_over(world)
    assert gitea.run("adopt").last["request"] and len(branches(world)) == 2
    assert gitea.run("adopt", "site/other.txt").last["request"], "named again, it goes on with its branch"
    assert (len(branches(world)), len(fake.pulls)) == (2, 1)
    assert gitea.run("adopt", "--merge").last["merged"] and gitea.run("deploy").last["ok"]
    # the answer of the merge is lost: it is looked for, and the branch goes
    (merge,) = fault_at(gitea, "lost", 3)
    assert merge.endswith("/merge")
    # the branch cannot be deleted
    fake.meddle = lambda seen, ordinary: ordinary() if seen.method != "DELETE" else Answer(403, {"message": "no"})
    (world.live / "site/other.txt").write_text("by hand, once more\n")
    said = gitea.run("adopt", "--merge", ok=(1,)).last
    (branch,) = [one for one in branches(world) if one != "main"]
    assert said["code"] == "branch-left" and f"git push origin --delete {branch}" in said["next"]
    assert [row["state"] for row in gitea.run("edits").last["edits"]] == ["merged"]
    assert gitea.run("deploy").last["ok"] and gitea.run("edits").last["edits"] == []
