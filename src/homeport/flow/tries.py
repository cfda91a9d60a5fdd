"""Tries inside a deploy: what the pipeline leaves alone, what a try would take away, and the mark it leaves (A8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from homeport.decide import layout, trying
from homeport.decide.durations import minute
from homeport.flow.site import Site
from homeport.model.deploys import ServiceRecord, TryMark
from homeport.model.errors import Refused
from homeport.model.paths import printable
from homeport.model.plan import Refusal
from homeport.model.trying import Reverted

if TYPE_CHECKING:
    from homeport.flow.work import ServiceWork, Tools, Work

MOST = 200
"""Commits that are looked at to say what a try takes away."""


def refuse_untried(site: Site) -> None:
    """Raises Refused (code `no-try`) unless the environment allows tries: in what is deployed, not in what is tried."""
    came = (r.sha for r in site.store.services().values() if r.sha and r.tried is None)
    at = next((sha for sha in came if site.git.reaches(site.env.branch, sha)), None)
    if at is None and not site.git.has(f"refs/heads/{site.env.branch}"):
        site.git.fetch()
    sha = at or site.git.tip(site.env.branch)
    raw = site.git.file_at(sha, "homeport.toml")
    config = site.load_config(raw, f"{sha[:12]}:homeport.toml") if raw is not None else None
    environment = config.environments.get(site.environment) if config is not None else None
    if environment is None or not environment.try_:
        raise Refused(f"environment {site.environment} takes no tries", where=f"{sha[:12]}:homeport.toml", code="no-try",
                      next=f"commit, push to {site.env.branch} and: homeport deploy   (tries need: try = true in "
                           f"[environments.{site.environment}], deployed)")  # fmt: skip


def commit_of_try(work: Work, tools: Tools) -> str:
    """The commit that a request of kind `try` names. Raises Refused (code `no-try`, `unreachable`)."""
    site, sha = tools.site, work.deploy.request.sha
    refuse_untried(site)
    if sha is None or not site.tries.knows(sha):
        raise Refused(f"{(sha or 'nothing')[:12]} is not a try that was brought here", next="homeport try",
                      where=f"environment {site.environment}", code="unreachable")  # fmt: skip
    return sha


def is_try(site: Site, sha: str | None) -> bool:
    """Whether a commit that ran came by no branch."""
    return sha is not None and not site.git.reaches(site.env.branch, sha)


# What the pipeline leaves alone.


def leave_alone(work: Work, tools: Tools) -> Work:
    """The work without the services that run a try the commit does not contain, as long as the try holds.

    Raises Refused (code `try`) when nothing would be left, when such a service was asked for by name, or when the
    migrations are its own: then the others cannot go ahead of it.
    """
    if work.deploy.kind != "commit" or work.sha is None:
        return work
    held = _held(work, work.sha, tools)
    if not held:
        return work
    migrates = work.config.migrate is not None and (work.config.migrate.service or next(iter(held))) in held
    if work.deploy.request.services or len(held) == len(work.services) or migrates:
        raise refused(held, tools.site, sorted(set(work.services) - set(held)))
    for name, tried in held.items():
        tools.notice(work.deploy.id, f"stays as it is: {_reason(tried)}", level="warning", service=name, code="try")
    return work.having(services={n: s for n, s in work.services.items() if n not in held}, held=held)


def _held(work: Work, sha: str, tools: Tools) -> dict[str, TryMark]:
    site, now = tools.site, tools.site.clock.now()
    held: dict[str, TryMark] = {}
    for name, service in work.services.items():
        record = service.record
        if record.tried is None or record.sha is None or not trying.holds(record.tried, now):
            continue
        if record.sha not in work.deploy.request.over and not contains(site, sha, service, record):
            held[name] = record.tried
    folders = {work.services[n].target.name: held[n] for n in held if work.services[n].target is not None}  # type: ignore[union-attr]
    for name, service in work.services.items():
        if service.target is not None and service.target.name in folders:
            held.setdefault(name, folders[service.target.name])
    return {name: held[name] for name in work.services if name in held}


def contains(site: Site, sha: str, service: ServiceWork, record: ServiceRecord) -> bool:
    """Whether the commit has what the try of this service brought."""
    tried = record.tried
    if tried is None or record.sha is None or not site.git.has(record.sha):
        return True
    folder = layout.folder_of(service.service)
    return any(_has(site, sha, tried.base, version, folder) for version in (record.sha, tried.commit) if version)


def _has(site: Site, sha: str, base: str | None, version: str, folder: str) -> bool:
    if site.git.is_ancestor(version, sha):
        return True
    if not site.git.has(version):
        return False
    changes = trying.in_folder(site.tries.changes(base, version), folder)
    differing = {c.path for c in site.tries.changes(version, sha)} & {c.path for c in changes}
    brought = site.tries.brought(base, sha, sorted(differing)) if differing else {}
    return trying.contained(changes, differing, brought)


def _reason(tried: TryMark) -> str:
    since, until = minute(tried.since), minute(tried.until)
    return f"it runs a try of {printable(trying.whose(tried))} since {since}, until {until}"


def refused(held: Mapping[str, TryMark], site: Site, others: Sequence[str]) -> Refused:
    """What is told to whoever asked for a deploy that would end these tries."""
    said = "; ".join(f"{name}: {_reason(tried)}" for name, tried in held.items())
    rest = f", or the others: homeport deploy {' '.join(others)}" if others else ""
    return Refused(f"this deploy would end a live try. {said}", where=f"environment {site.environment}", code="try",
                   next="homeport adopt (takes the try into git), homeport deploy --over-try (ends it; it stays in the "
                        f"mirror), or homeport rollback{rest}")  # fmt: skip


# What a try takes away.


def refusals(work: Work, tools: Tools) -> list[Refusal]:
    """A try whose base lacks what is deployed, for each commit that nobody knowingly gave up."""
    if work.deploy.kind != "try" or work.sha is None:
        return []
    found = reverted(tools.site, work.sha, [s.record for s in work.services.values()])
    return [
        Refusal(rule="try-base", service=one.service, paths=tuple(printable(p) for p in one.paths),
                message=f"{one.service} runs {one.deployed[:12]}, which the try lacks: {len(one.commits)} commits and "
                        f"{len(one.paths)} paths would be taken away",
                next="git pull --rebase, then: homeport try   (or: homeport try --yes)")
        for one in found if one.deployed not in work.deploy.request.over
    ]  # fmt: skip


def reverted(site: Site, sha: str, records: Sequence[ServiceRecord]) -> list[Reverted]:
    """What a try at `sha` would take away from these services. An older try is no loss: the newest wins."""
    found = []
    for record in records:
        at = record.tried.base if record.tried is not None else record.sha
        if at is None or not site.git.has(at) or site.git.is_ancestor(at, sha):
            continue
        commits = site.tries.missing(sha, at, MOST)
        folder = layout.folder_of(site.config.services[record.service]) if record.service in site.config.services else ""
        fork = site.tries.fork(sha, site.env.branch)
        theirs = trying.in_folder(site.tries.changes(fork, at), folder)
        ours = {c.path: c.after for c in site.tries.changes(fork, sha)}
        paths = tuple(c.path for c in theirs if ours.get(c.path, c.before) != c.after)
        if commits and paths:
            found.append(Reverted(service=record.service, deployed=at, commits=commits, paths=paths))
    return found


# The mark.


def marked(record: ServiceRecord, work: Work, tools: Tools) -> ServiceRecord:
    """The record of a service after a success: it runs a try, or no longer does."""
    kind, site = work.deploy.kind, tools.site
    if kind in ("commit", "rollback"):
        return replace(record, tried=None)
    service = work.services[record.service]
    if kind != "try" or work.sha is None:
        return record
    base = site.tries.fork(work.sha, site.env.branch)
    if not trying.in_folder(site.tries.changes(base, work.sha), layout.folder_of(service.service)):
        return replace(record, tried=None)
    made = trying.mark(record.tried, work.deploy.id, work.deploy.requested_by, site.tries.author(work.sha), base,
                       site.clock.now(), float(site.env.hold_ttl))  # fmt: skip
    return replace(record, tried=made)


def newer_than(work: Work, tools: Tools) -> None:
    """Says whose try a try replaces."""
    for name, service in work.services.items():
        tried = service.record.tried
        if work.deploy.kind == "try" and tried is not None and service.affected and tried.by != work.deploy.requested_by:
            tools.notice(work.deploy.id, f"{name}: replaces the try of {printable(trying.whose(tried))}", level="warning",
                         service=name, code="try")  # fmt: skip
