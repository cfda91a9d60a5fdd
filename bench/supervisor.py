"""A restart under 200 requests/s: how many fail, and when the new version answers, against other process managers.

The same small Node server everywhere, half of the requests over kept-alive connections, some slow. The yardstick is a
bare SIGTERM, spawn and bind. Peers that are not installed (pm2; supervisord and circusd, on the PATH or in the folder
that $BENCH_PEERS names) are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _measure import HOMEPORT, World, asked, heading, row, run, world

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import supervisor_servers as servers
from tests.supervisor_rig import Client, Load, free_port

Restart = Callable[[], object]


class Place:
    """A folder with the servers, a port, and the version that is to be served next."""

    def __init__(self, made: World, name: str) -> None:
        self.root = made.root / name
        self.root.mkdir()
        self.port = free_port()
        self.number = 0
        servers.write(self.root, "v0")
        self.env = {**made.env, "PORT": str(self.port)}

    def next(self) -> str:
        self.number += 1
        (self.root / "version").write_text(f"v{self.number}")
        return f"v{self.number}"

    def version(self) -> str:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
            return str(answer.read().decode().strip())
        return ""

    def until(self, version: str) -> float:
        began = time.perf_counter()
        while self.version() != version:
            if time.perf_counter() - began > 30:
                raise SystemExit(f"{self.root.name} never answered {version}")
            time.sleep(0.002)
        return time.perf_counter() - began


def tool(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("BENCH_PEERS", ""), os.environ["PATH"]]))


@contextmanager
def background(place: Place, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(argv, cwd=place.root, env=place.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


@contextmanager
def bare(place: Place) -> Iterator[Restart]:
    running = [subprocess.Popen([servers.node(), "web.js"], cwd=place.root, env=place.env, stdout=subprocess.DEVNULL)]

    def restart() -> None:
        old = running.pop()
        old.terminate()
        old.wait()
        running.append(
            subprocess.Popen([servers.node(), "web.js"], cwd=place.root, env=place.env, stdout=subprocess.DEVNULL)
        )

    try:
        yield restart
    finally:
        running[0].terminate()
        running[0].wait()


@contextmanager
def ours(place: Place, handoff: str, command: Sequence[str]) -> Iterator[Restart]:
    path, state = place.root / "s.sock", place.root / "state"
    with background(place, sys.executable, "-m", "homeport.supervisor", "--socket", str(path), "--state", str(state)):
        while not path.exists():
            time.sleep(0.01)
        unit = {"name": "api", "command": list(command), "cwd": str(place.root), "handoff": handoff, "env": place.env,
                "listen": [f"127.0.0.1:{place.port}"]}  # fmt: skip

        def ask(op: str, **more: object) -> None:
            client = Client(path)
            answer = client.ask(op, **more)[-1]
            client.close()
            assert answer.get("ok"), answer

        ask("configure", units=[unit])
        ask("restart", scope="api")
        yield lambda: ask("restart", scope="api")
        ask("shutdown")


@contextmanager
def deployed(place: Place, made: World, service: str, runtime: str) -> Iterator[Restart]:
    """The whole command `homeport restart`, its record and its verification included."""
    (made.clone / "homeport.toml").write_text(
        '[project]\nname = "site"\n[environments.production]\nbranch = "main"\n'
        f'[services.{service}]\n{runtime}\n'
        f'command = ["{servers.node()}", "{place.root}/run.js"]\nlisten = "127.0.0.1:{place.port}"\n'
        f'env = {{ PORT = "{place.port}" }}\n'
    )
    (place.root / "run.js").write_text("process.chdir(__dirname); require('./web.js');\n")
    made.push()
    with subprocess.Popen([HOMEPORT, "supervise"], cwd=made.clone, env=made.env, stderr=subprocess.DEVNULL) as child:
        while not (made.state / "site/production/supervisor.sock").exists():
            time.sleep(0.01)
        made.homeport("deploy")
        yield lambda: made.homeport("restart", service)
        child.terminate()


@contextmanager
def pm2(place: Place, verb: str, *more: str) -> Iterator[Restart]:
    program = tool("pm2")
    assert program
    name = place.root.name
    run(program, "start", "web.js", "--name", name, *more, cwd=place.root, env=place.env)
    yield lambda: run(program, verb, name, "--update-env", cwd=place.root, env=place.env)
    run(program, "delete", name, cwd=place.root, env=place.env)


@contextmanager
def supervisord(place: Place) -> Iterator[Restart]:
    program, control = tool("supervisord"), tool("supervisorctl")
    assert program and control
    (place.root / "supervisord.conf").write_text(
        f"[unix_http_server]\nfile={place.root}/sd.sock\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisord]\nnodaemon=true\nlogfile={place.root}/sd.log\npidfile={place.root}/sd.pid\n"
        f"[supervisorctl]\nserverurl=unix://{place.root}/sd.sock\n"
        f"[program:api]\ncommand={servers.node()} web.js\ndirectory={place.root}\nstartsecs=1\n"
    )
    with background(place, program, "-c", "supervisord.conf"):
        place.until("v0")
        yield lambda: run(control, "-c", "supervisord.conf", "restart", "api", cwd=place.root, env=place.env)


@contextmanager
def circus(place: Place) -> Iterator[Restart]:
    program, control = tool("circusd"), tool("circusctl")
    assert program and control
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    (place.root / "circus.ini").write_text(
        f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = tcp://127.0.0.1:{free_port()}\n"
        f"[socket:web]\nhost = 127.0.0.1\nport = {place.port}\n"
        f"[watcher:api]\ncmd = env HOMEPORT_FD=$(circus.sockets.web) {servers.node()} fd.js\nuse_sockets = True\n"
        f"working_dir = {place.root}\ncopy_env = True\n"
    )
    with background(place, program, "circus.ini"):
        place.until("v0")
        yield lambda: run(control, "--endpoint", endpoint, "reload", "api", cwd=place.root, env=place.env)


def measured(place: Place, restart: Restart, times: int) -> tuple[float, float, float]:
    """Median seconds of the command and until a new connection meets the new version; failed requests a restart."""
    place.until(place.version() or "v0")
    commands, answers, failed = [], [], []
    for number in range(times + 1):
        load = Load(place.port)

        def change() -> tuple[float, float]:
            version = place.next()
            began = time.perf_counter()
            both = _together(restart, lambda: place.until(version))
            return both[0] - began, both[1] - began

        command, answered = asyncio.run(load.during(change))
        if number:
            commands.append(command)
            answers.append(answered)
            failed.append(len(load.failures))
    return statistics.median(commands), statistics.median(answers), statistics.mean(failed)


def _together(*steps: Callable[[], object]) -> list[float]:
    """When each of them ended."""
    from concurrent.futures import ThreadPoolExecutor

    def timed(step: Callable[[], object]) -> float:
        step()
        return time.perf_counter()

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(timed, steps))


def cases(made: World) -> Iterator[tuple[str, Callable[[Place], contextlib.AbstractContextManager[Restart]]]]:
    node = servers.node()
    yield "bare SIGTERM, spawn and bind", bare
    yield "homeport supervisor, shim", lambda place: ours(place, "shim", [node, "web.js"])
    yield "homeport supervisor, fd", lambda place: ours(place, "fd", [node, "fd.js"])
    yield "homeport supervisor, port", lambda place: ours(place, "port", [node, "web.js"])
    yield "homeport restart api, whole command", lambda place: deployed(place, made, "api", 'runtime = "supervisor"')
    if tool("pm2"):
        handed = 'runtime = "pm2"\nhandoff = "port"'
        yield "homeport restart under pm2, port", lambda place: deployed(place, made, "under", handed)
        yield "pm2 restart (fork)", lambda place: pm2(place, "restart")
        yield "pm2 reload (cluster x 2)", lambda place: pm2(place, "reload", "-i", "2")
    if tool("supervisord"):
        yield "supervisorctl restart", supervisord
    if tool("circusd"):
        yield "circusctl reload, its socket", circus


def main() -> None:
    arguments = asked("A restart under 200 requests/s", (1,), ())
    heading("A restart under 200 requests/s, the same Node server")
    print(f"\n  {'':<40} {'command ms':>11} {'answers ms':>11} {'of bare':>8} {'failed a restart':>17}")
    yardstick = 0.0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with world() as made:
        for number, (name, open_case) in enumerate(cases(made)):
            place = Place(made, f"case{number}")
            with open_case(place) as restart:
                command, answered, failed = measured(place, restart, arguments.times)
            yardstick = yardstick or answered
            figures = f"{command * 1000:11.0f} {answered * 1000:11.0f} {answered / yardstick:7.2f}x {failed:17.1f}"
            print(f"  {name:<40} {figures}")
            row(name, f"{answered / yardstick:.2f} x bare, {failed:.1f} failed", f"command {command * 1000:.0f} ms",
                f"answers after {answered * 1000:.0f} ms")  # fmt: skip
            sys.stdout.flush()


if __name__ == "__main__":
    main()
