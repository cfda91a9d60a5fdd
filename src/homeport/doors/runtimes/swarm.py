"""The swarm runtime: services of a stack. A start gives `docker stack deploy` a document of exactly these services with
the kept images in it, and waits until Swarm has replaced their tasks; a rollback only names older images.

Secrets, configs and networks are Swarm's: none is ever removed, and external ones are only named.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from homeport.doors.runtimes.compose import LONGEST_START, TAIL, Compose, repository, sees
from homeport.doors.runtimes.compose_file import Stack, containers_of, dotenv, read_yaml, stack_of
from homeport.doors.runtimes.docker import Docker
from homeport.doors.runtimes.surroundings import as_user
from homeport.doors.runtimes.swarm_tasks import (
    NAMESPACE,
    SwarmService,
    Task,
    converged,
    document,
    one_off,
    service_row,
    task_row,
)
from homeport.model.config import Command
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import OnLine, Shell
from homeport.model.running import Container, Inside, Restarted, Unit, UnitState

TRIES = 3
"""Tasks of the new version that may fail before the start counts as failed; Swarm itself would go on for ever."""
EVERY = 0.1
STOPPED = ("paused", "rollback_started", "rollback_paused", "rollback_completed")
"""States of an update that Swarm itself has given up."""


class Swarm:
    """Satisfies ImageRuntime."""

    name = "swarm"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._images = Compose(shell)

    def inspect(self, unit: Unit) -> UnitState:
        docker = Docker(self._shell, unit)
        try:
            stack = stack_of(unit)
            services = self._services(docker, stack)
            tasks = self._tasks(docker, services)
        except InfrastructureFault as fault:
            return UnitState(state="unknown", detail=fault.what)
        except Failed as fault:
            return UnitState(state="missing", detail=fault.what)
        own = _own(stack, services)
        state, detail = _summed(stack, own, tasks)
        failed = [task for task in tasks if task.over and any(task.service_id == s.id for s in own)]
        running = [task.pid for task in tasks if task.wanted and task.pid and any(task.service_id == s.id for s in own)]
        return UnitState(state=state, detail=detail, restarts=len(failed), pid=running[0] if running else None,
                         containers=tuple(_containers(services, tasks)))  # fmt: skip

    def containers(self, units: Sequence[Unit]) -> list[Container]:
        return containers_of(units, self._running)

    def _running(self, unit: Unit, stack: Stack) -> list[Container]:
        docker = Docker(self._shell, unit)
        services = self._services(docker, stack)
        return _containers(services, self._tasks(docker, services))

    def stale(self, units: Sequence[Unit]) -> dict[str, str]:
        """Only tasks of this node whose image is named without a digest can be told."""
        found: dict[str, str] = {}
        for unit in units:
            docker = Docker(self._shell, unit)
            try:
                stack = stack_of(unit)
                own = _own(stack, self._services(docker, stack))
                runs = docker.images_of([t.container for t in self._tasks(docker, own) if t.wanted and t.container])
                now = docker.image_ids(sorted({name for name, _ in runs.values() if "@" not in name}))
            except Failed:
                continue
            for name, image in runs.values():
                if now.get(name) not in (image, None):
                    found[unit.service] = f"a task of {unit.name} runs an image that {name} is not any more"
        return found

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises Failed: `no-compose`, `bad-compose`, `restart`, `not-ready` with what Swarm says of the tasks."""
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        config = self._config(unit, stack)
        before = {service.name: service for service in self._services(docker, stack)}
        known = {task.id for task in self._tasks(docker, list(before.values()))}
        self._keep(unit, stack, docker, before)
        chosen = () if unit.on_change == "up" else stack.services
        named = {name: self._image(unit, stack, docker, name, said) for name, said in config["services"].items()}
        images = {name: image for name, image in named.items() if image}
        local = any(docker.image_id(ref) and not docker.has_digest(ref) for ref in images.values())
        with tempfile.NamedTemporaryFile("wb", suffix=".json", prefix="homeport-stack-") as file:
            file.write(msgspec.json.encode(document(config, chosen, images)))
            file.flush()
            words = ["docker", "stack", "deploy", "--with-registry-auth", "--resolve-image",
                     "never" if local else "changed", "--compose-file", file.name, stack.project]  # fmt: skip
            docker.job(words, stack.folder, on_line, f"start of {unit.service}", "restart", LONGEST_START)
        self._restart_same(unit, stack, docker, before, on_line)
        self._wait(unit, stack, docker, known, on_line)
        own = _own(stack, self._services(docker, stack))
        pids = [task.pid for task in self._tasks(docker, own) if task.wanted and task.pid]
        return Restarted(pid=pids[0] if pids else None, registered=not any(s.name in before for s in own))

    def forget(self, unit: Unit) -> None:
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        docker.run("service", "rm", *(f"{stack.project}_{name}" for name in stack.services), ok=(0, 1))

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        last: dict[str, str] = {}
        while True:
            own = _own(stack, self._services(docker, stack))
            for service in own:
                before = f"{service.name}: " if len(own) > 1 else ""
                asked = ["--since", last[service.id]] if service.id in last else ["--tail", str(lines)]
                for stamp, text in self._printed(docker, service, asked):
                    if stamp > last.get(service.id, ""):
                        last[service.id] = stamp
                        yield before + text
            if not follow:
                return
            time.sleep(0.25)

    def has_images(self, unit: Unit) -> bool:
        return self._images.has_images(unit)

    def build(self, unit: Unit, folder: str, fresh: bool, on_line: OnLine) -> None:
        """By Compose, which the client needs for it."""
        self._images.build(unit, folder, fresh, on_line)

    def prune(self, unit: Unit, keep: int) -> None:
        self._images.prune(unit, keep)

    def validate(self, unit: Unit, command: Command, on_line: OnLine) -> None:
        """In a container of its own on this node: with the image, environment, folders and config files of the service,
        without its overlay networks and secrets."""
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        config = self._config(unit, stack)
        name = next(iter(stack.services or config["services"]))
        image = self._image(unit, stack, docker, name, config["services"][name])
        first, *rest = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        words = ["docker", "run", "--rm", *one_off(config, name), "--entrypoint", first, image or "", *rest]
        docker.job(words, stack.folder, on_line, f"validation of {unit.service}", "command", LONGEST_START)

    def inside(self, unit: Unit, command: Sequence[str], terminal: bool) -> Inside:
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        own = _own(stack, self._services(docker, stack))
        here = docker.images_of([t.container for t in self._tasks(docker, own) if t.wanted and t.container])
        if not here:
            raise Failed(f"no task of {unit.name} runs on this node", where=f"services.{unit.service}", code="not-here",
                         next=f"docker stack ps {stack.project}")  # fmt: skip
        argv = (*as_user(unit), "docker", "exec", "-i", *(["-t"] if terminal else []), next(iter(here)))
        return Inside(argv=(*argv, *(command or ("/bin/sh",))), cwd=stack.folder, env=docker.environment())

    def _keep(self, unit: Unit, stack: Stack, docker: Docker, before: dict[str, SwarmService]) -> None:
        """What runs now goes on under a kept name, for a rollback to before homeport knew the service."""
        for name in stack.services:
            ours = f"{repository(stack, name)}:{unit.image_before}"
            runs = before.get(name)
            if runs is not None and unit.image_before and docker.image_id(ours) is None and docker.image_id(runs.image):
                docker.tag(runs.image, ours)

    def _image(self, unit: Unit, stack: Stack, docker: Docker, name: str, said: dict[str, Any]) -> str | None:
        """The kept image of a service that is built, else what its file names."""
        named: str | None = said.get("image")
        if "build" in said and unit.image and (not stack.services or name in stack.services):
            kept = f"{repository(stack, name)}:{unit.image}"
            return kept if docker.image_id(kept) else named
        return named

    def _restart_same(self, unit: Unit, stack: Stack, docker: Docker, before: dict[str, SwarmService],
                      on_line: OnLine) -> None:  # fmt: skip
        """Services that Swarm saw no reason to replace, and that see a path which changed."""
        if unit.on_change in ("up", "none"):
            return
        for service in _own(stack, self._services(docker, stack)):
            was = before.get(service.name)
            if was is not None and was.template == service.template and (
                unit.on_change == "recreate" or sees(service.mounts, unit.changed)
            ):
                words = ["docker", "service", "update", "--force", "--detach", "--quiet", service.id]
                docker.job(words, stack.folder, on_line, f"restart of {unit.service}", "restart", LONGEST_START)

    def _wait(self, unit: Unit, stack: Stack, docker: Docker, known: set[str], on_line: OnLine) -> None:
        """`known` are the tasks from before. Raises Failed (code `not-ready`)."""
        ends = time.monotonic() + LONGEST_START
        while True:
            own = _own(stack, self._services(docker, stack))
            tasks = self._tasks(docker, own)
            failed = [task for service in own for task in tasks if task.over and task.id not in known
                      and task.service_id == service.id and task.template == service.template]  # fmt: skip
            stopped = [service for service in own if service.updating in STOPPED]
            late = time.monotonic() > ends
            if len(failed) >= TRIES or stopped or late:
                for service in own:
                    for _, text in self._printed(docker, service, ["--tail", str(TAIL)]):
                        on_line("stderr", text)
                said = failed[0].error if failed else stopped[0].told if stopped else "it did not come up in time"
                raise Failed(f"{unit.name} is not ready: {said}", where=stack.folder, next=f"homeport logs {unit.service}",
                             code="not-ready")  # fmt: skip
            if all(converged(service, tasks) for service in own):
                return
            time.sleep(EVERY)

    def _printed(self, docker: Docker, service: SwarmService, asked: Sequence[str]) -> list[tuple[str, str]]:
        """(time, line) of what its tasks printed, those that are over too."""
        done = docker.run("service", "logs", "--raw", "--timestamps", *asked, service.id, ok=(0, 1))
        rows = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        return sorted((stamp, text) for stamp, _, text in (row.partition(" ") for row in rows))

    def _config(self, unit: Unit, stack: Stack) -> dict[str, Any]:
        """The stack's file as Swarm reads it, filled in from `.env` and the service's own variables."""
        docker = Docker(self._shell, unit)
        files = [word for name in stack.files for word in ("--compose-file", name)]
        argv = [*as_user(unit), "docker", "stack", "config", *files]
        env = {**dotenv(stack.folder), **docker.environment()}
        done = self._shell.run(argv, env=env, cwd=stack.folder, ok=range(-64, 256))
        if done.code != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-600:]
            raise Failed(f"Swarm does not take {stack.files[0]}: {said}", where=f"services.{unit.service}",
                         next=f"docker stack config --compose-file {stack.files[0]}", code="bad-compose")  # fmt: skip
        config: dict[str, Any] = {"services": {}, **read_yaml(done.stdout)}
        stack.must_be_in(config, unit.service)
        return config

    def _services(self, docker: Docker, stack: Stack) -> list[SwarmService]:
        ids = docker.run("service", "ls", "--quiet", "--filter", f"label={NAMESPACE}={stack.project}").stdout.split()
        if not ids:
            return []
        rows = docker.run("service", "inspect", *(each.decode() for each in ids), ok=(0, 1)).stdout
        return [service_row(row, stack.project) for row in msgspec.json.decode(rows or b"[]")]

    def _tasks(self, docker: Docker, services: Sequence[SwarmService]) -> list[Task]:
        if not services:
            return []
        ids = docker.run("service", "ps", "--quiet", "--no-trunc", *(s.id for s in services), ok=(0, 1)).stdout.split()
        if not ids:
            return []
        rows = docker.run("inspect", "--type", "task", *(each.decode() for each in ids), ok=(0, 1)).stdout
        return [task_row(row) for row in msgspec.json.decode(rows or b"[]")]


def _own(stack: Stack, services: Sequence[SwarmService]) -> list[SwarmService]:
    return [service for service in services if not stack.services or service.name in stack.services]


def _containers(services: Sequence[SwarmService], tasks: Sequence[Task]) -> list[Container]:
    """The tasks that are to run, as containers."""
    names = {service.id: service.name for service in services}
    return [
        Container(id=task.id, name=f"{names[task.service_id]}.{task.slot}", service=names[task.service_id],
                  state="running" if task.state == "running" else "created", health=None, pid=task.pid, image=task.image,
                  image_name=task.image, restarts=0, exit_code=None, started_at=task.at, mounts=())
        for task in tasks if task.wanted and task.service_id in names
    ]  # fmt: skip


def _summed(stack: Stack, own: Sequence[SwarmService], tasks: Sequence[Task]) -> tuple[
        Literal["running", "stopped", "failed", "restarting", "missing"], str]:  # fmt: skip
    lacking = [name for name in stack.services if not any(service.name == name for service in own)]
    if lacking or not own:
        return "missing", f"no service {', '.join(lacking) or stack.project}"
    for service in own:
        mine = [task for task in tasks if task.service_id == service.id]
        if service.replicas == 0:
            return "stopped", f"{service.name} has no replicas"
        if not converged(service, mine):
            over = next((task for task in mine if task.over), None)
            told = f"{service.name}: {over.error}" if over is not None and over.error else f"{service.name} is not complete"
            return "restarting", told
    return "running", ""
