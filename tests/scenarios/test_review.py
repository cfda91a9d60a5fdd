"""B9 B10: what is guarded by a review goes live once a second person stood for it, on the forge or at the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import Answer, Seen, serving
from tests.scenarios.test_adopt_forge_faults import FAULTS, wait_over
from tests.world import World

PROJECT = """
[services.api]
source = "api"
target = "{live}/api"

[[rules]]
id = "auth"
action = "write"
match = "api/auth/"
effect = "review"
because = "two people look at logins"
"""
FILES: dict[str, str | None] = {"api/auth/login.js": "one\n", "api/index.js": "one\n"}


def deploy(world: World, who: str, *args: str, code: int = 0, **env: str) -> dict[str, Any]:
    return world.homeport("--json", "deploy", *args, ok=(code,), env={"SUDO_USER": who, **env}).last


def test_at_a_host_only_another_person_than_who_asked_lifts_a_review(world: World) -> None:
    world.project(PROJECT, FILES)
    deploy(world, "ann")
    confirm = ("--confirm", "auth", "--because", "read it")
    world.publish({"api/index.js": "two\n"})
    assert deploy(world, "ann")["status"] == "deployed", "what is not guarded needs nobody"
    world.publish({"api/auth/login.js": "two\n"})
    (refusal,) = world.json("plan")["refusals"]
    assert (refusal["rule"], refusal["paths"]) == ("auth", ["api/auth/login.js"])
    assert deploy(world, "bob", *confirm, code=3)["errorCode"] == "review", "nobody else asked for it"
    again = deploy(world, "bob", *confirm, code=3)
    assert again["errorCode"] == "review", "nor does asking twice help"
    assert "; the word of bob counts once somebody else asked for it" in again["errorSummary"], again
    assert deploy(world, "eve", *confirm, code=3, HOMEPORT_ACTOR="agent").get("code") == "no-confirm"
    assert world.text("api/auth/login.js") == "one\n"
    assert deploy(world, "ann", *confirm)["status"] == "deployed", "bob asked, ann says so"
    row = next(row for row in world.json("audit")["audit"] if row["action"] == "exception auth")
    assert (row["who"], row["actor"]) == ("ann", "person") and "write api/auth/login.js; read it" in row["detail"]
    # the next commit is another matter; going back is not
    world.publish({"api/auth/login.js": "three\n"})
    refused = deploy(world, "ann", *confirm, code=3)
    assert "two people look at logins; no forge can be asked who looked at" in refused["errorSummary"]
    assert "somebody else" in refused["next"]
    assert world.json("rollback")["status"] == "deployed"
    assert world.text("api/auth/login.js") == "one\n"


@pytest.fixture
def forged(world: World) -> Any:
    fake = GitHubFake()
    with serving(fake):
        more = f'\n[forge]\nkind = "github"\nurl = "{fake.url}"\nrepo = "octo/shop"\ntoken = {{ env = "FORGE_TOKEN" }}\n'
        world.more["FORGE_TOKEN"] = TOKEN
        world.project(PROJECT + more, FILES)
        world.deploy()
        yield fake
    assert fake.wrong == []


def test_with_a_forge_each_guarded_commit_needs_a_request_that_another_stood_for(world: World, forged: GitHubFake) -> None:
    first = world.publish({"api/auth/login.js": "two\n"})
    assert f"{first[:12]} came to branch main without a request" in world.deploy(ok=(3,))["errorSummary"]
    number = forged.add_pull(sha=first, state="merged", base="release", merger="bob")
    assert "without a request" in world.deploy(ok=(3,))["errorSummary"], "it was merged into another branch"
    forged.pull(str(number)).update(base="main", merger="ann")
    assert f"nobody but ann stood for request {number}" in world.deploy(ok=(3,))["errorSummary"]
    forged.looked_at(number, "bob", of=first)
    # a later commit that nobody looked at does not hide behind it, nor does one that touches nothing guarded hinder
    world.publish({"api/index.js": "two\n"})
    second = world.publish({"api/auth/login.js": "three\n"})
    assert f"{second[:12]} came to branch main without a request" in world.deploy(ok=(3,))["errorSummary"]
    forged.add_pull(sha=second, state="merged", merger="bob")
    assert world.json("plan")["refusals"] == []
    # whom a commit names as its forge is not asked
    toml = (world.clone / "homeport.toml").read_text()
    third = world.publish({"homeport.toml": toml.replace(forged.url, "http://127.0.0.1:1"), "api/auth/login.js": "four\n"})
    forged.add_pull(sha=third, state="merged", merger="ann")
    assert "nobody but ann" in world.deploy(ok=(3,))["errorSummary"]
    forged.pull(str(len(forged.pulls)))["merger"] = "bob"
    assert world.deploy()["status"] == "deployed"
    assert world.text("api/auth/login.js") == "four\n"


def refused_with(world: World, fake: GitHubFake, name: str, call: int) -> bool:
    """Deploys what is reviewed while the forge has that fault at that call about reviews; whether that was refused."""
    count, met, before = iter(range(1000)), [], world.text("api/auth/login.js")

    def meddle(seen: Seen, ordinary: Callable[[], Answer]) -> Answer:
        if "/statuses/" in seen.path or next(count) != call:
            return ordinary()
        met.append(seen.path)
        return FAULTS[name](ordinary)

    fake.meddle = meddle
    said = world.deploy(ok=(0, 3))
    fake.meddle = lambda _, ordinary: ordinary()
    wait_over(world)
    assert met, "there is such a call"
    if name in ("half", "nothing", "lost", "500"):  # a read is asked three times, so that one is no harm
        assert said["status"] == "deployed", (name, met, said)
        return False
    assert (said["status"], said["errorCode"]) == ("refused", "review"), (name, met, said)
    assert "look at logins" in said["errorSummary"] and "--confirm auth" in said["next"], (name, said)
    assert world.text("api/auth/login.js") == before, "what nobody could tell is not reviewed"
    return True


def reviewed_change(world: World, fake: GitHubFake, text: str = "two\n") -> None:
    sha = world.publish({"api/auth/login.js": text})
    fake.add_pull(sha=sha, state="merged", merger="bob")


def test_a_forge_that_does_not_tell_has_reviewed_nothing(forged: Any, world: World) -> None:
    reviewed_change(world, forged)
    for name, call in (("401", 0), ("garbled", 1), ("429 with Retry-After", 2)):
        assert refused_with(world, forged, name, call)
    assert world.deploy()["status"] == "deployed"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FAULTS)
def test_whatever_a_forge_answers_about_a_review_only_a_review_is_one(forged: Any, world: World, name: str) -> None:
    for call in range(3):
        reviewed_change(world, forged, f"{call}\n")
        if refused_with(world, forged, name, call):
            assert world.deploy()["status"] == "deployed"
        assert world.text("api/auth/login.js") == f"{call}\n"
