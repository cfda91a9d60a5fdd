"""Real machines over a real sshd: a laptop and two hosts on loopback, each with its own identity, state and live folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.world import PROGRAM, Ran, World, commands_on, eventually

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PROJECT = """\
[project]
name = "shop"

[environments.production]
branch = "main"
hosts = ["prod-1"]

[environments.staging]
branch = "staging"
hosts = ["stage-1"]

[hosts.prod-1]
ssh = "prod.example.com"

[hosts.stage-1]
ssh = "stage.example.com"

[services.site]
source = "site"
target = "{prod}"
environments = ["production"]

[services.preview]
source = "site"
target = "{stage}"
environments = ["staging"]
"""


@dataclass
class Machine:
    """One host: an sshd of its own, whose sessions see this machine's state, host file and HOME."""

    root: Path
    name: str
    environment: str
    port: int
    sshd: subprocess.Popen[bytes] | None = None
    more: dict[str, str] = field(default_factory=dict)
    """Further variables of its sessions; a PATH here is looked through after its own tools."""

    def __post_init__(self) -> None:
        self.home, self.live, self.state = self.root / "home", self.root / "live", self.root / "state"
        self.host_file = self.root / "host.toml"
        for folder in (self.home / ".ssh", self.live):
            folder.mkdir(parents=True)
        self.authorized = self.home / ".ssh/authorized_keys"
        self.tools = self.root / "tools"
        self.tools.mkdir()
        self.identify(self.name)

    def identify(self, name: str, more: str = "") -> None:
        self.host_file.write_text(
            f'name = "{name}"\nenvironments = ["{self.environment}"]\nroots = ["{self.live}"]\nunits = ["*"]\n{more}'
        )

    @property
    def git_wrapper(self) -> Path:
        """A git of this machine's own, first on its PATH once it is written."""
        return self.tools / "git"

    @property
    def env(self) -> dict[str, str]:
        return {
            **self.more, "HOME": str(self.home), "LANG": "C.UTF-8",
            "PATH": ":".join([f"{self.tools}:{PROGRAM.parent}", *filter(None, [self.more.get("PATH")]),
                              "/usr/local/bin:/usr/bin:/bin"]),
            "HOMEPORT_STATE": str(self.state), "HOMEPORT_HOST_FILE": str(self.host_file),
        }  # fmt: skip

    def homeport(self, *args: str, ok: tuple[int, ...] | None = (0,)) -> Ran:
        """Runs the program on this machine itself."""
        argv = [str(PROGRAM), "-p", "shop", "-e", self.environment, *args]
        done = subprocess.run(argv, cwd=self.home, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        ran = Ran(argv, done.returncode, done.stdout, done.stderr)
        assert ok is None or ran.code in ok, f"{args} ended with {ran.code}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def text(self, name: str) -> str:
        return (self.live / name).read_text()

    def serve(self, keys: Path, before: tuple[str, ...] = ()) -> None:
        """Starts its sshd; `before` is put before the command (to start it in a namespace)."""
        assert SSHD, "sshd is not installed; ./dev test installs it"
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        environment = " ".join(f'"{name}={value}"' for name, value in self.env.items())
        config = self.root / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {keys / self.name}\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {self.authorized}\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nSetEnv {environment}\n"
        )
        self._listen(before)

    def _listen(self, before: tuple[str, ...]) -> None:
        assert SSHD
        with open(self.root / "sshd.log", "wb") as log:
            argv = [*before, SSHD, "-D", "-e", "-f", str(self.root / "sshd_config")]
            self.sshd = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
        eventually(lambda: "listening" in (self.root / "sshd.log").read_text(), f"sshd of {self.name} listens")

    def restart(self) -> None:
        """Its sshd anew, with the configuration as it is now; connections end."""
        assert self.sshd is not None and SSHD
        self.cut()
        self.sshd.kill()
        self.sshd.wait()
        self._listen(())

    def sessions(self) -> list[int]:
        """The processes of sshd that serve a connection."""
        assert self.sshd is not None
        return children(self.sshd.pid)

    def cut(self) -> None:
        """kill -9 for every connection: what a broken network or a killed sshd child looks like."""
        for pid in self.sessions():
            for each in [*(p for p in children(pid) if name_of(p).startswith("sshd")), pid]:
                kill(each)

    def working(self) -> list[int]:
        """Processes of homeport on this machine."""
        return list(commands_on(self.state))

    def close(self) -> None:
        for pid in self.working():
            kill(pid)
        if self.sshd is not None:
            self.cut()
            self.sshd.kill()
            self.sshd.wait()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@dataclass
class Fleet:
    """The laptop (a World with a clone) and the machines it reaches."""

    laptop: World
    keys: Path
    runtime: Path
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def prod(self) -> Machine:
        return self.machines["prod-1"]

    @property
    def stage(self) -> Machine:
        return self.machines["stage-1"]

    def add(self, name: str, environment: str, alias: str, before: tuple[str, ...] = (),
            more: dict[str, str] | None = None) -> Machine:  # fmt: skip
        made = Machine(self.laptop.root / name, name, environment, self.laptop.free_port(), more=more or {})
        shutil.copyfile(self.keys / "person.pub", made.authorized)
        made.serve(self.keys, before)
        self.machines[name] = made
        with open(self.laptop.root / "ssh_config", "a") as config:
            config.write(f"Host {alias}\n  HostName 127.0.0.1\n  Port {made.port}\n  HostKeyAlias {name}\n")
        with open(self.laptop.root / "known_hosts", "a") as known:
            known.write(f"{name} {(self.keys / (name + '.pub')).read_text()}")
        return made

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(PROGRAM), *args], cwd=self.laptop.clone, env=self.laptop.env, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def homeport(self, *args: str, ok: tuple[int, ...] | None = (0,), env: dict[str, str] | None = None) -> Ran:
        return self.laptop.homeport(*args, ok=ok, env=env)

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()
        self.laptop.close()
        shutil.rmtree(self.runtime)


@dataclass
class Laptop(World):
    """A World whose ssh reads this test's own configuration, whose PATH has it first."""

    runtime: Path = Path("/nonexistent")

    @property
    def env(self) -> dict[str, str]:
        told = super().env
        return {**told, "PATH": f"{self.root / 'bin'}:{told['PATH']}", "XDG_RUNTIME_DIR": str(self.runtime)}


def introduce(fleet: Fleet, machine: Machine) -> None:
    """What a first look from a checkout on the machine itself leaves there."""
    argv = [str(PROGRAM), "-C", str(fleet.laptop.clone), "-e", machine.environment, "plan"]
    done = subprocess.run(argv, env=machine.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
