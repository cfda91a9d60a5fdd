"""The runner: one short-lived process that holds the environment's lock and empties its queue."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace as change

from msgspec.structs import replace

from homeport.decide import layout, sizes
from homeport.flow import notifying, pipeline, rollback
from homeport.flow.ending import ended, tell_end
from homeport.flow.site import Site
from homeport.flow.stages import itself
from homeport.flow.stages.fetching import config_at, in_scope
from homeport.flow.telling import ends_with_done
from homeport.flow.work import Tools, Work, tools_for
from homeport.model.deploys import Deploy, ServiceState
from homeport.model.errors import Failed, HomeportError, InfrastructureFault, Refused
from homeport.model.events import DeployStart


def drain(site: Site, limits_hold: Callable[[], bool] = lambda: True) -> bool:
    """Waits for the lock, ends what a crash left, then runs waiting requests until there are none.

    False when it stopped before a request because the limits of this machine (host.toml) are others than those of the
    site by now: whoever asked is judged by those of the moment, so the site is to be opened anew.
    """
    while site.store.waiting() is not None or site.store.running() is not None or site.store.untold():
        with site.lock.hold(wait=True):
            recover(site)
            while (waiting := site.store.waiting()) is not None:
                if not limits_hold():
                    return False
                carry_out(site, site.store.begin(waiting.id, os.getpid()))
    site.git.tidy()
    return True


def carry_out(site: Site, deploy: Deploy, *, resume: bool = False) -> Deploy:
    """One deploy from beginning to its final row and last event; never raises for a failed deploy. `resume`: it had
    restarted everything, this process included, and goes on from there."""
    tools = tools_for(site, deploy.id)
    try:
        deploy = replace(deploy, previous_sha=_previous(site, deploy))
        tools.journal.write(DeployStart(
            deploy_id=deploy.id, at=site.clock.now(), kind=deploy.kind, mode="live" if deploy.kind == "live" else "commit",
            targets=deploy.request.services, sha=deploy.sha, environment=site.environment, host=site.host,
            requested_by=deploy.requested_by, session_id=deploy.request.session_id,
        ))  # fmt: skip
        try:
            final = _attempt(site, deploy, tools, _stages(deploy, resume))
        finally:
            tools.shell.end_jobs_of(deploy.id)  # before the last event: who reads it finds nothing at work any more
        _end(site, final, tools)
        site.prune_journals(_room_of_journals(site))
        return final
    finally:
        tools.journal.close()


def _room_of_journals(site: Site) -> int:
    """Bytes that all journals of the environment may take (`[limits] journals` of host.toml)."""
    limits = site.host_config.limits if site.host_config is not None else {}
    return sizes.parse(limits.get("journals", "1GB"))


def _stages(deploy: Deploy, resume: bool) -> tuple[pipeline.Stage, ...]:
    if deploy.kind == "migrate":
        return pipeline.MIGRATE
    if deploy.kind == "restart":
        return pipeline.RESUME_RESTART if resume else pipeline.RESTART
    return pipeline.RESUME if resume else pipeline.DEPLOY


def _end(site: Site, final: Deploy, tools: Tools) -> None:
    """The last event first: whoever waits is answered before anybody is told."""
    tell_end(final, tools)
    notifying.after(site, final)
    site.store.told()


def _tell_the_rest(site: Site) -> None:
    """Ends the journal of a deploy whose runner died right after its final row, and announces it."""
    row = site.store.deploy(site.store.untold())
    if row is None or row.state != "done":
        site.store.told()
        return
    tools = tools_for(site, row.id)
    try:
        if not ends_with_done(site.journal_path(row.id)):
            tell_end(row, tools)
        notifying.after(site, row)
        site.store.told()
    finally:
        tools.journal.close()


def _attempt(site: Site, deploy: Deploy, tools: Tools, stages: tuple[pipeline.Stage, ...]) -> Deploy:
    work = Work(deploy=deploy, config=site.config, sha=deploy.sha)
    try:
        if deploy.kind == "rollback":
            work = work.having(deploy=_rollback_goal(site, deploy))
        return pipeline.run(stages, work, tools).deploy
    except pipeline.StageFailed as failure:
        return rollback.after_failure(failure, tools)
    except HomeportError as fault:
        return _give_up(work, tools, fault)
    except Exception as fault:
        # an error of our own must end the deploy with an outcome, and undo what it had begun
        told = InfrastructureFault(f"homeport itself failed: {type(fault).__name__}: {fault}", where=deploy.stage or "",
                                   next="homeport doctor", code="internal")  # fmt: skip
        latest = site.store.deploy(deploy.id) or deploy
        return rollback.after_failure(pipeline.StageFailed(work.having(deploy=latest), latest.stage or "", told), tools)


def _give_up(work: Work, tools: Tools, fault: HomeportError) -> Deploy:
    final = ended(work, tools, "refused" if isinstance(fault, Refused) else "failed", fault)
    tools.site.store.finish(final)
    return final


def _previous(site: Site, deploy: Deploy) -> str | None:
    shas = {r.sha for r in site.store.services().values()}
    return deploy.previous_sha or (shas.pop() if len(shas) == 1 else None)


def _as_it_went(site: Site, sha: str) -> dict[str, ServiceState]:
    """What the services had when all of them went to that commit: images and outputs that were built anew since have
    other names."""
    last = next((d for d in site.store.history(200) if d.status == "deployed" and d.sha == sha and not d.request.services),
                None)  # fmt: skip
    return {name: state for name, state in last.after.items() if state.sha == sha} if last is not None else {}


def _without_tries(site: Site) -> dict[str, ServiceState]:
    """While tries run, a rollback ends them and nothing else: what runs one, and what shares its live folder, goes back
    to the last commit that it had; the others stay as they are. Empty where none runs, or one began with nothing."""
    records = site.store.services()
    folder = {name: live.name if (live := layout.target_of(site.config, name)) else name
              for name in records if name in site.config.services}  # fmt: skip
    tried = {folder[name] for name, record in records.items() if record.tried is not None and name in folder}
    states: dict[str, ServiceState] = {}
    for name, record in records.items() if tried else ():
        by_branch = record.sha is None or site.git.reaches(site.env.branch, record.sha)
        if folder.get(name) not in tried and by_branch:
            states[name] = ServiceState(sha=record.sha, tree=record.tree, outputs=record.outputs)
            continue
        # what a deploy left comes before what it found: a try that changes nothing leaves no trace of what it found
        was = (side[name] for d in site.store.history(200) if d.status == "deployed"
               for side in (d.after, d.before) if name in side)  # fmt: skip
        last = next((state for state in was if state.sha and site.git.reaches(site.env.branch, state.sha)), None)
        if last is None:
            return {}
        states[name] = last
    return states


def _rollback_goal(site: Site, deploy: Deploy) -> Deploy:
    """Pins what a rollback by hand goes back to: a deploy's outcome, a commit, or the success before this one."""
    wanted = deploy.request.from_deploy
    if deploy.request.sha is not None and wanted is None:
        pinned = replace(deploy, sha=deploy.request.sha, after=_as_it_went(site, deploy.request.sha))
        site.store.update(pinned)
        return pinned
    source = site.store.deploy(wanted) if wanted else None
    states: dict[str, ServiceState] = {}
    if source is not None and source.status == "deployed":
        states = source.after
    elif wanted is None and (ended := _without_tries(site)):
        states = ended
    elif wanted is None:
        # a try is nothing to go back to: however many there were, the last commit before them is
        last = next((d for d in site.store.history(200) if d.status == "deployed" and d.before
                     and all(s.sha is None or site.git.reaches(site.env.branch, s.sha) for s in d.before.values())), None)
        states = last.before if last is not None else {}
    shas = [s.sha for s in states.values() if s.sha]
    if not shas:
        raise Refused("there is no earlier success to go back to", where=wanted or f"environment {site.environment}",
                      next="homeport history", code="no-earlier")  # fmt: skip
    newest = next((sha for sha in shas if all(site.git.is_ancestor(other, sha) for other in set(shas))), shas[0])
    request = replace(deploy.request, sha=newest)
    pinned = replace(deploy, request=request, sha=newest, after={n: s for n, s in states.items() if s.sha})
    site.store.update(pinned)
    return pinned


def recover(site: Site) -> None:
    """Ends a deploy whose runner died (DESIGN section 1). The caller holds the lock."""
    if site.store.untold():
        _tell_the_rest(site)
    crashed = site.store.running()
    if crashed is None:
        return
    tools = tools_for(site, crashed.id)
    try:
        tools.shell.end_jobs_of(crashed.id, crashed=True)
        stage = crashed.stage or "start"
        tools.notice(crashed.id, f"the runner died in {stage}", level="warning", code="crashed")
        work = Work(deploy=crashed, config=site.config, sha=crashed.sha)
        if not crashed.changed_live:
            fault = InfrastructureFault(f"interrupted in {stage}, before anything live changed", where=crashed.id,
                                        next="homeport deploy", code="interrupted")  # fmt: skip
            final = rollback.after_failure(pipeline.StageFailed(work, stage, fault), tools)
            _end(site, final, tools)
            return
    finally:
        tools.journal.close()
    _go_on(site, crashed, stage, work)


def _go_on(site: Site, crashed: Deploy, stage: str, work: Work) -> None:
    resume = stage == itself.STAGE and crashed.attempts <= 8
    again = (crashed.crashed_in == stage or crashed.attempts >= 4) and not resume
    if not again and not stage.startswith("rollback:"):
        site.store.update(replace(crashed, crashed_in=stage))
        carry_out(site, site.store.begin(crashed.id, os.getpid()), resume=resume)
        return
    tools = tools_for(site, crashed.id)
    try:
        begun = site.store.begin(crashed.id, os.getpid())
        work = scoped(work.having(deploy=replace(begun, crashed_in=stage)), tools)
        if begun.attempts > 8:
            final = _give_up(work, tools, Failed(f"interrupted again and again in {stage}; stopped", where=crashed.id,
                                                 next=f"homeport show {crashed.id}", code="stopped"))  # fmt: skip
        else:
            fault = InfrastructureFault(f"interrupted in {stage}", where=crashed.id, code="interrupted",
                                        next="homeport status")  # fmt: skip
            cause = rollback.cause_of(crashed, fault) if stage.startswith("rollback:") else fault
            final = rollback.after_failure(pipeline.StageFailed(work, stage, cause), tools)
        _end(site, final, tools)
    finally:
        tools.journal.close()


def scoped(work: Work, tools: Tools) -> Work:
    """The services of a deploy that a crash interrupted, those it had touched marked so."""
    if work.sha is not None:
        work = work.having(config=config_at(tools, work.sha))
    work = in_scope(work, tools)
    touched = set(work.deploy.services)
    return work.having(services={n: change(s, affected=n in touched) for n, s in work.services.items()})
