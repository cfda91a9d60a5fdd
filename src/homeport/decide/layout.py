"""Which live folders and services an environment has, and in which order services are dealt with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeport.model.config import Config, Environment, Service
from homeport.model.errors import UsageFault
from homeport.model.live import PROJECT, Target
from homeport.model.patterns import effective_protect


def environment_named(config: Config, name: str | None) -> tuple[str, Environment]:
    """The environment of that name, or the only one.

    Raises UsageFault when none is named and there are several (homeport never guesses), or it is unknown.
    """
    names = ", ".join(config.environments)
    if name is None:
        if len(config.environments) == 1:
            return next(iter(config.environments.items()))
        raise UsageFault(f"which environment? there are {names}", next="say it with -e, for example: "
                         f"homeport -e {next(iter(config.environments), 'NAME')} status", code="environment")  # fmt: skip
    if name not in config.environments:
        raise UsageFault(f"unknown environment `{name}`; there are {names}",
                         next="name one of them with -e", code="environment")  # fmt: skip
    return name, config.environments[name]


def services_of(config: Config, environment: str) -> dict[str, Service]:
    """The services of an environment in declared order; a service that names none belongs to all."""
    return {n: s for n, s in config.services.items() if not s.environments or environment in s.environments}


def unit_scopes(config: Config, environment: str) -> dict[str, tuple[str, ...]]:
    """The names under which each scope's services of this environment run."""
    there = services_of(config, environment)
    return {scope: tuple(there[name].unit or name for name in named.services if name in there)
            for scope, named in config.scopes.items()}  # fmt: skip


def order(config: Config, services: Iterable[str]) -> list[str]:
    """These services so that each comes after those it names in `after`, else as declared.

    A service in between that is not asked for still orders those around it.
    """
    wanted = set(services)
    placed: dict[str, None] = {}
    for start in config.services:
        waiting = [(start, iter(config.services[start].after))]
        while waiting:
            name, before = waiting[-1]
            missing = next((n for n in before if n in config.services and n not in placed), None)
            if missing is None:
                placed[name] = None
                waiting.pop()
            elif all(missing != n for n, _ in waiting):
                waiting.append((missing, iter(config.services[missing].after)))
    return [name for name in placed if name in wanted]


def targets(config: Config, environment: str) -> dict[str, Target]:
    """Every live folder of an environment by target name (a service's name, or `_project`)."""
    found: dict[str, Target] = {}
    if config.project.target is not None:
        found[PROJECT] = _whole(config, config.project.target)
    for name in services_of(config, environment):
        target = target_of(config, name)
        if target is not None and target.name == name:
            found[name] = target
    return found


def target_of(config: Config, service: str) -> Target | None:
    """The live folder of a service: its own, else the project's, else None."""
    it = config.services[service]
    project = config.project
    if it.target is None:
        return None if project.target is None else _whole(config, project.target)
    outputs = _outputs(it)
    return Target(
        name=service,
        path=it.target,
        source=folder_of(it),
        protect=effective_protect(project.protect, it.protect, [*project.unprotect, *it.unprotect], outputs),
        mutable=(*project.mutable, *it.mutable),
        in_place=tuple(it.in_place),
        outputs=outputs,
        owner=it.owner,
        checkout=it.checkout,
    )


def folder_of(service: Service) -> str:
    """The source folder of a service in the repository, empty for the whole of it."""
    return "" if service.source in (None, ".") else (service.source or "").rstrip("/")


def _whole(config: Config, path: str) -> Target:
    """The project's target with the patterns of every service that shares it, moved below their sources.

    It is the same in every environment, so that one folder never has two sets of patterns.
    """
    project = config.project
    sharing = [s for s in config.services.values() if s.target is None]
    outputs = tuple(_joined(folder_of(s), o) for s in sharing for o in _outputs(s))
    protect = [_below(folder_of(s), p) for s in sharing for p in s.protect]
    return Target(
        name=PROJECT,
        path=path,
        source="",
        protect=effective_protect(project.protect, protect, project.unprotect, outputs),
        mutable=(*project.mutable, *(_below(folder_of(s), p) for s in sharing for p in s.mutable)),
        in_place=tuple(_below(folder_of(s), p) for s in sharing for p in s.in_place),
        outputs=outputs,
        checkout=any(s.checkout for s in sharing),
    )


def _outputs(service: Service) -> tuple[str, ...]:
    return () if service.build is None else tuple(o.rstrip("/") for o in service.build.outputs)


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _below(folder: str, pattern: str) -> str:
    """A gitignore pattern of a folder as one of the repository's root."""
    if not folder:
        return pattern
    escaped = re.sub(r"([\\*?\[])", r"\\\1", folder)
    if "/" in pattern.rstrip("/"):
        return f"/{escaped}/{pattern.lstrip('/')}"
    return f"/{escaped}/**/{pattern}"
