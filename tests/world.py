"""A small world for one scenario: an origin, a clone to work in, a live root and the installed program.

Everything lies in one temporary folder and no variable of the caller reaches it: scenarios run side by side.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import QUICK, find_pm2
from tests.loaded import Loaded, loaded
from tests.ports import claimed_port

PROGRAM = Path(sys.executable).parent / "homeport"
REAL = bool(os.environ.get("HOMEPORT_TEST_STARTS"))
"""Every command is started from nothing."""

NODE_SERVER = """\
const http = require("http");
const fs = require("fs");
const version = fs.readFileSync(__dirname + "/version.txt", "utf8").trim();
const answer = process.env.GREETING || "hello";
http.createServer((request, response) => {
  const broken = version === "broken" && request.url === "/health" && !fs.existsSync(__dirname + "/../mended");
  response.writeHead(broken ? 500 : 200);
  response.end(`${answer} ${version} ${process.pid}`);
}).listen(Number(process.env.PORT), "127.0.0.1");
"""
"""Answers with its greeting, its version and its process id; version `broken` fails its health until a file `mended`
stands beside its folder."""


@dataclass(frozen=True)
class Ran:
    """What one command said."""

    argv: list[str]
    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines it printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]


@dataclass
class World:
    root: Path
    enter: Callable[[Path], list[str]] = field(default=lambda cwd: [])
    """The words before the program: into another world (tests/systemd_host.py), started in that folder."""
    more: dict[str, str] = field(default_factory=dict)
    """Further variables for the program."""
    _pm2_used: bool = field(default=False)
    _claims: list[socket.socket] = field(default_factory=list)
    """One for each port, until the end."""
    _started: bool = field(default=False)

    def __post_init__(self) -> None:
        self.origin, self.clone = self.root / "origin.git", self.root / "clone"
        self.live, self.state = self.root / "live", self.root / "state"
        self.home, self.pm2_home = self.root / "home", self.root / "pm2"
        self.host_file = self.root / "host.toml"
        for folder in (self.live, self.home):
            folder.mkdir()
        self.host_file.write_text(
            f'name = "host-1"\nenvironments = ["production"]\nroots = ["{self.live}"]\nunits = ["*"]\n'
        )
        self._make_repositories()

    def _make_repositories(self) -> None:
        """An empty origin, and a clone of it whose person has a name: as `git clone` leaves them, in two commands."""
        self.git("init", "-q", "--bare", "-b", "main", str(self.origin), cwd=self.root)
        self.git("init", "-q", "-b", "main", str(self.clone), cwd=self.root)
        with open(self.origin / "config", "a") as config:
            config.write("\tfsync = none\n[receive]\n\tautogc = false\n")
        with open(self.clone / ".git/config", "a") as config:
            config.write(
                f'[remote "origin"]\n\turl = {self.origin}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
                '[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n'
                "[user]\n\tname = Ada Example\n\temail = ada@example.com\n"
            )

    @property
    def env(self) -> dict[str, str]:
        pm2 = find_pm2()
        folders = [
            str(PROGRAM.parent),
            *([str(Path(pm2).parent)] if pm2 else []),
            "/usr/local/bin",
            "/usr/bin",
            "/bin",
        ]
        return {
            "PATH": os.pathsep.join(folders),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PM2_HOME": str(self.pm2_home),
            "HOMEPORT_STATE": str(self.state),
            "HOMEPORT_HOST_FILE": str(self.host_file),
            **self.more,
        }

    # the person's side: a clone

    def git(self, *args: str, cwd: Path | None = None) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_GLOBAL": "/dev/null",
               "GIT_CONFIG_NOSYSTEM": "1", **QUICK}  # fmt: skip
        done = subprocess.run(["git", *args], cwd=cwd or self.clone, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"git {args}: {done.stderr}"
        return done.stdout.strip()

    def write(self, files: dict[str, str | None]) -> None:
        """Writes (or with None removes) files of the clone."""
        for name, text in files.items():
            path = self.clone / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, message: str = "change") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.head()

    def push(self) -> str:
        self.git("push", "-q", "origin", "HEAD:main")
        return self.head()

    def head(self) -> str:
        """The commit that is checked out; git is asked only where it does not lie in a file of its own."""
        said = (self.clone / ".git/HEAD").read_text().strip().removeprefix("ref: ")
        ref = self.clone / ".git" / said
        return ref.read_text().strip() if ref.is_file() else self.git("rev-parse", "HEAD")

    def publish(self, files: dict[str, str | None], message: str = "change") -> str:
        """Writes, commits and pushes; returns the commit."""
        self.write(files)
        sha = self.commit(message)
        self.git("push", "-q", "origin", "HEAD:main")
        return sha

    def project(self, services: str, files: dict[str, str | None], environment: str = "") -> str:
        """Publishes a homeport.toml with these service tables (`{live}` is the live root) and these files."""
        text = (
            f'[project]\nname = "shop"\n\n[environments.production]\nbranch = "main"\n{environment}\n'
            + services.replace("{live}", str(self.live))
        )
        return self.publish({"homeport.toml": text, **files}, "first version")

    def patience(self, within: str) -> dict[str, str | None]:
        """homeport.toml, for `publish`, with that time for every check: long for a version that will answer however
        slow the machine is, short for one that never will."""
        text = (self.clone / "homeport.toml").read_text()
        return {"homeport.toml": re.sub(r'within = "[^"]*"', f'within = "{within}"', text)}

    # the program

    def homeport(self, *args: str, ok: tuple[int, ...] | None = (0,), env: dict[str, str] | None = None) -> Ran:
        """Runs the installed program in the clone; `ok=None` accepts every exit code."""
        argv = [*self.enter(self.clone), str(PROGRAM), *args]
        done = self.command(argv, self.clone, {**self.env, **(env or {})}, 100)
        ran = Ran(argv, done.returncode, done.stdout, done.stderr)
        assert ok is None or ran.code in ok, f"{args} ended with {ran.code}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    def command(self, argv: list[str], cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """The first command of a scenario is started as a shell starts it, the others by tests/loaded.py if it can."""
        first, self._started = not self._started, True
        if not (first or REAL) and argv[0] == str(PROGRAM) and Loaded.takes(argv, env):
            return loaded().run(argv, cwd, env, timeout)
        return subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )

    def json(self, *args: str, ok: tuple[int, ...] | None = (0,)) -> dict[str, Any]:
        """The last (or only) JSON object that a verb prints."""
        return self.homeport("--json", *args, ok=ok).last

    def deploy(self, *args: str, ok: tuple[int, ...] | None = (0,)) -> dict[str, Any]:
        return self.json("deploy", *args, ok=ok)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Starts the program and returns at once, its output in a pipe."""
        return subprocess.Popen(
            [*self.enter(self.clone), str(PROGRAM), *args], cwd=self.clone, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @contextmanager
    def waiting(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """The program in the background, once a command of what it carries out has printed `waiting`."""
        started = self.start("--json", *args)
        assert started.stdout is not None
        with started.stdout:
            for line in started.stdout:
                if json.loads(line).get("line") == "waiting":
                    break
            yield started

    def own_commands(self) -> dict[int, bytes]:
        """Processes of homeport itself that work on this world's state, and the command line of each: no service gets
        that variable from homeport, and none that pm2 runs gets it from a test."""
        return commands_on(self.state)

    def own_processes(self) -> list[int]:
        return list(self.own_commands())

    def kill_homeport(self) -> None:
        """kill -9 for every process of homeport in this world, also for one that another has just started, until all
        are gone."""

        def gone() -> bool:
            found = self.own_processes()
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        eventually(gone, "homeport's processes are gone")

    # what runs

    def pm2(self, *args: str) -> str:
        self._pm2_used = True
        program = find_pm2()
        assert program, "pm2 is not installed; ./dev setup installs it"
        env = {name: value for name, value in self.env.items() if name != "HOMEPORT_STATE"}
        done = subprocess.run([program, *args], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pm2_list(self) -> dict[str, dict[str, Any]]:
        return {app["name"]: app for app in json.loads(self.pm2("jlist").splitlines()[-1])}

    def free_port(self) -> int:
        """A loopback port that is this world's until its end."""
        port, claim = claimed_port()
        self._claims.append(claim)
        return port

    def get(self, port: int, path: str = "/") -> tuple[int, str]:
        """(status, body) over a new connection; (0, reason) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read().decode()
        except OSError as fault:
            return 0, str(fault)

    def sql(self, statement: str) -> None:
        """Changes homeport's own database, as time or a fault would."""
        with closing(sqlite3.connect(self.state / "shop" / "production" / "homeport.db")) as database, database:
            database.execute(statement)

    def kept(self) -> Iterator[tuple[Path, bytes]]:
        """Every file of homeport's own. What vanishes meanwhile is none: SQLite's go with the last process."""
        for folder, _, names in os.walk(self.state):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):
                    if path.is_file():
                        yield path, path.read_bytes()

    def text(self, name: str) -> str:
        """A live file."""
        return (self.live / name).read_text()

    def end_keepers(self) -> None:
        """Keepers outlive their supervisor, as they should; nothing of a scenario outlives it."""
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
                if b"supervisor/keeper.py" in words and f"{self.state}/".encode() in words:
                    os.kill(int(folder.name), signal.SIGKILL)

    def close(self) -> None:
        self.kill_homeport()
        self.end_keepers()
        pid_file = self.pm2_home / "pm2.pid"
        if pid_file.exists():
            self.pm2("kill")
        for claim in self._claims:
            claim.close()


def commands_on(state: Path) -> dict[int, bytes]:
    """Process id -> command line of each process of homeport that works on this state, found by its environment."""
    mark = b"\0HOMEPORT_STATE=%s\0" % str(state).encode()
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if mark in b"\0" + told_by_kernel(name, "environ"):
                command = told_by_kernel(name, "cmdline")
                if b"homeport" in command:
                    found[int(name)] = command
    return found


def told_by_kernel(pid: str, what: str) -> bytes:
    """A process's `environ` or `cmdline`. Both are empty for a moment at each exec, when it is asked again. Raises OSError
    for one that has ended, and for the kernel's own."""
    for _ in range(200):
        with open(f"/proc/{pid}/{what}", "rb", buffering=0) as file:
            if said := file.read():
                return said
        os.readlink(f"/proc/{pid}/exe")
        time.sleep(0.001)
    return b""


def eventually(condition: Callable[[], object], what: str, within: float = 20.0) -> None:
    """Waits for a condition; fails with its name when it does not come true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)
