"""D4 E2: independent builds and restarts run side by side; a build past its time dies with everything it started."""

from __future__ import annotations

import os

from tests.world import World, eventually

MEETING = (
    "touch {live}/{me}; n=0; while [ ! -e {live}/{other} ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done; "
    "test -e {live}/{other}"
)
"""Ends well only while the other one runs at the same time."""


def meeting(me: str, other: str) -> str:
    return MEETING.replace("{me}", me).replace("{other}", other)


def test_independent_builds_and_restarts_run_at_the_same_time(world: World) -> None:
    services = ""
    for me, other in (("a", "b"), ("b", "a")):
        services += f"""
[services.{me}]
source = "{me}"
target = "{{live}}/target-{me}"
runtime = "command"
command = ["sh", "-c", "{meeting(f'start-{me}', f'start-{other}')}"]
build = {{ run = ["sh", "-c", "mkdir -p dist; {meeting(f'build-{me}', f'build-{other}')}"], outputs = ["dist"] }}
"""
    world.project(services, {"a/x": "1\n", "b/x": "1\n", ".gitignore": "dist/\n"})
    assert world.deploy()["status"] == "deployed"


def test_a_build_past_its_time_dies_with_everything_it_started(world: World) -> None:
    build = f"sleep 300 & echo $! > {world.root}/child; (setsid sleep 301 & echo $! > {world.root}/far); sleep 302\n"
    world.project(
        """
[services.web]
source = "web"
target = "{live}/web"
build = { run = ["sh", "build.sh"], outputs = ["dist"], timeout = "3s" }
""",
        {"web/build.sh": build},
    )
    done = world.deploy(ok=(1,))
    assert (done["status"], done["errorCode"]) == ("failed", "timeout")
    for name in ("child", "far"):
        pid = int((world.root / name).read_text())
        eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), f"{name} is dead")  # type: ignore[misc]
