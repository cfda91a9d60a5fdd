"""Undo: back to the states before the deploy, with kept outputs, a smoke test, and a true outcome (D13, P6)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace as change

from msgspec.structs import replace

from homeport.flow import pipeline
from homeport.flow.blocking import a_hold
from homeport.flow.ending import ended, noted
from homeport.flow.stages import stamping
from homeport.flow.stages.fetching import config_at, in_scope
from homeport.flow.work import Tools, Work
from homeport.model.deploys import Block, Deploy, Status
from homeport.model.errors import Cancelled, Failed, HomeportError, InfrastructureFault, Refused


def after_failure(failure: pipeline.StageFailed, tools: Tools) -> Deploy:
    """Decides and carries out what a failed stage leads to; the final row is written here."""
    work, fault = failure.work, failure.cause
    with suppress(HomeportError, OSError):  # what could not be recorded is found as after a crash
        tools.site.targets.noted()
    if not work.deploy.changed_live:
        return _finish(work, tools, _plain_status(fault), fault)
    if failure.stage == "sync" and _still_untouched(work, tools):
        _clear_what_was_staged(work, tools)
        tools.notice(work.deploy.id, "the sync failed before its first change; nothing live was changed", code="untouched")
        return _finish(work.having(deploy=replace(work.deploy, changed_live=False)), tools, _plain_status(fault), fault)
    if work.deploy.request.kind == "restart" or fault.code == "supervisor-gone":
        return _finish(work, tools, "failed", fault)
    if not any(state.sha for state in work.deploy.before.values()):
        return _nothing_before(work, tools, fault)
    return undo(work, tools, fault)


def cause_of(deploy: Deploy, otherwise: HomeportError) -> HomeportError:
    """Why an undo that a crash interrupted had begun, from the deploy's row: its own failure still counts against it."""
    if deploy.error_summary is None:
        return otherwise
    kind: type[HomeportError] = Failed if deploy.blamed else InfrastructureFault
    if deploy.error_code in ("cancelled", "superseded"):
        kind = Cancelled
    return kind(deploy.error_summary, code=deploy.error_code or "", next=deploy.next or "")


def _still_untouched(work: Work, tools: Tools) -> bool:
    """Whether the sync failed before its first change (no room to stage the new files, say): there is nothing to undo.

    Outputs are exchanged after the last live folder was synced; with none to sync nobody can tell, so it is undone.
    """
    records = {record.name: record for record in tools.site.store.targets()}
    due = [t for t in work.targets.values() if t.plan is not None and t.plan.steps]
    return bool(due) and all(
        (record := records.get(t.target.name)) is not None and record.syncing is None and record.tree == t.recorded.tree
        for t in due
    )  # fmt: skip


def _clear_what_was_staged(work: Work, tools: Tools) -> None:
    """A full disk must not stay full. What cannot be cleared now, the next deploy clears."""
    for target in work.targets.values():
        with suppress(HomeportError):
            tools.site.targets.settle(target.target)


def undo(work: Work, tools: Tools, fault: HomeportError) -> Deploy:
    """Runs the rollback stages. When they fail too: stop, say what is in which state, no loop."""
    status: Status = "cancelled" if isinstance(fault, Cancelled) else "rolled_back"
    work = work.having(deploy=noted(work.deploy, fault))
    tools.site.store.update(work.deploy)
    tools.notice(work.deploy.id, f"going back: {fault.what}", level="warning", code="rollback")
    try:
        undone = pipeline.run(pipeline.ROLLBACK, _with_old_config(work, tools), tools, prefix="rollback:")
    except pipeline.StageFailed as second:
        both = Failed(
            f"{fault.what}; and the rollback failed at {second.stage.removeprefix('rollback:')}: {second.cause.what}. "
            f"{_standing(second.work)}",
            where=second.cause.where, next=f"homeport show {work.deploy.id}", code="rollback-failed",
        )  # fmt: skip
        return _finish(second.work, tools, "failed", both, block=_block(work, fault, tools), hold=True)
    for name, service in undone.services.items():
        before = work.deploy.before.get(name)
        record = tools.site.store.services().get(name, service.record)
        if before is not None:
            restored = replace(record, tree=before.tree, outputs=before.outputs, sha=record.sha)
            tools.site.store.save_service(restored)
    stamping.move_checkouts(undone, tools)
    return _finish(work.having(services=undone.services), tools, status, fault, block=_block(work, fault, tools),
                   hold=status == "rolled_back" and not fault.infrastructure and work.deploy.kind != "try")  # fmt: skip


def _with_old_config(work: Work, tools: Tools) -> Work:
    """The configuration that was live before; the new one only when the old cannot be read."""
    shas = [s.sha for s in work.deploy.before.values() if s.sha]
    if len(set(shas)) != 1:
        return work
    try:
        everything = replace(work.deploy, request=replace(work.deploy.request, services=()))
        old = in_scope(work.having(config=config_at(tools, shas[0]), deploy=everything), tools)
    except HomeportError:
        return work
    # a service that only the new commit has is left to the new configuration
    missing = {n: s for n, s in work.services.items() if n not in old.services}
    touched = {n: change(s, affected=work.services[n].affected) for n, s in old.services.items() if n in work.services}
    return old.having(deploy=work.deploy, services={**touched, **missing})


def _nothing_before(work: Work, tools: Tools, fault: HomeportError) -> Deploy:
    told = Failed(f"{fault.what}. This was the first deploy: there is nothing to go back to, the new files are in place",
                  where=fault.where, next=fault.next, code=fault.code or "first-deploy")  # fmt: skip
    told.infrastructure = fault.infrastructure
    return _finish(work, tools, "cancelled" if isinstance(fault, Cancelled) else "failed", told)


def _plain_status(fault: HomeportError) -> Status:
    if isinstance(fault, Cancelled):
        return "superseded" if fault.code == "superseded" else "cancelled"
    return "refused" if isinstance(fault, Refused) else "failed"


def _block(work: Work, fault: HomeportError, tools: Tools) -> Block | None:
    """The commit is to blame unless the fault was the infrastructure's, a person's, or there is none."""
    if fault.infrastructure or isinstance(fault, Cancelled | Refused) or work.sha is None:
        return None
    if work.deploy.request.kind != "commit":
        return None
    return Block(sha=work.sha, because=fault.what, by="homeport", at=tools.site.clock.now(), deploy_id=work.deploy.id)


def _standing(work: Work) -> str:
    said = []
    for name, service in work.services.items():
        before, after = work.deploy.before.get(name), work.deploy.after.get(name)
        if not service.affected or before is None or after is None:
            continue
        said.append(f"{name}: between {(before.sha or 'nothing')[:12]} and {(after.sha or '?')[:12]}")
    return "State: " + ("; ".join(said) or "nothing was changed")


def _finish(work: Work, tools: Tools, status: Status, fault: HomeportError, block: Block | None = None, *,
            hold: bool = False) -> Deploy:  # fmt: skip
    """The final row; a deploy that failed past its first change holds the triggers (D13, D15)."""
    deploy = ended(work, tools, status, fault)
    because = f"deploy {deploy.id} ended as {status}: {fault.what}"
    held = a_hold(tools.site, because, "homeport", deploy.id) if hold else None
    tools.site.store.finish(deploy, block=block, hold=held)
    return deploy
