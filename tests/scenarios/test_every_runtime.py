"""E7: the same small project, deployed by each runtime, with the same assertions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import docker_host, systemd_host
from tests.world import PROGRAM, World, eventually

SERVER = """\
version=$(cat version.txt)
[ "$version" = broken ] && { echo "cannot start $version" >&2; exit 1; }
mkdir -p /tmp && www=$(mktemp -d) && echo "$GREETING $version $HOMEPORT_ENVIRONMENT" > "$www/index.html"
echo "serving $version"
exec busybox httpd -f -p "127.0.0.1:$PORT" -h "$www"
"""
RESTART = """\
old=$(cat ../pid 2>/dev/null) && kill -9 "$old"
while grep -qs . "/proc/${old:-none}/cmdline"; do sleep 0.02; done
setsid sh serve.sh > ../log 2>&1 &
echo $! > ../pid
until busybox wget -qO- "http://127.0.0.1:$PORT/"; do kill -0 $! || exit 1; sleep 0.02; done
"""
"""As a command should be: it ends when the new one answers or is dead, and the old one has left its port by then. The
checks have no more than their own time for a machine that is busy with other things. The new one is asked for by a
signal: its command line is empty for a moment at each of its execs; the old one by its command line, for nobody here
waits for it."""
COMPOSE = """\
services:
  web:
    build: .
    network_mode: host
    stop_signal: SIGKILL
    environment: [PORT, GREETING, HOMEPORT_ENVIRONMENT]
"""
SWARM = """\
services:
  web:
    build: .
    networks: [outside]
    stop_signal: SIGKILL
    environment: ["PORT=${PORT}", "GREETING=${GREETING}", "HOMEPORT_ENVIRONMENT=${HOMEPORT_ENVIRONMENT}"]
    deploy: {update_config: {monitor: 50ms, order: stop-first}, restart_policy: {delay: 50ms}}
networks:
  outside: {external: true, name: host}
"""
FILES: dict[str, str | None] = {
    "web/serve.sh": SERVER, "web/restart.sh": RESTART, "web/version.txt": "one\n", "web/compose.yaml": COMPOSE,
    "web/Dockerfile": f'FROM {docker_host.BOX}\nWORKDIR /app\nCOPY . .\nCMD ["sh", "serve.sh"]\n',
}  # fmt: skip
SERVICE = """
[services.web]
source = "web"
target = "{live}/web"
runtime = "%(runtime)s"
env = { PORT = "%(port)d" }
env_file = ".env"
stop_timeout = "2s"
%(command)s
  [[services.web.checks]]
  http = "http://127.0.0.1:%(port)d/"
  within = "30s"
  every = "50ms"
"""
COMMANDS = {
    "pm2": 'command = ["sh", "serve.sh"]', "systemd": 'command = ["sh", "serve.sh"]', "compose": "",
    "command": 'command = ["sh", "restart.sh"]', "supervisor": 'command = ["sh", "serve.sh"]', "swarm": "",
}  # fmt: skip


def of_systemd(world: World, root: Path, ends: ExitStack) -> None:
    if because := systemd_host.why_not():
        pytest.skip(because)
    host = systemd_host.SystemdHost(root)
    ends.callback(host.close)
    world.enter = host.enter


def of_compose(world: World, root: Path, ends: ExitStack) -> None:
    if because := docker_host.why_not():
        pytest.skip(because)
    engine = docker_host.DockerHost(root / "engine")
    ends.callback(engine.close)
    world.more.update(engine.env)


def of_swarm(world: World, root: Path, ends: ExitStack) -> None:
    """In a network of its own, for Swarm's ports cannot be chosen."""
    if because := docker_host.why_not():
        pytest.skip(because)
    engine = docker_host.DockerHost(root / "engine", swarm=True)
    ends.callback(engine.close)
    world.more.update(engine.env)
    world.enter = lambda cwd: engine.enter


def of_supervisor(world: World, root: Path, ends: ExitStack) -> None:
    """Started once the environment is known, before anything is deployed."""
    del root
    world.homeport("status", ok=None)
    process = subprocess.Popen([str(PROGRAM), "supervise"], cwd=world.clone, env=world.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    ends.callback(end)
    socket = world.state / "shop" / "production" / "supervisor.sock"
    eventually(socket.exists, "the supervisor listens")


def of_command(world: World, root: Path, ends: ExitStack) -> None:
    del root

    def end() -> None:
        with suppress(OSError):
            os.kill(int((world.live / "pid").read_text()), signal.SIGKILL)

    ends.callback(end)


STARTED: dict[str, Callable[[World, Path, ExitStack], None]] = {
    "systemd": of_systemd, "compose": of_compose, "supervisor": of_supervisor, "command": of_command, "swarm": of_swarm,
}  # fmt: skip


@pytest.fixture(params=sorted(COMMANDS))
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def here(runtime: str, tmp_path: Path, pm2_program: str) -> Iterator[tuple[World, int]]:
    """A world with the project pushed and the process manager running, nothing deployed; and the port it serves."""
    assert pm2_program
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed; ./dev setup installs it")
    tmp_path.chmod(0o755)
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    port = world.free_port()
    files = {**FILES, "web/compose.yaml": SWARM} if runtime == "swarm" else FILES
    world.project(SERVICE % {"runtime": runtime, "port": port, "command": COMMANDS[runtime]}, files)
    (world.live / "web").mkdir()
    (world.live / "web" / ".env").write_text("GREETING=hello\n")
    with ExitStack() as ends:
        ends.callback(world.close)
        STARTED.get(runtime, lambda *_: None)(world, tmp_path, ends)
        yield world, port


def test_the_same_project_is_deployed_kept_changed_and_rolled_back(here: tuple[World, int], runtime: str) -> None:
    world, port = here

    def answer() -> str:
        if runtime != "swarm":
            return world.get(port)[1].strip()
        asked = [*world.enter(world.root), "busybox", "wget", "-qO-", f"http://127.0.0.1:{port}/"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()

    # deployed, with the environment of the host's .env, and nothing restarted by the next deploy
    assert world.deploy()["status"] == "deployed"
    assert answer() == "hello one production"
    assert world.json("status")["services"][0]["state"] == ("unknown" if runtime == "command" else "running")
    assert world.deploy()["status"] == "unchanged"
    if runtime != "command":
        assert "serving one" in world.homeport("logs", "web").stdout
    # a changed .env alone is a reason (A5)
    (world.live / "web" / ".env").write_text("GREETING='good day'\n")
    assert world.deploy()["status"] == "deployed"
    assert answer() == "good day one production"
    # a new version, then one that does not start: rolled back and blocked, the version before answers
    second = world.publish({"web/version.txt": "two\n"})
    assert world.deploy()["services"] == ["web"]
    assert answer() == "good day two production"
    bad = world.publish({"web/version.txt": "broken\n", **world.patience("500ms")})
    done = world.deploy(ok=(1,))
    assert (done["status"], answer()) == ("rolled_back", "good day two production"), done
    assert [block["sha"] for block in world.json("status")["blocked"]] == [bad]
    assert world.deploy(ok=(3,))["errorCode"] == "blocked"
    # the next good push goes through, and a person goes back by hand
    world.publish({"web/version.txt": "three\n", **world.patience("30s")})
    assert (world.deploy()["status"], answer()) == ("deployed", "good day three production")
    assert (world.json("rollback", second)["status"], answer()) == ("deployed", "good day two production")
    assert world.homeport("run", "-s", "web", "--", "cat", "version.txt").stdout == "two\n"
