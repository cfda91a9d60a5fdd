"""The shape of homeport.toml (DESIGN section 8). Field names are the keys of the file.

Durations are seconds; in the file they are written as `"250ms"`, `"30s"`, `"15m"`, `"4h"`, `"7d"` or a
number of seconds. Commands are a list (run as it is) or a string (run by `/bin/sh -c`).
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field


class Seconds(float):
    """A length of time in seconds."""


Command = str | list[str]
"""A list runs as it is; a string runs by `/bin/sh -c` and is written by the project's own people."""

OnDrift = Literal["refuse", "keep", "discard"]
OnChange = Literal["restart", "reload", "rebuild", "recreate", "up", "none"]
RuntimeName = Literal["supervisor", "pm2", "systemd", "compose", "swarm", "command"]
Handoff = Literal["fd", "shim", "port", "stop-first"]


class Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """A reference to a secret: exactly one of `env` (a variable) or `file` (a path)."""

    env: str | None = None
    file: str | None = None


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Project(_Table, frozen=True):
    name: str
    repo: str | None = None
    target: str | None = None
    protect: list[str] = field(default_factory=list)
    unprotect: list[str] = field(default_factory=list)
    mutable: list[str] = field(default_factory=list)
    jobs: int = 2
    keep: int = 5


class Forge(_Table, frozen=True):
    kind: Literal["github", "gitea", "gitlab"]
    url: str | None = None
    repo: str | None = None
    token: Secret | None = None
    webhook_secret: list[Secret] = field(default_factory=list)


class Check(_Table, frozen=True):
    """One health condition: exactly one of the six kinds, and how long and how often to try."""

    http: str | None = None
    tcp: str | None = None
    command: Command | None = None
    process: bool | None = None
    containers: int | list[str] | None = None
    version: str | list[str] | None = None
    """A URL or a command whose answer must contain the deployed commit (full, or its first 7 or more digits)."""
    name: str | None = None
    status: int | list[int] | None = None
    """Accepted HTTP statuses; default: any from 200 to 399."""
    contains: str | None = None
    timeout: Seconds = Seconds(5)
    """Of one try."""
    within: Seconds = Seconds(30)
    """The condition must hold for the first time before this has passed."""
    every: Seconds = Seconds(0.5)
    stable: Seconds | UnsetType = UNSET
    """Then it must hold without a break for this long; default 0, and 2 s for `process`."""
    required: bool = True


class Environment(_Table, frozen=True):
    branch: str
    hosts: list[str] = field(default_factory=list)
    url: str | None = None
    try_: bool = field(default=False, name="try")
    observe: bool = False
    on_drift: OnDrift = "refuse"
    edit_warning: Seconds = Seconds(24 * 3600)
    strategy: Literal["rolling", "canary", "all"] = "rolling"
    hold_ttl: Seconds = Seconds(4 * 3600)
    converge: Seconds = Seconds(15 * 60)
    checks: list[Check] = field(default_factory=list)
    repo: str | None = None


class Host(_Table, frozen=True):
    ssh: str
    addresses: list[str] = field(default_factory=list)


class Build(_Table, frozen=True):
    run: Command
    outputs: list[str] = field(default_factory=list)
    inherit: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    git: bool = False
    timeout: Seconds = Seconds(30 * 60)
    where: Literal["beside", "live"] = "beside"


class Ready(_Table, frozen=True):
    """When a started process counts as ready (supervisor)."""

    http: str | None = None
    tcp: str | None = None
    line: str | None = None
    notify: bool = False
    timeout: Seconds = Seconds(30)


class Service(_Table, frozen=True):
    source: str | None = None
    target: str | None = None
    watch: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)
    protect: list[str] = field(default_factory=list)
    unprotect: list[str] = field(default_factory=list)
    mutable: list[str] = field(default_factory=list)
    in_place: list[str] = field(default_factory=list)
    checkout: bool = False
    owner: str | None = None
    user: str | None = None
    home: str | None = None
    path: list[str] = field(default_factory=list)
    build: Build | None = None
    runtime: RuntimeName | None = None
    unit: str | None = None
    command: Command | None = None
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    env_file: str | None = None
    listen: str | list[str] | None = None
    handoff: Handoff | None = None
    replicas: int = 1
    signal: str = "SIGTERM"
    stop_timeout: Seconds = Seconds(10)
    ready: Ready | None = None
    drain: Seconds = Seconds(10)
    on_change: OnChange = "restart"
    validate: Command | None = None
    after: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


class Action(_Table, frozen=True):
    """A per-path action that belongs to no service, or points at one."""

    paths: list[str]
    run: Command | None = None
    service: str | None = None
    on_change: OnChange | None = None
    validate: Command | None = None
    wait: Command | None = None
    timeout: Seconds = Seconds(10 * 60)
    user: str | None = None


class Scope(_Table, frozen=True):
    services: list[str]
    build: Command | None = None


class Migrate(_Table, frozen=True):
    run: Command
    service: str | None = None
    user: str | None = None
    timeout: Seconds = Seconds(10 * 60)
    undo: Command | None = None
    lock: Secret | str | None = None


class CiCheck(_Table, frozen=True):
    run: Command
    paths: list[str] = field(default_factory=list)
    timeout: Seconds = Seconds(15 * 60)
    cron: str | None = None
    required: bool = True
    user: str | None = None


class Gate(_Table, frozen=True):
    workflows: Literal["all"] | list[str] = "all"
    except_: list[str] = field(default_factory=list, name="except")
    checks: list[str] = field(default_factory=list)
    settle: Seconds = Seconds(30)
    timeout: Seconds = Seconds(60 * 60)


class Rule(_Table, frozen=True):
    id: str
    action: str
    match: str | list[str] = "*"
    effect: Literal["allow", "deny", "confirm", "review"] = "deny"
    environments: list[str] = field(default_factory=list)
    because: str = ""


class HostFile(_Table, frozen=True):
    path: str
    purpose: str
    hosts: list[str] = field(default_factory=list)
    validate: Command | None = None
    reload: Command | None = None
    secret: bool = False


class Notify(_Table, frozen=True):
    urls: list[Secret | str] = field(default_factory=list)
    on: list[Literal["failure", "full", "condensed"]] = field(default_factory=list)
    quiet_paths: list[str] = field(default_factory=list)


class Config(_Table, frozen=True):
    """A whole homeport.toml."""

    project: Project
    environments: dict[str, Environment]
    services: dict[str, Service] = field(default_factory=dict)
    forge: Forge | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    scopes: dict[str, Scope] = field(default_factory=dict)
    migrate: Migrate | None = None
    checks: dict[str, CiCheck] = field(default_factory=dict)
    gate: Gate | None = None
    rules: list[Rule] = field(default_factory=list)
    hostfiles: list[HostFile] = field(default_factory=list)
    notify: Notify | None = None


class HostConfig(_Table, frozen=True):
    """/etc/homeport/host.toml: who this machine is and what homeport may do on it (DESIGN section 7)."""

    name: str
    environments: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    listen: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: dict[str, int | str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
