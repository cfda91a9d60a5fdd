"""homeport's own checks outside of a deploy (D3): of requests from branches of the same repository, and by the clock.

A webhook tells of a request at once; where none comes, the ticks of the timer find it in the forge's list. Which checks
there are, and as whom they run, says the environment's branch: a request cannot change that. They run in a process of
their own that no deploy waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from homeport.decide import cron, owncheck
from homeport.flow.notifying import deliver, now_of
from homeport.flow.site import Site
from homeport.flow.stages.fetching import in_scope
from homeport.flow.stages.proving import Result, report, run_checks
from homeport.flow.work import Work, tools_for
from homeport.model.config import Config
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import Busy, HomeportError
from homeport.model.forge import CHECK_STATUS, Status, is_commit, is_ref_name
from homeport.model.notices import Letter, Message

ASKED = "checks-asked"
"""Where the requests stand that are still to be checked, `SHA BRANCH` a line."""
SEEN = "cron:"
"""Before a check's name, when it was last begun by the clock."""
CHECKED, NOW, LOOKED = "checks-done", "checks-now", "checks-looked"
"""The newest commits of requests that were checked, the one whose checks run, and when the forge's list was read."""
REMEMBERED = 500
"""Commits in CHECKED."""
AT_ONCE = 10
"""Requests that one look takes from the forge's list; the next one takes more."""
GAP = 60.0
"""Seconds between two looks at the list, however often a webhook makes the timer tick."""


def ask_for(site: Site, sha: str, branch: str) -> bool:
    """Remembers that a request's newest commit is to be checked, and starts the process; whether there are checks."""
    if not site.config.checks or branch == site.env.branch:
        return False
    _remember(site, sha, branch)
    site.start_checking()
    return True


def _remember(site: Site, sha: str, branch: str) -> None:
    asked = (site.store.cached(ASKED) or "").splitlines()
    if f"{sha} {branch}" not in asked:
        site.store.cache(ASKED, "\n".join([*(row for row in asked if row.split(" ", 1)[1] != branch), f"{sha} {branch}"]))


def due_by_clock(site: Site) -> list[str]:
    """Names of the checks whose time has come since they were last begun. One seen for the first time waits for its
    next time; so does one that was begun in what is the future again, since the clock was put back."""
    now, found = datetime.fromisoformat(site.clock.now()), []
    for name, check in site.config.checks.items():
        when = cron.latest(check.cron, now) if check.cron is not None else None
        if when is None:
            continue
        known = site.store.cached(SEEN + name)
        before = datetime.fromisoformat(known) if known is not None else None
        if before is None or before > now:
            site.store.cache(SEEN + name, now.isoformat())
        elif before < when:
            found.append(name)
    return found


def start_due(site: Site) -> list[str]:
    """Starts the process when a check's time has come, or the forge's list of requests is to be looked at; called by
    every tick of a trigger."""
    found = due_by_clock(site)
    if found or looks_due(site):
        site.start_checking()
    return found


def looks_due(site: Site) -> bool:
    """Whether the forge is to be asked for open requests: where there are checks for them, once a minute at most."""
    forge = site.config.forge
    if forge is None or forge.token is None or not owncheck.due(site.config.checks, None):
        return False
    last = site.store.cached(LOOKED)
    if last is None:
        return True
    passed = (datetime.fromisoformat(site.clock.now()) - datetime.fromisoformat(last)).total_seconds()
    return not 0 <= passed < GAP


def look_for_requests(site: Site) -> None:
    """Asks for the checks of open requests whose newest commit has had none: what a lost webhook would have told.

    A forge that does not answer is asked again at the next tick."""
    if not looks_due(site):
        return
    site.store.cache(LOOKED, site.clock.now())
    forge = None
    try:
        forge = site.forge(site.config)
        found = forge.open_requests(site.env.branch) if forge is not None else []
    except HomeportError:
        return
    finally:
        if forge is not None:
            forge.close()
    known = {*(site.store.cached(CHECKED) or "").splitlines(), "" if site.checks_lock.free() else site.store.cached(NOW)}
    fresh = [one for one in found if one.same_repository and one.head_sha not in known and one.head != site.env.branch
             and is_commit(one.head_sha) and is_ref_name(one.head)]  # fmt: skip
    for one in fresh[:AT_ONCE]:
        _remember(site, one.head_sha, one.head)


def carry_out(site: Site) -> int:
    """Checks what was asked for and what is due by the clock, until nothing is left; how many commits."""
    done = 0
    look_for_requests(site)
    while site.store.cached(ASKED) or due_by_clock(site):
        try:
            with site.checks_lock.hold(wait=False):
                while _next(site):
                    done += 1
        except Busy:
            break  # another process checks already, and looks again before it ends
    return done


def _next(site: Site) -> bool:
    names = due_by_clock(site)
    if names:
        site.git.fetch()
        sha = site.git.tip(site.env.branch)
        for name in names:
            site.store.cache(SEEN + name, site.clock.now())
        found = _prove(site, sha, names, known=False)
        _tell_of_failures(site, sha, found)
        return True
    asked = (site.store.cached(ASKED) or "").splitlines()
    if not asked:
        return False
    sha, _, branch = asked[0].partition(" ")
    site.git.fetch()
    left = [row for row in (site.store.cached(ASKED) or "").splitlines() if row != asked[0]]
    site.store.cache(ASKED, "\n".join(left))
    site.store.cache(NOW, sha)
    if site.git.reaches(branch, sha):  # of this repository: the branches of a fork are never fetched
        changed = [change.path for change in site.git.changes(site.git.tip(site.env.branch), sha)]
        _prove(site, sha, owncheck.due(site.config.checks, changed), known=True)
    before = [one for one in (site.store.cached(CHECKED) or "").splitlines() if one != sha]
    site.store.cache(CHECKED, "\n".join([*before, sha][-REMEMBERED:]))  # after a crash in between it is found once more
    return True


def _prove(site: Site, sha: str, names: Sequence[str], *, known: bool) -> dict[str, Result]:
    """`known`: what passed for the same files is not run again."""
    request = Request(kind="commit", sha=sha, requested_by="checks", actor="trigger")
    work = Work(deploy=Deploy(id=f"check-{sha[:12]}", kind="commit", request=request), config=site.config, sha=sha)
    tools = tools_for(site, work.deploy.id)
    site.hide_secrets(site.config)
    try:
        work = in_scope(work, tools)
        _tell(site, work, [Status(name=CHECK_STATUS + name, verdict="pending", text="runs") for name in names])
        deliver(site, patience=0.0)
        found = run_checks(names, work, tools, known=known)
        report(found, work, tools)
    finally:
        tools.journal.close()
    said = ", ".join(f"{name} {result.how or 'passed'}" for name, result in found.items())
    site.store.audit("homeport", "check", f"{sha[:12]}: {said or 'nothing to check'}")
    return found


def _tell(site: Site, work: Work, said: list[Status]) -> None:
    if work.config.forge is not None and work.config.forge.token is not None:
        letters = [Letter(deploy=work.deploy.id, channel=None, sha=work.sha, status=status) for status in said]
        site.outbox.put(letters, now_of(site))


def _tell_of_failures(site: Site, sha: str, found: dict[str, Result]) -> None:
    """A check by the clock has no push whose author looks at its status: it is told like a failed deploy."""
    config: Config = site.config
    bad = {name: result.how for name, result in found.items() if result.how}
    if not bad or config.notify is None or (config.notify.on and "failure" not in config.notify.on):
        return
    text = "\n".join(f"{name} {how}" for name, how in bad.items())
    told = Message(outcome="failure", title=f"{site.project} {site.environment}: {', '.join(bad)} failed by the clock",
                   text=text, fields=(("Commit", sha[:12]), ("Host", site.host)))  # fmt: skip
    site.outbox.put([Letter(deploy=f"check-{sha[:12]}", channel=url, message=told) for url in config.notify.urls],
                    now_of(site))  # fmt: skip
