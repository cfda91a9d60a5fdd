"""A4 A5 D12 D13 D18 E4 E7 P8: services under a real systemd, the machine's or a user's: restarted, verified, undone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import supervisor_servers as servers
from tests.conftest import let_everybody_in
from tests.daemon.rig import Daemon
from tests.scenarios.test_supervisor import Supervised
from tests.supervisor_rig import Load
from tests.systemd_host import SystemdHost, why_not
from tests.world import World, eventually

SERVICE = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "systemd"
unit = "%s"
env = { PORT = "%d" }
env_file = ".env"
%s
  [[services.api.checks]]
  process = true
  stable = "300ms"
  within = "20s"
  every = "100ms"
  [[services.api.checks]]
  http = "http://127.0.0.1:%d/health"
  within = "20s"
  every = "50ms"
"""
UNIT = """\
[Service]
WorkingDirectory={live}/api
ExecStart={node} server.js
Environment=GREETING=unit
ExecStartPre=/bin/echo the unit says hello
"""
numbers = itertools.count()


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    if because := why_not():
        pytest.skip(because)
    folder = tmp_path_factory.mktemp("systemd")
    let_everybody_in(folder)
    folder.chmod(0o755)
    host = SystemdHost(folder)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def name() -> str:
    """Of a unit that no other test on this systemd uses."""
    return f"shop-{next(numbers)}"


@pytest.fixture
def world(systemd: SystemdHost, name: str) -> Iterator[World]:
    root = systemd.folder / name
    root.mkdir()
    made = World(root, enter=systemd.enter)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def port(world: World, systemd: SystemdHost, name: str, node_files: dict[str, str | None]) -> int:
    """The port of a deployed service whose unit the machine's owner wrote."""
    number = world.free_port()
    systemd.write(f"{name}.service", UNIT.format(live=world.live, node=shutil.which("node")))
    world.project(SERVICE % (name, number, "", number), node_files)
    assert world.deploy()["status"] == "deployed"
    return number


def shown(systemd: SystemdHost, unit: str, key: str) -> str:
    return systemd.systemctl("show", f"--property={key}", "--value", unit).stdout.strip()


def test_a_unit_is_restarted_with_the_services_environment_and_only_when_it_must(
    world: World, systemd: SystemdHost, port: int, name: str
) -> None:
    assert world.get(port)[1].split()[:2] == ["unit", "one"]
    (row,) = world.json("status")["services"]
    assert (row["runtime"], row["state"]) == ("systemd", "running")
    before = shown(systemd, name, "MainPID")
    assert world.deploy()["status"] == "unchanged"
    assert shown(systemd, name, "MainPID") == before
    (world.live / "api" / ".env").write_text("GREETING='a \"quoted\" $HOME %h \\\\ value'\n")
    world.publish({"api/version.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.get(port)[1].startswith('a "quoted" $HOME %h \\\\ value two')
    values = systemd.units / f"{name}.service.d" / "50-homeport.env"
    assert values.stat().st_mode & 0o777 == 0o600
    assert "the unit says hello" in world.homeport("logs", "api").stdout


def test_a_bad_version_is_rolled_back_under_systemd_even_past_its_limit_of_starts(
    world: World, systemd: SystemdHost, port: int, name: str
) -> None:
    systemd.write(
        f"{name}.service",
        "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n"
        + UNIT.format(live=world.live, node=shutil.which("node"))
        + "Restart=always\nRestartSec=20ms\n",
    )
    assert world.homeport("restart", "api").code == 0, "the changed unit file is read before the restart"
    assert shown(systemd, name, "StartLimitBurst") == "2"
    dies = "console.error('no such table: users'); process.exit(3)\n"
    bad = world.publish({"api/server.js": dies, **world.patience("1s")})
    done = world.deploy(ok=(1,))
    assert done["status"] == "rolled_back"
    assert world.get(port)[1].split()[:2] == ["unit", "one"]
    assert [b["sha"] for b in world.json("status")["blocked"]] == [bad]
    assert "no such table" in world.homeport("logs", "api").stdout
    for _ in range(3):
        world.homeport("restart", "api")
    assert world.get(port)[0] == 200, "a restart that was asked for is no crash"


def test_a_service_that_dies_again_and_again_after_its_start_is_not_called_healthy(
    world: World, systemd: SystemdHost, port: int, name: str
) -> None:
    again = "Restart=always\nRestartSec=1ms\nStartLimitIntervalSec=0\n"
    systemd.write(f"{name}.service", UNIT.format(live=world.live, node=shutil.which("node")) + again)
    text = (world.clone / "api" / "server.js").read_text()
    # longer than a start and its end can take here: what runs for as long as `stable` asks is healthy
    calm = str(world.patience("2s")["homeport.toml"]).replace('stable = "300ms"', 'stable = "1500ms"')
    world.publish({"api/server.js": text + "setTimeout(() => process.exit(0), 150);\n", "homeport.toml": calm})
    done = world.deploy(ok=(1,))
    assert (done["status"], "process" in done["errorSummary"]) == ("rolled_back", True), done
    assert [block["sha"] for block in world.json("status")["blocked"]] == [done["sha"]]
    world.homeport("restart", "api")
    assert world.get(port)[0] == 200


def test_reload_keeps_the_process_and_a_command_without_a_unit_makes_one(
    world: World, systemd: SystemdHost, name: str, node_files: dict[str, str | None]
) -> None:
    port = world.free_port()
    command = 'command = ["node", "server.js", "100% $HOME \\"quoted\\""]\nstop_timeout = "3s"'
    world.project(SERVICE % (name, port, command, port), node_files)
    assert world.deploy()["status"] == "deployed"
    assert world.get(port)[1].split()[:2] == ["hello", "one"]
    assert shown(systemd, name, "UnitFileState") == "enabled"
    line = Path(f"/proc/{find_outside(systemd, world, port)}/cmdline").read_bytes().split(b"\0")
    assert line[:3] == [b"node", b"server.js", b'100% $HOME "quoted"']
    world.write({"homeport.toml": (world.clone / "homeport.toml").read_text().replace("100%", "99%")})
    world.publish({"api/version.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    line = Path(f"/proc/{find_outside(systemd, world, port)}/cmdline").read_bytes().split(b"\0")
    assert line[2] == b'99% $HOME "quoted"'
    text = (systemd.units / f"{name}.service").read_text()
    systemd.write(f"{name}.service", text.replace("# Written by homeport", "# Ours now, not homeport's")
                  .replace("[Install]", "ExecReload=/bin/true\n[Install]"))  # fmt: skip
    told = (world.clone / "homeport.toml").read_text()
    world.write({"homeport.toml": told.replace("env_file", 'on_change = "reload"\nenv_file')})
    world.publish({"api/other.txt": "x\n"})
    before = shown(systemd, name, "MainPID")
    assert world.deploy()["status"] == "deployed"
    assert shown(systemd, name, "MainPID") == before


def find_outside(systemd: SystemdHost, world: World, port: int) -> str:
    """The process that answers, as this machine numbers it."""
    answer, inside = world.get(port)[1].split()[2], os.readlink(f"/proc/{systemd.pid}/ns/pid")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # others end meanwhile
            told = (folder / "status").read_text().splitlines()
            numbers = next((line.split()[1:] for line in told if line.startswith("NSpid:")), [])
            if numbers[-1:] == [answer] and os.readlink(folder / "ns/pid") == inside:
                return folder.name
    raise AssertionError(f"nobody has the number {answer}")


def test_a_unit_that_nobody_installed_is_told_and_one_the_host_does_not_list_is_never_touched(
    world: World, systemd: SystemdHost, name: str, node_files: dict[str, str | None]
) -> None:
    world.project((SERVICE % (name, 1, "", 1)).replace('within = "20s"', 'within = "1s"'), node_files)
    lines = world.homeport("--json", "deploy", ok=(0, 1)).lines
    assert [e["code"] for e in lines if e.get("code") == "unregistered"] == ["unregistered"]
    world.host_file.write_text(world.host_file.read_text().replace('units = ["*"]', 'units = ["web-*"]'))
    systemd.write(f"{name}.service", UNIT.format(live=world.live, node=shutil.which("node")))
    assert world.homeport("restart", "api", ok=(3,)).code == 3
    assert shown(systemd, name, "ActiveState") == "inactive"
    assert not (systemd.units / f"{name}.service.d").exists()


def test_a_users_own_unit_is_the_users(
    world: World, systemd: SystemdHost, name: str, node_files: dict[str, str | None]
) -> None:
    user = pwd.getpwnam("nobody")
    units = world.root / "user-units"
    units.mkdir()
    shutil.chown(units, user.pw_uid)
    world.root.chmod(0o755)
    port = world.free_port()
    (units / f"{name}.service").write_text(UNIT.format(live=world.live, node=shutil.which("node")))
    systemd.user_manager("nobody", units)
    world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
    says = {"api/server.js": f"{node_files['api/server.js']}\nconsole.log('the server says hello');\n"}
    world.project(SERVICE % (f"user/{name}", port, 'user = "nobody"', port), {**node_files, **says})
    assert world.deploy()["status"] == "deployed"
    pid = find_outside(systemd, world, port)
    assert Path(f"/proc/{pid}").stat().st_uid == user.pw_uid
    assert (units / f"{name}.service.d" / "50-homeport.env").stat().st_uid == user.pw_uid
    # not what its ExecStartPre says: the journal cannot tell whose a process of a user was once it has ended
    eventually(lambda: "the server says hello" in world.homeport("logs", "api").stdout, "its line is in the journal")
    assert json.loads(world.homeport("--json", "status").stdout)["services"][0]["state"] == "running"


def running(words: str) -> int:
    """How many processes have these words in their command line."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += words in (folder / "cmdline").read_text(errors="replace")
    return found


def test_setup_has_systemd_keep_daemon_and_supervisor_and_a_deploy_outlives_the_restart_of_both(
    world: World, systemd: SystemdHost, node_files: dict[str, str | None]
) -> None:
    """Both tell systemd when they are ready, and the daemon's socket is systemd's: callers wait while it is away."""
    port, hold = world.free_port(), world.root / "hold"
    node = shutil.which("node")
    table = (
        f'[services.web]\nsource = "api"\ntarget = "{{live}}/web"\nruntime = "supervisor"\n'
        f'command = "setsid sleep 3{port} & exec {node} server.js"\n'
        f'listen = "127.0.0.1:{port}"\nenv = {{ PORT = "{port}" }}\n'
        f'build = {{ run = "while [ -e {hold} ]; do sleep 0.05; done; cp version.txt made", outputs = ["made"] }}\n'
        f'checks = [{{ http = "http://127.0.0.1:{port}/health", within = "20s", every = "50ms" }}]\n'
    )
    world.project(table, {**node_files, ".gitignore": "made\n"}, "converge = 0")
    steps = {step["name"]: step for step in world.json("setup")["steps"]}
    keeps = "homeport-shop-production-supervisor.service"
    assert keeps in steps["supervisor"]["done"] and "homeport.service" in steps["daemon"]["done"]
    assert systemd.systemctl("is-active", "homeport.service").stdout.strip() == "inactive", "that is for the owner to say"
    systemd.systemctl("enable", "--now", "homeport.socket", ok=(0,))
    assert not any(step["changed"] for step in world.json("setup")["steps"])
    daemon = Daemon(world)
    try:
        said = daemon.deploy(scope="all").json()
        assert (said["status"], world.get(port)[1].split()[:2]) == ("deployed", ["hello", "one"]), said
        assert systemd.systemctl("is-active", "homeport.service", keeps).stdout.split() == ["active", "active"]
        before = [shown(systemd, unit, "MainPID") for unit in ("homeport.service", keeps)]

        world.publish({"api/version.txt": "two\n"})
        hold.touch()
        daemon.ask("POST", "/api/v1/self/deploy?wait=false", json={"requestId": "across"})
        looked = "/api/v1/deploys?requestId=across"
        eventually(lambda: daemon.ask("GET", looked).json()["deploys"][0]["stage"] == "build", "it builds")
        systemd.systemctl("restart", "homeport.service", keeps, ok=(0,))
        hold.unlink()
        said = daemon.deploy(requestId="across").json()
        assert (said["status"], world.get(port)[1].split()[:2]) == ("deployed", ["hello", "two"]), said
        after = [shown(systemd, unit, "MainPID") for unit in ("homeport.service", keeps)]
        assert not set(before) & set(after)
        assert daemon.ask("POST", "/api/v1/deploys?wait=true", json={"kind": "restart", "services": ["web"]}).json()["ok"]
        eventually(lambda: running(f"sleep\x003{port}") == 1, "what left its group is stopped with its process")
    finally:
        hold.unlink(missing_ok=True)
        daemon.close()
        systemd.systemctl("stop", "homeport.socket", "homeport.service", keeps)


HANDED = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "systemd"
unit = "%(name)s"
command = ["%(node)s", "web.js"]
listen = "127.0.0.1:%(port)d"
handoff = "port"
ready = { http = "/", timeout = "20s" }
"""


def test_behind_the_supervisors_socket_a_unit_loses_no_request(world: World, systemd: SystemdHost, name: str) -> None:
    """E4 E7: two units serve in turn; one that the machine's owner wrote is left alone."""
    port, supervised = world.free_port(), Supervised(world)
    said = {"name": name, "node": shutil.which("node"), "port": port}
    world.project(HANDED % said, {"api/web.js": servers.PATIENT_NODE, "api/version": "one"}, "converge = 0")
    names = (f"{name}.service", f"{name}.b.service")

    def installed() -> list[str]:
        return [one for one in names if (systemd.units / one).exists()]

    supervised.start()
    try:
        systemd.write(names[0], UNIT.format(live=world.live, node=shutil.which("node")))
        foreign = world.deploy(ok=(1,))
        assert foreign["status"] == "failed" and "a unit of your own" in foreign["errorSummary"]
        (systemd.units / names[0]).unlink()
        assert world.homeport("deploy").code == 0
        assert installed() == [names[0]] and world.get(port) == (200, "one")

        def deploys() -> None:
            world.publish({"api/version": "two"})
            assert world.deploy()["status"] == "deployed"
            assert installed() == [names[1]] and world.get(port) == (200, "two")
            world.publish({"api/web.js": "process.exit(3)\n"})
            assert world.deploy(ok=(1,))["status"] == "rolled_back"
            assert installed() == [names[1]] and shown(systemd, names[1], "ActiveState") == "active"

        load = Load(port)
        asyncio.run(load.during(deploys))
        assert load.failures == []
        assert set(load.answers) == {"one", "two"}
        assert world.json("status")["services"][0]["state"] == "running"
    finally:
        supervised.end()
