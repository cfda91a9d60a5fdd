"""D2 D3 D4: a commit goes live only when its checks on the forge are green; red, running and silent forges hold it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeport.decide.gating import POLL
from homeport.doors.clock import SystemClock
from homeport.doors.store import SqliteStore
from homeport.flow.stages.gating import WOKEN
from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import Answer, serving
from tests.world import World, eventually

CONFIG = """
[project]
name = "shop"
[environments.production]
branch = "main"
[services.site]
source = "site"
target = "{live}/site"
[forge]
kind = "github"
url = "{url}"
repo = "octo/shop"
token = {{ env = "FORGE_TOKEN" }}
[gate]
settle = "100ms"
timeout = "1s"
"""


@pytest.fixture
def forge() -> Iterator[GitHubFake]:
    fake = GitHubFake()
    with serving(fake):
        yield fake
    assert fake.wrong == []


def push(world: World, forge: GitHubFake, text: str, extra: str = "") -> str:
    config = CONFIG.format(live=world.live, url=forge.url) + extra
    return world.publish({"homeport.toml": config, "site/index.html": text})


def deploy(world: World, code: int, **env: str) -> dict[str, object]:
    return world.homeport("--json", "deploy", ok=(code,), env={"FORGE_TOKEN": TOKEN, **env}).last


def test_green_goes_red_stays_out_and_a_green_rerun_goes(world: World, forge: GitHubFake) -> None:
    sha = push(world, forge, "one\n")
    forge.add_run("CI", "success", sha=sha)
    assert deploy(world, 0)["status"] == "deployed"

    sha = push(world, forge, "two\n")
    forge.add_run("CI", "failure", sha=sha)
    done = deploy(world, 4)
    assert (done["status"], done["errorCode"], done["exitCode"]) == ("failed", "gate-failed", 4)
    assert "CI" in str(done["errorSummary"])
    assert world.text("site/index.html") == "one\n"
    assert world.json("status")["blocked"] == []

    forge.add_run("CI", "success", sha=sha)
    assert deploy(world, 0)["sha"] == sha
    assert world.text("site/index.html") == "two\n"


def test_a_run_that_does_not_end_in_time_keeps_the_gate_shut(world: World, forge: GitHubFake) -> None:
    sha = push(world, forge, "one\n")
    forge.add_run("CI", None, sha=sha)
    done = deploy(world, 4)
    assert done["errorCode"] == "gate-timeout"
    assert not (world.live / "site").exists()


def test_a_red_commit_is_not_asked_for_at_every_tick_and_goes_when_it_is_green(world: World, forge: GitHubFake) -> None:
    sha = push(world, forge, "one\n")
    forge.add_run("CI", "failure", sha=sha)
    env = {"FORGE_TOKEN": TOKEN}
    assert world.homeport("--json", "converge", ok=(4,), env=env).last["errorCode"] == "gate-failed"
    again = world.homeport("--json", "converge", env=env).last
    assert (again["due"], again["code"]) == (False, "gate") and "CI" in again["because"]
    assert len(world.json("history")["deploys"]) == 1
    forge.runs[-1].update(conclusion="success")
    assert world.homeport("--json", "converge", env=env).last["status"] == "deployed"


def test_a_forge_that_is_down_for_an_hour_holds_the_commit_and_blames_nobody(world: World, forge: GitHubFake) -> None:
    sha = push(world, forge, "one\n")
    forge.add_run("CI", "success", sha=sha)
    answers = forge.answer
    forge.answer = lambda seen: (forge.seen.append(seen), Answer(503, {}, {"Retry-After": "3600"}))[1]  # type: ignore[method-assign]
    env = {"FORGE_TOKEN": TOKEN}
    assert world.homeport("--json", "converge", ok=(4,), env=env).last["errorCode"] == "gate-timeout"
    asked = len(forge.seen)
    tick = world.homeport("--json", "converge", env=env).last
    assert (tick["due"], tick["code"], "could not be asked" in tick["because"]) == (False, "gate", True)
    status = world.json("status")
    assert (status["blocked"], status["hold"], len(forge.seen), asked) == ([], None, 1, 1), "it is left alone for the hour"
    forge.answer = answers  # type: ignore[method-assign]
    world.sql("UPDATE cached SET value = '1' WHERE key LIKE 'forge:until:%'")
    assert world.homeport("--json", "converge", env=env).last["sha"] == sha


def test_a_webhook_wakes_the_gate_before_it_would_look_again(world: World, forge: GitHubFake) -> None:
    push(world, forge, "one\n")
    config = (world.clone / "homeport.toml").read_text().replace('timeout = "1s"', 'timeout = "60s"')
    sha = world.publish({"homeport.toml": config})
    forge.add_run("CI", None, sha=sha)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(deploy, world, 0)
        journal = world.state / "shop/production/journal"
        eventually(lambda: any("gate: " in path.read_text() for path in journal.glob("*.jsonl")), "the gate waits")
        forge.runs[-1].update(status="completed", conclusion="success")
        began = time.monotonic()
        store = SqliteStore(str(world.state / "shop/production/homeport.db"), SystemClock())
        store.cache(WOKEN, "delivery-1")
        store.close()
        assert waits.result(60)["status"] == "deployed"
    assert time.monotonic() - began < POLL, "it did not wait for the next look"


def test_a_cancel_does_not_wait_for_a_forge_that_is_silent(world: World, forge: GitHubFake) -> None:
    """It takes the question and never answers: a read alone may take twenty seconds, and is tried three times."""
    push(world, forge, "one\n")
    over, plainly = threading.Event(), forge.answer
    forge.answer = lambda seen: (forge.seen.append(seen), over.wait(60), plainly(seen))[2]  # type: ignore[method-assign]
    world.more["FORGE_TOKEN"] = TOKEN
    running = world.start("--json", "deploy")
    try:
        eventually(lambda: forge.seen, "the forge is asked")
        began = time.monotonic()
        assert world.json("cancel")["status"] == "cancelled"
        said, _ = running.communicate(timeout=60)
        assert time.monotonic() - began < 10
    finally:
        over.set()
    assert (running.returncode, json.loads(said.splitlines()[-1])["status"]) == (6, "cancelled")
    assert world.json("status")["blocked"] == []


def test_the_run_that_deploys_does_not_wait_for_itself(world: World, forge: GitHubFake) -> None:
    sha = push(world, forge, "one\n")
    run = forge.add_run("CI", None, sha=sha)
    assert deploy(world, 0, GITHUB_RUN_ID=str(run))["status"] == "deployed"


def test_a_named_check_must_be_there(world: World, forge: GitHubFake) -> None:
    text = CONFIG.format(live=world.live, url=forge.url) + 'checks = ["e2e"]\n'
    sha = world.publish({"homeport.toml": text, "site/index.html": "one\n"})
    forge.add_run("CI", "success", sha=sha)
    done = deploy(world, 4)
    assert done["errorCode"] == "gate-timeout" and "e2e" in str(done["errorSummary"])
    forge.add_status("e2e", "success")
    assert deploy(world, 0)["status"] == "deployed"


def test_without_a_token_nothing_is_deployed_and_the_token_is_never_printed(world: World, forge: GitHubFake) -> None:
    push(world, forge, "one\n")
    ran = world.homeport("--json", "deploy", ok=(2, 4))
    assert ran.last["errorCode"] in ("no-secret", "no-forge")
    ran = world.homeport("-v", "deploy", ok=(0,), env={"FORGE_TOKEN": TOKEN})
    assert TOKEN not in ran.stdout + ran.stderr
    for path, content in world.kept():
        assert TOKEN.encode() not in content, path
