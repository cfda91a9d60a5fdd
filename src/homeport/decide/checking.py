"""What `homeport check` says beyond a file that loads: keys this version cannot honour, and a configuration
that does not fit the files of its commit."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from msgspec import Struct

from homeport.decide import layout, together
from homeport.decide.locate import Path, dotted
from homeport.decide.policy import NAMED
from homeport.model.config import IMAGES, Check, Config, Rule, Service
from homeport.model.live import PROJECT, Target
from homeport.model.paths import within
from homeport.model.patterns import Matcher


class Note(Struct, frozen=True, kw_only=True):
    """One thing to tell about a configuration."""

    where: str
    """The key, dotted: `services.api.runtime`."""
    message: str
    fatal: bool = False
    """A deploy refuses: going on would silently leave out something the file asks for."""


SUPPORTED_RUNTIMES = ("supervisor", "pm2", "systemd", "compose", "swarm", "command")
HANDED_OVER = ("pm2", "systemd")
"""Runtimes beside the supervisor's own whose services may say `handoff = "port"`."""
SUPPORTED_ON_CHANGE = ("restart", "reload", "none")
SWARM_ON_CHANGE = ("restart", "rebuild", "recreate", "up", "none")
COMPOSE_ON_CHANGE = (*SUPPORTED_ON_CHANGE, "rebuild", "recreate", "up")


def unsupported(config: Config) -> list[Note]:
    """The keys whose behaviour this version does not have; the fatal ones first."""
    notes = [*_top(config)]
    composed = any(service.runtime in IMAGES for service in config.services.values())
    for name, environment in config.environments.items():
        if not composed:
            notes += _checks(environment.checks, ("environments", name, "checks"), "environments without Compose")
    for name, service in config.services.items():
        notes += _service(service, ("services", name))
    notes += _second_names(config)
    for position, action in enumerate(config.actions):
        path: Path = ("actions", position)
        acted_on = config.services.get(action.service or "")
        runtime = acted_on.runtime if acted_on is not None else None
        if action.on_change is not None and action.on_change not in _can(runtime):
            notes.append(_lacking((*path, "on_change"), _of_runtime(action.on_change, runtime)))
    return sorted(notes, key=lambda note: not note.fatal)


def _lacking(path: Path, what: str, fatal: bool = True) -> Note:
    end = "take it out to deploy with this version" if fatal else "it has no effect yet"
    return Note(where=dotted(path), message=f"this version has no {what}; {end}", fatal=fatal)


def _top(config: Config) -> Iterator[Note]:
    for name, scope in config.scopes.items():
        if together.unused(scope, config, name):
            told = "no service of the scope has a `build` with `outputs` and without `run`; it has no effect yet"
            yield Note(where=dotted(("scopes", name, "build")), message=told, fatal=False)


def _can(runtime: str | None) -> tuple[str, ...]:
    return {"compose": COMPOSE_ON_CHANGE, "swarm": SWARM_ON_CHANGE}.get(runtime or "", SUPPORTED_ON_CHANGE)


def _of_runtime(on_change: str, runtime: str | None) -> str:
    return f'on_change = "{on_change}"' + (f' for runtime "{runtime}"' if runtime else "")


def _service(service: Service, path: Path) -> Iterator[Note]:
    if service.runtime is not None and service.runtime not in SUPPORTED_RUNTIMES:
        yield _lacking((*path, "runtime"), f'runtime "{service.runtime}"')
    if service.on_change not in _can(service.runtime):
        yield _lacking((*path, "on_change"), _of_runtime(service.on_change, service.runtime))
    if service.runtime != "supervisor":
        yield from _unsupervised(service, path)
    if service.checkout and service.target is not None and layout.folder_of(service):
        told = '`checkout` is for a live folder of the whole repository: `source` must be "."'
        yield Note(where=dotted((*path, "checkout")), message=told, fatal=True)
    if service.build is not None and service.build.git and service.build.where == "live":
        told = '`git` is for builds beside the live folder; with `where = "live"` use `checkout`'
        yield Note(where=dotted((*path, "build", "git")), message=told, fatal=True)
    if service.runtime not in IMAGES:
        yield from _checks(service.checks, (*path, "checks"), f'runtime "{service.runtime}"')


def _unsupervised(service: Service, path: Path) -> Iterator[Note]:
    """Keys that only the supervisor carries out."""
    named = f'runtime "{service.runtime}"' if service.runtime else "files only"
    if service.handoff == "port" and service.runtime in HANDED_OVER:
        yield from _handed_over(service, path, named)
        return
    if service.handoff is not None:
        yield _lacking((*path, "handoff"), f'handoff = "{service.handoff}" for {named}')
        return
    for key, what in (
        ("listen", "listening sockets"), ("ready", "readiness"), ("replicas", "replicas"),
    ):  # fmt: skip
        if getattr(service, key) not in (None, Service().replicas):
            yield _lacking((*path, key), f"{what} for {named}")
    if service.drain != Service().drain:
        yield _lacking((*path, "drain"), f"draining for {named}", fatal=False)


def _second_names(config: Config) -> Iterator[Note]:
    """A service that runs under two names in turn needs the second one for itself."""
    named = {(service.runtime, service.unit or name): name for name, service in config.services.items()}
    for name, service in config.services.items():
        second = f"{(service.unit or name).removesuffix('.service')}.b"
        if service.handoff == "port" and service.runtime in HANDED_OVER:
            for unit in (second, f"{second}.service"):
                if other := named.get((service.runtime, unit)):
                    told = f'`{unit}` is the second name of {name}, which has `handoff = "port"`; give it another `unit`'
                    yield Note(where=dotted(("services", other)), message=told, fatal=True)


def _handed_over(service: Service, path: Path, named: str) -> Iterator[Note]:
    """Keys that only go with processes of the supervisor's own, not with those that it only leads connections to."""
    ready = service.ready
    if service.replicas != Service().replicas:
        yield _lacking((*path, "replicas"), f"replicas for {named}")
    if service.on_change == "reload":
        yield _lacking((*path, "on_change"), 'on_change = "reload" together with `handoff = "port"`')
    for key in ("line", "notify", "tcp"):
        if ready is not None and getattr(ready, key):
            yield _lacking((*path, "ready", key), f"readiness by `{key}` for {named}")
    if ready is not None and ready.http is not None and not ready.http.startswith("/"):
        told = 'with `handoff = "port"` this is a path: at an address of its own the old process would answer'
        yield Note(where=dotted((*path, "ready", "http")), message=told, fatal=True)


def _checks(checks: list[Check], path: Path, named: str) -> Iterator[Note]:
    for position, check in enumerate(checks):
        if check.containers is not None:
            yield _lacking((*path, position, "containers"), f"checks of containers for {named}")


def check_tree(config: Config, environment: str, paths: Collection[str]) -> list[Note]:
    """What does not fit between the configuration of an environment and the files of a commit.

    `paths` are all files of the commit, from the root of the repository; the fatal notes come first.
    """
    tree = _Tree(paths)
    services = layout.services_of(config, environment)
    notes = [*_overlaps(layout.targets(config, environment))]
    for name, service in services.items():
        notes += _against_tree(name, service, tree, config)
    notes += _homeless(config, services)
    notes += tree.unmatched(config.project.mutable, ("project", "mutable"), "")
    for position, rule in enumerate(config.rules):
        notes += _guards_nothing(rule, config, tree, ("rules", position, "match"))
    for position, action in enumerate(config.actions):
        notes += tree.unmatched(action.paths, ("actions", position, "paths"), "")
    return sorted(notes, key=lambda note: not note.fatal)


def _homeless(config: Config, services: Mapping[str, Service]) -> Iterator[Note]:
    """Services whose files go nowhere, and that no other is made from."""
    used = {name for service in config.services.values() for name in service.uses}
    for name, service in services.items():
        if service.source is not None and name not in used and layout.target_of(config, name) is None:
            told = "no live folder is named, so none of its files is put live"
            yield Note(where=dotted(("services", name, "target")), message=told)


class _Tree:
    """The files of a commit, and the folders they make."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = paths
        self.folders = {""}
        for path in paths:
            folder = path.rpartition("/")[0]
            while folder not in self.folders:
                self.folders.add(folder)
                folder = folder.rpartition("/")[0]

    def below(self, folder: str) -> list[str]:
        return [p[len(folder) + 1 :] for p in self.paths if p.startswith(f"{folder}/")] if folder else [*self.paths]

    def unmatched(self, patterns: list[str], path: Path, *folders: str) -> Iterator[Note]:
        """A pattern that takes no file of the commit below any of `folders` is most likely misspelled."""
        folder = folders[-1]
        files = [file for each in dict.fromkeys(folders) for file in self.below(each)]
        for position, pattern in enumerate(patterns):
            matches = Matcher([pattern], dir_only_matches_files=True).match
            if not any(matches(file) for file in files):
                near = _near(pattern, files)
                at = f"below {folder}/" if folder else "in the repository"
                yield Note(where=dotted((*path, position)), message=f"`{pattern}` matches no file {at}{near}")


def _near(pattern: str, files: list[str]) -> str:
    first = sorted({file.split("/")[0] for file in files})
    written = pattern.strip("/").split("/")[0]
    found = difflib.get_close_matches(written, first, n=1, cutoff=0.7)
    return f"; did you mean `{found[0]}`?" if found and found[0] != written else ""


def _against_tree(name: str, service: Service, tree: _Tree, config: Config) -> Iterator[Note]:
    path: Path = ("services", name)
    folder = layout.folder_of(service)
    if folder not in tree.folders:
        kind = "is a file, not a folder" if folder in tree.paths else "is not a folder of the repository"
        found = difflib.get_close_matches(folder, sorted(tree.folders - {""}), n=1, cutoff=0.6)
        hint = f"; did you mean `{found[0]}`?" if found else ""
        yield Note(where=dotted((*path, "source")), message=f"`{folder}` {kind}{hint}", fatal=True)
        return
    yield from tree.unmatched(service.watch, (*path, "watch"), folder, "")
    yield from tree.unmatched(service.ignore, (*path, "ignore"), "", folder)
    yield from tree.unmatched(service.mutable, (*path, "mutable"), folder)
    yield from tree.unmatched(service.in_place, (*path, "in_place"), folder)
    yield from _uses(service, tree, config, path)
    if service.build is not None:
        files = tree.below(folder)
        for position, output in enumerate(service.build.outputs):
            at = output.rstrip("/")
            tracked = next((file for file in files if within(file, at)), None)
            if tracked is not None:
                yield Note(
                    where=dotted((*path, "build", "outputs", position)), fatal=True,
                    message=f"`{output}` is a build output, but git tracks `{tracked}`; git rm --cached it",
                )  # fmt: skip


def _guards_nothing(rule: Rule, config: Config, tree: _Tree, path: Path) -> Iterator[Note]:
    """A guard that is misspelled guards nothing, and nobody notices."""
    patterns = [rule.match] if isinstance(rule.match, str) else rule.match
    if rule.action in NAMED and rule.action != "push":
        names = [name for key, service in config.services.items() for name in (key, service.unit) if name]
        names += [path for action in config.actions for path in action.paths] if rule.action == "run" else []
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.6)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                yield Note(where=dotted(path), message=f"`{pattern}` is no service and no unit{hint}")
    elif rule.action in ("write", "try"):
        yield from tree.unmatched([p for p in patterns if not p.startswith(("/", "!"))], path, "")


def _uses(service: Service, tree: _Tree, config: Config, path: Path) -> Iterator[Note]:
    for position, used in enumerate(service.uses):
        if used not in config.services and next(tree.unmatched([used], path, ""), None) is not None:
            found = difflib.get_close_matches(used, config.services, n=1, cutoff=0.6)
            hint = f"; did you mean `{found[0]}`?" if found else ""
            yield Note(where=dotted((*path, "uses", position)),
                       message=f"`{used}` is neither a service nor a path of the repository{hint}")  # fmt: skip


def _overlaps(targets: dict[str, Target]) -> Iterator[Note]:
    """Two live folders that are one, or one inside the other; sorted by path, so neighbours suffice."""
    order = sorted(targets.values(), key=lambda target: (*target.path.split("/"), ""))
    above: list[Target] = []
    for target in order:
        while above and not f"{target.path}/".startswith(f"{above[-1].path}/"):
            above.pop()
        if above:
            other = above[-1]
            what = "is the target of" if other.path == target.path else f"lies inside {other.path}, the target of"
            owner = "the project" if other.name == PROJECT else other.name
            where: Path = ("project", "target") if target.name == PROJECT else ("services", target.name, "target")
            yield Note(where=dotted(where), message=f"{target.path} {what} {owner}", fatal=True)
        above.append(target)
