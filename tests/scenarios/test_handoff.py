"""E4 E5 E7: a service under pm2 behind a socket of the supervisor is restarted, rolled back and killed in the middle under
200 requests/s, and not one of them fails; leaving pm2's own way and coming back to it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import supervisor_servers as servers
from tests.scenarios.test_supervisor import Supervised
from tests.supervisor_rig import Load
from tests.world import World, eventually

PORT = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "pm2"
command = ["%(node)s", "web.js"]
env = { PORT = "%(port)d" }
checks = [{ http = "http://127.0.0.1:%(port)d/", within = "10s", every = "50ms" }]
"""
HANDOFF = 'listen = "127.0.0.1:%(port)d"\nhandoff = "port"\nready = { http = "/", timeout = "10s" }\n'
NAMES = {"api", "api.b"}
HOLDS_ON = "while (require('fs').existsSync('{stop}')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);\n"
"""Before a server listens: so long as that file is there."""


@pytest.fixture
def supervised(world: World, pm2_program: str) -> Iterator[Supervised]:
    made = Supervised(world)
    try:
        yield made
    finally:
        made.end()


def test_behind_the_supervisors_socket_no_request_is_lost(supervised: Supervised) -> None:
    world = supervised.world
    port = world.free_port()
    stop = Path(world.root / "stop")
    code = HOLDS_ON.format(stop=stop) + servers.PATIENT_NODE
    said = {"node": servers.node(), "port": port}
    world.project(PORT % said, {"api/web.js": code, "api/version": "one"}, "converge = 0")
    assert world.deploy()["status"] == "deployed"
    assert set(world.pm2_list()) == {"api"}
    plain = (world.clone / "homeport.toml").read_text()
    world.publish({"homeport.toml": plain + HANDOFF % said, "api/version": "two"})
    refused = world.deploy(ok=(1,))
    assert refused["status"] == "failed" and "supervisor" in refused["errorSummary"]
    assert world.get(port) == (200, "one")

    supervised.start()
    assert world.deploy()["status"] == "deployed"
    assert world.get(port) == (200, "two") and len(set(world.pm2_list()) & NAMES) == 1
    ended: list[str] = []

    def deploys() -> None:
        world.publish({"api/web.js": "console.log('not this one'); process.exit(3)\n"})
        ended.append(world.deploy(ok=(1,))["status"])
        assert world.get(port) == (200, "two")
        # everything of homeport's is killed while the second process comes up
        world.publish({"api/web.js": code, "api/version": "three"})
        stop.touch()
        cut = world.start("deploy")
        eventually(lambda: len(supervised.processes()) == 2, "the new process is started")
        world.kill_homeport()
        cut.communicate(timeout=20)
        assert supervised.keeper is not None
        supervised.keeper.wait(20)
        stop.unlink()
        supervised.start()
        world.homeport("deploy", ok=None)
        ended.append(world.deploy()["status"])

    load = Load(port)
    asyncio.run(load.during(deploys))
    assert ended[0] == "rolled_back" and ended[1] in ("deployed", "unchanged")
    assert load.failures == [], f"{len(load.failures)} of {len(load.failures) + len(load.answers)}"
    assert set(load.answers) == {"two", "three"}
    eventually(lambda: len(supervised.processes()) == 1, "exactly one process is left")
    assert len(set(world.pm2_list()) & NAMES) == 1
    (row,) = world.json("status")["services"]
    assert (row["state"], row["runtime"]) == ("running", "pm2")

    world.publish({"homeport.toml": plain, "api/version": "four"})
    assert world.deploy()["status"] == "deployed"
    assert world.get(port) == (200, "four") and set(world.pm2_list()) == {"api"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_forty_moments_of_a_deploy_no_request_fails_and_one_process_is_left(supervised: Supervised) -> None:
    world = supervised.world
    port = world.free_port()
    said = {"node": servers.node(), "port": port}
    files: dict[str, str | None] = {"api/web.js": servers.PATIENT_NODE, "api/version": "0"}
    world.project(PORT % said + HANDOFF % said, files, "converge = 0")
    supervised.start()
    assert world.deploy()["status"] == "deployed"
    seed = random.randrange(10**6)
    chance, took = random.Random(seed), [2.0]

    def kill(with_supervisor: bool) -> None:
        if with_supervisor:
            world.kill_homeport()
            assert supervised.keeper is not None
            supervised.keeper.wait(20)
            supervised.start()
            return
        spared = {supervised.pid(), supervised.keeper.pid if supervised.keeper is not None else 0}
        for pid in set(world.own_processes()) - spared:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def deploys() -> None:
        for number in range(1, 41):
            world.publish({"api/version": str(number)})
            begun = world.start("deploy")
            time.sleep(chance.uniform(0.0, 1.1 * max(took[-4:])))  # any moment will do
            kill(with_supervisor=number % 2 == 0)
            begun.communicate(timeout=60)
            began = time.monotonic()
            world.homeport("deploy", ok=None)
            took.append(time.monotonic() - began)
            assert world.deploy()["status"] in ("deployed", "unchanged"), (seed, number)
            assert world.get(port) == (200, str(number)), (seed, number)
            eventually(lambda: len(supervised.processes()) == 1, f"exactly one process is left ({seed}, {number})")
            assert len(set(world.pm2_list()) & NAMES) == 1, (seed, number)

    load = Load(port, rate=50)
    asyncio.run(load.during(deploys))
    assert load.failures == [], (seed, len(load.failures), load.failures[:5])
