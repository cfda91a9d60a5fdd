"""homeport's own checks of a commit (D3): in parallel, each in a clean checkout, before anything is touched."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from homeport.decide import owncheck
from homeport.flow.goals import environment_print, standard_environment
from homeport.flow.work import Tools, Work
from homeport.model.abreast import side_by_side
from homeport.model.blameless import fault_of_the_machine
from homeport.model.config import CiCheck
from homeport.model.errors import GateClosed, InfrastructureFault
from homeport.model.events import CheckEvent
from homeport.model.forge import CHECK_STATUS, Status
from homeport.model.notices import Letter
from homeport.model.ports import Job

PASSED = "passed"


class Result(Struct, frozen=True):
    """What came of one check."""

    how: str = ""
    """How it failed; empty when it passed."""
    fault: InfrastructureFault | None = None
    """It failed for want of room or memory: that says nothing about the commit, and is not remembered."""


def prove(work: Work, tools: Tools) -> Work:
    """Raises GateClosed (code `check-failed`) when a required check fails, InfrastructureFault where only the machine is
    to blame. Only commits that the environment's branch reaches come this far, so nothing from a fork is ever run. What
    passed for the same files is not run again; what failed is, when a person asks."""
    if not work.config.checks or work.deploy.kind != "commit" or work.sha is None:
        return work
    sha = work.sha
    names = owncheck.due(work.config.checks, _changed(work, sha, tools))
    found = run_checks(names, work, tools)
    report(found, work, tools)
    bad = {name: result for name, result in found.items() if result.how and work.config.checks[name].required}
    held_against = [f"{name} {result.how}" for name, result in bad.items() if result.fault is None]
    if held_against:
        raise GateClosed(", ".join(held_against), where=f"checks of {sha[:12]}", next=f"homeport logs {work.deploy.id}",
                         code="check-failed")  # fmt: skip
    for result in bad.values():
        assert result.fault is not None
        raise result.fault
    return work


def run_checks(names: Sequence[str], work: Work, tools: Tools, *, known: bool = True) -> dict[str, Result]:
    """`known`: what passed for the same files is not run again."""
    assert work.sha is not None
    for service in work.services.values():
        environment_print(service, tools)  # whatever a check gets hold of and prints, its secrets are known by then
    tree = tools.site.git.tree_of(work.sha, "") or work.sha
    checks = [partial(_one, name, work.config.checks[name], tree, work, tools, known) for name in names]
    done = side_by_side(checks, work.config.project.jobs)
    return {name: each.result() for name, each in zip(names, done, strict=True)}


def _changed(work: Work, sha: str, tools: Tools) -> list[str] | None:
    """Paths that differ from what any service was last deployed from; None when one never was."""
    before = {service.record.sha for service in work.services.values()}
    found: set[str] = set()
    for old in before:
        if old is None or not tools.site.git.has(old):
            return None
        found.update(change.path for change in tools.site.git.changes(old, sha))
    return sorted(found)


def _one(name: str, check: CiCheck, tree: str, work: Work, tools: Tools, remembered: bool) -> Result:
    site, key = tools.site, owncheck.mark(name, check, tree)
    known = site.store.cached(key) if remembered else None
    if known == PASSED or (known and known != PASSED and work.deploy.request.actor != "person"):
        return Result() if known == PASSED else Result(known)
    began = site.clock.monotonic()
    user = check.user or ("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    with site.clean_room(tree, user) as folder:
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8", "CI": "true",
               **standard_environment(tools, work.sha, work.deploy.id)}  # fmt: skip
        job = Job(command=check.run, cwd=folder, env=env, label=f"check {name}", timeout=float(check.timeout), user=user)
        done = tools.shell.job(job, tools.lines_of(name))
    top = os.path.dirname(os.path.dirname(folder))  # what lay in there is gone by now
    done = replace(done, no_room=top if done.no_room == folder else done.no_room)
    how, fault = "", fault_of_the_machine(done, job.label, top, f"homeport logs {work.deploy.id}")
    if done.timed_out:
        how = f"did not end within {float(check.timeout):g} s"
    elif done.code != 0:
        how = fault.what.removeprefix(f"{job.label} ") if fault is not None else f"ended with {done.code}"
    if fault is None:
        site.store.cache(key, how or PASSED)
    took = int((site.clock.monotonic() - began) * 1000)
    tools.journal.write(CheckEvent(deploy_id=work.deploy.id, at=site.clock.now(), check=name, ok=not how, detail=how,
                                   duration_ms=took, service=None, required=check.required))  # fmt: skip
    return Result(how, fault)


def report(found: dict[str, Result], work: Work, tools: Tools) -> None:
    """Commit statuses on the forge, where there is one: they leave with the messages, and delay nothing."""
    if work.config.forge is None or work.config.forge.token is None:
        return
    from homeport.flow.notifying import now_of

    said = [Status(name=CHECK_STATUS + name, text=result.how or PASSED,
                   verdict="error" if result.fault else "failed" if result.how else "passed")
            for name, result in found.items()]  # fmt: skip
    letters = [Letter(deploy=work.deploy.id, channel=None, sha=work.sha, status=status) for status in said]
    tools.site.outbox.put(letters, now_of(tools.site))
