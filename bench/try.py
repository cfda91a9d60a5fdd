"""Save to live: `homeport try`, on this machine and over ssh, with pm2 and with the built-in supervisor, against
`rsync -a --delete` with the same excludes and `pm2 restart`. What a bare restart takes is measured in the same rounds.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from _far import machine
from _measure import FILES_PER_FOLDER, HOMEPORT, World, asked, heading, run, table, world

from homeport.doors.runtimes.pm2_socket import Pm2Socket

SERVER = """\
const http = require("http"), fs = require("fs");
const said = fs.readFileSync(__dirname + "/part0/0/page7.txt", "utf8").slice(0, 60);
http.createServer((q, a) => a.end(said)).listen(Number(process.env.PORT), "127.0.0.1");
"""
EXCLUDES = [f"--exclude={p}" for p in (".env*", "node_modules/", ".venv/", "venv/", "__pycache__/", ".git/", "*.bak*",
                                       "*.backup*", "*.pem", "*.key", ".homeport")]  # fmt: skip
FAR = "far.example"
PLACES = {
    "near-pm2": ("pm2", False), "near-supervisor": ("supervisor", False),
    "far-pm2": ("pm2", True), "far-supervisor": ("supervisor", True),
}  # fmt: skip
"""Environments: the runtime, and whether it lies on the machine behind ssh. Each has a live folder and a process."""
PEER, FAR_PEER = "rsync -a --delete + pm2 restart", "rsync -a --delete -e ssh + ssh pm2 restart"


@dataclass
class Took:
    """Seconds from the save until the service answered with it, and until the command had returned."""

    live: float
    returned: float


Step = Callable[[], Took]


def main() -> None:
    options = asked("save to live: one changed file, one process restarted, its new answer awaited")
    for count in options.sizes:
        with world() as here, ExitStack() as running:
            bench = Bench(here, running)
            bench.prepare(count)
            bench.measured(count, options.times)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """Four environments of one project, a copy for rsync, and a machine behind ssh, which is this one."""

    def __init__(self, here: World, running: ExitStack) -> None:
        self.here, self.running = here, running
        self.ports = {name: _port() for name in (*PLACES, "copy")}
        self.page = here.clone / "site/part0/0/page7.txt"
        self.copy = here.root / "copy"
        assert FILES_PER_FOLDER > 7

    def prepare(self, count: int) -> None:
        here, root = self.here, self.here.root
        far = root / "far"
        far.mkdir()
        names = ", ".join(f'"{name}"' for name in PLACES)
        for folder, name in ((root, "host-1"), (far, "far-1")):
            text = f'name = "{name}"\nenvironments = [{names}]\nroots = ["{root}"]\nunits = ["*"]\n'
            (folder / "host.toml").write_text(text)
        self.far_env = {**here.env, "HOME": str(far), "HOMEPORT_STATE": str(far / "state"),
                        "HOMEPORT_HOST_FILE": str(far / "host.toml")}  # fmt: skip
        seen = {name: value for name, value in self.far_env.items() if name != "LANG"}
        tools = self.running.enter_context(machine(far, FAR, _port(), seen))
        here.env["PATH"] = f"{tools}:{here.env['PATH']}"
        here.env["XDG_RUNTIME_DIR"] = str(root)
        (here.clone / "homeport.toml").write_text(self.project())
        here.files(count)
        (here.clone / "site/server.js").write_text(SERVER)
        here.push()
        for name, (runtime, away) in PLACES.items():
            if away:
                run(HOMEPORT, "-C", str(here.clone), "-e", name, "plan", env=self.far_env)
            if runtime == "supervisor":
                self.supervise(name, self.far_env if away else here.env)
            here.homeport("-e", name, "deploy")
        run("rsync", "-a", "--delete", *EXCLUDES, f"{here.clone}/site/", f"{self.copy}/")
        run("pm2", "start", "server.js", "--name", "copy", cwd=self.copy,
            env={**here.env, "PORT": str(self.ports["copy"])})  # fmt: skip

    def project(self) -> str:
        text = f'[project]\nname = "site"\n\n[hosts.far-1]\nssh = "{FAR}"\n'
        for name, (runtime, away) in PLACES.items():
            port = self.ports[name]
            hosts = 'hosts = ["far-1"]\n' if away else ""
            how = f'unit = "{name}"\n' if runtime == "pm2" else f'listen = "127.0.0.1:{port}"\n'
            text += (
                f'\n[environments.{name}]\nbranch = "main"\ntry = true\n{hosts}\n[services.{name}]\nsource = "site"\n'
                f'target = "{self.here.live}/{name}"\nenvironments = ["{name}"]\nruntime = "{runtime}"\n{how}'
                f'command = ["node", "server.js"]\nenv = {{ PORT = "{port}" }}\npath = ["{_folder_of("node")}"]\n'
                f'[[services.{name}.checks]]\nhttp = "http://127.0.0.1:{port}/"\nevery = "20ms"\n'
            )
        return text

    def supervise(self, name: str, env: Mapping[str, str]) -> None:
        argv = [HOMEPORT, "-p", "site", "-e", name, "supervise"]
        child = subprocess.Popen(argv, cwd=self.here.clone, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.running.callback(child.wait)
        self.running.callback(child.terminate)
        listens = Path(env["HOMEPORT_STATE"]) / "site" / name / "supervisor.sock"
        while not listens.exists():
            assert child.poll() is None, f"{argv} ended with {child.returncode}"
            time.sleep(0.01)

    # what is measured

    def measured(self, count: int, times: int) -> None:
        rsync = ("rsync", "-a", "--modify-window=-1", "--delete", *EXCLUDES)
        page, copy = f"{self.here.clone}/site/", f"{self.copy}/"
        peer = self.command("copy", *rsync, page, copy)
        far_peer = self.command("copy", *rsync, "-e", "ssh", page, f"{FAR}:{copy}", via="ssh")
        near = {"homeport try, pm2": self.tried("near-pm2"), "homeport try, supervisor": self.tried("near-supervisor"),
                PEER: peer}  # fmt: skip
        far = {"homeport try, pm2": self.tried("far-pm2"), "homeport try, supervisor": self.tried("far-supervisor"),
               FAR_PEER: far_peer}  # fmt: skip
        heading("homeport try of one changed file, until the service answers with it")
        _shown(f"{count:,} files", _in_turns(near, times), PEER)
        self.floors(times)
        heading("the same over ssh (sshd on loopback; both sides keep one connection: ControlMaster)")
        _shown(f"{count:,} files, over ssh", _in_turns(far, times), FAR_PEER)
        heading("the same at every save, by homeport try --watch")
        for name in ("near-pm2", "near-supervisor"):
            with self.watching(name):
                steps = {f"homeport try --watch, {PLACES[name][0]}": self.saved(name), PEER: peer}
                _shown(f"{count:,} files, at every save", _in_turns(steps, times), PEER)

    def tried(self, name: str) -> Step:
        return self.timed(name, lambda: (HOMEPORT, "-q", "-e", name, "try"))

    def command(self, name: str, *rsync: str, via: str = "") -> Step:
        """The peer: files, then a restart, one after the other."""
        again = f"{via} {FAR} pm2 restart copy" if via else "pm2 restart copy"
        return self.timed(name, lambda: ("/bin/sh", "-c", f'"$@" && {again}', "sh", *rsync))

    def timed(self, name: str, argv: Callable[[], tuple[str, ...]]) -> Step:
        def step() -> Took:
            self.here.change_one()
            began = time.perf_counter()
            with subprocess.Popen(argv(), cwd=self.here.clone, env=self.here.env, stdout=subprocess.DEVNULL) as child:
                self.until_live(name)
                live = time.perf_counter() - began
            if child.returncode:
                raise SystemExit(f"{argv()} ended with {child.returncode}")
            return Took(live, time.perf_counter() - began)

        return step

    def saved(self, name: str) -> Step:
        def step() -> Took:
            self.here.change_one()
            began = time.perf_counter()
            self.until_live(name)
            return Took(time.perf_counter() - began, time.perf_counter() - began)

        return step

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        argv = [HOMEPORT, "-q", "-e", name, "try", "--watch"]
        with subprocess.Popen(argv, cwd=self.here.clone, env=self.here.env, stdout=subprocess.DEVNULL) as child:
            try:
                self.until_live(name)
                time.sleep(3)
                yield
                time.sleep(3)  # the last try ends before Ctrl-C would cancel it
            finally:
                child.send_signal(signal.SIGINT)

    def floors(self, times: int) -> None:
        """What a restart takes with nothing around it, until the process answers: no try can be faster."""
        env = self.here.env
        steps = {
            "pm2 restart, its command line": self.restarted("copy", lambda: run("pm2", "restart", "copy", env=env)),
            "pm2's own restart, asked over its socket": self.restarted("copy", lambda: self.by_socket("copy")),
            "the same, as homeport registers a process": self.restarted("near-pm2", lambda: self.by_socket("near-pm2")),
            "node server.js, started until it answers": self.bare,
        }
        for name, took in _in_turns(steps, times).items():
            print(f"         of which {name:<44} {took.live * 1000:9,.0f} ms")

    def restarted(self, name: str, restart: Callable[[], object]) -> Step:
        def step() -> Took:
            began = time.perf_counter()
            restart()
            returned = time.perf_counter() - began
            while not _answer(self.ports[name]):
                time.sleep(0.002)
            return Took(time.perf_counter() - began, returned)

        return step

    def by_socket(self, name: str) -> None:
        with Pm2Socket(f"{self.here.env['PM2_HOME']}/rpc.sock") as pm2:
            (row,) = (row for row in pm2.call("getMonitorData", {}) if row["name"] == name)
            pm2.call("restartProcessId", {"id": row["pm_id"], "env": {}}, timeout=30)

    def bare(self) -> Took:
        port = _port()
        began = time.perf_counter()
        argv, env = ("node", "server.js"), {**self.here.env, "PORT": str(port)}
        with subprocess.Popen(argv, cwd=self.copy, env=env, stdout=subprocess.DEVNULL) as child:
            while not _answer(port):
                time.sleep(0.002)
            took = time.perf_counter() - began
            child.kill()
        return Took(took, took)

    def until_live(self, name: str) -> None:
        """Waits until the service answers with what was saved."""
        wanted, deadline = self.page.read_bytes()[:60], time.monotonic() + 120
        while wanted not in _answer(self.ports[name]):
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} never answered with what was saved")
            time.sleep(0.002)


def _answer(port: int) -> bytes:
    """What a new connection is answered; empty when there is nobody."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as asking:
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = b""
            while more := asking.recv(4096):
                said += more
            return said
    except OSError:
        return b""


def _folder_of(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is not installed"
    return os.path.dirname(found)


def _in_turns(steps: Mapping[str, Step], times: int) -> dict[str, Took]:
    """Medians. All are run once unmeasured, then in turns."""
    took: dict[str, list[Took]] = {name: [] for name in steps}
    for number in range(times + 1):
        for name, step in steps.items():
            found = step()
            if number:
                took[name].append(found)
    return {name: Took(statistics.median(t.live for t in all_), statistics.median(t.returned for t in all_))
            for name, all_ in took.items()}  # fmt: skip


def _shown(case: str, took: Mapping[str, Took], peer: str) -> None:
    """A table for each of homeport's ways against the peer, and when the commands had returned."""
    for name in took:
        if name != peer:
            table(case, {name: took[name].live, peer: took[peer].live}, name)
            print(f"         returned after {took[name].returned * 1000:,.0f} ms, the peer after "
                  f"{took[peer].returned * 1000:,.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
