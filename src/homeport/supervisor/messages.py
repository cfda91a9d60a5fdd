"""What may be said on the supervisor's socket, and what a unit is. Every field is checked before it is used."""

from __future__ import annotations

import re
import signal
import sys
from typing import Annotated

import msgspec
from msgspec import Struct, field

from homeport.model.config import Command, Handoff
from homeport.supervisor import forwarder
from homeport.supervisor.addresses import AddressFault, parse, parse_probe

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}")
MOST_REPLICAS = 64
LONGEST = 86400.0
"""Seconds that any configured time may be."""
KEPT_OUT = {"SIGKILL", "SIGSTOP", "SIGCHLD"}


class SpecFault(ValueError):
    """A unit cannot be run as it is configured; the text says which key and why."""


class Ready(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a started process counts as ready; at most one of the four, none: when it listens."""

    http: str | None = None
    """A path at the unit's first address, or http://ADDRESS:PORT/PATH; ready at a status from 200 to 399."""
    tcp: str | None = None
    line: str | None = None
    """Text that a line of output holds."""
    notify: bool = False
    """READY=1 on $NOTIFY_SOCKET (sd_notify)."""
    timeout: float = 30.0


class UnitSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One unit; the keys are those of a service in homeport.toml. Times are seconds."""

    name: str
    command: Command = ""
    cwd: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    """The whole environment: nothing of the supervisor's own is passed on."""
    user: str | None = None
    listen: list[str] = field(default_factory=list)
    handoff: Handoff | None = None
    """None: `shim` with `listen`, else `stop-first`."""
    replicas: int = 1
    signal: str = "SIGTERM"
    stop_timeout: float = 10.0
    ready: Ready | None = None
    drain: float = 10.0
    front_of: str | None = None
    """Set by the supervisor alone: it carries connections to the processes of that unit (`handoff = "port"`)."""
    carries: dict[str, int] = field(default_factory=dict)
    """Processes that somebody else runs, by name, and the port of 127.0.0.1 each listens on: the unit carries
    connections to them and has no command of its own."""
    log_bytes: int = 10 * 1024 * 1024
    """A log file is put aside when it would grow beyond this."""
    log_files: int = 5
    """How many put aside are kept."""

    @property
    def how(self) -> Handoff:
        if self.carries:
            return "fd"
        return self.handoff or ("shim" if self.listen else "stop-first")

    @property
    def argv(self) -> list[str]:
        if self.carries:
            return forwarding(self.user)
        return ["/bin/sh", "-c", self.command] if isinstance(self.command, str) else list(self.command)

    @property
    def starts_as(self) -> str | None:
        """The user to start it as; a forwarder becomes its user by itself."""
        return None if self.carries else self.user

    @property
    def forwards_for(self) -> str | None:
        """The unit whose list of ports it reads."""
        return self.name if self.carries else self.front_of

    @property
    def stop_signal(self) -> int:
        return int(signal.Signals[self.signal])

    @property
    def patience(self) -> float:
        """Seconds a started process has to become ready."""
        return float(self.ready.timeout) if self.ready else 30.0


def forwarding(user: str | None) -> list[str]:
    """The words that start the forwarder."""
    return [sys.executable, "-I", "-S", forwarder.__file__, *([user] if user else [])]


def front_for(spec: UnitSpec) -> UnitSpec:
    """The unit that carries connections to the processes of one with `handoff = "port"`."""
    return UnitSpec(
        name=f"{spec.name}@front", command=forwarding(spec.user), env={"LANG": "C.UTF-8"}, listen=spec.listen, handoff="fd",
        drain=spec.drain, stop_timeout=spec.stop_timeout, front_of=spec.name, log_bytes=spec.log_bytes,
        log_files=spec.log_files,
    )  # fmt: skip


def check_spec(spec: UnitSpec) -> None:
    """Raises SpecFault for what cannot be run."""
    if not NAME.fullmatch(spec.name):
        raise SpecFault("name: letters, digits and _ . @ + -, at most 100, beginning with a letter or digit")
    if spec.carries:
        _check_carrying(spec)
    elif not spec.command or not all(spec.argv) or any("\0" in word for word in spec.argv):
        raise SpecFault("command: is empty or holds an empty word or a zero byte")
    if not spec.cwd.startswith("/") or "\0" in spec.cwd:
        raise SpecFault("cwd: must be an absolute path")
    if any(not key or "=" in key or "\0" in key + value for key, value in spec.env.items()):
        raise SpecFault("env: a name is empty, holds '=', or something holds a zero byte")
    if not 1 <= spec.replicas <= MOST_REPLICAS:
        raise SpecFault(f"replicas: 1 to {MOST_REPLICAS}")
    known = spec.signal in signal.Signals.__members__ and spec.signal not in KEPT_OUT
    if not known:
        raise SpecFault("signal: the name of a signal that a process can catch, such as SIGTERM")
    for key in ("stop_timeout", "drain"):
        if not 0 <= getattr(spec, key) <= LONGEST:
            raise SpecFault(f"{key}: 0 to {LONGEST:g} seconds")
    if spec.log_bytes < 1024 or not 1 <= spec.log_files <= 100:
        raise SpecFault("log_bytes: at least 1024; log_files: 1 to 100")
    _check_listening(spec)


def _check_carrying(spec: UnitSpec) -> None:
    others = UnitSpec(name=spec.name)
    own = ("command", "cwd", "handoff", "replicas", "signal", "ready")
    if len(spec.listen) != 1 or any(getattr(spec, key) != getattr(others, key) for key in own):
        raise SpecFault(f"carries: needs `listen` with one address, and none of {', '.join(own)}")
    if len(spec.carries) > MOST_REPLICAS or not all(name.isprintable() and 0 < len(name) <= 250 for name in spec.carries):
        raise SpecFault(f"carries: at most {MOST_REPLICAS} printable names")
    if not all(0 < port < 65536 for port in spec.carries.values()):
        raise SpecFault("carries: ports are 1 to 65535")


def _check_listening(spec: UnitSpec) -> None:
    if spec.handoff == "port" and len(spec.listen) != 1:
        raise SpecFault('handoff: "port" needs `listen` with one address')
    if spec.front_of is not None:
        raise SpecFault("front_of: is the supervisor's own")
    if spec.handoff in ("fd", "shim") and not spec.listen:
        raise SpecFault(f'handoff: "{spec.handoff}" needs `listen`')
    ready = spec.ready
    try:
        keys = [parse(text).key for text in spec.listen]
        if ready and (ready.http or ready.tcp):
            parse_probe(ready.http or "", ready.tcp or "", spec.listen)
    except AddressFault as fault:
        raise SpecFault(str(fault)) from fault
    if len(set(keys)) != len(keys):
        raise SpecFault("listen: the same address twice")
    if ready and sum(map(bool, (ready.http, ready.tcp, ready.line, ready.notify))) > 1:
        raise SpecFault("ready: one of http, tcp, line, notify")
    if ready and not 0 < ready.timeout <= LONGEST:
        raise SpecFault(f"ready.timeout: 0 to {LONGEST:g} seconds")


RequestId = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | Annotated[str, msgspec.Meta(max_length=200)] | None


class Envelope(Struct, frozen=True):
    """What every request has; the rest is read by its operation."""

    op: str
    id: RequestId = None


class _Request(Struct, frozen=True, forbid_unknown_fields=True):
    op: str
    id: RequestId = None


class ScopeRequest(_Request, frozen=True):
    """restart, start, stop, reload, status: `scope` is a unit, a named scope, or `all`."""

    scope: str = "all"


class ConfigureRequest(_Request, frozen=True):
    """Adds or replaces units and scopes and starts nothing; with `replace`, units not named are removed."""

    units: list[UnitSpec] = field(default_factory=list)
    scopes: dict[str, list[str]] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    replace: bool = False


class LogsRequest(_Request, frozen=True):
    service: str = ""
    lines: int = 100
    follow: bool = False


class ShutdownRequest(_Request, frozen=True):
    keep: bool = False
    """Leave the children running for the next supervisor."""


class Leaving(Struct, frozen=True):
    """How the supervisor is to leave."""

    keep: bool
    """The children run on for the next one."""
    again: bool = False
    """Whoever keeps this process is to start it again."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How an operation on one unit ended."""

    service: str
    ok: bool
    pid: int | None = None
    why: str = ""
    tail: list[str] = field(default_factory=list)
    """The last lines of output, when it failed."""
    seconds: float = 0.0
    first: bool = False
    """It had never been started before."""


class UnitStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    service: str
    state: str
    pid: int | None
    pids: list[int]
    restarts: int
    started_at: float | None
    detail: str
    replicas: int
    listen: list[str]
    draining: list[int]
    carries: dict[str, int]
    pending: bool
    """A configuration was handed over that no process runs with yet."""


encode = msgspec.json.Encoder().encode
