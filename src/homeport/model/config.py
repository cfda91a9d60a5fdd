"""The shape of homeport.toml (DESIGN section 8). Field names are the keys of the file.

Durations are seconds; in the file they are written as `"250ms"`, `"30s"`, `"15m"`, `"4h"`, `"7d"` or a
number of seconds. Commands are a list (run as it is) or a string (run by `/bin/sh -c`).
"""

# Annotations are no strings here: msgspec would evaluate each of them in every command that reads a configuration.
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field


class Seconds(float):
    """A length of time in seconds."""


Command = str | list[str]
"""A list runs as it is; a string runs by `/bin/sh -c` and is written by the project's own people."""

OnDrift = Literal["refuse", "keep", "discard"]
OnChange = Literal["restart", "reload", "rebuild", "recreate", "up", "none"]
RuntimeName = Literal["supervisor", "pm2", "systemd", "compose", "swarm", "command"]
IMAGES = ("compose", "swarm")
"""Runtimes whose services run images."""
Handoff = Literal["fd", "shim", "port", "stop-first"]
Deeds = Literal["deploy", "try", "rollback", "restart", "migrate", "run", "write", "delete", "discard", "push",
                "hostfile"]  # fmt: skip


class Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """A reference to a secret: exactly one of `env` (a variable) or `file` (a path)."""

    env: str | None = None
    file: str | None = None


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Project(_Table, frozen=True):
    name: str
    """Names the state folder; unique on a host."""
    repo: str | None = None
    """Where to fetch from; default: the checkout's `origin`."""
    target: str | None = None
    """Live folder of the whole repository, for services without one of their own."""
    protect: list[str] = field(default_factory=list)
    """Never written, deleted or reported, in every target."""
    unprotect: list[str] = field(default_factory=list)
    """Built-in protect patterns that do not hold here."""
    mutable: list[str] = field(default_factory=list)
    """Tracked files that programs rewrite: reset at a deploy, saved first, no drift."""
    jobs: int = 2
    """Builds and restarts at a time."""
    keep: int = 5
    """Build outputs kept per service, for rollbacks."""


class Forge(_Table, frozen=True):
    kind: Literal["github", "gitea", "gitlab"]
    url: str | None = None
    """Default: from the repository's address."""
    repo: str | None = None
    """`owner/name`; default: from the repository's address."""
    token: Secret | None = None
    webhook_secret: list[Secret] = field(default_factory=list)


class Check(_Table, frozen=True):
    """One health condition: exactly one of the six kinds, and how long and how often to try."""

    http: str | None = None
    """A URL."""
    tcp: str | None = None
    """`host:port` that accepts a connection."""
    command: Command | None = None
    """A command that ends with 0."""
    process: bool | None = None
    """The process manager says that it runs."""
    containers: int | list[str] | None = None
    version: str | list[str] | None = None
    """A URL or a command whose answer must contain the deployed commit (full, or its first 7 or more digits)."""
    name: str | None = None
    status: int | list[int] | None = None
    """Accepted HTTP statuses; default: any from 200 to 399."""
    contains: str | None = None
    """Text that the HTTP answer must contain."""
    timeout: Seconds = Seconds(5)
    """Of one try."""
    within: Seconds = Seconds(30)
    """The condition must hold for the first time before this has passed."""
    every: Seconds = Seconds(0.5)
    """Between two tries."""
    stable: Seconds | UnsetType = UNSET
    """Then it must hold without a break for this long; default 0, and 2 s for `process`."""
    required: bool = True
    """False: only reported."""


class Environment(_Table, frozen=True):
    branch: str
    """Only commits that this branch reaches are deployed."""
    hosts: list[str] = field(default_factory=list)
    url: str | None = None
    try_: bool = field(default=False, name="try")
    observe: bool = False
    """Look and report, deploy nothing."""
    on_drift: OnDrift = "refuse"
    """What a deploy does with edits on the host."""
    edit_warning: Seconds = Seconds(24 * 3600)
    """Older edits are pointed out by `homeport status`."""
    strategy: Literal["rolling", "canary", "all"] = "rolling"
    hold_ttl: Seconds = Seconds(4 * 3600)
    """How long a hold lasts."""
    converge: Seconds = Seconds(15 * 60)
    checks: list[Check] = field(default_factory=list)
    """Of the whole environment, beside those of the services."""
    repo: str | None = None
    """Instead of that of the project."""


class Host(_Table, frozen=True):
    ssh: str
    addresses: list[str] = field(default_factory=list)


class Build(_Table, frozen=True):
    run: Command | None = None
    """Without one, the `build` of a scope makes the outputs."""
    outputs: list[str] = field(default_factory=list)
    """What it makes and the live folder gets, exchanged as a whole."""
    inherit: list[str] = field(default_factory=list)
    """Files of the live folder that are copied into the build folder first."""
    env: dict[str, str] = field(default_factory=dict)
    """Its environment, beside the `HOMEPORT_` variables."""
    git: bool = False
    """Git answers about the commit that is built, read-only: history and tags."""
    timeout: Seconds = Seconds(30 * 60)
    where: Literal["beside", "live"] = "beside"
    """In a folder beside the live one, or in the live folder itself."""


class Ready(_Table, frozen=True):
    """When a started process counts as ready (supervisor, and `handoff = \"port\"`)."""

    http: str | None = None
    tcp: str | None = None
    line: str | None = None
    notify: bool = False
    timeout: Seconds = Seconds(30)


class Service(_Table, frozen=True):
    source: str | None = None
    """Folder in the repository; `.` for all of it."""
    target: str | None = None
    """Live folder that mirrors it."""
    watch: list[str] = field(default_factory=list)
    """Paths outside of `source` whose change builds and restarts it too."""
    ignore: list[str] = field(default_factory=list)
    """Paths whose change does not concern it."""
    uses: list[str] = field(default_factory=list)
    """Services or paths it is made from: their change builds and restarts it too."""
    protect: list[str] = field(default_factory=list)
    """Never written, deleted or reported."""
    unprotect: list[str] = field(default_factory=list)
    """Built-in protect patterns that do not hold here."""
    mutable: list[str] = field(default_factory=list)
    """Tracked files that programs rewrite: reset at a deploy, saved first, no drift."""
    in_place: list[str] = field(default_factory=list)
    """Written through the same inode (single files mounted into a container)."""
    checkout: bool = False
    """The live folder is a git checkout of the whole repository: HEAD and index follow each deploy."""
    owner: str | None = None
    """`user` or `user:group` of the files."""
    user: str | None = None
    """Who builds, and runs commands and processes."""
    home: str | None = None
    """Home folder for these."""
    path: list[str] = field(default_factory=list)
    """Folders before the system's on its PATH."""
    build: Build | None = None
    runtime: RuntimeName | None = None
    """What runs it; without one it is files only."""
    unit: str | None = None
    """Its name in the runtime; default: the service's."""
    command: Command | None = None
    """What starts it (pm2), or restarts it (command)."""
    cwd: str | None = None
    """Below the target."""
    env: dict[str, str] = field(default_factory=dict)
    """Its environment; wins over `env_file`."""
    env_file: str | None = None
    """On the host, never from git; relative to the target, or absolute."""
    listen: str | list[str] | None = None
    handoff: Handoff | None = None
    replicas: int = 1
    signal: str = "SIGTERM"
    stop_timeout: Seconds = Seconds(10)
    """Between asking it to stop and killing it."""
    ready: Ready | None = None
    drain: Seconds = Seconds(10)
    on_change: OnChange = "restart"
    """What a change leads to."""
    validate: Command | None = None
    """Must end with 0 right before the restart."""
    after: list[str] = field(default_factory=list)
    """Services that are restarted before it."""
    environments: list[str] = field(default_factory=list)
    """Only in these; default: in all."""
    checks: list[Check] = field(default_factory=list)
    """Must hold before a deploy is done."""

    @property
    def supervised(self) -> bool:
        """Whether the built-in supervisor is needed to start it: it runs it, or holds its address."""
        return self.runtime == "supervisor" or self.handoff == "port"


class Action(_Table, frozen=True):
    """A per-path action that belongs to no service, or points at one."""

    paths: list[str]
    """A change of one of these is the reason."""
    run: Command | None = None
    """What to do, or:"""
    service: str | None = None
    """The service to act on."""
    on_change: OnChange | None = None
    validate: Command | None = None
    """Must end with 0 first."""
    wait: Command | None = None
    """Must end with 0 afterwards."""
    timeout: Seconds = Seconds(10 * 60)
    user: str | None = None


class Scope(_Table, frozen=True):
    services: list[str]
    build: Command | None = None
    """Run once, at the top of the repository, for those of its services whose own `build` has no `run`."""


class Migrate(_Table, frozen=True):
    run: Command
    """Runs from the build folder, before anything live changes; a rollback undoes it only by `undo`."""
    service: str | None = None
    """Whose files hold the migrations."""
    user: str | None = None
    timeout: Seconds = Seconds(10 * 60)
    undo: Command | None = None
    """Takes the migrations of the commit that a rollback leaves back; runs on that commit's files."""
    lock: Secret | str | None = None
    """Address of a PostgreSQL database for an advisory lock."""


class CiCheck(_Table, frozen=True):
    run: Command
    paths: list[str] = field(default_factory=list)
    timeout: Seconds = Seconds(15 * 60)
    cron: str | None = None
    """When to run on the branch's newest commit, in UTC, whatever changed: `"0 4 * * 1"`."""
    required: bool = True
    user: str | None = None


class Gate(_Table, frozen=True):
    workflows: Literal["all"] | list[str] = "all"
    """What must have passed on the forge."""
    except_: list[str] = field(default_factory=list, name="except")
    """Workflows that do not count."""
    checks: list[str] = field(default_factory=list)
    """Names that must be there and pass."""
    settle: Seconds = Seconds(30)
    """How long to wait for workflows that have not started yet."""
    timeout: Seconds = Seconds(60 * 60)
    """Then the gate is closed."""


class Rule(_Table, frozen=True):
    """A guard: what may not happen, or only with somebody's word."""

    id: str
    action: Deeds
    """What it is about."""
    match: str | list[str] = "*"
    """Services or units (deploy, rollback, restart, migrate, run), branches (push), else paths; with `/` in front also on
    the host."""
    effect: Literal["allow", "deny", "confirm", "review"] = "deny"
    environments: list[str] = field(default_factory=list)
    """Only in these; default: in all."""
    because: str = ""
    """Told to whoever is stopped."""


class HostFile(_Table, frozen=True):
    """A file outside the repository that homeport keeps a history of."""

    path: str
    """Absolute; no link on the way."""
    purpose: str
    """What it is for."""
    hosts: list[str] = field(default_factory=list)
    """Only on these; default: on all."""
    validate: Command | None = None
    """Must end with 0 before a new content is put in place; HOMEPORT_FILE is the path of the copy that holds it."""
    reload: Command | None = None
    """Runs afterwards; when it fails, the old content comes back."""
    secret: bool = False
    """Its content is never shown and never in the history: digests only, and backups with mode 0600."""


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


class Listen(_Table, frozen=True):
    """The daemon on TCP, through a process of its own."""

    address: str | None = None
    """`host:port`, for example `"127.0.0.1:7420"`."""
    user: str | None = None
    """Who that process runs as; needed where homeport runs as root."""
    url: str | None = None
    """The address under which others reach it, when a proxy stands before it: its name is accepted as Host."""


class BoundKey(_Table, frozen=True):
    """An ssh key that does what a token may, and no more."""

    token: str
    public: str | None = None
    """The key as in its `.pub` file; `homeport setup` writes its line of authorized_keys."""


class HostConfig(_Table, frozen=True):
    """/etc/homeport/host.toml: who this machine is and what homeport may do on it (DESIGN section 7)."""

    name: str
    """This machine."""
    environments: list[str] = field(default_factory=list)
    """No other environment is served here; empty: all."""
    addresses: list[str] = field(default_factory=list)
    """IP addresses that lead here though the machine does not carry them, such as that of a translating router."""
    observe: bool = False
    """Look and report here, deploy nothing."""
    roots: list[str] = field(default_factory=list)
    """Where live folders may lie."""
    users: list[str] = field(default_factory=list)
    """Whom homeport may become."""
    units: list[str] = field(default_factory=list)
    """Processes it may touch; `*` matches anything."""
    channels: list[str] = field(default_factory=list)
    """Addresses of this machine itself, or of its network's own services, that a name or a redirect may lead messages to:
    `"127.0.0.1:8080"`."""
    listen: Listen = field(default_factory=lambda: Listen())  # noqa: PLW0108  # defined further down
    """Where the daemon is reached over TCP; without an address it is not."""
    secrets: dict[str, Secret] = field(default_factory=dict)
    keys: dict[str, BoundKey] = field(default_factory=dict)
    """ssh keys that are bound to tokens."""
    limits: dict[str, int | str] = field(default_factory=dict)
    """`outputs`: the size of all kept build outputs of one service; `journals`: of all journals; `fetch`: how long."""
    rules: list[Rule] = field(default_factory=list)
    """They win over those of the repository."""
    hostfiles: list[HostFile] = field(default_factory=list)
    """Host files that may be changed here beside those below `roots`; their keys win over the repository's."""
