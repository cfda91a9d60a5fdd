"""C5 C6 C7 E4: services under the built-in supervisor: no failed request through deploys, bad versions, kills, restarts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import supervisor_servers as servers
from tests.daemon.rig import Daemon
from tests.supervisor_rig import Client, Load, status_at, working_in
from tests.world import PROGRAM, World, eventually

KEEPER = 'while :; do "$@"; [ $? = 75 ] || exit; done'
"""Starts it again when it leaves to be started again, as systemd or a container engine would."""
SERVERS = {
    "web": ("shim", ["node", "web.js"]),
    "page": ("shim", [servers.python(), "web.py"]),
    "raw": ("fd", ["node", "fd.js"]),
    "api": ("port", ["node", "web.js"]),
    "job": ("stop-first", [servers.python(), "fds.py"]),
}  # fmt: skip


class Supervised:
    """A world whose supervisor runs under a keeper."""

    def __init__(self, world: World) -> None:
        self.world, self.ports = world, dict[str, int]()
        self.state = world.state / "shop" / "production"
        self.socket = self.state / "supervisor.sock"
        self.keeper: subprocess.Popen[bytes] | None = None

    def project(self, *names: str, more: str = "") -> None:
        servers.write(self.world.clone)
        files: dict[str, str | None] = {}
        text = ""
        for name in names:
            handoff, command = SERVERS[name]
            self.ports[name] = self.world.free_port()
            if command[0] == "node":
                command = [servers.node(), *command[1:]]
            text += (
                f'[services.{name}]\nsource = "{name}"\ntarget = "{{live}}/{name}"\nruntime = "supervisor"\n'
                f'command = {command}\nlisten = "127.0.0.1:{self.ports[name]}"\nhandoff = "{handoff}"\n'
                f'env = {{ PORT = "{self.ports[name]}" }}\n{more}'
                + ('ready = { http = "/", timeout = "20s" }\n' if handoff in ("shim", "port") else "")
            )
            for file in (self.world.clone / command[1], self.world.clone / "version"):
                files[f"{name}/{file.name}"] = file.read_text()
        text += f"[scopes.each]\nservices = {list(names)}\n"
        self.world.project(text, files, "converge = 0")

    def version(self, version: str) -> str:
        return self.world.publish({f"{name}/version": version for name in self.ports}, version)

    def start(self, *before: str) -> None:
        words = ["sh", "-c", KEEPER, "keeper", *before, str(PROGRAM), "supervise"]
        with open(self.world.root / "supervisor.out", "ab") as out:
            self.keeper = subprocess.Popen(
                words, cwd=self.world.clone, env=self.world.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        self.until_it_answers()
        assert self.keeper.poll() is None, "it is this one that answers"

    def until_it_answers(self) -> None:
        eventually(lambda: self.run() is not None, "the supervisor answers")

    def run(self) -> str | None:
        """Names the supervisor process that answers."""
        said = status_at(self.socket)
        return str(said["run"]) if said is not None else None

    def pid(self) -> int:
        client = Client(self.socket)
        try:
            return int(client.ask("status")[-1]["pid"])
        finally:
            client.close()

    def processes(self) -> list[int]:
        """Every process that was started as one of the services."""
        return working_in(self.world.live)

    def answers(self, version: str) -> None:
        for port in self.ports.values():
            assert self.world.get(port) == (200, version)

    def end(self) -> None:
        if self.keeper is None or self.keeper.poll() is not None:
            return
        self.until_it_answers()
        client = Client(self.socket)
        client.ask("shutdown")
        client.close()
        self.keeper.wait(30)


@pytest.fixture
def supervised(world: World) -> Iterator[Supervised]:
    made = Supervised(world)
    try:
        yield made
    finally:
        made.end()


def during(ports: list[int], work: threading.Thread) -> dict[int, Load]:
    """Requests at all of these ports while the thread runs."""
    loads = {port: Load(port, rate=100) for port in ports}

    async def all_of_them() -> None:
        work.start()
        await asyncio.gather(*(load.during(work.join) for load in loads.values()))

    asyncio.run(all_of_them())
    return loads


def test_no_request_fails_while_versions_are_deployed_and_a_bad_one_is_rolled_back(supervised: Supervised) -> None:
    world = supervised.world
    supervised.project(*SERVERS)
    refused = world.deploy(ok=(1,))
    assert (refused["status"], refused["services"]) == ("failed", [])
    assert "supervisor" in refused["errorSummary"] and not (world.live / "web").exists()
    doctor = world.homeport("doctor", ok=(1,)).stdout
    assert "it does not run" in doctor
    told = world.homeport("deploy", ok=(1,))
    assert "homeport -p shop -e production supervise" in told.stdout + told.stderr

    supervised.start()
    assert world.deploy()["status"] == "deployed"
    supervised.answers("one")
    assert {row["state"] for row in world.json("status")["services"]} == {"running"}
    outcomes: list[str] = []

    def deploys() -> None:
        supervised.version("two")
        outcomes.append(world.deploy()["status"])
        supervised.answers("two")
        world.publish({"web/web.js": "console.log('not this one'); process.exit(3)\n", "page/version": "three"})
        outcomes.append(world.deploy(ok=(1,))["status"])

    loads = during(list(supervised.ports.values()), threading.Thread(target=deploys))
    assert outcomes == ["deployed", "rolled_back"]
    for name, port in supervised.ports.items():
        assert loads[port].failures == [], name
        assert len(loads[port].answers) > 50 and {"one", "two"} <= set(loads[port].answers), name
    supervised.answers("two")
    eventually(lambda: len(supervised.processes()) == len(SERVERS), "one process of each service is left")
    assert "not this one" in world.homeport("logs", "web").stdout
    assert world.homeport("check").code == 0


def test_asked_on_its_socket_it_restarts_a_scope_and_kills_what_does_not_go(supervised: Supervised) -> None:
    """As any script may, in JSON lines: an answer at once, one for each service, and one at the end."""
    world = supervised.world
    supervised.project("job", "page", more='stop_timeout = "300ms"\ndrain = "100ms"\n')
    supervised.start()
    world.deploy()
    client = Client(supervised.socket)
    before = {row["service"]: row["pid"] for row in client.ask("status")[-1]["services"]}
    os.kill(before["job"], signal.SIGSTOP)  # it hears no SIGTERM
    said = client.ask("restart", scope="each")
    assert [answer["type"] for answer in said] == ["restart.ack", "restart.done", "restart.done", "restart.end"]
    assert sorted(said[0]["services"]) == ["job", "page"] and said[-1]["ok"] and {answer["id"] for answer in said} == {1}
    after = {answer["service"]: answer["pid"] for answer in said[1:3]}
    assert all(after[name] != pid for name, pid in before.items()) and all(a["durationMs"] >= 0 for a in said[1:3])
    eventually(lambda: supervised.processes() == sorted(after.values()), "exactly the new processes are left")
    supervised.answers("one")
    assert [answer["type"] for answer in client.ask("restart", scope="page")][0::3] == ["restart.ack"]
    assert client.ask("restart", scope="nobody")[-1]["code"] == "unknown-scope"

    os.kill(after["job"], signal.SIGKILL)  # nobody asked for that: it is started again
    eventually(lambda: world.get(supervised.ports["job"])[0] == 200, "what died is started again")
    client.close()


def test_all_is_restarted_with_the_supervisor_itself_and_a_killed_one_is_followed_by_the_next(
    supervised: Supervised,
) -> None:
    world = supervised.world
    supervised.project("web")
    supervised.start()
    world.deploy()
    before, run = supervised.processes(), supervised.run()

    def restart() -> None:
        done = world.json("restart", "all")
        assert done["status"] == "deployed"

    loads = during([supervised.ports["web"]], threading.Thread(target=restart))
    assert loads[supervised.ports["web"]].failures == []
    again = supervised.run()
    assert again not in (None, run)
    eventually(lambda: len(supervised.processes()) == 1, "one process is left")
    assert supervised.processes() != before
    stages = [row["stage"] for row in world.json("show", str(world.json("history")["deploys"][0]["id"]))["stages"]]
    assert "restarting-self" in stages and stages[-1] == "stamp"

    # killed alone while a deploy restarts: its children run on, the next one finds them, the deploy ends truly
    supervised.version("two")
    ended: list[dict[str, Any]] = []
    deploy = threading.Thread(target=lambda: ended.append(world.deploy(ok=(0, 1))))
    deploy.start()
    eventually(lambda: len(supervised.processes()) > 1 or not deploy.is_alive(), "the new process is started")
    os.kill(supervised.pid(), signal.SIGKILL)
    assert supervised.keeper is not None
    supervised.keeper.wait(20)
    supervised.start()
    deploy.join()
    assert ended[0]["status"] == "deployed", ended[0]["errorSummary"]
    supervised.answers("two")
    eventually(lambda: len(supervised.processes()) == 1, "exactly one process is left")


def test_as_pid_1_of_a_container_all_ends_with_it_and_the_deploy_that_asked_still_ends_truly(
    supervised: Supervised,
) -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespace can be made here")
    world = supervised.world
    if os.stat("/dev/shm").st_dev == os.stat("/").st_dev:
        pytest.skip("no second file system to keep the state on")
    world.state = Path(tempfile.mkdtemp(dir="/dev/shm"))
    supervised.state = world.state / "shop" / "production"
    supervised.socket = supervised.state / "supervisor.sock"
    try:
        supervised.project("web")
        supervised.start(*words)
        inner = ["nsenter", "-t", str(_init_of(supervised)), "--pid", "--mount", f"--wd={world.clone}", "--"]
        world.enter = lambda cwd: inner
        assert world.deploy()["status"] == "deployed"
        run = supervised.run()
        asked = world.homeport("--json", "restart", "all", ok=None)
        assert asked.code != 0, "whoever asked ended with the container"
        eventually(lambda: supervised.run() not in (None, run), "the container was started again")
        world.enter = lambda cwd: []
        eventually(lambda: world.json("history")["deploys"][0]["state"] == "done", "the deploy has an outcome")
        row = world.json("history")["deploys"][0]
        assert (row["kind"], row["status"], row["stage"]) == ("restart", "deployed", "stamp")
        supervised.answers("one")
        eventually(lambda: len(supervised.processes()) == 1, "exactly one process is left")
        deploys_itself(supervised)
    finally:
        supervised.end()
        shutil.rmtree(world.state, ignore_errors=True)


def deploys_itself(supervised: Supervised) -> None:
    """The platform in the container asks its own API: daemon, caller and runner end with it, the deploy does not."""
    world, run = supervised.world, supervised.run()
    supervised.version("two")
    enter = ["nsenter", "-t", str(_init_of(supervised)), "--pid", "--mount", f"--wd={world.clone}", "--"]
    with open(world.root / "daemon.out", "ab") as out:
        serving = subprocess.Popen([*enter, str(PROGRAM), "serve"], cwd=world.clone, env=world.env, stdout=out, stderr=out)
    daemon = Daemon(world)
    try:
        eventually(daemon.answers, "the daemon answers")
        with pytest.raises(httpx.HTTPError):
            daemon.deploy(scope="all", itself=True, requestId="two")
    finally:
        daemon.close()
        serving.wait(20)
    eventually(lambda: supervised.run() not in (None, run), "the container was started again")
    eventually(lambda: world.json("history")["deploys"][0]["state"] == "done", "the deploy has an outcome")
    row = world.json("history")["deploys"][0]
    assert (row["kind"], row["status"], row["stage"]) == ("commit", "deployed", "stamp"), row
    assert row["request"]["requestId"] == "two" and row["services"] == ["web"]
    supervised.answers("two")
    eventually(lambda: len(supervised.processes()) == 1, "exactly one process is left")
    assert world.deploy()["status"] == "unchanged"


def test_development_runs_the_checkout_in_place_and_a_lost_state_starts_what_is_deployed(
    supervised: Supervised,
) -> None:
    world = supervised.world
    supervised.project("web", "page")
    (world.clone / "web" / "version").write_text("mine")
    out = world.root / "dev.out"
    with open(out, "wb") as file:
        dev = subprocess.Popen([str(PROGRAM), "supervise", "--dev"], cwd=world.clone, env=world.env, stdout=file,
                               stderr=subprocess.STDOUT)  # fmt: skip
    try:
        eventually(lambda: world.get(supervised.ports["web"])[1] == "mine", "the working tree is served")
        eventually(lambda: world.get(supervised.ports["page"])[1] == "one", "and the other service")
        eventually(lambda: "web  | listening" in out.read_text(), "what it prints stands behind its name")
        eventually(lambda: "page * serves" in out.read_text(), "and it says who serves")
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.wait(20) == 0
    assert "\x1b" not in out.read_text()
    assert world.get(supervised.ports["web"])[0] == 0 and not (world.live / "web").exists()

    supervised.start()
    world.deploy("web")
    supervised.end()
    shutil.rmtree(supervised.state / "supervisor")
    supervised.start()
    eventually(lambda: world.get(supervised.ports["web"]) == (200, "one"), "what is deployed is started")
    assert world.get(supervised.ports["page"])[0] == 0, "what was never deployed is not"


def _init_of(supervised: Supervised) -> int:
    """The supervisor's process id outside of its namespace: the child of the keeper's unshare."""
    assert supervised.keeper is not None
    outer = _child_of(supervised.keeper.pid)
    return _child_of(outer)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
