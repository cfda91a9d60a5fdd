"""Restarting everything includes the supervisor, and so perhaps the very process that works here (C6).

Before it is asked to leave, the deploy is recorded as `restarting-self`. Under a keeper the children and this runner
live on, and it is waited for. As PID 1 of a container everything ends with it: its successor starts a runner again,
which goes on from here (`resume` in flow/runner.py). Done once is done: a note in the state says which deploy did it.
"""

from __future__ import annotations

from dataclasses import replace as change

from msgspec.structs import replace

from homeport.flow.work import Tools, Work
from homeport.model.errors import Cancelled, Failed
from homeport.model.events import StageEvent

STAGE = "restarting-self"
NOTE = "restarting-self"
WITHIN = 60.0
"""Seconds the supervisor's keeper has to start it again."""
EVERY = 0.05


def restart_itself(work: Work, tools: Tools) -> Work:
    """After everything else was restarted; nothing when the request does not ask for it. Raises Failed (code
    `supervisor-gone`) when nobody starts it again."""
    site, deploy = tools.site, work.deploy
    if not deploy.request.itself or (deploy.stage or "").startswith("rollback") or _noted(work, tools) == "done":
        return work
    if not _noted(work, tools):
        site.store.set_meta(NOTE, f"{deploy.id} {site.supervisor.run() or '-'}")
    deploy = replace(site.store.deploy(deploy.id) or deploy, stage=STAGE)
    site.store.update(deploy)
    site.store.stage(deploy.id, STAGE, "start")
    tools.journal.write(StageEvent(deploy_id=deploy.id, at=site.clock.now(), stage=STAGE, state="start"))
    tools.journal.sync()
    work = work.having(deploy=deploy)
    began = site.clock.monotonic()
    _until_another(work, tools)
    took = int((site.clock.monotonic() - began) * 1000)
    tools.journal.write(StageEvent(deploy_id=deploy.id, at=site.clock.now(), stage=STAGE, state="done", duration_ms=took))
    return work


def come_back(work: Work, tools: Tools) -> Work:
    """The same, as the first stage after everything was started again: what was touched is to be verified."""
    _until_another(work, tools)
    touched, force = set(work.deploy.services), work.deploy.request.force
    return work.having(services={
        name: change(one, affected=name in touched or (force and one.service.runtime is not None))
        for name, one in work.services.items()
    })  # fmt: skip


def _until_another(work: Work, tools: Tools) -> None:
    site, before, asked = tools.site, _noted(work, tools), False
    ends = site.clock.monotonic() + WITHIN
    while before != "done":
        now = site.supervisor.run()
        if now is not None and now != before:
            site.store.set_meta(NOTE, f"{work.deploy.id} done")
            return
        if now is not None and not asked:
            asked = True
            site.supervisor.leave()
        elif site.clock.monotonic() > ends:
            raise Failed(
                "the supervisor did not come back: nobody started it again. The services it ran go on running",
                where=site.state, code="supervisor-gone",
                next=f"homeport -p {site.project} -e {site.environment} supervise",
            )  # fmt: skip
        if site.store.cancel_asked(work.deploy.id):
            raise Cancelled("cancelled while the supervisor restarts", code="cancelled")
        site.clock.sleep(EVERY)


def _noted(work: Work, tools: Tools) -> str:
    """The supervisor that this deploy found, `done` when another has taken its place, or empty."""
    deploy, _, found = (tools.site.store.meta(NOTE) or "").partition(" ")
    return found if deploy == work.deploy.id else ""
