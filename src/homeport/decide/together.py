"""Builds of a whole scope (`[scopes.N] build`): who leaves its build to which scope, from which files, under which key.

The build folder holds the files at the top of the repository, except those that only tell, and what the services of the
scope are made of: their sources, what they `use` and `watch`. What is not declared is not there, so that a service's
outputs are never older than what they were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from homeport.decide import layout
from homeport.decide.using import used_by
from homeport.model.config import Config, Scope, Service
from homeport.model.live import Entry
from homeport.model.patterns import Matcher

Fault = tuple[tuple[str | int, ...], str]
ONLY_TELLS = ("homeport.toml", "*.md", "LICENSE*", ".gitignore", ".gitattributes", ".editorconfig")
"""Files at the top of a repository that no build needs: their change is no reason to build."""


def scope_of(config: Config, service: str) -> str | None:
    """The scope whose build makes this service's outputs; None when it has its own, or makes none."""
    build = config.services[service].build
    return next(iter(_scopes(config, service)), None) if build is not None and build.run is None else None


def members(config: Config, environment: str, scope: str) -> list[str]:
    """The services of an environment that leave their build to that scope, as declared."""
    return [name for name in layout.services_of(config, environment) if scope_of(config, name) == scope]


def files(config: Config, scope: str, listing: Mapping[str, Entry]) -> dict[str, Entry]:
    """What the build folder of a scope holds of a commit."""
    tells, watched = Matcher(ONLY_TELLS), _watched(config, scope)
    folders = [f"{folder}/" if folder else "" for folder in _folders(config, scope)]
    exact = {folder for folder in _folders(config, scope) if folder}
    return {
        path: entry for path, entry in listing.items()
        if ("/" not in path and not tells.match(path)) or path in exact or any(map(path.startswith, folders))
        or (watched is not None and watched.match(path))
    }  # fmt: skip


def mark(config: Config, service: str, listing: Mapping[str, Entry]) -> tuple[str, ...]:
    """For the key of a service's outputs, what its scope's build adds to what it is made from; nothing without one."""
    scope = scope_of(config, service)
    if scope is None:
        return ()
    tells = Matcher(ONLY_TELLS)
    top = [[path, e.mode, e.oid] for path, e in sorted(listing.items()) if "/" not in path and not tells.match(path)]
    said = [config.scopes[scope].build, sorted(environment(config, scope).items()), top]
    return (f"scope={hashlib.sha256(json.dumps(said).encode()).hexdigest()}",)


def environment(config: Config, scope: str) -> dict[str, str]:
    """The variables of a scope's build: those of its services' `build.env` together."""
    found: dict[str, str] = {}
    for name in _leaving(config, scope):
        build = config.services[name].build
        found |= build.env if build is not None else {}
    return found


def builder(config: Config, scope: str) -> Service:
    """Who builds for the whole scope: as one of its services, with the folders of all on the PATH."""
    from msgspec.structs import replace

    leaving = [config.services[name] for name in _leaving(config, scope)]
    return replace(leaving[0], path=list(dict.fromkeys(folder for one in leaving for folder in one.path)))


def longest(config: Config, scope: str) -> float:
    """Seconds that the build may take: the longest `timeout` of its services."""
    return max(float(build.timeout) for name in _leaving(config, scope) if (build := config.services[name].build))


def faults(config: Config) -> Iterator[Fault]:
    """What cannot be built so, as `sense` tells it."""
    for name, service in config.services.items():
        if service.build is None or service.build.run is not None:
            continue
        path: tuple[str | int, ...] = ("services", name, "build")
        scopes = _scopes(config, name)
        if not scopes:
            yield path, "has no `run`, and no scope with this service has a `build` that makes its outputs"
        elif len(scopes) > 1:
            yield path, f"has no `run`, and more than one scope would build it: {', '.join(scopes)}"
        if service.build.where == "live":
            yield (*path, "where"), "a scope builds beside the live folders; give the service a `run` of its own"
        if service.runtime == "compose":
            yield path, "images are built for each service; give it a `run` of its own"
    for scope in config.scopes:
        yield from _unlike(config, scope)


def _unlike(config: Config, scope: str) -> Iterator[Fault]:
    """One command builds for all of them: as one user, with one environment."""
    first: Service | None = None
    told: dict[str, str] = {}
    for name in _leaving(config, scope):
        service = config.services[name]
        first = first or service
        for key in ("user", "home"):
            if getattr(service, key) != getattr(first, key):
                yield ("services", name, key), f"scope {scope} builds for several services: all need the same `{key}`"
        for variable, value in (service.build.env if service.build is not None else {}).items():
            if told.setdefault(variable, value) != value:
                yield (("services", name, "build", "env", variable),
                       f"scope {scope} builds once, and another of its services has another value")  # fmt: skip


def _scopes(config: Config, service: str) -> list[str]:
    return [name for name, scope in config.scopes.items() if scope.build is not None and service in scope.services]


def _leaving(config: Config, scope: str) -> list[str]:
    return [name for name in config.services if scope_of(config, name) == scope]


def _folders(config: Config, scope: str) -> list[str]:
    found: dict[str, None] = {}
    for name in _leaving(config, scope):
        found[layout.folder_of(config.services[name])] = None
        found.update(dict.fromkeys(used_by(config, name).folders))
    return list(found)


def _watched(config: Config, scope: str) -> Matcher | None:
    patterns = [p for name in _leaving(config, scope)
                for p in (*config.services[name].watch, *used_by(config, name).patterns)]  # fmt: skip
    return Matcher(patterns) if patterns else None


def unused(scope: Scope, config: Config, name: str) -> bool:
    """Whether no service leaves its build to this scope's command."""
    return scope.build is not None and not _leaving(config, name)
