"""Names the doors to process managers, probes and forges; beside wiring.py, for each is loaded only when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeport.doors.permits import Permits, permitted
from homeport.doors.secrets import Keyring, Redactor

if TYPE_CHECKING:
    from homeport.doors.store import SqliteStore
    from homeport.model.config import Config
    from homeport.model.forge import Forge, NewRequest
    from homeport.model.ports import Shell
    from homeport.model.running import Prober, Runtime


def runtimes(shell: Shell, permits: Permits, state: str) -> dict[str, Runtime]:
    from homeport.doors.runtimes.command import CommandRuntime
    from homeport.doors.runtimes.compose import Compose
    from homeport.doors.runtimes.handover import Handover
    from homeport.doors.runtimes.pm2 import Pm2
    from homeport.doors.runtimes.supervisor import SupervisorRuntime
    from homeport.doors.runtimes.swarm import Swarm
    from homeport.doors.runtimes.systemd import Systemd

    supervisor = SupervisorRuntime(f"{state}/supervisor.sock")
    systemd = Systemd(shell)
    found: list[Runtime] = [
        supervisor, Handover(Pm2(shell), supervisor, shell), Handover(systemd, supervisor, shell, systemd.ours),
        Compose(shell), Swarm(shell), CommandRuntime(shell),
    ]  # fmt: skip
    return {runtime.name: permitted(runtime, permits) for runtime in found}


def prober(shell: Shell) -> Prober:
    from homeport.doors.probes import Probes

    return Probes(shell)


def forge(config: Config, store: SqliteStore, origin: str, redactor: Redactor, keyring: Keyring) -> Forge | None:
    if config.forge is None or config.forge.token is None:
        return None
    token = keyring.value_of(config.forge.token, "forge.token")
    redactor.add([token])
    from homeport.doors.forges.connect import connect

    return connect(config.forge, token, store, remote=origin)


def page(config: Config, origin: str, asked: NewRequest) -> str | None:
    """Where a person opens a request by hand."""
    from homeport.doors.forges import connect

    return connect.page(config.forge, origin, asked)


def commit_page(config: Config, origin: str, sha: str) -> str | None:
    from homeport.doors.forges.connect import commit_page

    return commit_page(config.forge, origin, sha)
