"""`homeport demo`: a small real monorepo, deployed, edited by hand, broken and rolled back, in a sandbox.

Everything happens in one folder: an origin repository, a clone, the live folders of a "server", homeport's
state and a pm2 of its own. Real git, real pm2, free loopback ports; nothing is left running at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from homeport.model.errors import Failed, UsageFault
from homeport.model.ports import Completed, Shell

PROJECT = Path(__file__).parent / "demo_project"
ANY_CODE = range(256)
NEEDS = {"git": "apt-get install git", "node": "apt-get install nodejs npm", "pm2": "npm install -g pm2"}
"""Tools of the demo, and how to get them."""


@dataclass(frozen=True)
class Sandbox:
    """The folder of one demo and how commands run in it."""

    root: Path
    shell: Shell
    api_port: int
    web_port: int

    @property
    def clone(self) -> Path:
        return self.root / "shop"

    @property
    def live(self) -> Path:
        return self.root / "server"

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of every command: nothing of the caller's but the search path."""
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.root / "home"),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "PM2_HOME": str(self.root / "pm2"),
            "HOMEPORT_STATE": str(self.root / "state"),
            "HOMEPORT_HOST_FILE": str(self.root / "host.toml"),
        }

    def tool(self, *argv: str, cwd: Path | None = None) -> str:
        done = self.shell.run(argv, cwd=str(cwd or self.clone), env=self.env, timeout=120.0)
        return done.stdout.decode("utf-8", "replace")

    def homeport(self, *args: str, expect: int = 0) -> None:
        """Shows the command and what it says. Raises Failed when its exit code is not the expected one."""
        say(f"\n  $ homeport {' '.join(args)}")
        argv = [sys.executable, "-m", "homeport.cli.main", *args]
        done = self.shell.run(argv, cwd=str(self.clone), env=self.env, timeout=180.0, ok=ANY_CODE)
        show(done)
        if done.code != expect:
            raise Failed(
                f"the demo expected exit code {expect} and got {done.code}",
                where=f"homeport {' '.join(args)}", next="homeport demo FOLDER and look there", code="demo",
            )  # fmt: skip

    def push(self, name: str, text: str, message: str) -> None:
        (self.clone / name).write_text(text, encoding="utf-8")
        self.tool("git", "add", "-A")
        self.tool("git", "commit", "-q", "-m", message)
        self.tool("git", "push", "-q", "origin", "HEAD:main")
        say(f"\n  $ git commit -m {message!r} && git push")

    def answer(self, port: int, path: str) -> None:
        """Shows what a service answers, over a new connection."""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        say(f"\n  $ curl http://127.0.0.1:{port}{path}")
        say(f"    {head.splitlines()[0].decode()}  {body.decode('utf-8', 'replace').strip()}")


def run(folder: str | None = None, shell: Shell | None = None) -> int:
    """Plays the demo in `folder` (kept afterwards), or in a temporary one that is removed; returns 0.

    Raises UsageFault when the folder is not empty or a tool is missing, Failed when a step ends otherwise
    than it must.
    """
    if shell is None:
        from homeport.wiring import LocalShell  # type: ignore[attr-defined]  # wiring names it for its own use

        shell = LocalShell()
    for tool, hint in NEEDS.items():
        if shutil.which(tool) is None:
            raise UsageFault(f"the demo needs {tool}, which is not on the PATH", where="demo", next=hint)
    with _folder(folder) as root, _ending_on_signals():
        api_port, web_port = _free_ports()
        sandbox = Sandbox(root=root, shell=shell, api_port=api_port, web_port=web_port)
        try:
            _lay_out(sandbox)
            _play(sandbox)
        finally:
            if (root / "pm2").exists():
                shell.run(["pm2", "kill"], env=sandbox.env, timeout=60.0, ok=ANY_CODE)
    say("\nThe services of the demo are stopped; nothing is left running.")
    return 0


def _play(box: Sandbox) -> None:
    """The story, in the order a person would live it."""
    title("1. A commit becomes running services")
    box.homeport("plan")
    box.homeport("deploy")
    box.answer(box.api_port, "/things")
    box.answer(box.web_port, "/")

    title("2. The same commit again: nothing to do, nothing restarted")
    box.homeport("deploy")

    title("3. A change of one service touches that service only")
    things = (box.clone / "api/things.json").read_text(encoding="utf-8").replace('"price": 9', '"price": 11')
    box.push("api/things.json", things, "Rope got dearer")
    box.homeport("plan")
    box.homeport("deploy")
    box.answer(box.api_port, "/things")

    title("4. Somebody edits a file on the server; the next deploy stops instead of losing it")
    live = box.live / "web/app.py"
    say(f"\n  $ sed -i 's/The demo shop/The best shop/' {live}")
    edited = live.read_text(encoding="utf-8").replace("The demo shop", "The best shop")
    live.write_text(edited, encoding="utf-8")
    box.push("site/pages/hours.txt", "Opening hours\n\nEvery day, nine to six.\n", "Longer hours")
    box.homeport("deploy", expect=3)
    box.homeport("drift", expect=3)
    box.homeport("diff", "web", expect=3)
    say("\n  Put it back, with the bytes saved first, and deploy:")
    box.homeport("deploy", "--discard-drift")
    box.homeport("rescue", "list")

    title("5. A commit that breaks the health check is rolled back by itself")
    box.push("api/things.json", "[]\n", "Sold out")
    box.homeport("deploy", expect=1)
    box.answer(box.api_port, "/things")

    title("6. What is live, and how it came to be")
    box.homeport("status")
    box.homeport("history")


def _lay_out(box: Sandbox) -> None:
    """The origin, the clone with the project committed and pushed, and the server's folders."""
    for folder in (box.live, box.root / "home"):
        folder.mkdir()
    (box.root / "host.toml").write_text(
        f'name = "demo-host"\nenvironments = ["production"]\nroots = ["{box.live}"]\nunits = ["demo-*"]\n',
        encoding="utf-8",
    )
    box.tool("git", "init", "-q", "--bare", "-b", "main", "origin.git", cwd=box.root)
    box.tool("git", "clone", "-q", "origin.git", "shop", cwd=box.root)
    shutil.copytree(PROJECT, box.clone, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (box.clone / "gitignore").rename(box.clone / ".gitignore")
    config = box.clone / "homeport.toml"
    text = config.read_text(encoding="utf-8")
    node, python = shutil.which("node"), shutil.which("python3")
    words = {
        "live": box.live, "api_port": box.api_port, "web_port": box.web_port,
        "node": Path(node or sys.executable).parent, "python": Path(python or sys.executable).parent,
    }  # fmt: skip
    for word, value in words.items():
        text = text.replace("{" + word + "}", str(value))
    config.write_text(text, encoding="utf-8")
    box.tool("git", "config", "user.name", "Ada Example")
    box.tool("git", "config", "user.email", "ada@example.com")
    box.tool("git", "checkout", "-q", "-B", "main")
    box.tool("git", "add", "-A")
    box.tool("git", "commit", "-q", "-m", "A shop: API, front page and site")
    box.tool("git", "push", "-q", "-u", "origin", "main")
    say(f"A sandbox in {box.root}: the origin, a clone in shop/, the live folders in server/.")


@contextmanager
def _folder(named: str | None) -> Iterator[Path]:
    """The folder as asked for, or a temporary one that goes at the end."""
    if named is None:
        with tempfile.TemporaryDirectory(prefix="homeport-demo-", ignore_cleanup_errors=True) as made:
            yield Path(made).resolve()
        return
    root = Path(named).resolve()
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise UsageFault("the demo wants an empty folder", where=str(root), next="homeport demo")
    yield root


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """A terminated demo cleans up too."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports() -> tuple[int, int]:
    """Two different loopback ports that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def title(text: str) -> None:
    say(f"\n\n{text}\n{'-' * len(text)}")


def show(done: Completed) -> None:
    for line in (done.stdout + done.stderr).decode("utf-8", "replace").splitlines():
        say(f"    {line}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
