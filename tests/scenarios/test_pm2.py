"""A4 A5 D12 D13 D16: a service under the real pm2 is restarted and verified, or rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.world import NODE_SERVER, World

SERVICE = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "pm2"
unit = "api"
command = ["node", "server.js"]
env = { PORT = "%d" }
env_file = ".env"

  [[services.api.checks]]
  http = "http://127.0.0.1:%d/health"
  within = "30s"
  every = "50ms"
  stable = "200ms"
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[World, int]]]:
    """The world of this file and its port, as long as no test failed in it."""
    made: list[tuple[World, int]] = []
    yield made
    for world, _ in made:
        world.close()


@pytest.fixture
def running(shared: list[tuple[World, int]], tmp_path_factory: pytest.TempPathFactory, pm2_program: str,
            node_files: dict[str, str | None]) -> tuple[World, int]:  # fmt: skip
    """A world with a running, healthy api service of version `one`, and its port."""
    if not shared:
        world = World(tmp_path_factory.mktemp("pm2"))
        shared.append((world, world.free_port()))
        world.project(SERVICE % (shared[0][1], shared[0][1]), node_files)
    world, number = shared[0]
    world.write(world.patience("30s"))
    (world.live / "mended").unlink(missing_ok=True)
    (world.live / "api/.env").unlink(missing_ok=True)
    world.write(node_files)
    if world.git("status", "--porcelain"):
        world.commit("one again")
    world.push()
    assert world.deploy()["ok"]
    assert world.get(number, "/health")[0] == 200
    return shared[0]


@pytest.fixture
def world(running: tuple[World, int]) -> World:
    return running[0]


@pytest.fixture
def port(running: tuple[World, int]) -> int:
    return running[1]


def pid_behind(world: World, port: int) -> str:
    return world.get(port)[1].split()[2]


def test_a_service_is_registered_started_and_verified(world: World, port: int) -> None:
    status, body = world.get(port)
    assert (status, body.split()[:2]) == (200, ["hello", "one"])
    assert list(world.pm2_list()) == ["api"]
    (row,) = world.json("status")["services"]
    assert (row["service"], row["runtime"]) == ("api", "pm2")
    assert row["drift"] in (0, False, None, [])


def test_a_new_version_is_restarted_once_and_answers(world: World, port: int) -> None:
    old = pid_behind(world, port)
    sha = world.publish({"api/version.txt": "two\n"})
    events = world.homeport("--json", "deploy").lines
    assert [e["service"] for e in events if e["type"] == "deploy.restart.done"] == ["api"]
    assert (events[-1]["status"], events[-1]["sha"]) == ("deployed", sha)
    assert world.get(port)[1].split()[:2] == ["hello", "two"]
    assert pid_behind(world, port) != old
    assert list(world.pm2_list()) == ["api"]


def test_deploying_the_same_again_restarts_nothing(world: World, port: int) -> None:
    old = pid_behind(world, port)
    events = world.homeport("--json", "deploy").lines
    assert events[-1]["status"] == "unchanged"
    assert not [e for e in events if e["type"].startswith("deploy.restart")]
    assert pid_behind(world, port) == old


def test_a_restart_picks_up_a_changed_env_file(world: World, port: int) -> None:
    (world.live / "api/.env").write_text("GREETING=servus\n")
    world.homeport("restart", "api")
    assert world.get(port)[1].split()[:2] == ["servus", "one"]


def test_a_commit_that_fails_its_health_check_is_rolled_back_and_blocked(world: World, port: int) -> None:
    good = world.git("rev-parse", "HEAD")
    bad = world.publish({"api/version.txt": "broken\n", **world.patience("3s")})
    done = world.deploy(ok=(1,))
    assert (done["ok"], done["status"], done["exitCode"]) == (False, "rolled_back", 1)
    assert done["errorSummary"]
    assert world.text("api/version.txt") == "one\n"
    assert world.get(port, "/health")[0] == 200
    assert world.get(port)[1].split()[1] == "one"
    status = world.json("status")
    assert status["sha"] == good
    assert status["hold"]["pushesPass"]
    assert "a new push that the forge tells of is deployed" in world.homeport("status").stdout
    assert bad in str(status["blocked"])

    again = world.deploy(ok=(3,))
    assert again["status"] == "refused"
    assert world.text("api/version.txt") == "one\n"

    (world.live / "mended").touch()
    world.homeport("unblock", bad)
    assert world.deploy()["sha"] == bad
    assert world.get(port)[1].split()[1] == "broken"
    assert world.json("status")["blocked"] == []


def test_a_service_that_crashes_at_start_is_rolled_back_and_the_next_commit_may_go(world: World, port: int) -> None:
    world.publish({"api/server.js": "process.exit(3)\n", **world.patience("500ms")})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert world.get(port, "/health")[0] == 200
    world.publish({"api/server.js": NODE_SERVER, "api/version.txt": "three\n", **world.patience("30s")})
    assert world.deploy()["status"] == "deployed"
    assert world.get(port)[1].split()[1] == "three"


def test_rollback_returns_to_the_version_before(world: World, port: int) -> None:
    first = world.git("rev-parse", "HEAD")
    world.publish({"api/version.txt": "two\n"})
    world.deploy()
    done = world.json("rollback")
    assert (done["status"], done["sha"]) == ("deployed", first)
    assert world.get(port)[1].split()[1] == "one"
    assert world.json("status")["sha"] == first


def test_a_process_of_another_name_is_left_alone(world: World, port: int) -> None:
    (world.live / "own.js").write_text("setInterval(() => {}, 1000)\n")
    world.pm2("start", str(world.live / "own.js"), "--name", "neighbour")
    before = world.pm2_list()["neighbour"]["pid"]
    world.publish({"api/version.txt": "two\n"})
    world.deploy()
    assert world.pm2_list()["neighbour"]["pid"] == before
