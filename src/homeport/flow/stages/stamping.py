"""The one transaction that makes a deploy a success."""

from __future__ import annotations

from msgspec.structs import replace

from homeport.flow.ending import ended
from homeport.flow.work import Tools, Work
from homeport.model.deploys import ServiceRecord, Stamp


def record_success(work: Work, tools: Tools) -> Work:
    """Records each service's commit, tree and outputs with the final row; then prunes kept outputs."""
    records = []
    for name, service in work.services.items():
        latest = tools.site.store.services().get(name, service.record)
        records.append(_stamped(latest, work, name))
    changed = any(s.affected for s in work.services.values())
    deploy = ended(work, tools, "deployed" if changed else "unchanged")
    # what was synced must be on the disk before the row that says so
    tools.journal.sync()
    tools.site.store.finish(deploy, Stamp(deploy=deploy.id, services=tuple(records)))
    for service in work.services.values():
        if service.target is not None and service.service.build is not None:
            tools.site.builds.prune(service.target, work.config.project.keep)
    return work.having(deploy=deploy)


def _stamped(record: ServiceRecord, work: Work, name: str) -> ServiceRecord:
    service = work.services[name]
    if work.deploy.request.kind == "restart":
        return record
    return replace(record, sha=service.goal.sha, deploy_id=work.deploy.id, tree=service.goal.tree,
                   outputs=service.goal.outputs)  # fmt: skip
