"""D18 D10: migrations alone, and commands where a service runs."""

from __future__ import annotations

from pathlib import Path

from tests.world import World

PROJECT = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "command"
command = ["true"]
cwd = "deep"
env = { COLOR = "green" }
env_file = ".env"

[services.docs]
source = "docs"
target = "{live}/docs"

[migrate]
run = "cat order >> {log}; [ ! -e {log}.stop ]"
service = "api"
"""


def deployed(world: World) -> Path:
    log = world.root / "migrated"
    world.project(PROJECT.replace("{log}", str(log)), {"api/order": "one\n", "api/deep/x": "", "docs/index.html": "x"})
    (world.live / "api").mkdir(exist_ok=True)
    (world.live / "api" / ".env").write_text("TOKEN=of-the-host\n")
    assert world.deploy()["status"] == "deployed"
    return log


def test_migrations_run_alone_from_the_files_that_are_live_and_are_recorded(world: World) -> None:
    log = deployed(world)
    world.publish({"api/order": "two, not deployed yet\n"})
    done = world.json("migrate")
    assert (done["status"], log.read_text()) == ("deployed", "one\none\n")
    row = world.json("show", done["deployId"])
    assert (row["kind"], [s["stage"] for s in row["stages"] if s["state"] == "done"]) == (
        "migrate", ["fetch", "decide", "migrate"])
    Path(f"{log}.stop").touch()
    failed = world.json("migrate", ok=(1,))
    assert (failed["status"], failed["errorCode"]) == ("failed", "command")
    assert world.json("status")["blocked"] == [], "the commit that runs is not to blame"
    Path(f"{log}.stop").unlink()
    assert world.deploy()["status"] == "deployed"
    assert log.read_text().endswith("two, not deployed yet\n")


def test_a_command_runs_in_the_services_folder_with_its_environment_and_its_status_is_ours(world: World) -> None:
    deployed(world)
    script = 'echo "$COLOR $TOKEN $HOMEPORT_ENVIRONMENT ${HOMEPORT_STATE-none}"; pwd; exit 7'
    ran = world.homeport("run", "--", "sh", "-c", script, ok=(7,))
    assert ran.stdout.splitlines() == ["green of-the-host production none", str(world.live / "api" / "deep")]
    assert world.homeport("shell", "api").code == 0, "a shell without input ends by itself"
    assert world.homeport("run", "-s", "docs", "--", "pwd").stdout == f"{world.live}/docs\n"
    assert world.homeport("run", "-s", "nothing", "--", "true", ok=(2,)).code == 2
    refused = world.homeport("run", "--", "true", ok=(3,), env={"HOMEPORT_ACTOR": "agent"})
    assert "for a person" in refused.stderr
    told = world.homeport("audit").stdout
    assert "run" in told and "api: sh -c" in told
