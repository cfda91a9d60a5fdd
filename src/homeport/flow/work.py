"""What a deploy carries from stage to stage: `Work` is data and is replaced, `Tools` are the doors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from homeport.flow.site import Site
from homeport.model.config import Config, OnChange, Service
from homeport.model.deploys import Deploy, ServiceRecord, ServiceState, StartedWith, TryMark
from homeport.model.events import Notice
from homeport.model.live import Recorded, Scan, SyncPlan, Target
from homeport.model.plan import Plan
from homeport.model.ports import Journal, OnLine, Shell
from homeport.model.running import Prober, Runtime


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TargetWork:
    """One live folder in this deploy."""

    target: Target
    recorded: Recorded
    wanted: str
    """Filtered tree that is to be there; equal to the record when nothing is to change."""
    scan: Scan | None = None
    plan: SyncPlan | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ServiceWork:
    """One service in this deploy: where it stands and where it is to go."""

    name: str
    service: Service
    target: Target | None
    record: ServiceRecord
    goal: ServiceState
    start_with: StartedWith
    """What it must have been started with at the end."""
    build_tree: str | None = None
    build_needed: bool = False
    affected: bool = False
    forced: bool = False
    """An action asks for its restart although it runs with what is there."""
    on_change: OnChange | None = None
    """What an action asks for, instead of the service's own."""
    fresh: bool = False
    """Its images are to be built without the engine's cache."""

    @property
    def restart_needed(self) -> bool:
        runs = self.service.runtime is not None and self.service.on_change != "none"
        return runs and (self.forced or self.record.started != self.start_with)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Work:
    """One deploy on its way through the stages."""

    deploy: Deploy
    config: Config
    sha: str | None = None
    targets: dict[str, TargetWork] = field(default_factory=dict)
    services: dict[str, ServiceWork] = field(default_factory=dict)
    plan: Plan | None = None
    held: dict[str, TryMark] = field(default_factory=dict)
    """Services that this deploy leaves alone, because they run a try that it would end."""

    def having(self, **changes: Any) -> Work:
        return replace(self, **changes)

    def with_service(self, service: ServiceWork) -> Work:
        return replace(self, services={**self.services, service.name: service})


@dataclass(frozen=True, eq=False, repr=False)
class OutputLines:
    """Satisfies `OnLine`: what a command prints goes into the journal."""

    journal: Journal
    service: str | None

    def __call__(self, stream: Literal["stdout", "stderr"], line: str) -> None:
        self.journal.line(stream, line, self.service)

    def many(self, stream: Literal["stdout", "stderr"], lines: Sequence[str]) -> None:
        self.journal.lines(stream, lines, self.service)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tools:
    """The doors of one deploy."""

    site: Site
    shell: Shell
    journal: Journal
    runtimes: dict[str, Runtime]
    prober: Prober
    began: float = 0.0
    """When this process took it up, by the clock that nobody sets."""

    def notice(self, deploy: str, message: str, *, level: str = "info", service: str | None = None,
               code: str = "") -> None:  # fmt: skip
        self.journal.write(
            Notice(deploy_id=deploy, at=self.site.clock.now(), level="warning" if level == "warning" else "info",
                   message=message, service=service, code=code)  # fmt: skip
        )

    def lines_of(self, service: str | None) -> OnLine:
        return OutputLines(self.journal, service)


def tools_for(site: Site, deploy: str) -> Tools:
    """The doors of one deploy: its journal, and a shell whose jobs carry its mark."""
    asked = {"at": 0.0, "yes": False}

    def cancelled() -> bool:
        now = site.clock.monotonic()
        # a yes is never an old one: the way back may have begun since, and nothing cancels that
        if asked["yes"] or now - asked["at"] > 0.2:
            row = site.store.deploy(deploy)
            rolling = row is not None and (row.stage or "").startswith("rollback:")
            asked.update(at=now, yes=bool(site.store.cancel_asked(deploy)) and not rolling)
        return bool(asked["yes"])

    shell = site.shell_for(deploy, cancelled)
    return Tools(site=site, shell=shell, journal=site.journal_for(deploy), runtimes=site.runtimes_for(shell),
                 prober=site.prober_for(shell), began=site.clock.monotonic())  # fmt: skip
