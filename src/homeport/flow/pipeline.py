"""The whole deploy, as a tuple of named stages. Read it from top to bottom: this is the order.

A stage is one function `(work, tools) -> work`. It reads what is, compares it with what is wanted and does the
rest, so running a deploy twice does nothing the second time. Until `sync` nothing live is touched; a failure
from there on is undone by `rollback.undo`. The lock is a `with` block around all of this (runner.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from homeport.flow.stages import (
    acting,
    building,
    deciding,
    fetching,
    gating,
    inspecting,
    itself,
    proving,
    restarting,
    stamping,
    syncing,
    unmigrating,
    verifying,
)
from homeport.flow.work import Tools, Work
from homeport.model.deploys import Deploy
from homeport.model.errors import Cancelled, HomeportError, InfrastructureFault
from homeport.model.events import StageEvent


@dataclass(frozen=True)
class Stage:
    name: str
    act: Callable[[Work, Tools], Work]


DEPLOY = (
    Stage("fetch", fetching.fetch_commit),            # git -> the exact commit, its configuration
    Stage("gate", fetching.pass_gate),                # blocks, holds, what this version cannot do
    Stage("await-checks", gating.pass_checks),        # the forge's checks of exactly this commit
    Stage("prove", proving.prove),                    # the project's own checks, in clean checkouts
    Stage("inspect", inspecting.read_live),           # targets -> recorded, wanted, actual
    Stage("decide", deciding.decide_plan),            # pure; refuses on drift, conflict, rule
    Stage("prepare", building.prepare_folders),       # build folders hold exactly that tree
    Stage("build", building.build_services),          # beside the live folder; a failure touches nothing live
    Stage("migrate", building.migrate),               # before anything live changes
    Stage("inspect-again", inspecting.read_again),    # files change while builds run
    Stage("sync", syncing.sync_and_swap),             # the first change of anything live
    Stage("build-live", building.build_in_place),     # only what asks to be built in the live folder
    Stage("act", acting.run_actions),                 # per-path actions that belong to no service
    Stage("restart", restarting.restart_services),    # while what it was started with differs from what is there
    Stage("unmigrate", unmigrating.undo_migration),   # only a rollback, and only when the project says how
    Stage("verify", verifying.verify_services),       # over new connections, healthy for the stable time
    Stage("stamp", stamping.record_success),          # one transaction; past here nothing is undone
)  # fmt: skip

ROLLBACK = (
    Stage("inspect", inspecting.read_for_undo),
    Stage("sync", syncing.sync_and_swap),
    Stage("build-live", building.build_in_place),
    Stage("restart", restarting.restart_services),
    Stage("unmigrate", unmigrating.undo_migration),
    Stage("verify", verifying.verify_services),
)

RESTART = (
    Stage("fetch", fetching.find_running),
    Stage("decide", deciding.decide_restart),         # refuses on a rule
    Stage("restart", restarting.restart_services),
    Stage("verify", verifying.verify_services),
    Stage("stamp", stamping.record_success),
)


RESUME = (
    Stage("fetch", fetching.fetch_commit),
    Stage("inspect", inspecting.read_live),
    Stage("restarting-self", itself.come_back),       # everything was started again, this runner too
    Stage("verify", verifying.verify_services),
    Stage("stamp", stamping.record_success),
)

RESUME_RESTART = (Stage("fetch", fetching.find_running), *RESUME[2:])


MIGRATE = (
    Stage("fetch", fetching.find_running),
    Stage("decide", deciding.decide_restart),
    Stage("migrate", building.migrate_alone),
    Stage("stamp", stamping.record_alone),
)


class StageFailed(Exception):
    """Carries the work as it was before the failing stage, for the undo."""

    def __init__(self, work: Work, stage: str, cause: HomeportError) -> None:
        super().__init__(str(cause))
        self.work, self.stage, self.cause = work, stage, cause


def run(stages: tuple[Stage, ...], work: Work, tools: Tools, *, prefix: str = "") -> Work:
    """Runs the stages in order. Raises StageFailed at the first that fails; everything is in the journal."""
    for stage in stages:
        name = prefix + stage.name
        cancelled = tools.site.store.cancel_asked(work.deploy.id) if not prefix else None
        try:
            if cancelled:
                raise Cancelled(f"cancelled by {cancelled}", where=f"before {name}", code="cancelled")
            work = _run_one(stage, name, work, tools)
        except HomeportError as fault:
            tools.site.store.stage(work.deploy.id, name, "failed", fault.what)
            _tell(tools, work.deploy, name, "failed", detail=fault.what)
            raise StageFailed(_latest(work, tools), name, fault) from fault
    return work


def _run_one(stage: Stage, name: str, work: Work, tools: Tools) -> Work:
    site = tools.site
    latest = _latest(work, tools)
    site.store.stage(work.deploy.id, name, "start")
    deploy = replace(latest.deploy, stage=name)
    site.store.update(deploy, lasting=False)
    work = latest.having(deploy=deploy)
    _tell(tools, deploy, name, "start")
    began = site.clock.monotonic()
    try:
        work = stage.act(work, tools)
    except OSError as fault:
        raise _infrastructure(fault, name) from fault
    took = int((site.clock.monotonic() - began) * 1000)
    if stage.name != "stamp":
        site.store.stage(work.deploy.id, name, "done")
    _tell(tools, work.deploy, name, "done", took)
    return work


def _latest(work: Work, tools: Tools) -> Work:
    """The deploy's row may have been moved on (`changed_live`) by a stage that then failed."""
    row = tools.site.store.deploy(work.deploy.id)
    return work.having(deploy=row) if row is not None else work


def _infrastructure(fault: OSError, stage: str) -> InfrastructureFault:
    name = fault.filename
    path = name.decode(errors="replace") if isinstance(name, bytes) else str(name or ".")
    return InfrastructureFault(
        f"{stage} could not go on: {fault.strerror or fault}", where=stage if path == "." else path,
        next="homeport doctor", code="os",
    )  # fmt: skip


def _tell(tools: Tools, deploy: Deploy, stage: str, state: str, took: int | None = None, detail: str = "") -> None:
    tools.journal.write(
        StageEvent(deploy_id=deploy.id, at=tools.site.clock.now(), stage=stage, state=state,  # type: ignore[arg-type]
                   duration_ms=took, detail=detail)  # fmt: skip
    )
