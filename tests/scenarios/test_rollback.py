"""A11 D13: what a failed deploy leads to: back to what ran, and when that fails too, the plain truth and no loop."""

from __future__ import annotations

from tests.world import World

SERVICES = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "command"
command = ["sh", "-c", "cp {live}/api/version.txt {live}/running.txt"]
checks = [{ command = ["sh", "-c", "test -e {live}/healthy && test $(cat {live}/running.txt) != bad"], within = "1s" }]

[services.web]
source = "web"
target = "{live}/web"
after = ["api"]
runtime = "command"
command = ["sh", "-c", "cat {live}/running.txt >> {live}/web.log"]
"""


def prepared(world: World) -> World:
    (world.live / "healthy").touch()
    world.project(SERVICES, {"api/version.txt": "one\n", "web/page.txt": "one\n"})
    assert world.deploy()["status"] == "deployed"
    return world


def test_every_service_of_a_failed_deploy_goes_back(world: World) -> None:
    prepared(world)
    world.publish({"api/version.txt": "bad\n", "web/page.txt": "two\n"})
    done = world.deploy(ok=(1,))
    assert (done["status"], done["exitCode"]) == ("rolled_back", 1)
    assert {world.text(name) for name in ("api/version.txt", "web/page.txt", "running.txt")} == {"one\n"}
    assert world.json("drift")["equal"] is True
    assert {row["sha"] for row in world.json("status")["services"]} == {done["previousSha"]}


def test_a_rollback_that_fails_too_stops_and_says_what_is_in_which_state(world: World) -> None:
    prepared(world)
    (world.live / "healthy").unlink()
    new = world.publish({"api/version.txt": "two\n"})
    done = world.deploy(ok=(1,))
    assert (done["ok"], done["status"], done["errorCode"]) == (False, "failed", "rollback-failed")
    assert "api" in done["errorSummary"] and new[:12] in done["errorSummary"]
    rows = world.json("history")["deploys"]
    assert len(rows) == 2 and {row["state"] for row in rows} == {"done"}
    assert world.text("api/version.txt") == "one\n"
    tick = world.json("converge")
    assert (tick["due"], len(world.json("history")["deploys"])) == (False, 2), "nor does a tick try it again"

    (world.live / "healthy").touch()
    newer = world.publish({"api/version.txt": "three\n"})
    assert world.deploy()["sha"] == newer
    assert world.text("running.txt") == "three\n"


def test_a_first_deploy_that_fails_has_nothing_to_go_back_to_and_says_so(world: World) -> None:
    world.project(SERVICES, {"api/version.txt": "one\n", "web/page.txt": "one\n"})
    done = world.deploy(ok=(1,))
    assert done["status"] == "failed"
    assert "first deploy" in done["errorSummary"]
    (world.live / "healthy").touch()
    world.publish({"api/version.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"


def test_services_restart_after_those_they_name(world: World) -> None:
    prepared(world)
    world.publish({"api/version.txt": "two\n", "web/page.txt": "two\n"})
    world.deploy()
    assert world.text("web.log").split() == ["one", "two"]


def test_a_rollback_names_the_services_that_it_leaves_running(world: World) -> None:
    (world.live / "healthy").touch()
    whole = SERVICES.partition("[services.web]")
    world.project(whole[0], {"api/version.txt": "one\n", "web/page.txt": "one\n"})
    world.deploy()
    text = (world.clone / "homeport.toml").read_text()
    world.publish({"homeport.toml": text + (whole[1] + whole[2]).replace("{live}", str(world.live))})
    world.deploy()
    said = [e for e in world.homeport("--json", "rollback").lines if e.get("code") == "left-running"]
    assert len(said) == 1 and "web" in said[0]["message"] and "api" not in said[0]["message"]
    world.publish({"api/version.txt": "two\n", "homeport.toml": text})
    assert not [e for e in world.homeport("--json", "deploy").lines if e.get("code") == "left-running"], "said once"


def test_from_a_try_back_to_the_newest_pushed_commit_or_to_the_newest_deploy_that_went_well(world: World) -> None:
    (world.live / "healthy").touch()
    world.project(SERVICES, {"api/version.txt": "one\n", "web/page.txt": "one\n"}, "try = true")
    world.deploy()
    good = world.publish({"api/version.txt": "two\n"})
    newest = world.deploy()["deployId"]
    world.publish({"api/version.txt": "bad\n"})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    world.write({"api/version.txt": "tried\n"})
    assert world.json("try", "api")["status"] == "deployed" and world.text("running.txt") == "tried\n"
    again = world.json("rollback", newest)
    assert (again["status"], again["sha"], world.text("running.txt")) == ("deployed", good, "two\n")
    world.json("try", "api", "--yes")
    assert world.json("rollback")["sha"] == good, "without a name: the newest that went well"
    world.json("try", "api", "--yes")
    pushed = world.publish({"api/version.txt": "three\n"})
    world.write({"api/version.txt": "edited\n"})  # what the checkout holds does not count
    done = world.deploy("--over-try")
    assert (done["status"], done["sha"], world.text("running.txt")) == ("deployed", pushed, "three\n")
    assert world.json("status")["tries"] == [] and world.json("drift")["equal"]


def test_going_back_to_a_named_deploy_and_forward_again(world: World) -> None:
    prepared(world)
    shas = []
    for number in range(3):
        shas.append(world.publish({"api/version.txt": f"{number}\n"}))
        world.deploy()
    first = world.json("history")["deploys"][-1]["id"]
    done = world.json("rollback", first)
    assert done["status"] == "deployed"
    assert world.text("running.txt") == "one\n"
    assert [b["sha"] for b in world.json("status")["blocked"]] == [shas[-1]]
    assert world.json("rollback", shas[1])["sha"] == shas[1]
    assert world.text("running.txt") == "1\n"
