"""What runs a service, and what tries its health: nouns and Protocols, as in ports.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.config import Check, Command, Handoff, Ready
from homeport.model.ports import OnLine


class Unit(Struct, frozen=True, kw_only=True):
    """A service as its runtime needs it."""

    service: str
    name: str
    target: str | None
    command: Command | None
    cwd: str
    env: Mapping[str, str]
    """The service's own environment, env file included."""
    user: str | None = None
    home: str | None = None
    path: tuple[str, ...] = ()
    signal: str = "SIGTERM"
    stop_timeout: float = 10.0
    on_change: str = "restart"
    listen: tuple[str, ...] = ()
    """What the supervisor listens on for it, and how it is handed on; the other runtimes have no use for the rest."""
    handoff: Handoff | None = None
    replicas: int = 1
    ready: Ready | None = None
    drain: float = 10.0


class UnitState(Struct, frozen=True, kw_only=True):
    state: Literal["running", "stopped", "failed", "restarting", "missing", "unknown"]
    pid: int | None = None
    restarts: int | None = None
    started_at: float | None = None
    """Unix time."""
    detail: str = ""


class Restarted(Struct, frozen=True, kw_only=True):
    pid: int | None
    registered: bool = False
    """It was not known to the process manager before and has been registered now."""


class Runtime(Protocol):
    name: str

    def inspect(self, unit: Unit) -> UnitState: ...
    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Starts or restarts exactly this unit with exactly this environment.

        Raises Failed (code `unregistered` when it is unknown and has no command; code `outside-target` when
        its script or folder lies elsewhere).
        """
        ...

    def forget(self, unit: Unit) -> None:
        """Takes back a registration that a failed first deploy made."""
        ...

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]: ...


class Probe(Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str = ""


class Prober(Protocol):
    def once(self, check: Check, *, sha: str, cwd: str, env: Mapping[str, str], user: str | None,
             state: Callable[[], UnitState] | None) -> Probe:
        """One try, over a new connection, bounded by the check's `timeout`; never raises for a failed check."""
        ...
