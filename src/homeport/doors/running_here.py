"""What runs on this machine, for a first homeport.toml: asked of pm2, systemd and Docker, where there are any."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from homeport.doors.runtimes.docker import PROJECT, SERVICE
from homeport.doors.runtimes.pm2 import NO_DAEMON
from homeport.doors.runtimes.pm2_list import find_list
from homeport.doors.runtimes.pm2_socket import daemon_listens
from homeport.doors.shell import scrubbed
from homeport.model.errors import HomeportError
from homeport.model.ports import Shell
from homeport.model.running import Seen

FOLDER = "com.docker.compose.project.working_dir"


def found_here(shell: Shell) -> list[Seen]:
    """Each once, in the order of their names. A runtime that is not there, or does not answer, has nothing."""
    found: set[Seen] = set()
    for ask in (_pm2, _systemd, _compose):
        try:
            found.update(ask(shell))
        except HomeportError:
            continue
    return sorted(found, key=lambda one: (one.runtime, one.unit, one.folder))


def _pm2(shell: Shell) -> Iterator[Seen]:
    """Of the daemon of whoever asks; none is started."""
    home = os.environ.get("PM2_HOME") or os.path.expanduser("~/.pm2")
    if daemon_listens(os.path.join(home, "rpc.sock")):
        done = shell.run(["pm2", "jlist"], timeout=30.0, env={**scrubbed(), **NO_DAEMON, "PM2_HOME": home})
        for row in find_list(done.stdout.decode("utf-8", "replace")):
            yield Seen(runtime="pm2", unit=str(row.get("name") or ""), folder=str(row["pm2_env"].get("pm_cwd") or ""))


def _systemd(shell: Shell) -> Iterator[Seen]:
    """Running services that work in a folder of their own, as applications do and the system's parts do not."""
    whose = [] if os.geteuid() == 0 else ["--user"]
    session = {name: value for name, value in os.environ.items() if name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")}
    env = {**scrubbed(), **session}
    done = shell.run(["systemctl", *whose, "list-units", "--type=service", "--state=running", "--plain", "--no-legend",
                      "--no-pager"], timeout=30.0, env=env)  # fmt: skip
    names = [line.split()[0] for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    if not names:
        return
    show = ["systemctl", *whose, "show", "--property=Id,WorkingDirectory", "--no-pager", "--", *names]
    done = shell.run(show, timeout=30.0, env=env)
    for block in done.stdout.decode("utf-8", "replace").split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if told.get("WorkingDirectory", "").lstrip("!").startswith("/"):
            yield Seen(runtime="systemd", unit=told.get("Id", "").removesuffix(".service"),
                       folder=told["WorkingDirectory"].lstrip("!"))  # fmt: skip


def _compose(shell: Shell) -> Iterator[Seen]:
    """Each Compose project whose containers run, with all its services as one unit."""
    engine = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    done = shell.run(["docker", "ps", "--format", "{{json .Labels}}"], timeout=20.0, env={**scrubbed(), **engine})
    projects: dict[tuple[str, str], set[str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        labels = dict(pair.split("=", 1) for pair in json.loads(line).split(",") if "=" in pair)
        if labels.get(SERVICE) and labels.get(FOLDER):
            projects.setdefault((labels.get(PROJECT, ""), labels[FOLDER]), set()).add(labels[SERVICE])
    for (_, folder), services in projects.items():
        yield Seen(runtime="compose", unit=" ".join(sorted(services)), folder=folder)
