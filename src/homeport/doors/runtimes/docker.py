"""The docker command line: containers of a Compose project as they are, and images under names of homeport's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from homeport.doors.runtimes.surroundings import as_user, home_of
from homeport.model.blameless import fault_of_the_machine
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import Completed, Job, OnLine, Shell
from homeport.model.running import Container, Unit

OURS = "homeport"
"""Before the names of the images that homeport keeps: `homeport/PROJECT-SERVICE:KEY`."""
PROJECT, SERVICE, ONE_OFF = (f"com.docker.compose.{word}" for word in ("project", "service", "oneoff"))


class Docker:
    """The docker client of one unit's user."""

    def __init__(self, shell: Shell, unit: Unit) -> None:
        self._shell, self._unit = shell, unit

    def environment(self) -> dict[str, str]:
        """What Compose fills its file in with: the service's own variables, and how to reach the engine."""
        found = {"PATH": os.environ.get("PATH") or os.defpath, "LANG": "C.UTF-8", "HOME": home_of(self._unit)}
        if not as_user(self._unit):
            found["HOME"] = os.environ.get("HOME") or found["HOME"]
            found.update({k: v for k, v in os.environ.items() if k.startswith("DOCKER_")})
        return {**found, **self._unit.env}

    def run(self, *words: str, ok: Iterable[int] = (0,), timeout: float = 60.0, cwd: str | None = None) -> Completed:
        """Raises InfrastructureFault: code `no-docker` when the engine does not answer, `tool` for the rest."""
        try:
            return self._shell.run([*as_user(self._unit), "docker", *words], env=self.environment(), ok=ok, timeout=timeout,
                                   cwd=cwd)  # fmt: skip
        except InfrastructureFault as fault:
            self.must_answer(fault)
            raise

    def job(self, argv: Sequence[str], cwd: str, on_line: OnLine, label: str, code: str, timeout: float) -> None:
        """A docker command that takes its time, told line by line. Raises Failed with that code and its last line, and
        InfrastructureFault when it is the engine that does not answer (code `no-docker`), or it lacked room or memory."""
        last = ""

        def line(stream: Literal["stdout", "stderr"], text: str) -> None:
            nonlocal last
            last = text.strip() or last
            on_line(stream, text)

        done = self._shell.job(Job(command=[*argv], cwd=cwd, env=self.environment(), label=label, timeout=timeout,
                                   user=self._unit.user), line)  # fmt: skip
        if done.timed_out or done.code != 0:
            self.must_answer()
            blameless = fault_of_the_machine(done, label, cwd, f"homeport logs {self._unit.service}")
            if blameless is not None:
                raise blameless
            how = f"did not end within {timeout:g} s" if done.timed_out else f"ended with {done.code}"
            raise Failed(f"{label} {how}" + (f": {last[:300]}" if last else ""), where=cwd,
                         next=f"homeport logs {self._unit.service}", code=code)  # fmt: skip

    def must_answer(self, cause: InfrastructureFault | None = None) -> None:
        """Raises InfrastructureFault (code `no-docker`) when there is no client or no engine."""
        try:
            self._shell.run([*as_user(self._unit), "docker", "version", "--format", "{{.Server.Version}}"],
                            env=self.environment(), timeout=20.0)  # fmt: skip
        except InfrastructureFault as fault:
            raise InfrastructureFault(f"the Docker engine does not answer: {fault.what[-300:]}", where="docker version",
                                      next="start docker, then: homeport doctor", code="no-docker") from cause  # fmt: skip

    def containers(self, project: str) -> list[Container]:
        """Those of a Compose project, ended ones too, one-off ones not."""
        asked = self.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={PROJECT}={project}",
                         "--filter", f"label={ONE_OFF}=False").stdout.split()  # fmt: skip
        if not asked:
            return []
        done = self.run("container", "inspect", *(each.decode() for each in asked), ok=(0, 1))
        return [_container(row) for row in msgspec.json.decode(done.stdout or b"[]")]

    def image_id(self, name: str) -> str | None:
        done = self.run("image", "inspect", "--format", "{{.Id}}", name, ok=(0, 1))
        return done.stdout.decode().strip() if done.code == 0 else None

    def image_ids(self, names: Sequence[str]) -> dict[str, str]:
        """The image that each name stands for; names that stand for none are left out."""
        if not names:
            return {}
        rows = msgspec.json.decode(self.run("image", "inspect", *names, ok=(0, 1)).stdout or b"[]")
        full = {tag: row["Id"] for row in rows for tag in (*(row["RepoTags"] or ()), row["Id"])}
        found = {name: full.get(name) or full.get(f"{name}:latest") for name in names}
        return {name: id for name, id in found.items() if id is not None}

    def has_digest(self, name: str) -> bool:
        """It came from a registry, or went to one."""
        done = self.run("image", "inspect", "--format", "{{len .RepoDigests}}", name, ok=(0, 1))
        return done.code == 0 and done.stdout.strip() != b"0"

    def images_of(self, containers: Sequence[str]) -> dict[str, tuple[str, str]]:
        """By container of this machine: the name and the id of the image that it was made from."""
        if not containers:
            return {}
        done = self.run("container", "inspect", *containers, ok=(0, 1))
        rows = msgspec.json.decode(done.stdout or b"[]")
        return {row["Id"]: (row["Config"].get("Image", ""), row["Image"]) for row in rows}

    def tag(self, image: str, name: str) -> None:
        self.run("image", "tag", image, name)

    def pull(self, image: str) -> None:
        self.run("image", "pull", "--quiet", image, timeout=1800.0)

    def kept(self, repository: str) -> list[str]:
        """Names of the kept images, newest first."""
        done = self.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
        names = done.stdout.decode().split()
        if not names:
            return []
        rows = msgspec.json.decode(self.run("image", "inspect", *names, ok=(0, 1)).stdout or b"[]")
        when = {tag: _time(row["Metadata"].get("LastTagTime") or row["Created"]) for row in rows for tag in row["RepoTags"]}
        return sorted((n for n in names if n in when), key=lambda name: when[name], reverse=True)

    def untag(self, names: Sequence[str]) -> None:
        """An image that a container uses, or that has another name, stays."""
        if names:
            self.run("image", "rm", "--", *names, ok=(0, 1))


def _time(said: str) -> tuple[str, str]:
    """A time of the engine as something to sort by: it leaves out zeros at the end of the fraction."""
    whole, _, fraction = said.rstrip("Z").partition(".")
    return whole, fraction.ljust(9, "0")


def _container(row: Mapping[str, Any]) -> Container:
    state, labels = row["State"], row["Config"].get("Labels") or {}
    return Container(
        id=row["Id"], name=row["Name"].lstrip("/"), service=labels.get(SERVICE, ""), state=state["Status"],
        health=(state.get("Health") or {}).get("Status"), pid=state.get("Pid") or None, image=row["Image"],
        image_name=row["Config"].get("Image", ""), restarts=row.get("RestartCount") or 0, exit_code=state.get("ExitCode"),
        started_at=state.get("StartedAt", ""),
        mounts=tuple(m["Source"] for m in row.get("Mounts") or () if m.get("Type") == "bind"),
    )  # fmt: skip
