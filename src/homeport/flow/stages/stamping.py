"""The one transaction that makes a deploy a success."""

from __future__ import annotations

from msgspec.structs import replace

from homeport.decide import layout, sizes
from homeport.flow import editing, images, tries
from homeport.flow.blocking import unblock_passed
from homeport.flow.ending import ended
from homeport.flow.goals import build_target
from homeport.flow.stages import due
from homeport.flow.work import Tools, Work
from homeport.model.deploys import Block, ServiceRecord, Stamp
from homeport.model.errors import HomeportError


def record_success(work: Work, tools: Tools) -> Work:
    """Records each service's commit, tree and outputs with the final row; then prunes kept outputs."""
    records = []
    for name, service in work.services.items():
        latest = tools.site.store.services().get(name, service.record)
        records.append(tries.marked(_stamped(latest, work, name), work, tools))
    if work.config.actions and not work.deploy.request.services and work.sha and work.deploy.kind != "restart":
        records.append(ServiceRecord(service=due.SEEN, sha=work.sha, deploy_id=work.deploy.id))
    move_checkouts(work, tools)
    changed = work.deploy.changed_live or any(s.affected for s in work.services.values())
    deploy = ended(work, tools, "deployed" if changed else "unchanged")
    # what was synced must be on the disk before the row that says so
    _tell_of_those_left(work, tools)
    tools.journal.sync()
    tools.site.store.finish(deploy, Stamp(deploy=deploy.id, services=tuple(records)), block=_left_behind(work, tools))
    if work.deploy.kind in ("commit", "rollback"):
        if tools.site.store.release(by_hand=False):
            tools.site.store.audit("homeport", "unhold", f"deploy {deploy.id} succeeded")
        if work.sha is not None:
            unblock_passed(tools.site, work.sha)
    editing.note_deployed(work, tools)
    for service in work.services.values():
        if service.target is not None and service.service.build is not None:
            tools.site.builds.prune(build_target(service), work.config.project.keep, _budget(tools))
        images.prune(service, work, tools)
    return work.having(deploy=deploy)


def record_alone(work: Work, tools: Tools) -> Work:
    """The final row of something that brought no service anything new."""
    deploy = ended(work, tools, "deployed")
    tools.journal.sync()
    tools.site.store.finish(deploy, Stamp(deploy=deploy.id, services=()))
    return work.having(deploy=deploy)


def move_checkouts(work: Work, tools: Tools) -> None:
    """A live folder that is a git checkout says the commit that is there; where it cannot, a warning says why."""
    site = tools.site
    for target in (t.target for t in work.targets.values() if t.target.checkout):
        record = site.store.target(target.name)
        if record is None or record.commit is None:
            continue
        try:
            site.checkouts.move(target, record.commit, site.env.branch, attach=work.deploy.kind in ("commit", "rollback"))
        except HomeportError as fault:
            told = f"HEAD and index of {target.path} stay where they were: {fault.what}. Next: {fault.next}"
            tools.notice(work.deploy.id, told, level="warning", code=fault.code or "checkout")


def _budget(tools: Tools) -> int | None:
    """Bytes that this host grants the kept outputs of one service (`[limits] outputs` of host.toml)."""
    host = tools.site.host_config
    limit = host.limits.get("outputs") if host is not None else None
    return None if limit is None else sizes.parse(limit)


def _tell_of_those_left(work: Work, tools: Tools) -> None:
    """Services that the commit before had and this one has not: nobody stops them, so they are named."""
    if work.deploy.request.services or work.deploy.kind not in ("commit", "rollback"):
        return
    known = layout.services_of(work.config, tools.site.environment)
    before = {service.record.sha for service in work.services.values() if service.record.sha}
    left = [name for name, record in tools.site.store.services().items()
            if name not in known and not name.startswith("_") and record.sha in before]  # fmt: skip
    if left:
        tools.notice(work.deploy.id, f"not part of this commit, and left as it is, running: {', '.join(sorted(left))}. "
                     "Stop it by hand when it is not wanted", level="warning", code="left-running")  # fmt: skip


def _left_behind(work: Work, tools: Tools) -> Block | None:
    """A rollback by hand blocks the commit it left, or the next trigger would deploy it again."""
    if work.deploy.request.kind != "rollback":
        return None
    left = next((s.record.sha for s in work.services.values() if s.record.sha and s.record.sha != s.goal.sha), None)
    if left is None or tries.is_try(tools.site, left):
        return None
    return Block(sha=left, because="rolled back by hand", by=work.deploy.requested_by, at=tools.site.clock.now(),
                 deploy_id=work.deploy.id)  # fmt: skip


def _stamped(record: ServiceRecord, work: Work, name: str) -> ServiceRecord:
    service = work.services[name]
    if work.deploy.request.kind == "restart":
        return record
    return replace(record, sha=service.goal.sha, deploy_id=work.deploy.id, tree=service.goal.tree,
                   outputs=service.goal.outputs)  # fmt: skip
