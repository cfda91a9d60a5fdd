"""E5: kill -9 of everything that homeport runs, at each stage; the next command ends it, with one outcome."""

from __future__ import annotations

import json

import pytest

from tests.world import World

STAGES = ("fetch", "gate", "inspect", "decide", "prepare", "build", "migrate", "inspect-again", "sync",
          "restart", "verify", "stamp")  # fmt: skip

SERVICES = """
[services.web]
source = "web"
target = "{live}/web"

  [services.web.build]
  run = ["sh", "build.sh"]
  outputs = ["dist"]

[services.plain]
source = "plain"
target = "{live}/plain"
"""
BUILD = "rm -rf dist; mkdir dist; cat page.txt > dist/page.html\n"


def version(world: World, number: int) -> dict[str, str | None]:
    files: dict[str, str | None] = {f"plain/{n:03}.txt": f"{n} of version {number}\n" for n in range(30)}
    return {**files, "web/build.sh": BUILD, "web/page.txt": f"page {number}\n", ".gitignore": "dist/\n"}


def live_version(world: World) -> set[str]:
    """Every version number that any live file shows: one element means old or new, never mixed."""
    plain = {(world.live / f"plain/{n:03}.txt").read_text().split()[-1] for n in range(30)}
    return plain | {world.text("web/dist/page.html").split()[-1], world.text("web/page.txt").split()[-1]}


def kill_at(world: World, stage: str, state: str) -> None:
    """Starts a deploy and kills homeport as soon as its output says that this stage is there."""
    running = world.start("--json", "deploy")
    assert running.stdout is not None
    with running.stdout:
        for line in running.stdout:
            event = json.loads(line)
            if event["type"] == "deploy.stage" and (event["stage"], event["state"]) == (stage, state):
                break
        world.kill_homeport()
    running.wait(timeout=10)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_deploy_ends_with_the_next_command(world: World, stage: str, request: pytest.FixtureRequest) -> None:
    """The end of a stage is the beginning of the next one; a soak tries both."""
    world.project(SERVICES, version(world, 1))
    assert world.deploy()["status"] == "deployed"
    states = ("start", "done") if stage == STAGES[-1] or request.config.getoption("--soak") else ("start",)
    for number, state in enumerate(states, 2):
        new = world.publish(version(world, number))
        kill_at(world, stage, state)

        done = world.deploy(ok=(0, 1))
        if not done["ok"]:
            done = world.deploy()
        assert done["status"] in ("deployed", "unchanged")
        assert live_version(world) == {str(number)}
        assert world.json("drift")["equal"] is True
        assert world.json("status")["sha"] == new
        rows = world.json("history")["deploys"]
        assert {row["state"] for row in rows} == {"done"}
        assert all(row["status"] for row in rows)


def test_a_build_of_a_killed_deploy_does_not_go_on(world: World) -> None:
    world.project(SERVICES, version(world, 1))
    world.deploy()
    mark = world.root / "build-ran-on"
    slow = f"echo waiting; sleep 2; echo late > {mark}; {BUILD}"
    world.publish({**version(world, 2), "web/build.sh": slow})
    with world.waiting("deploy") as running:
        world.kill_homeport()
    running.wait(timeout=10)
    assert live_version(world) == {"1"}
    world.publish(version(world, 3))
    assert world.deploy()["status"] == "deployed"
    assert live_version(world) == {"3"}
    assert not mark.exists()
