"""The real daemon of a world, its socket, and services whose build waits for a word of the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.world import PROGRAM, World, eventually

WAITS = """
[services.web]
source = "web"
target = "{live}/web"
build = { run = ["sh", "build.sh"], outputs = ["dist"] }
checks = [{ command = ["sh", "-c", "test ! -e {hold}-verify"], within = "30s", every = "50ms" }]

[services.api]
source = "api"
target = "{live}/api"

[scopes.platform]
services = ["web"]
"""
BUILD = """\
echo begun; mkdir -p dist
n=0
while [ -e {hold} ]; do n=$((n+1)); echo "line $n"; sleep 0.02; done
cp page.txt dist/page.txt
grep -q broken page.txt && { echo "it does not compile" >&2; exit 3; }
echo "built after $n"
"""


@dataclass
class Daemon:
    world: World
    process: subprocess.Popen[str] | None = None
    place: Path | None = None
    """Where it listens, when not at its usual place."""
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(40))

    @property
    def socket(self) -> Path:
        return self.place or self.world.state / ".homeport.sock"

    @property
    def log(self) -> Path:
        return self.world.root / "daemon.log"

    def start(self, enter: Sequence[str] = ()) -> Daemon:
        """`enter`: the words before the program."""
        args = ["--socket", str(self.place)] if self.place else []
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [*enter, str(PROGRAM), "serve", *args], cwd=self.world.clone, env=self.world.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        eventually(lambda: self.answers() or self.process.poll() is not None, "the daemon answers")  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self) -> bool:
        """Tried with a bare connection first: httpx leaves one open when nobody listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return bool(self.ask("GET", "/healthz").status_code == 200)

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://localhost", timeout=60)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.request(method, path, **more)

    def deploy(self, **wanted: Any) -> httpx.Response:
        """`POST /api/v1/self/deploy`, until the end."""
        return self.ask("POST", "/api/v1/self/deploy", json=wanted)

    def deploying(self, **wanted: Any) -> Future[httpx.Response]:
        return self.pool.submit(self.deploy, **wanted)

    def kill(self) -> None:
        """kill -9 for the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def runners(self) -> list[int]:
        return [pid for pid, command in self.world.own_commands().items() if b"homeport.runner" in command]

    def kill_runner(self) -> None:
        """One that waits for its word ends by itself when the daemon has, maybe right now; a daemon that lives starts
        the next one soon."""
        killed = self.runners()
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not {*killed} & {*self.runners()}, "no runner is left")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)


class Waiting(World):
    """A world whose web service builds until the test lets go."""

    @property
    def hold(self) -> Path:
        return self.root / "hold"

    def make(self, environment: str = "converge = 0", more: str = "") -> str:
        """Unless told otherwise nobody but the test asks for deploys."""
        files: dict[str, str | None] = {"web/page.txt": "one\n", "api/a.txt": "one\n", ".gitignore": "dist/\n",
                                        "web/build.sh": BUILD.replace("{hold}", str(self.hold))}  # fmt: skip
        sha = self.project(WAITS.replace("{hold}", str(self.hold)) + more, files, environment)
        self.homeport("history")
        return sha

    def building(self) -> bool:
        """Whether the build of a deploy that runs has printed something."""
        journals = sorted((self.state / "shop/production/journal").glob("*.jsonl"))
        raw = journals[-1].read_bytes() if journals else b""
        return b'"line":"line ' in raw and b'{"type":"deploy.done"' not in raw
