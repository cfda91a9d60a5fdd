"""What runs a service, and what tries its health: nouns and Protocols, as in ports.py."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct, field

from homeport.model.config import Check, Command, Handoff, Ready
from homeport.model.ports import OnLine


class Unit(Struct, frozen=True, kw_only=True):
    """A service as its runtime needs it."""

    service: str
    name: str
    target: str | None
    command: Command | None
    cwd: str
    reached: str = ""
    """`cwd` by a descriptor, while somebody holds it."""
    env: Mapping[str, str]
    """The service's own environment, env file included."""
    user: str | None = None
    home: str | None = None
    path: tuple[str, ...] = ()
    signal: str = "SIGTERM"
    stop_timeout: float = 10.0
    on_change: str = "restart"
    listen: tuple[str, ...] = ()
    """What the supervisor listens on for it (for pm2 and systemd with `handoff = "port"` too), and how it is handed on."""
    handoff: Handoff | None = None
    replicas: int = 1
    ready: Ready | None = None
    drain: float = 10.0
    image: str | None = None
    """Key of the images it is to run; those that have no build of their own have none."""
    image_before: str | None = None
    """Key under which the images it ran before are kept, for a rollback."""
    changed: tuple[str, ...] | None = None
    """Live paths that are not as they were when it was last started; None: not known."""
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Unit names by scope, of the whole configuration: who keeps units restarts them by scope too."""


class Seen(Struct, frozen=True, kw_only=True):
    """Something that runs on a machine, as its runtime tells it to whoever knows nothing yet."""

    runtime: str
    unit: str
    """As homeport.toml has it; a Compose project is one, with the names of its services."""
    folder: str
    """Where it works; absolute."""


class Container(Struct, frozen=True, kw_only=True):
    """One container of a Compose project, as the engine tells it."""

    id: str
    name: str
    service: str
    state: str
    """`running`, `restarting`, `exited`, `paused`, `created` or `dead`."""
    health: str | None
    """`healthy`, `unhealthy` or `starting`; None without a health check of its own."""
    pid: int | None
    image: str
    """Id of the image that it was made from."""
    image_name: str
    restarts: int
    exit_code: int | None
    started_at: str
    mounts: tuple[str, ...]
    """Paths of the host that it sees."""

    @property
    def well(self) -> bool:
        return self.state == "running" and self.health in (None, "healthy")


class Inside(Struct, frozen=True, kw_only=True):
    """How to run a command where a service runs: the words, the folder and the whole environment."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]


class UnitState(Struct, frozen=True, kw_only=True):
    state: Literal["running", "stopped", "failed", "restarting", "missing", "unknown"]
    pid: int | None = None
    restarts: int | None = None
    started_at: float | None = None
    """Unix time."""
    detail: str = ""
    containers: tuple[Container, ...] = ()
    """All of the unit's Compose project."""
    unreachable: str = ""
    """Why its process manager can start nothing now: a deploy that would have to does not begin."""
    returning: bool = False
    """It was killed, not told to leave: whoever keeps it is about to start it again."""


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


@runtime_checkable
class ImageRuntime(Runtime, Protocol):
    """A runtime whose services run images: built beside what is live, kept by key like build outputs."""

    def stale(self, units: Sequence[Unit]) -> dict[str, str]:
        """By service, why: those whose containers run an image that is not the one its name stands for now."""
        ...

    def containers(self, units: Sequence[Unit]) -> list[Container]:
        """All of the units' projects, each once; none of an engine that does not answer."""
        ...

    def has_images(self, unit: Unit) -> bool:
        """Images of `unit.image` are kept."""
        ...

    def build(self, unit: Unit, folder: str, fresh: bool, on_line: OnLine) -> None:
        """Makes and keeps the images of `unit.image` from a copy of the live folder with the new files; what runs,
        and the names that it runs under, are not touched. `fresh`: without the engine's build cache.

        Raises Failed: codes `bad-compose` (the file does not parse), `build`.
        """
        ...

    def validate(self, unit: Unit, command: Command, on_line: OnLine) -> None:
        """Runs a command in a one-off container, which sees the files that are live now. Raises Failed."""
        ...

    def inside(self, unit: Unit, command: Sequence[str], terminal: bool) -> Inside:
        """How to run a command in the service's container; without a command, a shell."""
        ...

    def prune(self, unit: Unit, keep: int) -> None:
        """Removes the oldest kept images of the unit beyond `keep`."""
        ...


@runtime_checkable
class Batching(Runtime, Protocol):
    """A runtime that looks at, or starts, several services with one call."""

    def states(self, units: Sequence[Unit]) -> dict[str, UnitState]:
        """By service, as `inspect` says it."""
        ...

    def together(self, unit: Unit) -> Hashable | None:
        """Units with the same answer may be started by one call; None: this one only alone."""
        ...

    def restart_together(self, units: Sequence[Unit], on_line: OnLine) -> list[Restarted]:
        """As `restart`, for each; when one of them fails, it is not known of any what runs."""
        ...


@runtime_checkable
class BatchingImages(ImageRuntime, Batching, Protocol):
    """Both of them."""


class Overseer(Protocol):
    """The built-in supervisor itself."""

    def run(self) -> str | None:
        """Names the process that answers now; None when none does."""
        ...

    def leave(self) -> None:
        """Asks it to leave so that its keeper starts it again; its children run on, except as PID 1."""
        ...


class Probe(Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str = ""
    unasked: bool = False
    """The machine could not even ask: nothing is known of what was to answer."""


class Prober(Protocol):
    def once(self, check: Check, *, sha: str, cwd: str, env: Mapping[str, str], user: str | None,
             state: Callable[[], UnitState] | None, reached: str = "") -> Probe:
        """One try, over a new connection, bounded by the check's `timeout`; never raises for a failed check. `reached`:
        as in `Job`."""
        ...
