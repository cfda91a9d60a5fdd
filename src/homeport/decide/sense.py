"""What a configuration of the right shape may still get wrong: names, paths, references, circles.

Every function yields (path of the key, what is wrong); the loader raises the first. Nothing here asks
whether this version can do what the file says: that is `checking`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from homeport.decide import cron, durations, sizes, spelling, together
from homeport.decide.locate import Path
from homeport.model.config import (
    IMAGES,
    Action,
    Build,
    Check,
    Config,
    Environment,
    HostConfig,
    HostFile,
    Rule,
    Secret,
    Service,
)

Fault = tuple[Path, str]

CHECK_KINDS = ("http", "tcp", "command", "process", "containers", "version")
NEEDS_TARGET = ("protect", "mutable", "in_place", "build", "checkout", "owner")
"""Keys of a service that mean nothing without a live folder, its own or the project's."""
NEEDS_OWN_TARGET = ("unprotect",)
LIMITS = ("outputs", "journals", "fetch")
"""Keys of `[limits]` in host.toml: the size of all kept build outputs of one service; of all journals; how long a fetch
may take."""


def faults(config: Config) -> Iterator[Fault]:
    """Everything wrong with a project's configuration."""
    yield from _project(config)
    if not config.environments:
        yield ("environments",), "at least one environment is needed, for example [environments.production]"
    for name, environment in config.environments.items():
        yield from _environment(config, name, environment)
    for name, host in config.hosts.items():
        yield from spelling.name(name, ("hosts", name))
        yield from spelling.ssh(host.ssh, ("hosts", name, "ssh"))
        for position, address in enumerate(host.addresses):
            yield from spelling.ip(address, ("hosts", name, "addresses", position))
    for name, service in config.services.items():
        yield from _service(config, name, service)
    yield from _circle(config)
    yield from _forge(config)
    yield from _rest(config)


def host_faults(host: HostConfig) -> Iterator[Fault]:
    """Everything wrong with a host's configuration."""
    yield from spelling.name(host.name, ("name",))
    for position, name in enumerate(host.environments):
        yield from spelling.name(name, ("environments", position))
    for position, address in enumerate(host.addresses):
        yield from spelling.ip(address, ("addresses", position))
    for position, root in enumerate(host.roots):
        yield from spelling.absolute(root, ("roots", position), root_too=True)
    for position, user in enumerate(host.users):
        yield from spelling.user(user, ("users", position))
    for position, unit in enumerate(host.units):
        yield from spelling.plain(unit, ("units", position))
    for position, text in enumerate(host.channels):
        yield from spelling.address_listed(text, ("channels", position))
    for name, secret in host.secrets.items():
        yield from _secret(secret, ("secrets", name))
    for name, bound in host.keys.items():
        from homeport.decide import authorizing

        for inner, what in authorizing.faults(name, bound):
            yield ("keys", name, *inner), what
    for key, value in host.limits.items():
        if key not in LIMITS:
            yield ("limits", key), f"not a limit; there is {', '.join(LIMITS)}"
            continue
        try:
            durations.parse(value) if key == "fetch" else sizes.parse(value)
        except ValueError:
            yield ("limits", key), f"expected {durations.EXPECTED if key == 'fetch' else sizes.EXPECTED}"
    yield from _rules(host.rules, None)
    yield from _hostfiles(host.hostfiles)


def _project(config: Config) -> Iterator[Fault]:
    project = config.project
    yield from spelling.name(project.name, ("project", "name"))
    if project.target is not None:
        yield from spelling.absolute(project.target, ("project", "target"))
    if project.repo is not None:
        yield from spelling.plain(project.repo, ("project", "repo"))
    for key in ("protect", "unprotect", "mutable"):
        yield from spelling.patterns(getattr(project, key), ("project", key))
    yield from _at_least(project.jobs, 1, ("project", "jobs"))
    yield from _at_least(project.keep, 1, ("project", "keep"))


def _environment(config: Config, name: str, environment: Environment) -> Iterator[Fault]:
    path: Path = ("environments", name)
    yield from spelling.name(name, path)
    yield from spelling.branch(environment.branch, (*path, "branch"))
    yield from _known(environment.hosts, config.hosts, (*path, "hosts"), "host", "[hosts.{}]")
    if environment.url is not None:
        yield from spelling.url(environment.url, (*path, "url"))
    if environment.repo is not None:
        yield from spelling.plain(environment.repo, (*path, "repo"))
    yield from _checks(environment.checks, (*path, "checks"))


def _service(config: Config, name: str, service: Service) -> Iterator[Fault]:
    path: Path = ("services", name)
    yield from spelling.name(name, path)
    yield from _folders(config, service, path)
    for key in ("watch", "ignore", "protect", "unprotect", "mutable", "in_place"):
        yield from spelling.patterns(getattr(service, key), (*path, key))
    yield from _runs(name, service, path, config.project.target is not None)
    yield from _people(service, path)
    yield from spelling.variables(service.env, (*path, "env"))
    for key in ("command", "validate"):
        yield from spelling.command(getattr(service, key), (*path, key))
    if service.build is not None:
        yield from _build(service.build, (*path, "build"))
    yield from _known(service.after, config.services, (*path, "after"), "service", "[services.{}]", itself=name)
    yield from _known(service.environments, config.environments, (*path, "environments"),
                      "environment", "[environments.{}]")  # fmt: skip
    for position, used in enumerate(service.uses):
        if used not in config.services:
            yield from spelling.pattern(used, (*path, "uses", position))
        elif used == name:
            yield (*path, "uses", position), "a service cannot use itself"
    yield from _checks(service.checks, (*path, "checks"))
    if service.ready is not None:
        ready = service.ready
        yield from _exactly_one(ready, ("http", "tcp", "line", "notify"), (*path, "ready"))
        yield from _times(ready, ("timeout",), (*path, "ready"))


def _folders(config: Config, service: Service, path: Path) -> Iterator[Fault]:
    if service.source is not None:
        yield from spelling.inside(service.source, (*path, "source"), whole=True)
    if service.target is not None:
        yield from spelling.absolute(service.target, (*path, "target"))
        if service.source is None:
            yield path, 'a service with a target needs `source`, the folder that goes there ("." for all of it)'
    for key in (*NEEDS_TARGET, *NEEDS_OWN_TARGET):
        if not getattr(service, key) or service.target is not None:
            continue
        if config.project.target is None:
            yield (*path, key), f"`{key}` needs a live folder: give the service a `target`"
        elif key in NEEDS_OWN_TARGET:
            yield (*path, key), f"`{key}` needs a `target` of the service's own; this one shares [project] target"
    if service.cwd is not None:
        yield from spelling.inside(service.cwd, (*path, "cwd"), whole=True)
    if service.env_file is not None:
        yield from spelling.anywhere(service.env_file, (*path, "env_file"))


def _runs(name: str, service: Service, path: Path, shared: bool) -> Iterator[Fault]:
    unit = name if service.unit is None else service.unit
    at = path if service.unit is None else (*path, "unit")
    if service.unit is not None:
        yield from spelling.plain(service.unit, at)
    if service.runtime == "pm2" and (unit == "all" or unit.isdecimal()):
        yield at, f"pm2 takes `{unit}` for something else than a name; give the process another `unit`"
    if service.runtime in ("command", "supervisor") and service.command is None:
        yield path, f'runtime "{service.runtime}" needs `command`'
    if service.runtime in IMAGES and service.target is None and not shared:
        yield path, f'runtime "{service.runtime}" needs a live folder, which holds its Compose file: give it a `target`'
    yield from _handoff(service, path)
    if service.runtime is None and service.unit is not None:
        yield at, "`unit` needs a `runtime`"
    if service.signal not in spelling.SIGNALS:
        import difflib

        near = difflib.get_close_matches(service.signal.upper(), spelling.SIGNALS, n=1, cutoff=0.5)
        yield (*path, "signal"), "not the name of a signal" + (f"; did you mean `{near[0]}`?" if near else "")
    yield from _at_least(service.replicas, 1, (*path, "replicas"))


def _handoff(service: Service, path: Path) -> Iterator[Fault]:
    addresses = [service.listen] if isinstance(service.listen, str) else service.listen or []
    if service.handoff in ("fd", "shim", "port") and not addresses and service.runtime == "supervisor":
        yield (*path, "handoff"), f'`handoff = "{service.handoff}"` needs `listen`'
    elif service.handoff == "port" and service.runtime in ("pm2", "systemd") and not (addresses and service.command):
        yield (*path, "handoff"), '`handoff = "port"` needs `listen`, and the `command` that a second process is started by'
    elif service.handoff == "port" and len(addresses) > 1:
        yield (*path, "handoff"), '`handoff = "port"` takes one address in `listen`'


def _people(service: Service, path: Path) -> Iterator[Fault]:
    if service.user is not None:
        yield from spelling.user(service.user, (*path, "user"))
    if service.owner is not None:
        user, colon, group = service.owner.partition(":")
        yield from spelling.user(user, (*path, "owner"))
        if colon:
            yield from spelling.user(group, (*path, "owner"))
    if service.home is not None:
        yield from spelling.absolute(service.home, (*path, "home"))
    for position, folder in enumerate(service.path):
        yield from spelling.absolute(folder, (*path, "path", position))


def _build(build: Build, path: Path) -> Iterator[Fault]:
    yield from spelling.command(build.run, (*path, "run"))
    for position, output in enumerate(build.outputs):
        yield from spelling.inside(output, (*path, "outputs", position))
    for position, name in enumerate(build.inherit):
        yield from spelling.inside(name, (*path, "inherit", position))
    if build.git and build.run is None:
        yield (*path, "git"), "`git` is for a service's own `run`, not for a build of its scope"
    yield from spelling.variables(build.env, (*path, "env"))
    yield from _times(build, ("timeout",), path)


def _checks(checks: list[Check], path: Path) -> Iterator[Fault]:
    for position, check in enumerate(checks):
        here: Path = (*path, position)
        yield from _exactly_one(check, CHECK_KINDS, here)
        if check.process is False:
            yield (*here, "process"), "must be true; leave the check out instead"
        if check.http is not None:
            yield from spelling.url(check.http, (*here, "http"))
        if check.tcp is not None:
            yield from spelling.address(check.tcp, (*here, "tcp"))
        yield from spelling.command(check.command, (*here, "command"))
        yield from spelling.command(check.version, (*here, "version"))
        yield from _statuses(check, here)
        yield from _times(check, ("timeout", "within", "every"), here)


def _statuses(check: Check, path: Path) -> Iterator[Fault]:
    if check.status is not None:
        wanted = [check.status] if isinstance(check.status, int) else check.status
        if check.http is None:
            yield (*path, "status"), "`status` belongs to an `http` check"
        elif not wanted or not all(100 <= status <= 599 for status in wanted):
            yield (*path, "status"), "must be HTTP statuses from 100 to 599"


def _circle(config: Config) -> Iterator[Fault]:
    """A circle in `after`, named once as `a -> b -> a`; walks without recursion."""
    done: set[str] = set()
    for start in config.services:
        trail = [start]
        waiting = [list(config.services[start].after)]
        while trail:
            if start in done or not waiting[-1]:
                done.add(trail.pop())
                waiting.pop()
                continue
            name = waiting[-1].pop(0)
            if name in trail:
                shown = " -> ".join([*trail[trail.index(name) :], name])
                yield ("services", trail[-1], "after"), f"`after` goes in a circle: {shown}"
                return
            if name in config.services and name not in done:
                trail.append(name)
                waiting.append(list(config.services[name].after))


def _forge(config: Config) -> Iterator[Fault]:
    forge = config.forge
    if forge is None:
        return
    if forge.url is not None:
        yield from spelling.url(forge.url, ("forge", "url"))
    elif forge.kind == "gitea":
        yield ("forge",), 'kind "gitea" needs `url`'
    if forge.token is not None:
        yield from _secret(forge.token, ("forge", "token"))
    for position, secret in enumerate(forge.webhook_secret):
        yield from _secret(secret, ("forge", "webhook_secret", position))


def _rest(config: Config) -> Iterator[Fault]:
    for position, action in enumerate(config.actions):
        yield from _action(config, action, ("actions", position))
    for name, scope in config.scopes.items():
        path: Path = ("scopes", name)
        yield from spelling.name(name, path)
        yield from _known(scope.services, config.services, (*path, "services"), "service", "[services.{}]")
        yield from spelling.command(scope.build, (*path, "build"))
    yield from together.faults(config)
    migrate = config.migrate
    if migrate is not None:
        yield from spelling.command(migrate.run, ("migrate", "run"))
        yield from spelling.command(migrate.undo, ("migrate", "undo"))
        if migrate.service is not None:
            yield from _known([migrate.service], config.services, ("migrate", "service"), "service",
                              "[services.{}]", single=True)  # fmt: skip
            service = config.services.get(migrate.service)
            if service is not None and service.target is None and config.project.target is None:
                yield ("migrate", "service"), f"`{migrate.service}` has no `target`, so there is no folder to migrate from"
        if migrate.user is not None:
            yield from spelling.user(migrate.user, ("migrate", "user"))
        if isinstance(migrate.lock, Secret):
            yield from _secret(migrate.lock, ("migrate", "lock"))
        yield from _times(migrate, ("timeout",), ("migrate",))
    for name, check in config.checks.items():
        yield from spelling.name(name, ("checks", name))
        yield from spelling.command(check.run, ("checks", name, "run"))
        yield from spelling.patterns(check.paths, ("checks", name, "paths"))
        yield from _times(check, ("timeout",), ("checks", name))
        if check.user is not None:
            yield from spelling.user(check.user, ("checks", name, "user"))
        if check.cron is not None:
            yield from _cron(check.cron, ("checks", name, "cron"))
    yield from _rules(config.rules, config.environments)
    yield from _files_and_notify(config)


def _cron(text: str, path: Path) -> Iterator[Fault]:
    try:
        cron.fields(text)
    except ValueError as fault:
        yield path, str(fault)


def _files_and_notify(config: Config) -> Iterator[Fault]:
    yield from _hostfiles(config.hostfiles)
    for position, hostfile in enumerate(config.hostfiles if config.hosts else ()):
        yield from _known(hostfile.hosts, config.hosts, ("hostfiles", position, "hosts"), "host", "[hosts.{}]")
    if config.notify is not None:
        for position, url in enumerate(config.notify.urls):
            if isinstance(url, Secret):
                yield from _secret(url, ("notify", "urls", position))
        yield from spelling.patterns(config.notify.quiet_paths, ("notify", "quiet_paths"))


def _hostfiles(hostfiles: list[HostFile]) -> Iterator[Fault]:
    for position, hostfile in enumerate(hostfiles):
        path: Path = ("hostfiles", position)
        yield from spelling.absolute(hostfile.path, (*path, "path"))
        yield from spelling.command(hostfile.validate, (*path, "validate"))
        yield from spelling.command(hostfile.reload, (*path, "reload"))


def _action(config: Config, action: Action, path: Path) -> Iterator[Fault]:
    if not action.paths:
        yield (*path, "paths"), "at least one path pattern is needed"
    yield from spelling.patterns(action.paths, (*path, "paths"))
    yield from _exactly_one(action, ("run", "service"), path)
    if action.service is not None:
        yield from _known([action.service], config.services, (*path, "service"), "service",
                          "[services.{}]", single=True)  # fmt: skip
    elif action.on_change is not None:
        yield (*path, "on_change"), "`on_change` needs `service`"
    for key in ("run", "validate", "wait"):
        yield from spelling.command(getattr(action, key), (*path, key))
    if action.user is not None:
        yield from spelling.user(action.user, (*path, "user"))
    yield from _times(action, ("timeout",), path)


def _rules(rules: list[Rule], environments: Collection[str] | None) -> Iterator[Fault]:
    seen: set[str] = set()
    for position, rule in enumerate(rules):
        yield from spelling.name(rule.id, ("rules", position, "id"))
        if rule.id in seen:
            yield ("rules", position, "id"), f"two rules are called `{rule.id}`"
        seen.add(rule.id)
        if environments is not None:
            yield from _known(rule.environments, environments, ("rules", position, "environments"),
                              "environment", "[environments.{}]")  # fmt: skip


def _secret(secret: Secret, path: Path) -> Iterator[Fault]:
    yield from _exactly_one(secret, ("env", "file"), path)
    if secret.env is not None:
        yield from spelling.variables({secret.env: ""}, path)
    if secret.file is not None:
        yield from spelling.absolute(secret.file, (*path, "file"))


def _exactly_one(table: object, keys: tuple[str, ...], path: Path) -> Iterator[Fault]:
    given = [key for key in keys if getattr(table, key) not in (None, False) or
             (key == "process" and getattr(table, key) is False)]  # fmt: skip
    if len(given) != 1:
        has = " and ".join(f"`{key}`" for key in given) or "none"
        yield path, f"needs exactly one of {', '.join(f'`{key}`' for key in keys)}; it has {has}"


def _times(table: object, keys: tuple[str, ...], path: Path) -> Iterator[Fault]:
    for key in keys:
        if not getattr(table, key) > 0:
            yield (*path, key), "must be longer than 0s"


def _at_least(value: int, least: int, path: Path) -> Iterator[Fault]:
    if value < least:
        yield path, f"must be {least} or more, not {value}"


def _known(names: list[str], known: Collection[str], path: Path, noun: str, header: str,
           single: bool = False, itself: str | None = None) -> Iterator[Fault]:  # fmt: skip
    for position, name in enumerate(names):
        if name in known and name != itself:
            continue
        import difflib

        near = difflib.get_close_matches(name, [k for k in known if k != itself], n=1, cutoff=0.6)
        where = header.format("NAME")
        hint = f"did you mean `{near[0]}`?" if near else f"there is no {where} of that name"
        if noun == "service" and "after" in path and name == path[1]:
            hint = "a service cannot come after itself"
        yield path if single else (*path, position), f"unknown {noun} `{name}`; {hint}"
