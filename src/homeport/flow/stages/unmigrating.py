"""`[migrate] undo`: takes migrations back when a deploy is rolled back, by itself or by hand, and writes it down."""

from __future__ import annotations

from dataclasses import replace

from homeport.decide import layout
from homeport.flow.stages.building import MIGRATED, run_migration
from homeport.flow.stages.fetching import config_at
from homeport.flow.work import Tools, Work
from homeport.model.config import Config, Migrate
from homeport.model.errors import HomeportError

UNDONE = "unmigrated:"
"""Before a deploy's id, where it is written down which commit's migrations it began to take back."""


def undo_migration(work: Work, tools: Tools) -> Work:
    """After the old version is back, before it is verified: the command of the commit that is left, on its files.

    Without `undo` nothing happens. Migrations that did not run in this deploy are not taken back when it fails; a
    rollback by hand takes back those of the commit that it leaves. Raises Failed when the command fails.
    """
    store, deploy = tools.site.store, work.deploy
    if not (deploy.stage or "").startswith("rollback:"):
        return _by_hand(work, tools) if deploy.kind == "rollback" else work
    if (left := store.cached(UNDONE + deploy.id)) and deploy.kind == "rollback":
        return _run(work, tools, left, forward=True)
    left = store.cached(MIGRATED + deploy.id)
    return _run(work, tools, left) if left else work


def _by_hand(work: Work, tools: Tools) -> Work:
    """The first of several hosts does it, as it migrates."""
    hosts = tools.site.env.hosts
    if len(hosts) > 1 and tools.site.host != hosts[0]:
        return work
    left = {s.record.sha for s in work.services.values() if s.record.sha and s.record.sha != s.goal.sha}
    return _run(work, tools, left.pop()) if len(left) == 1 else work


def _run(work: Work, tools: Tools, left: str, *, forward: bool = False) -> Work:
    """`forward`: the rollback itself failed, and the commit that it left comes back with its migrations."""
    try:
        config = config_at(tools, left)
    except HomeportError:
        return work
    plan = config.migrate
    name = _service(config, plan, work, tools)
    if plan is None or plan.undo is None or name is None:
        return work
    target = layout.target_of(config, name)
    if target is None:
        return work
    site = tools.site
    service = replace(work.services[name], service=config.services[name], target=target,
                      build_tree=site.targets.wanted(target, left))  # fmt: skip
    back_to = work.services[name].goal.sha or ""
    site.store.cache(UNDONE + work.deploy.id, left)
    label, command = ("migration", plan.run) if forward else ("undo of the migration", plan.undo)
    extra = {"HOMEPORT_SHA": left, "HOMEPORT_BACK_TO": "" if forward else back_to, "HOMEPORT_LIVE": target.path}
    run_migration(plan, command, label, service, work, tools, extra)
    what = "migrate" if forward else "migrate-undo"
    site.store.audit(work.deploy.requested_by, what, f"{work.deploy.id} {name} {left} back to {back_to}")
    tools.notice(work.deploy.id, f"{label} of {left[:12]} was run", service=name, code=what)
    return work


def _service(config: Config, plan: Migrate | None, work: Work, tools: Tools) -> str | None:
    """The service that holds the migrations, when this deploy is about it."""
    known = layout.services_of(config, tools.site.environment)
    placed = [n for n in known if layout.target_of(config, n) is not None]
    name = plan.service if plan is not None and plan.service else placed[0] if len(placed) == 1 else None
    return name if name in work.services else None
