"""A5 C2 D13 D16 D18: the small verbs: rebuild, restart, cancel, block, hold, logs, show, db, init, completion, doctor."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

from tests.world import World, eventually

WEB = """
[services.web]
source = "web"
target = "{live}/web"
runtime = "command"
command = ["sh", "-c", "cat {live}/web/dist/page.txt >> {live}/starts.log"]
build = { run = ["sh", "build.sh"], outputs = ["dist"] }
"""
FILES: dict[str, str | None] = {
    "web/page.txt": "one\n", "web/build.sh": "mkdir -p dist; echo building; cp page.txt dist/\n", ".gitignore": "dist/\n",
}  # fmt: skip


@pytest.fixture
def web(world: World) -> World:
    world.project(WEB, FILES)
    assert world.deploy()["status"] == "deployed"
    return world


def test_rebuild_builds_and_starts_the_edit_that_stays_drift(web: World) -> None:
    (web.live / "web/page.txt").write_text("by hand\n")
    done = web.json("rebuild", "web")
    assert (done["status"], done["services"]) == ("deployed", ["web"])
    assert web.text("starts.log").splitlines() == ["one", "by hand"]
    assert web.json("drift", ok=(3,))["equal"] is False
    assert web.deploy(ok=(3,))["status"] == "refused"
    assert web.deploy("--discard-drift")["status"] == "deployed"
    assert web.text("starts.log").splitlines()[-1] == "one"
    assert [row["path"] for row in web.json("rescue", "list")["rescues"]] == ["page.txt"]


def test_restart_starts_a_service_that_runs_with_what_is_there(web: World) -> None:
    done = web.json("restart", "web")
    assert done["status"] == "deployed"
    assert web.text("starts.log").splitlines() == ["one", "one"]


def test_a_cancelled_build_ends_as_cancelled_and_touches_nothing(web: World) -> None:
    web.publish({"web/page.txt": "two\n", "web/build.sh": "echo waiting; sleep 60\n"})
    with web.waiting("deploy") as running:
        web.homeport("cancel")
        assert running.stdout is not None
        rest = [json.loads(line) for line in running.stdout]
    assert running.wait(timeout=20) == 6
    assert [e["type"] for e in rest][-2:] == ["deploy.cancelled", "deploy.done"]
    assert rest[-1]["status"] == "cancelled"
    assert web.text("web/page.txt") == "one\n"
    web.homeport("cancel", ok=(3,))


def test_a_blocked_commit_is_refused_until_it_is_unblocked(web: World) -> None:
    sha = web.publish({"web/page.txt": "two\n"})
    web.homeport("block", sha, "--because", "breaks logins")
    done = web.deploy(ok=(3,))
    assert (done["status"], done["errorCode"]) == ("refused", "blocked")
    assert "breaks logins" in done["errorSummary"]
    web.homeport("unblock", sha[:10])
    assert web.deploy()["status"] == "deployed"
    web.homeport("unblock", sha, ok=(3,))


def test_a_commit_blocked_by_a_failure_is_free_once_the_branch_went_past_it(web: World) -> None:
    bad = web.publish({"web/page.txt": "two\n"})
    web.deploy()
    web.json("rollback")
    assert [b["sha"] for b in web.json("status")["blocked"]] == [bad]
    web.publish({"web/page.txt": "three\n"})
    assert web.deploy()["status"] == "deployed"
    assert web.json("status")["blocked"] == []


def test_a_hold_is_shown_and_a_person_still_deploys(web: World) -> None:
    web.homeport("hold", "--because", "moving the database", "--for", "30m")
    held = web.json("status")["hold"]
    assert (held["because"], held["pushesPass"]) == ("moving the database", False)
    assert "moving the database" in web.homeport("status").stdout
    web.homeport("hold", "--because", "x", "--for", "soon", ok=(2,))
    web.homeport("hold", "--because", "x", "--for", "90")
    web.homeport("unhold")
    assert web.json("status")["hold"] is None


def test_show_and_logs_tell_what_a_deploy_did(web: World) -> None:
    (row,) = web.json("history")["deploys"]
    shown = web.json("show", row["id"][:-1])
    assert shown["id"] == row["id"]
    assert ("build", "done") in [(s["stage"], s["state"]) for s in shown["stages"]]
    assert row["id"] in web.homeport("show", row["id"]).stdout
    assert "web: building" in web.homeport("logs", row["id"]).stdout.splitlines()


def test_the_database_can_be_checked_and_copied(web: World) -> None:
    web.homeport("db", "check")
    copy = web.root / "copy.db"
    web.homeport("db", "backup", str(copy))
    with contextlib.closing(sqlite3.connect(copy)) as saved:
        assert saved.execute("SELECT count(*) FROM deploys").fetchone() == (1,)
    web.homeport("db", "backup", str(copy), ok=(2, 3))


def test_init_writes_a_file_that_check_accepts(world: World) -> None:
    world.publish({"package.json": '{"name": "shop"}\n'})
    world.homeport("init")
    world.homeport("check")
    world.homeport("init", ok=(3,))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(world: World, shell: str) -> None:
    assert "_HOMEPORT_COMPLETE" in world.homeport("completion", shell).stdout


def test_schema_is_a_json_schema(world: World) -> None:
    assert json.loads(world.homeport("schema").stdout)["type"] == "object"


def test_doctor_says_what_is_missing_and_how_to_mend_it(web: World) -> None:
    said = web.json("doctor")
    assert said["ok"] is True
    web.origin.rename(web.root / "gone")
    said = web.json("doctor", ok=(1,))
    (wrong,) = [row for row in said["checks"] if not row["ok"]]
    assert wrong["name"] == "origin" and wrong["next"]


def test_a_deploy_goes_on_when_the_one_who_asked_is_killed(web: World) -> None:
    mark = web.root / "go"
    wait = f"echo waiting; while [ ! -e {mark} ]; do sleep 0.05; done"
    web.publish({"web/page.txt": "two\n", "web/build.sh": f"{wait}; mkdir -p dist; cp page.txt dist/\n"})
    with web.waiting("deploy") as asking:
        asking.kill()
    asking.wait(timeout=10)
    mark.touch()
    eventually(lambda: web.json("history")["deploys"][0]["status"] == "deployed", "the deploy ends by itself")
    assert web.text("web/dist/page.txt") == "two\n"
