"""A real Docker engine for tests, on a socket of its own: it and all that it starts end with the test.

There is no registry: `homeport-test/box` is busybox, built from nothing. Containers use the machine's network, on
loopback, since a bridge would need the machine's firewall.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.conftest import REPOSITORY

BOX = "homeport-test/box"
CADDY = "homeport-test/caddy"
PLUGIN = "docker-compose"


def find_compose() -> Path | None:
    """Compose v2 as a plugin of the docker client: the system's, or what `./dev setup` brought."""
    own = f"{REPOSITORY}/.dev/compose/usr/libexec/docker"
    places = ["/usr/libexec/docker", "/usr/lib/docker", "/usr/local/lib/docker", own]
    named = os.environ.get("HOMEPORT_TEST_COMPOSE")
    found = [Path(named)] if named else [Path(place) / "cli-plugins" / PLUGIN for place in places]
    return next((path for path in found if path.exists()), None)


def find_caddy() -> str | None:
    """The real Caddy: HOMEPORT_TEST_CADDY, the PATH, or what `./dev setup` brought."""
    own = REPOSITORY / ".dev/proxies/usr/bin/caddy"
    return os.environ.get("HOMEPORT_TEST_CADDY") or shutil.which("caddy") or (str(own) if own.exists() else None)


def find_old_compose() -> str | None:
    """The older docker-compose, where the system has one; on newer systems that name is Compose v2."""
    found = shutil.which("docker-compose")
    if found is None:
        return None
    said = subprocess.run([found, "version", "--short"], capture_output=True, text=True).stdout
    return found if said.startswith("1.") else None


def why_not() -> str:
    """Why this machine cannot run an engine; empty when it can."""
    if os.geteuid() != 0:
        return "a Docker engine of the test's own needs root"
    missing = [name for name in ("dockerd", "docker", "busybox", "unshare") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed; ./dev setup installs it"
    return "" if find_compose() else "Compose v2 is not installed; ./dev setup installs it"


class DockerHost:
    """One running engine. `env` reaches it, with Compose v2 as its plugin; `old` has only the older docker-compose."""

    def __init__(self, folder: Path, *, swarm: bool = False) -> None:
        """`swarm`: a swarm of this one node, in a network of its own, for Swarm's ports cannot be chosen; `enter` are
        the words before a command that is to run in there."""
        self.folder = folder
        # the path of a Unix socket has room for about a hundred bytes
        self._run = Path(tempfile.mkdtemp(prefix="hp-docker-"))
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        plugin = find_compose()
        assert plugin is not None
        (plugins / PLUGIN).symlink_to(plugin)
        (folder / "no-plugins").mkdir()
        self.env = {"DOCKER_HOST": f"unix://{self._run}/d.sock", "DOCKER_CONFIG": str(folder / "config")}
        self.old = {**self.env, "DOCKER_CONFIG": str(folder / "no-plugins")}
        self._log = folder / "dockerd.log"
        apart = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-"] if swarm else []
        argv = [*apart, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "dockerd",
                "--host", self.env["DOCKER_HOST"], "--data-root", str(folder / "data"), "--exec-root", str(self._run / "x"),
                "--pidfile", str(self._run / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false",
                "--ip-forward=false", "--ip-masq=false", "--shutdown-timeout=1"]  # fmt: skip
        with self._log.open("wb") as log:
            self._engine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait_ready()
            self._make_box()
            if swarm:
                self.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        except BaseException:
            self.close()
            raise

    def docker(self, *args: str, ok: bool = True) -> str:
        done = subprocess.run(["docker", *args], env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60)
        assert not ok or done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._engine.pid}/ns/net", "--"]

    def pause(self, paused: bool) -> None:
        """Takes the socket away, as when the engine is down, or puts it back."""
        here, away = self._run / "d.sock", self._run / "away.sock"
        (here.rename(away) if paused else away.rename(here))

    def close(self) -> None:
        if self._engine.poll() is None:
            left = self.docker("ps", "--all", "--quiet", ok=False).split()
            if left:
                self.docker("rm", "--force", *left, ok=False)
            self._engine.kill()
        self._engine.wait()
        shutil.rmtree(self._run, ignore_errors=True)

    def make_caddy(self) -> None:
        """`homeport-test/caddy`: the program and the libraries that it names, nothing else."""
        program = find_caddy()
        assert program is not None
        context = self.folder / "caddy"
        (context / "root/bin").mkdir(parents=True)
        shutil.copy(program, context / "root/bin/caddy")
        said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for library in (word for word in said.split() if word.startswith("/")):
            place = context / "root" / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, place)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
        self.docker("build", "--quiet", "--tag", CADDY, str(context))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 30
        while not self.docker("version", "--format", "{{.Server.Version}}", ok=False):
            assert self._engine.poll() is None, self._log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)

    def _make_box(self) -> None:
        context = self.folder / "box"
        context.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, context / "busybox")
        (context / "Dockerfile").write_text(
            "FROM scratch\nCOPY busybox /bin/busybox\n"
            'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        )  # fmt: skip
        self.docker("build", "--quiet", "--tag", BOX, str(context))
