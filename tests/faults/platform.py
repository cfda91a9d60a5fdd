"""A platform under its own daemon and supervisor, whose deploys can be held at any moment and its parts killed there.

`sitecustomize` makes each runner stop at the moment that the file `at` names, until that file is gone; a build and a
service that comes up stop by themselves. So a kill comes exactly then, on any machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from homeport.supervisor.forwarder import PORTS
from tests.daemon.rig import Daemon
from tests.supervisor_rig import Client, alive, started_again, status_at, working_in
from tests.world import PROGRAM, World, eventually

HOOK = """\
import sys
if "homeport.runner" in sys.orig_argv:
    import os, time
    from homeport.flow import pipeline, runner
    from homeport.flow.stages import itself

    def stop(moment):
        try:
            with open({at!r}) as file:
                wanted = file.read()
        except FileNotFoundError:
            return
        if wanted == moment:
            open({reached!r}, "w").close()
            while os.path.exists({at!r}):
                time.sleep(0.005)

    def before(module, name, moment):
        known = getattr(module, name)
        def stopped(*args, **more):
            stop(moment(*args))
            return known(*args, **more)
        setattr(module, name, stopped)

    told = pipeline._tell
    def tell(tools, deploy, stage, state, *more, **named):
        told(tools, deploy, stage, state, *more, **named)
        stop(f"{{stage}} {{state}}")
    pipeline._tell = tell
    before(runner, "recover", lambda *_: "begin")
    before(runner, "tell_end", lambda *_: "end")
    before(itself, "_until_another", lambda *_: "restarting-self")
"""
STOPS = """\
while [ "$(cat {at} 2>/dev/null)" = "build running" ]; do : > {reached}; n=$((n+1)); echo "line $n"; sleep 0.02; done
mkdir -p dist; cp version dist/version; echo "built $(cat version)"
"""
SERVER = """\
const fs = require('fs');
const version = fs.readFileSync(__dirname + '/dist/version', 'utf8').trim();
if (version.startsWith('bad')) process.exit(3);
const held = () => { try { return fs.readFileSync('{at}', 'utf8') === 'restart running'; } catch { return false; } };
let number = 0;
const listen = () => {
  if (held()) { fs.writeFileSync('{reached}', ''); return setTimeout(listen, 10); }
  require('http').createServer((request, response) => {
    console.log(`${process.pid} answer ${++number}`);
    response.setHeader('Content-Length', version.length);
    response.end(version);
  }).listen(Number(process.env.PORT), '127.0.0.1');
};
listen();
"""
SERVICES = {"web": "shim", "api": "port"}
PARTS = ("daemon", "runner", "supervisor", "keeper")
ENDS = 30.0
"""Seconds in which everything has to have come to its end after a kill."""


class Platform(World):
    """Two services of the supervisor, one by a preload, one behind the forwarder."""

    def make(self) -> None:
        hook = self.root / "hook"
        hook.mkdir()
        self.at, self.reached = self.root / "at", self.root / "reached"
        said = {"at": str(self.at), "reached": str(self.reached)}
        (hook / "sitecustomize.py").write_text(HOOK.format(**said))
        self.more = {"PYTHONPATH": str(hook)}
        self.ports = {name: self.free_port() for name in SERVICES}
        node = shutil.which("node")
        assert node is not None
        files: dict[str, str | None] = {".gitignore": "dist/\n"}
        text = ""
        for name, handoff in SERVICES.items():
            address = f"127.0.0.1:{self.ports[name]}"
            text += (
                f'[services.{name}]\nsource = "{name}"\ntarget = "{{live}}/{name}"\nruntime = "supervisor"\n'
                f'command = ["{node}", "server.js"]\nlisten = "{address}"\nhandoff = "{handoff}"\n'
                f'env = {{ PORT = "{self.ports[name]}" }}\nbuild = {{ run = ["sh", "build.sh"], outputs = ["dist"] }}\n'
                f'checks = [{{ http = "http://{address}/", within = "20s", every = "50ms" }}]\n\n'
            )
            server, build = SERVER, STOPS.replace("{at}", said["at"]).replace("{reached}", said["reached"])
            for key, value in said.items():
                server = server.replace("{" + key + "}", value)
            files |= {f"{name}/server.js": server, f"{name}/build.sh": build, f"{name}/version": "v1\n"}
        self.project(text, files, "converge = 0  # nobody but the test asks for deploys")
        self.homeport("history")
        self.number = 1
        self.keeper_of_it = started_again([str(PROGRAM), "supervise"], self.clone, self.env, self.root / "supervisor.out")
        self.daemon = Daemon(self).start()
        eventually(lambda: self.supervisor() > 0, "the supervisor answers")
        said = self.daemon.deploy().json()
        assert said["status"] == "deployed", said

    @property
    def place(self) -> Path:
        return self.state / "shop/production"

    def supervisor(self) -> int:
        """Its process id, while it answers; else 0."""
        said = status_at(self.place / "supervisor.sock")
        return int(said["pid"]) if said is not None else 0

    def units(self) -> list[dict[str, Any]]:
        client = Client(self.place / "supervisor.sock")
        try:
            found: list[dict[str, Any]] = client.ask("status")[-1]["services"]
            return found
        finally:
            client.close()

    def keeper(self) -> int:
        pid = int((self.place / "supervisor/keeper.pid").read_text().split()[0])
        return pid if alive(pid) else 0

    # what is asked for

    def next(self, version: str = "v") -> str:
        """The next version is pushed; the version that its services tell."""
        self.number += 1
        told = f"{version}{self.number}"
        self.publish({f"{name}/version": f"{told}\n" for name in SERVICES}, told)
        return told

    def hold(self, moment: str) -> None:
        self.reached.unlink(missing_ok=True)
        self.at.write_text(moment)

    def kill(self, *parts: str) -> None:
        """kill -9 of these, the parents first so that nobody brings another back meanwhile; waits until they are gone."""
        pids = {"daemon": [self.daemon.process.pid if self.daemon.process else 0], "runner": self.working(),
                "supervisor": [self.supervisor()] if "supervisor" in parts else [], "keeper": [self.keeper()]}  # fmt: skip
        gone = [pid for part in parts for pid in pids[part] if pid]
        for pid in gone:
            with suppress(ProcessLookupError):  # one may end by itself when another is gone
                os.kill(pid, signal.SIGKILL)
        if "daemon" in parts and self.daemon.process is not None:
            self.daemon.process.wait(10)
        eventually(lambda: not any(alive(pid) for pid in gone), f"killed: {parts}")

    def working(self) -> list[int]:
        """Runners other than the one that waits for its word."""
        return [pid for pid, words in self.own_commands().items()
                if b"homeport.runner" in words and (b"--wait" not in words or self._begun(pid))]  # fmt: skip

    def _begun(self, pid: int) -> bool:
        """Whether a runner that waited has the environment's lock: it is the one that works."""
        lock = os.stat(self.place / "lock").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            return any(line.split()[4] == str(pid) and line.split()[5].endswith(f":{lock}") for line in file)

    # what must be true

    def processes(self) -> list[int]:
        """Every process that was started as one of the services, or by one of their builds."""
        return working_in(self.live)

    def journal(self, deploy: str) -> bytes:
        return (self.place / "journal" / f"{deploy}.jsonl").read_bytes()

    def gaps(self) -> list[str]:
        """Answers that a process counted and whose line its unit's log has not, or twice."""
        found = []
        for name in SERVICES:
            lines = (self.place / f"supervisor/logs/{name}.log").read_text().splitlines()
            said = [line.split() for line in lines if " answer " in line]
            for pid in {words[0] for words in said}:
                numbers = [int(words[2]) for words in said if words[0] == pid]
                if numbers != list(range(1, len(numbers) + 1)):
                    found.append(f"{name} {pid}: {numbers}")
        return found

    def tidy(self) -> None:
        """One process for each service and none besides; one supervisor, one keeper; no runner at work."""
        eventually(lambda: self.supervisor() and self.keeper(), "supervisor and keeper are there again", ENDS)
        eventually(lambda: not self.working(), "no runner is left", ENDS)

        def only_ours() -> bool:
            units = self.units()
            serving = sorted(pid for unit in units for pid in unit["pids"])
            return all(unit["state"] == "running" and not unit["draining"] for unit in units) and (
                [pid for pid in serving if pid in self.processes()] == self.processes()
                and len(self.processes()) == len(SERVICES)
            )

        eventually(only_ours, f"one process of each service: {self.processes()}", ENDS)
        for part in (b"supervisor/keeper.py", b"homeport.supervisor"):
            eventually(lambda part=part: self._having(part) == 1, f"one {part!r}")  # type: ignore[misc]

    def _having(self, part: bytes) -> int:
        """Processes of this environment with that in their command line; a fork is its parent's twin until its exec."""
        return sum(part in words and f"{self.place}/".encode() in words for words in map(_words, _all()))

    def end(self) -> None:
        self.at.unlink(missing_ok=True)
        self.daemon.close()
        os.killpg(self.keeper_of_it.pid, signal.SIGKILL)
        self.keeper_of_it.wait()
        self.close()
        forwarders = [pid for pid in _all() if b"supervisor/forwarder.py" in _words(pid) and self._is_ours(pid)]
        for pid in (*self.processes(), *forwarders):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_ours(self, forwarder: int) -> bool:
        """By the file that tells it the ports."""
        try:
            return os.readlink(f"/proc/{forwarder}/fd/{PORTS}").startswith(f"{self.place}/")
        except OSError:
            return False


class Visitor:
    """Asks every service again and again over new connections; every answer is looked at."""

    def __init__(self, ports: list[int]) -> None:
        self.ports, self.failures, self.answers = ports, list[str](), set[str]()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for port in ports]

    def __enter__(self) -> Visitor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, port: int) -> None:
        while not self._over.wait(0.02):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=ENDS) as answer:
                    self.answers.add(answer.read().decode())
            except OSError as fault:
                self.failures.append(f"{time.monotonic():.2f} {port}: {fault}")


def asked(daemon: Daemon, request: str, wanted: dict[str, Any]) -> Future[httpx.Response]:
    """Asks over the API with this request id; the answer comes at the end."""
    path = "/api/v1/deploys?wait=true" if "kind" in wanted else "/api/v1/self/deploy"
    return daemon.pool.submit(daemon.ask, "POST", path, json={**wanted, "requestId": request})


def events(raw: bytes) -> list[dict[str, Any]]:
    """The journal's events; a torn line is a failure."""
    assert raw.endswith(b"\n"), raw[-200:]
    return [json.loads(line) for line in raw.splitlines()]


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
