"""`homeport try`: the working tree as it is becomes a commit in the mirror, and is asked for as a deploy of kind `try`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from homeport.decide import layout, trying
from homeport.flow import tries
from homeport.flow.site import Site
from homeport.model.deploys import Request
from homeport.model.edits import Person
from homeport.model.errors import Refused
from homeport.model.paths import printable, within
from homeport.model.trying import Reverted, Snapshot, WorkingTree
from homeport.model.watching import FolderWatch

QUIET = 0.03
"""Seconds in which nothing more has to be saved before a try."""
LONGEST = 0.5
"""Seconds after the first save at which it is tried in any case."""

Confirm = Callable[[str], bool]
"""Shows a person what would be taken away and asks; False: no."""


def request_of(site: Site, tree: WorkingTree, services: Sequence[str], person: Person, by: str,
               confirm: Confirm | None) -> Request:  # fmt: skip
    """Takes the working tree, brings it to the mirror, and makes the request to deploy it.

    Raises Refused (codes `no-try`, `try-base`, `nested`, and those of `WorkingTree.take`).
    """
    tries.refuse_untried(site)
    snapshot = taken(site, tree, services, person)
    site.tries.bring(tree, snapshot)
    return asked(site, snapshot.sha, services, by, confirm)


def taken(site: Site, tree: WorkingTree, services: Sequence[str], person: Person) -> Snapshot:
    """The working tree as a commit; raises as `request_of`."""
    snapshot = tree.take(person, _message(services, site), trying.Hidden(site.config))
    _refuse_nested(site, snapshot, services)
    return snapshot


def saves(tree: WorkingTree, watch: FolderWatch) -> Iterator[float]:
    """The time of each save that git would take, as Unix time; what is saved in one go is one. Never ends by itself."""
    while True:
        stir = watch.wait(3600)
        if not stir:
            continue
        seen, began = time.time(), time.monotonic()
        while time.monotonic() - began < LONGEST and (more := watch.wait(QUIET)):
            stir = stir.with_more(more)
        if stir.lost or tree.concerns(stir.paths):
            written = tree.written(stir.paths)
            yield written if written is not None and seen - 600 < written <= seen else seen


def asked(site: Site, sha: str, services: Sequence[str], by: str, confirm: Confirm | None) -> Request:
    """The request for a try that is in the mirror already; what it would take away is confirmed first."""
    records = site.store.services()
    named = [n for n in layout.services_of(site.config, site.environment) if not services or n in services]
    lost = tries.reverted(site, sha, [records[n] for n in named if n in records])
    if lost:
        _confirmed(site, sha, lost, services, confirm)
    site.tries.prune([r.sha for r in records.values() if r.sha is not None])
    return Request(kind="try", sha=sha, services=tuple(services), requested_by=by, over=tuple(r.deployed for r in lost))


def _message(services: Sequence[str], site: Site) -> str:
    what = " and ".join(services) if services else "everything"
    return f"Try {what} in {site.environment}\n\nHomeport-Environment: {site.environment}\n"


def _refuse_nested(site: Site, snapshot: Snapshot, services: Sequence[str]) -> None:
    folders = [layout.folder_of(s) for n, s in layout.services_of(site.config, site.environment).items()
               if s.source is not None and (not services or n in services)]  # fmt: skip
    inside = [path for path in snapshot.nested if any(within(path, folder) for folder in folders)]
    if inside:
        raise Refused(f"a repository of its own lies in the source folder: {', '.join(map(printable, inside[:5]))}",
                      where="the working tree", next="move it away, or list it in .gitignore", code="nested")  # fmt: skip


def _confirmed(site: Site, sha: str, lost: Sequence[Reverted], services: Sequence[str],
               confirm: Confirm | None) -> None:  # fmt: skip
    """A person says that it is meant, and the audit keeps whom; an agent, a trigger or a token without that right never.

    Raises Refused (code `try-base`).
    """
    actor = site.actor
    may = actor.kind == "person" and actor.confirms
    subjects = {sha: site.git.subject(sha) for one in lost for sha in one.commits[: trying.SHOWN]}
    concerned = ", ".join(one.service for one in lost)
    commits = list(dict.fromkeys(sha for one in lost for sha in one.commits))
    told = f"{len(commits)} {'commit' if len(commits) == 1 else 'commits'} of {concerned}"
    if may and confirm is not None and confirm(trying.told(lost, subjects)):
        site.store.audit(actor.name, "exception try-base", f"try {sha} takes away {told}: {' '.join(commits[:20])}",
                         actor="person")  # fmt: skip
        return
    if confirm is not None:
        site.store.audit(actor.name, "confirm", f"try-base: {told}", outcome="refused")
    who = "" if may else "; a person may allow it, not an agent, a trigger or a token without the right `confirm`"
    again = " ".join(["homeport try", *services])
    yes = f"{again} --yes" + ("" if may else ", by a person")
    raise Refused(
        f"the checkout lacks what is deployed; the try would take away {told}: " + "; ".join(
            f"{sha[:12]} {printable(subjects[sha])}" for sha in list(subjects)[:5]) + who,
        where=f"environment {site.environment}", code="try-base",
        next=f"git pull --rebase, then: {again}   (to take them away all the same: {yes})",
    )  # fmt: skip
