"""A Compose file as homeport has to know it: where it lies, which project it makes, what building one service takes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from msgspec import Struct

from homeport.model.envfile import parse
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.paths import printable
from homeport.model.running import Container, Unit

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yml", "docker-compose.override.yaml")
EVERY = "*"
_NAMED = re.compile(r"""^name:[ \t]*["']?([a-z0-9][a-z0-9_-]*)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")


class Stack(Struct, frozen=True, kw_only=True):
    """One Compose project on this host and the services of it that a unit names."""

    folder: str
    """The live folder that its file lies in: relative paths of the file start here."""
    files: tuple[str, ...]
    """Relative to the folder: the file, and its override where there is one."""
    project: str
    services: tuple[str, ...]
    """Empty: every one of them."""

    def beside(self, folder: str) -> tuple[str, ...]:
        """The words that name the same files in another copy of the folder."""
        return tuple(word for name in self.files for word in ("-f", os.path.join(folder, name)))

    def must_be_in(self, config: Mapping[str, Any], service: str) -> None:
        """Raises Failed (code `bad-compose`) when the file, as Compose or Swarm reads it, lacks one of the services."""
        unknown = sorted(set(self.services) - set(config["services"]))
        if unknown:
            raise Failed(f"{self.files[0]} has no service {', '.join(unknown)}", where=f"services.{service}.unit",
                         next=f"one of: {', '.join(sorted(config['services']))}", code="bad-compose")  # fmt: skip


def stack_of(unit: Unit, copy: str | None = None) -> Stack:
    """The stack as its file in the live folder says, or that of `copy`, another state of that whole folder.

    Raises Failed: codes `no-compose` (no Compose file) and `bad-unit` (the unit's name).
    """
    project, slash, names = unit.name.rpartition("/")
    services = tuple(names.split())
    wrong = (slash and not _PROJECT.fullmatch(project)) or not services
    if wrong or not all(name == EVERY or (_SERVICE.fullmatch(name) and name[0] not in "-.") for name in services):
        raise Failed(f"{printable(unit.name)} does not name services of a Compose file", next="homeport check",
                     where=f"services.{unit.service}.unit", code="bad-unit")  # fmt: skip
    top = unit.target or unit.cwd
    folder, files = _files(unit, top, copy or top)
    project = project or _project(unit, folder, (copy or top) + folder[len(top) :], files)
    return Stack(folder=folder, files=files, project=project, services=() if EVERY in services else services)


def containers_of(units: Sequence[Unit], look: Callable[[Unit, Stack], list[Container]]) -> list[Container]:
    """Those of every stack that the units belong to, each asked once; a stack that cannot be told has none."""
    found: dict[tuple[str | None, str], list[Container]] = {}
    for unit in units:
        with suppress(Failed, InfrastructureFault):
            stack = stack_of(unit)
            if (at := (unit.user, stack.project)) not in found:
                found[at] = look(unit, stack)
    return [container for each in found.values() for container in each]


def _files(unit: Unit, top: str, copy: str) -> tuple[str, tuple[str, ...]]:
    """The nearest live folder from the service's up to `top` that has a Compose file in `copy`, and the files' names."""
    here = unit.cwd
    while True:
        there = copy + here[len(top) :]
        main = next((n for n in NAMES if os.path.isfile(os.path.join(there, n))), None)
        if main is not None:
            override = next((n for n in OVERRIDES if os.path.isfile(os.path.join(there, n))), None)
            return here, (main, override) if override else (main,)
        if here == top or not here.startswith(f"{top}/"):
            raise Failed(f"there is no Compose file in {unit.cwd}", where=f"services.{unit.service}", code="no-compose",
                         next=f"add {NAMES[0]} to the folder of the service, or to that of its target")  # fmt: skip
        here = os.path.dirname(here)


def _project(unit: Unit, folder: str, there: str, files: tuple[str, ...]) -> str:
    """The name that Compose itself would choose in the live folder, so that what runs already is found again."""
    said = unit.env.get("COMPOSE_PROJECT_NAME") or dotenv(folder).get("COMPOSE_PROJECT_NAME")
    for file in () if said else files:
        try:
            with open(os.path.join(there, file), encoding="utf-8", errors="replace") as text:
                found = _NAMED.search(text.read(1 << 20))
        except OSError:
            found = None
        said = found[1] if found else said
    return re.sub(r"[^a-z0-9_-]", "", (said or os.path.basename(folder)).lower()).lstrip("_-") or "default"


def dotenv(folder: str) -> dict[str, str]:
    """The variables of the `.env` beside a Compose file."""
    try:
        with open(os.path.join(folder, ".env"), encoding="utf-8", errors="replace") as text:
            return parse(text.read(1 << 20))
    except OSError:
        return {}


def to_build(config: Mapping[str, Any], stack: Stack, folder: str, image: Mapping[str, str]) -> dict[str, Any] | None:
    """A Compose document that only builds: the resolved `config` of the live folder, its contexts in `folder`, and
    each image under a name of homeport's own; None when no service of the stack is built."""
    built: dict[str, Any] = {}
    for name, service in (config.get("services") or {}).items():
        build = service.get("build")
        if build is None or (stack.services and name not in stack.services):
            continue
        build = {"context": build} if isinstance(build, str) else dict(build)
        build.pop("tags", None)
        build["context"] = _moved(build.get("context", stack.folder), stack.folder, folder)
        if isinstance(build.get("additional_contexts"), dict):
            build["additional_contexts"] = {k: _moved(v, stack.folder, folder)
                                            for k, v in build["additional_contexts"].items()}  # fmt: skip
        built[name] = {"image": image[name], "build": build}
    if not built:
        return None
    document: dict[str, Any] = {"services": built}
    if "version" in config:
        document["version"] = config["version"]
    if config.get("secrets"):
        document["secrets"] = config["secrets"]
    return document


@contextmanager
def for_old_compose(stack: Stack, there: str, reader: int) -> Iterator[list[str]]:
    """The words that have the older docker-compose resolve the files in `there`. It insists on build contexts and env
    files that lie beside the file, and only the live folder has the latter: so it reads copies without `env_file`."""
    words = ["--project-directory", there]
    if os.path.isfile(env := os.path.join(stack.folder, ".env")):
        words += ["--env-file", env]
    if there == stack.folder:
        yield [*words, *stack.beside(there)]
        return
    with tempfile.TemporaryDirectory(prefix="homeport-compose-") as folder:
        os.chown(folder, reader, -1)
        for name in stack.files:
            with open(os.path.join(there, name), "rb") as file:
                document = read_yaml(file.read(1 << 20))
            for service in (document.get("services") or {}).values():
                if isinstance(service, dict):
                    service.pop("env_file", None)
            copy = os.path.join(folder, name)
            with open(copy, "wb") as file:
                file.write(msgspec.json.encode(document))
            words += ["-f", copy]
        yield words


def read_yaml(raw: bytes) -> dict[str, Any]:
    """Raises Failed (code `bad-compose`) for what is no mapping."""
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(raw)
    except yaml.YAMLError as fault:
        raise Failed(f"the Compose file cannot be read: {fault}"[:600], next="docker-compose config",
                     code="bad-compose") from fault  # fmt: skip
    if not isinstance(found, dict):
        raise Failed("the Compose file holds no services", next="docker-compose config", code="bad-compose")
    return found


def _moved(path: str, before: str, after: str) -> str:
    """A path below one folder as that of the same thing below the other; anything else stays."""
    if path == before or path.startswith(f"{before}/"):
        return after + path[len(before) :]
    return path
