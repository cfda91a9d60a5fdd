"""D1 D6 D7 D15 D16: a push deploys by the timer, by cron and by webhook; held, blocked and running are honoured."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon.rig import Daemon, Waiting
from tests.world import World, eventually

SERVICES = '[services.api]\nsource = "api"\ntarget = "{live}/api"\n'
SECRET = "It's a Secret to Everybody"


@pytest.fixture
def shop(world: World) -> World:
    world.project(SERVICES, {"api/a.txt": "one\n"})
    return world


def test_one_tick_deploys_what_is_new_and_says_why_nothing_is_due(shop: World) -> None:
    first = shop.json("converge")
    assert (first["type"], first["status"]) == ("deploy.done", "deployed")
    assert shop.json("converge")["code"] == "equal"
    bad = shop.publish({"api/a.txt": "two\n"})
    shop.homeport("hold", "--because", "moving")
    held = shop.json("converge")
    assert (held["due"], held["code"], held["sha"]) == (False, "held", bad) and "moving" in held["because"]
    shop.homeport("unhold")
    shop.homeport("block", bad)
    assert shop.json("converge")["code"] == "blocked"
    good = shop.publish({"api/a.txt": "three\n"})
    assert shop.json("converge")["sha"] == good
    assert shop.text("api/a.txt") == "three\n"
    (shop.live / "api/a.txt").write_text("by hand\n")
    shop.publish({"api/a.txt": "four\n"})
    assert shop.json("converge", ok=(3,))["status"] == "refused"
    again = shop.json("converge")
    assert (again["due"], again["code"]) == (False, "refused"), "it is not asked for again at every tick"
    shop.homeport("discard", "api/a.txt")
    assert shop.json("converge")["status"] == "deployed"
    assert [row["requestedBy"] for row in shop.json("history")["deploys"]] == ["converge"] * 4


def test_a_commit_whose_build_fails_is_built_once_and_a_fault_of_the_machine_is_tried_again(world: World) -> None:
    build = f'build = {{ run = ["sh", "-c", "cat {world.root}/room && exit $(cat code)"] }}\n'
    world.project(SERVICES + build, {"api/code": "3\n"})
    (world.root / "room").write_text("")
    assert world.json("converge", ok=(1,))["errorCode"] == "command"
    again = world.json("converge")
    assert (again["due"], again["code"]) == (False, "failed") and len(world.json("history")["deploys"]) == 1
    world.publish({"api/code": "0\n"})
    lock = world.live / ".homeport-api"
    shutil.rmtree(lock, ignore_errors=True)
    lock.write_text("in the way")
    assert world.json("converge", ok=(1, 3))["ok"] is False
    lock.unlink()
    assert world.json("converge")["status"] == "deployed"


def test_an_origin_that_does_not_answer_is_said_and_tried_again(shop: World) -> None:
    shop.homeport("converge")
    os.rename(shop.origin, shop.root / "away")
    assert shop.homeport("converge", ok=(1,)).stderr
    os.rename(shop.root / "away", shop.origin)
    assert shop.json("converge")["code"] == "equal"


def test_a_tick_with_nothing_to_do_fetches_once(shop: World) -> None:
    services = "".join(f'[services.s{n}]\nsource = "s{n}"\ntarget = "{{live}}/s{n}"\n' for n in range(50))
    shop.project(services, {f"s{n}/f.txt": "x\n" for n in range(50)})
    shop.homeport("converge")
    trace, shim = shop.root / "trace", shop.root / "shim"
    shim.mkdir()
    (shim / "git").write_text(f'#!/bin/sh\necho "$*" >> {trace}\nexec {shutil.which("git")} "$@"\n')
    (shim / "git").chmod(0o755)
    said = shop.homeport("--json", "converge", env={"PATH": f"{shim}{os.pathsep}{shop.env['PATH']}"})
    assert said.last["code"] == "equal"
    called = trace.read_text().splitlines()
    assert sum(" fetch " in f" {line} " for line in called) == 1 and len(called) < 12, called
    assert len(shop.json("history")["deploys"]) == 1, "no row for a tick that does nothing"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    world = Waiting(tmp_path)
    forge = f'\n[forge]\nkind = "github"\nrepo = "octo/shop"\nwebhook_secret = [{{ file = "{world.root}/secret" }}]\n'
    (world.root / "secret").write_text(SECRET + "\n")
    world.make(more=forge)
    made = Daemon(world).start()
    yield made
    made.close()
    world.hold.unlink(missing_ok=True)
    world.close()


def deliver(daemon: Daemon, sha: str, id: str, ref: str = "refs/heads/main") -> httpx.Response:
    body = json.dumps({"ref": ref, "before": "a" * 40, "after": sha, "deleted": False,
                       "repository": {"full_name": "octo/shop"}}).encode()  # fmt: skip
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": id, "X-Hub-Signature-256": f"sha256={digest}",
               "Content-Type": "application/json"}  # fmt: skip
    return daemon.ask("POST", "/hooks/github", content=body, headers=headers)


def test_a_push_deploys_at_once_and_the_newest_waits_behind_a_running_deploy(daemon: Daemon) -> None:
    world = daemon.world
    assert isinstance(world, Waiting)
    world.hold.touch()
    first = world.publish({"web/page.txt": "two\n"})
    assert deliver(daemon, first, "d1").status_code == 202
    eventually(world.building, "the first push is being built")
    second = world.publish({"web/page.txt": "three\n"})
    for id, sha in (("d2", second), ("d2", second), ("d3", second), ("late", first)):
        assert deliver(daemon, sha, id).status_code == 202
    deliver(daemon, "b" * 40, "d4", "refs/heads/other")

    def rows() -> list[tuple[str, str, str]]:
        found = daemon.ask("GET", "/api/v1/deploys").json()["deploys"]
        return [(row["state"], row["sha"], row["requestedBy"]) for row in found]

    eventually(lambda: ("waiting", second, "webhook") in rows(), "the second one waits")
    world.hold.unlink()
    eventually(lambda: [state for state, _, _ in rows()] == ["done", "done"], "both have ended")
    assert [sha for _, sha, _ in rows()] == [second, first]
    assert world.text("web/dist/page.txt") == "three\n"


def test_the_timer_finds_what_a_lost_webhook_would_have_told(tmp_path: Path) -> None:
    world = Waiting(tmp_path)
    daemon = Daemon(world)
    try:
        world.make('converge = "1s"')
        daemon.start()
        eventually((world.live / "web/dist/page.txt").exists, "the first tick deploys")
        world.publish({"web/page.txt": "later\n"})
        eventually(lambda: world.text("web/dist/page.txt") == "later\n", "a later tick finds the push")
        eventually(lambda: "is what was deployed" in daemon.log.read_text(), "it says so")
    finally:
        daemon.close()
        world.close()
