"""The compose runtime: services of a Compose file, with Compose v2 or the older docker-compose.

Images are built from the build folder and kept as `homeport/PROJECT-SERVICE:KEY`; a start gives the kept image the
name that the file uses and has Compose bring exactly those containers up. So a rollback only names an older one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from homeport.doors.runtimes.compose_file import Stack, containers_of, for_old_compose, read_yaml, stack_of, to_build
from homeport.doors.runtimes.docker import OURS, Docker
from homeport.doors.runtimes.surroundings import account, as_user
from homeport.model.config import Command
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import OnLine, Shell
from homeport.model.running import Container, Inside, Restarted, Unit, UnitState

LONGEST_BUILD, LONGEST_START = 3600.0, 600.0
TAIL = 20
"""Lines of a container that did not come up."""


class Compose:
    """Satisfies BatchingImages."""

    name = "compose"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._words: list[str] | None = None
        self._one_at_a_time = Lock()
        self._images: dict[tuple[str | None, str], list[str]] = {}

    def inspect(self, unit: Unit) -> UnitState:
        return self._state(unit, {})

    def states(self, units: Sequence[Unit]) -> dict[str, UnitState]:
        seen: dict[tuple[str | None, str], list[Container]] = {}
        return {unit.service: self._state(unit, seen) for unit in units}

    def _state(self, unit: Unit, seen: dict[tuple[str | None, str], list[Container]]) -> UnitState:
        try:
            stack = stack_of(unit)
            if (at := (unit.user, stack.project)) not in seen:
                seen[at] = Docker(self._shell, unit).containers(stack.project)
            every = seen[at]
            own = _of(stack, every)
        except InfrastructureFault as fault:
            return UnitState(state="unknown", detail=fault.what)
        except Failed as fault:
            return UnitState(state="missing", detail=fault.what)
        state, detail = _summed(stack, own)
        return UnitState(state=state, pid=own[0].pid if own else None, restarts=sum(c.restarts for c in own),
                         detail=detail, containers=tuple(every))  # fmt: skip

    def stale(self, units: Sequence[Unit]) -> dict[str, str]:
        found: dict[str, str] = {}
        projects: dict[tuple[str | None, str], list[Container]] = {}
        ids: dict[str, str | None] = {}
        for unit in units:
            docker = Docker(self._shell, unit)
            try:
                stack = stack_of(unit)
                if (at := (unit.user, stack.project)) not in projects:
                    projects[at] = docker.containers(stack.project)
                    names = {c.image_name for c in projects[at]} - set(ids)
                    ids.update(docker.image_ids(sorted(names)))
            except Failed:
                continue
            for container in _of(stack, projects[at]):
                if ids.get(container.image_name) not in (container.image, None):
                    found[unit.service] = f"{container.name} runs an image that {container.image_name} is not any more"
        return found

    def containers(self, units: Sequence[Unit]) -> list[Container]:
        return containers_of(units, lambda unit, stack: Docker(self._shell, unit).containers(stack.project))

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises Failed: `no-compose`, `bad-compose`, `restart`, `not-ready` with the end of what it printed."""
        return self.restart_together([unit], on_line)[0]

    def together(self, unit: Unit) -> Hashable | None:
        """What Compose is told for the whole call: the file, its settings, and how to go about it."""
        try:
            stack = stack_of(unit)
        except Failed:
            return None
        if unit.on_change == "reload":
            return None
        return (stack.folder, stack.files, stack.project, unit.user, unit.home, tuple(sorted(unit.env.items())),
                unit.stop_timeout, unit.on_change)  # fmt: skip

    def restart_together(self, units: Sequence[Unit], on_line: OnLine) -> list[Restarted]:
        stacks = [stack_of(unit) for unit in units]
        first, whole = units[0], _joined(stacks)
        docker = Docker(self._shell, first)
        config = self._config(first, whole, whole.folder)
        for unit, stack in zip(units, stacks, strict=True):
            self._name_images(unit, stack, config)
        before = docker.containers(whole.project)
        self._up(first, whole, on_line)
        after = docker.containers(whole.project)
        same = {unit.service: _same(unit, _of(stack, before), _of(stack, after))
                for unit, stack in zip(units, stacks, strict=True)}  # fmt: skip
        if any(same.values()):
            self._restart_same(first, whole, [name for names in same.values() for name in names], on_line)
            after = docker.containers(whole.project)
        for unit, stack in zip(units, stacks, strict=True):
            self._must_be_up(unit, stack, _of(stack, after), on_line)
        return [Restarted(pid=next((c.pid for c in _of(stack, after)), None), registered=not _of(stack, before))
                for stack in stacks]  # fmt: skip

    def _must_be_up(self, unit: Unit, stack: Stack, after: Sequence[Container], on_line: OnLine) -> None:
        docker = Docker(self._shell, unit)
        for container in after:
            if container.state not in ("running", "created") and container.exit_code != 0:
                for line in self._printed(docker, container, TAIL):
                    on_line("stderr", line)
                raise Failed(f"{container.name} is {container.state} (status {container.exit_code})", where=stack.folder,
                             next=f"homeport logs {unit.service}", code="not-ready")  # fmt: skip

    def forget(self, unit: Unit) -> None:
        self._run(unit, stack_of(unit), ["rm", "--stop", "--force", *stack_of(unit).services], lambda *_: None, "removal",
                  LONGEST_START)  # fmt: skip

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        docker, stack = Docker(self._shell, unit), stack_of(unit)
        own = _of(stack, docker.containers(stack.project))
        last: dict[str, str] = {}
        while True:
            for container in own:
                before = f"{container.name}: " if len(own) > 1 else ""
                asked = ["--since", last[container.id]] if container.id in last else ["--tail", str(lines)]
                for stamp, text in _stamped(docker, container, asked):
                    if stamp > last.get(container.id, ""):
                        last[container.id] = stamp
                        yield before + text
            if not follow:
                return
            time.sleep(0.25)
            own = _of(stack, docker.containers(stack.project))

    def has_images(self, unit: Unit) -> bool:
        try:
            stack = stack_of(unit)
        except Failed:
            return False
        return any(name.endswith(f":{unit.image}") and _whose(name, stack) for name in self._kept(unit, stack))

    def _kept(self, unit: Unit, stack: Stack) -> list[str]:
        """One deploy asks for service after service, and nobody else makes such images."""
        at = (unit.user, stack.project)
        with self._one_at_a_time:
            if at not in self._images:
                self._images[at] = Docker(self._shell, unit).kept(f"{OURS}/{stack.project}-*")
            return self._images[at]

    def build(self, unit: Unit, folder: str, fresh: bool, on_line: OnLine) -> None:
        self._images.clear()
        stack = stack_of(unit, folder)
        there = folder + stack.folder[len(unit.target or unit.cwd) :]
        config = self._config(unit, stack, there)
        stack.must_be_in(config, unit.service)
        names = {name: f"{repository(stack, name)}:{unit.image}" for name in config["services"]}
        document = to_build(config, stack, there, names)
        docker = Docker(self._shell, unit)
        for name, service in config["services"].items():
            image = service.get("image") if "build" not in service else None
            if image and (not stack.services or name in stack.services) and docker.image_id(image) is None:
                on_line("stdout", f"pulling {image}")
                docker.pull(image)
        if document is None:
            return
        with tempfile.NamedTemporaryFile("wb", suffix=".json", prefix="homeport-build-") as file:
            file.write(msgspec.json.encode(document))
            file.flush()
            os.fchown(file.fileno(), account(unit).pw_uid, -1)
            words = [*self._program(unit), "-p", stack.project, "-f", file.name, "build"]
            words += ["--no-cache"] if fresh else []
            docker.job(words, there, on_line, f"build of {unit.service}", "build", LONGEST_BUILD)

    def validate(self, unit: Unit, command: Command, on_line: OnLine) -> None:
        stack = stack_of(unit)
        first, *rest = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        words = ["run", "--rm", "--no-deps", "-T", "--entrypoint", first, *stack.services[:1], *rest]
        self._run(unit, stack, words, on_line, f"validation of {unit.service}", LONGEST_START, code="command")

    def inside(self, unit: Unit, command: Sequence[str], terminal: bool) -> Inside:
        stack = stack_of(unit)
        argv = [*as_user(unit), *self._program(unit), "-p", stack.project, "--project-directory", stack.folder,
                *stack.beside(stack.folder), "exec", *([] if terminal else ["-T"])]  # fmt: skip
        which = stack.services[0] if stack.services else unit.service
        return Inside(argv=(*argv, which, *(command or ("/bin/sh",))), cwd=stack.folder,
                      env=Docker(self._shell, unit).environment())  # fmt: skip

    def prune(self, unit: Unit, keep: int) -> None:
        stack, per = stack_of(unit), dict[str, list[str]]()
        for name in self._kept(unit, stack):
            if _whose(name, stack):
                per.setdefault(name.rpartition(":")[0], []).append(name)
        old = [n for names in per.values() for n in names[keep:] if not n.endswith(f":{unit.image}")]
        if old:
            self._images.clear()
            Docker(self._shell, unit).untag(old)

    def _name_images(self, unit: Unit, stack: Stack, config: Mapping[str, Any]) -> None:
        """Keeps what the file's names stand for now, for a rollback, and gives them the wanted images."""
        docker = Docker(self._shell, unit)
        stack.must_be_in(config, unit.service)
        for name, service in config["services"].items():
            if "build" not in service or (stack.services and name not in stack.services):
                continue
            used = service.get("image") or f"{stack.project}{self._joint(unit)}{name}"
            ours = repository(stack, name)
            self._images.clear()
            if unit.image_before and docker.image_id(f"{ours}:{unit.image_before}") is None and docker.image_id(used):
                docker.tag(used, f"{ours}:{unit.image_before}")
            if unit.image and docker.image_id(f"{ours}:{unit.image}"):
                docker.tag(f"{ours}:{unit.image}", used)

    def _up(self, unit: Unit, stack: Stack, on_line: OnLine) -> None:
        words = ["up", "--detach", "--no-build", "--timeout", str(int(unit.stop_timeout))]
        if unit.on_change != "up":
            words.append("--no-deps")
        if unit.on_change == "recreate":
            words.append("--force-recreate")
        label = f"start of {_named(stack, unit)}"
        self._run(unit, stack, [*words, *stack.services], on_line, label, LONGEST_START)

    def _restart_same(self, unit: Unit, stack: Stack, names: Sequence[str], on_line: OnLine) -> None:
        """Of containers that Compose saw no reason to make anew, and that see a file which changed."""
        if unit.on_change != "reload":
            words = ["restart", "--timeout", str(int(unit.stop_timeout)), *names]
            self._run(unit, stack, words, on_line, f"restart of {_named(stack, unit)}", LONGEST_START)
            return
        for name in names:
            asked = ["kill", "-s", "HUP", name]
            if unit.command is not None:
                told = ["/bin/sh", "-c", unit.command] if isinstance(unit.command, str) else unit.command
                asked = ["exec", "-T", name, *told]
            self._run(unit, stack, asked, on_line, f"reload of {unit.service}", LONGEST_START)

    def _config(self, unit: Unit, stack: Stack, there: str) -> dict[str, Any]:
        """The file resolved: of the folder `there`, with the settings of the live one. Raises Failed (`bad-compose`)."""
        program = self._program(unit)
        v2 = program[-1] == "compose"
        with ExitStack() as until_read:
            if v2:
                words = ["--project-directory", stack.folder, *stack.beside(there), "--profile", "*"]
            else:
                words = until_read.enter_context(for_old_compose(stack, there, account(unit).pw_uid))
            argv = [*as_user(unit), *program, "-p", stack.project, *words, "config", *(["--format", "json"] if v2 else [])]
            docker = Docker(self._shell, unit)
            done = self._shell.run(argv, env=docker.environment(), cwd=there, ok=range(-64, 256))
        if done.code != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-600:]
            raise Failed(f"Compose does not take {stack.files[0]}: {said}", where=f"services.{unit.service}",
                         next=f"docker compose -f {stack.files[0]} config", code="bad-compose")  # fmt: skip
        return {"services": {}, **(msgspec.json.decode(done.stdout) if v2 else read_yaml(done.stdout))}

    def _run(self, unit: Unit, stack: Stack, words: Sequence[str], on_line: OnLine, label: str, timeout: float,
             code: str = "restart") -> None:  # fmt: skip
        argv = [*self._program(unit), "-p", stack.project, "--project-directory", stack.folder, *stack.beside(stack.folder)]
        Docker(self._shell, unit).job([*argv, *words], stack.folder, on_line, label, code, timeout)

    def _program(self, unit: Unit) -> list[str]:
        """Compose v2 where it is there, else the older program. Raises InfrastructureFault (code `no-docker`)."""
        with self._one_at_a_time:
            return self._looked_for(unit)

    def _looked_for(self, unit: Unit) -> list[str]:
        if self._words is None:
            env = Docker(self._shell, unit).environment()
            for words in (["docker", "compose"], ["docker-compose"]):
                try:
                    self._shell.run([*as_user(unit), *words, "version"], env=env)
                except InfrastructureFault:
                    continue
                self._words = words
                break
            else:
                raise InfrastructureFault("neither `docker compose` nor `docker-compose` runs here", code="no-docker",
                                          where=env["PATH"], next="install Docker Compose")  # fmt: skip
        return self._words

    def _joint(self, unit: Unit) -> str:
        """Between project and service in the names that Compose makes."""
        return "-" if self._program(unit)[-1] == "compose" else "_"

    def _printed(self, docker: Docker, container: Container, lines: int) -> list[str]:
        return [text for _, text in _stamped(docker, container, ["--tail", str(lines)])]


def _of(stack: Stack, containers: Sequence[Container]) -> list[Container]:
    return [c for c in containers if not stack.services or c.service in stack.services]


def _joined(stacks: Sequence[Stack]) -> Stack:
    """Stacks of one file as one: the services of all, or every service where one of them means every one."""
    names = dict.fromkeys(name for stack in stacks for name in stack.services)
    return replace(stacks[0], services=tuple(names) if all(stack.services for stack in stacks) else ())


def _named(stack: Stack, unit: Unit) -> str:
    """For people: the unit that is started, or those that are started together."""
    return ", ".join(stack.services) if len(stack.services) > 1 else unit.service


def _same(unit: Unit, before: Sequence[Container], after: Sequence[Container]) -> list[str]:
    """Services whose containers Compose left as they were, although they see a file that changed."""
    if unit.on_change in ("up", "none"):
        return []
    was = {c.id: c.started_at for c in before if c.state == "running"}
    same = [c for c in after if was.get(c.id) == c.started_at and sees(c.mounts, unit.changed)]
    return list(dict.fromkeys(c.service for c in same))


def repository(stack: Stack, service: str) -> str:
    return f"{OURS}/{stack.project}-{service.lower()}"


def _whose(image: str, stack: Stack) -> bool:
    return not stack.services or image.rpartition(":")[0] in [repository(stack, name) for name in stack.services]


def sees(mounts: Sequence[str], changed: Sequence[str] | None) -> bool:
    """Whether a changed path lies in (or is, or holds) a path that is mounted; unknown counts as changed."""
    if changed is None:
        return True
    return any(path == m or path.startswith(f"{m}/") or m.startswith(f"{path}/")
               for m in mounts for path in changed)  # fmt: skip


def _summed(stack: Stack, own: Sequence[Container]) -> tuple[Literal["running", "stopped", "failed", "restarting",
                                                                     "missing"], str]:  # fmt: skip
    """The worst of the containers, and which one it is."""
    lacking = [name for name in stack.services if not any(c.service == name for c in own)]
    if lacking or not own:
        return "missing", f"no container of {', '.join(lacking) or stack.project}"
    for container in own:
        health = f", {container.health}" if container.health else ""
        told = f"{container.name}: {container.state}{health}"
        if container.state == "restarting" or container.health == "starting":
            return "restarting", told
        if container.health == "unhealthy" or container.state in ("dead", "paused"):
            return "failed", told
        if container.state != "running":
            stopped = container.exit_code == 0
            return ("stopped" if stopped else "failed"), f"{told} (status {container.exit_code})"
    return "running", ""


def _stamped(docker: Docker, container: Container, asked: Sequence[str]) -> list[tuple[str, str]]:
    """(time, line) of what a container printed, both streams by time."""
    done = docker.run("logs", "--timestamps", *asked, container.id, ok=(0, 1))
    rows = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return sorted((stamp, text) for stamp, _, text in (row.partition(" ") for row in rows))
