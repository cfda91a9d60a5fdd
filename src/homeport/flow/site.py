"""A site: one environment of one project on this host, with the doors that reach it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from homeport.model.rules import Actor

if TYPE_CHECKING:
    from homeport.model.config import Config, Environment, HostConfig, Secret
    from homeport.model.edits import Ledger, Merging, SecretScan
    from homeport.model.folders import Builds, HostLists, LiveCheckouts, Rescues
    from homeport.model.forge import Forge, NewRequest
    from homeport.model.hostfiles import HostFiles, HostHistory
    from homeport.model.live import Target
    from homeport.model.notices import Channel, Outbox
    from homeport.model.ports import Clock, Git, Journal, Lock, Secrets, Shell, Store, Targets
    from homeport.model.running import Overseer, Prober, Runtime
    from homeport.model.tokens import Tokens
    from homeport.model.trying import Tries
    from homeport.model.watching import Watches

LEAVING = 3.0
"""Seconds that a runner which has told its outcome may take to tidy up and go."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Site:
    """What a use-case is handed. `config` is the checkout's (or the branch tip's); a deploy uses its commit's."""

    project: str
    environment: str
    host: str
    state: str
    """The environment's state folder."""
    config: Config
    env: Environment
    host_config: HostConfig | None
    store: Store
    git: Git
    targets: Targets
    checkouts: LiveCheckouts
    rescues: Rescues
    builds: Builds
    lock: Lock
    clock: Clock
    edits: Ledger
    merging: Merging
    secret_scan: SecretScan
    tries: Tries
    watches: Callable[[], Watches]
    take_over: Callable[[Target, Collection[str]], str | None]
    """(live folder, the names that are configured) -> the name of the service before, when it has another one now."""
    tokens: Tokens
    permits: HostLists
    secrets: Secrets
    supervisor: Overseer
    prune_journals: Callable[[int], int]
    """(bytes) -> how many journals were removed: the old ones, and the oldest beyond that size of all."""
    forge: Callable[[Config], Forge | None]
    """The forge that `[forge]` names, ready to be asked; None without one, or without its token."""
    request_page: Callable[[NewRequest], str | None]
    """Where a person opens a request by hand; None when the forge is not known."""
    shell_for: Callable[[str | None, Callable[[], bool]], Shell]
    """(deploy, is a cancel asked) -> a shell whose jobs are marked with that deploy."""
    runtimes_for: Callable[[Shell], dict[str, Runtime]]
    prober_for: Callable[[Shell], Prober]
    journal_for: Callable[[str], Journal]
    follow_journal: Callable[[str, int, Callable[[], bool]], object]
    read_journal: Callable[[str, int, int], tuple[bytes, int]]
    """(path, byte, at most) -> (whole lines from there on, where to go on)."""
    start_runner: Callable[[], int]
    ready_runner: Callable[[], None]
    """Starts one that has loaded everything when `start_runner` wants it."""
    runner_on_its_way: Callable[[], bool]
    """Whether the runner that this process started last has not ended yet."""
    load_config: Callable[[bytes, str], Config]
    migration_lock: Callable[[Secret | str, float, Callable[[], bool]], AbstractContextManager[None]]
    """(database URL, seconds to wait, is a cancel asked) -> held while a migration runs."""
    outbox: Outbox
    outbox_lock: Lock
    channel: Channel
    start_sending: Callable[[], None]
    """Starts a process that empties the outbox, and does not wait for it."""
    checks_lock: Lock
    """Of the one process that runs the project's own checks outside of a deploy."""
    start_checking: Callable[[], None]
    """Starts that one, and does not wait for it."""
    clean_room: Callable[[str, str], AbstractContextManager[str]]
    """(tree, user) -> a folder with these files and nothing else, for as long as it is held."""
    commit_page: Callable[[Config, str], str | None]
    """Of a commit on the forge; None when the forge is not known."""
    hostfiles: HostFiles
    host_history: HostHistory
    hostfile_lock: Lock
    actor: Actor = field(default_factory=lambda: Actor(name="homeport"))
    """Who asks, and the exceptions they bring."""
    closers: list[Callable[[], None]] = field(default_factory=list)

    def journal_path(self, deploy: str) -> str:
        return f"{self.state}/journal/{deploy}.jsonl"

    def hide_secrets(self, config: Config) -> None:
        """What a configuration and this machine's own file refer to as secrets is written nowhere from now on. Tables are
        named, not walked through: a thousand services would take a tenth of a second."""
        host = self.host_config.secrets if self.host_config is not None else None
        self.secrets.learn([config.forge, config.notify, config.migrate, host])

    @property
    def observes(self) -> Literal["host", "environment"] | None:
        """Who says that it only looks and reports: the host's own file, or the environment."""
        if self.host_config is not None and self.host_config.observe:
            return "host"
        return "environment" if self.env.observe else None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Holds the lock for what a person does at once. A runner whose deploy has ended, and which only tidies up, is
        waited for. Raises Busy for a deploy that runs, and for any other holder."""
        from homeport.model.errors import Busy

        ends = self.clock.monotonic() + LEAVING
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(self.lock.hold(wait=False))
                    break
                except Busy as fault:
                    last = next(iter(self.store.history(1)), None)
                    leaving = last is not None and last.state == "done" and last.pid == fault.holder is not None
                    if not leaving or self.clock.monotonic() > ends:
                        raise
                self.clock.sleep(0.01)
            yield

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for close in reversed(self.closers):
            close()
