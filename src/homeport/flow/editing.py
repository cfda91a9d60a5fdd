"""The ledger of edits kept up to date by every look, and a person's decisions about them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from homeport.decide import durations, edits, layout
from homeport.flow.site import Site
from homeport.model.edits import LIVING, Edit, Ledger
from homeport.model.errors import HomeportError, Refused, UsageFault
from homeport.model.live import PROJECT, Difference, Entry, Scan, Target
from homeport.model.paths import exact, printable

if TYPE_CHECKING:
    from homeport.flow.work import TargetWork, Tools, Work


def note(site: Site, target: Target, scan: Scan) -> None:
    """Brings the ledger of one live folder up to what a look at it found. A half-done sync is no edit."""
    known = site.edits.living(target.name)
    if scan.syncing is not None or not (known or scan.differences):
        return
    if not site.git.has(f"refs/heads/{site.env.branch}"):
        return
    ahead = ahead_of(site, target, scan.recorded_tree) if known else {}
    sight = edits.Sight(target=target.name, differences=scan.differences, ahead=ahead)
    named = service_of(site, target)
    changed = edits.after_look(edits.relabeled(known, named), sight, site.clock.now(), named, new_id)
    if changed:
        site.edits.save(changed)


def ahead_of(site: Site, target: Target, recorded: str) -> dict[str, Entry | None]:
    """What the branch has, as far as it was fetched, at each path where it is not as recorded."""
    tip = site.git.tree_of(f"refs/heads/{site.env.branch}", target.source)
    return {change.path: change.before for change in site.git.changes(tip, recorded)}


def gone_on_branch(site: Site, target: Target, scan: Scan) -> set[str]:
    """The recorded paths that the branch, as far as it was fetched, does not have any more."""
    if not any(d.state == "deleted" for d in scan.differences) or not site.git.has(f"refs/heads/{site.env.branch}"):
        return set()
    return {path for path, entry in ahead_of(site, target, scan.recorded_tree).items() if entry is None}


def new_id() -> str:
    """Of an edit."""
    return f"e-{os.urandom(4).hex()}"


def service_of(site: Site, target: Target) -> Callable[[str], str]:
    """For a path of the live folder, the service it belongs to."""
    if target.name != PROJECT:
        return lambda _path: target.name
    folders = {layout.folder_of(s): n for n, s in layout.services_of(site.config, site.environment).items()
               if s.target is None and layout.folder_of(s)}  # fmt: skip

    def named(path: str) -> str:
        fitting = [folder for folder in folders if path.startswith(folder + "/")]
        return folders[max(fitting, key=len)] if fitting else PROJECT

    return named


def accepted_paths(site: Site, target: Target, scan: Scan) -> dict[str, Edit]:
    """The differences that somebody accepted as they are, and whose acceptance has not run out."""
    now = site.clock.now()
    return edits.about((e for e in site.edits.living(target.name) if edits.accepted_now(e, now)), scan.differences)


def adopted_paths(site: Site, target: Target, differences: Sequence[Difference]) -> dict[str, str]:
    """The differences that are on a branch or in a request as they are, merged or not, with its name."""
    known = (e for e in site.edits.living(target.name) if e.state in ("adopted", "merged") and e.branch and not e.unsure)
    return {path: edits.held_in(edit) for path, edit in edits.about(known, differences).items()}


def landed_paths(site: Site, target: Target, scan: Scan, commit: str | None) -> frozenset[str]:
    """The differences whose adopted content is part of `commit`: what is live may give way to what the merge made."""
    if not commit:
        return frozenset()
    found = edits.about((e for e in site.edits.living(target.name) if e.commit is not None), scan.differences)
    return frozenset(d.path for d in scan.differences
                     if d.path in found and _landed(site, target, found[d.path], d, commit))  # fmt: skip


def _landed(site: Site, target: Target, edit: Edit, difference: Difference, commit: str) -> bool:
    if any(one is not None and site.git.is_ancestor(one, commit) for one in (edit.commit, edit.landed)):
        return True
    if edit.state == "open" or edit.commit is None or not site.git.has(edit.commit):
        return False
    path = in_repository(target, difference.path)
    return site.git.entry_at(edit.commit, path) == site.git.entry_at(commit, path)


def in_repository(target: Target, path: str) -> str:
    return f"{target.source.strip('/')}/{path}" if target.source.strip("/") else path


def note_inspected(work: Work, tools: Tools) -> None:
    """What a deploy found before it did anything."""
    for target in work.targets.values():
        if target.scan is not None:
            note(tools.site, target.target, target.scan)


def note_deployed(work: Work, tools: Tools) -> None:
    """After a success: what was discarded is so, what live, deployed and git agree on is closed."""
    for target in work.targets.values():
        if target.scan is not None and target.plan is not None:
            # the deploy is stamped: what the ledger misses here, the next look finds
            with contextlib.suppress(HomeportError):
                _note_deployed(target, work, tools)
    if work.deploy.kind == "commit":
        with contextlib.suppress(HomeportError):
            _forget_adopted(tools.site)


def _forget_adopted(site: Site) -> None:
    """What was adopted and is settled is in the branch: the mirror need not keep it on its own any more."""
    rows = [(edit.state, one) for edit in site.edits.all() for one in (edit.commit, edit.landed) if one is not None]
    living = {one for state, one in rows if state in LIVING}
    ended = {one for _, one in rows} - living
    if ended:
        site.merging.forget(ended, living)


def _note_deployed(target: TargetWork, work: Work, tools: Tools) -> None:
    site, plan, scan = tools.site, target.plan, target.scan
    assert plan is not None
    assert scan is not None
    gone = [step.path for step in plan.steps if step.rescue == "discarded"]
    discarded(site, target.target, gone, work.deploy.requested_by)
    done = {step.path for step in plan.steps} | set(plan.arrived)
    left = tuple(d for d in scan.differences if d.path not in done)
    note(site, target.target, replace(scan, recorded_tree=plan.to_tree, differences=left, syncing=None))


def discarded(site: Site, target: Target, paths: Sequence[str], by: str) -> None:
    """Ends the edits at these paths; what was there is among the rescues."""
    if paths:
        known = site.edits.living(target.name)
        site.edits.save(edits.ended(known, paths, "discarded", by, site.clock.now()))


def accept(site: Site, paths: Sequence[str], because: str, until: str, by: str) -> dict[str, Any]:
    """Records drift as known: a reason, who answers for it, and when it ends. Nothing live changes."""
    from homeport.flow.guarding import check, letting_stay
    from homeport.flow.looking import below, chosen, met, targets_of

    if not because.strip():
        raise UsageFault("say why the edit may stay", next='homeport accept PATH --because "..." --until 7d',
                         code="because")  # fmt: skip
    now = site.clock.now()
    end = edits.expiry(until, now, durations.parse)
    if end is None or edits.moment(end) <= edits.moment(now):
        raise UsageFault(f"{printable(until)!r} is not a time to come", where="--until",
                         next='give a duration such as "7d", or a date such as "2030-01-31"', code="until")  # fmt: skip
    rows: list[Edit] = []
    for _, target in targets_of(site, []):
        local = [relative for p in paths if (relative := below(target, p)) is not None]
        found = chosen(met(site, target).differences, local) if local else []
        check(site, letting_stay(target, [d.path for d in found]), "accept", only=("review",))
        known = {e.path: e for e in site.edits.living(target.name)}
        service = service_of(site, target)
        for difference in found:
            fresh = Edit(id=new_id(), target=target.name, service=service(difference.path),
                         path=exact(difference.path), state="open", since=now)  # fmt: skip
            edit = known.get(exact(difference.path), fresh)
            rows.append(replace(edit, state="accepted", actual=difference.actual, because=because.strip(), until=end,
                                by=by))  # fmt: skip
    if not rows:
        raise Refused(f"no drift at {', '.join(map(printable, paths))}", where=f"environment {site.environment}",
                      next="homeport drift", code="no-drift")  # fmt: skip
    site.edits.save(rows)
    site.store.audit(by, "accept", f"{' '.join(e.path for e in rows)} until {end}: {because.strip()}")
    return {"accepted": [row_of(edit) for edit in rows]}


def edits_of(site: Site, whole: bool) -> dict[str, Any]:
    """Every edit that lives (with `whole` also those that ended), after one look at each live folder.

    While one waits to be merged the origin and the forge are asked; without an answer the last known state is shown.
    """
    from homeport.flow.looking import met, targets_of

    asked, waiting = False, [e for e in site.edits.living() if e.state == "adopted"]
    if waiting:
        with contextlib.suppress(HomeportError):
            site.git.fetch()
            asked = True
        with contextlib.suppress(HomeportError):
            _ask_forge(site, waiting)
    for _, target in targets_of(site, []):
        if site.store.target(target.name) is not None or site.git.has(f"refs/heads/{site.env.branch}"):
            met(site, target)
    rows = site.edits.all() if whole else [e for e in site.edits.living() if e.state in LIVING]
    late = {e.id for e in edits.old(rows, site.clock.now(), float(site.env.edit_warning))}
    return {"edits": [_row_now(site, edit, asked) | ({"old": True} if edit.id in late else {}) for edit in rows],
            "observe": site.observes}  # fmt: skip


def _row_now(site: Site, edit: Edit, asked: bool) -> dict[str, Any]:
    """As `row_of`; where it is not known whether a push came through, what the origin says, when it could be asked."""
    if edit.state != "adopted" or not edit.unsure or (asked and site.git.has(f"refs/heads/{edit.branch}")):
        return row_of(edit)
    return row_of(replace(edit, state="open", branch=None) if asked else edit) | ({} if asked else {"unsure": True})


def _ask_forge(site: Site, waiting: Sequence[Edit]) -> None:
    asked = {e.number for e in waiting if e.number is not None}
    forge = site.forge(site.config) if asked else None
    if forge is None:
        return
    for number in asked:
        request = forge.request(number)
        if request.state == "merged":
            site.edits.save([replace(e, state="merged", landed=request.merged_as) for e in waiting if e.number == number])


def row_of(edit: Edit) -> dict[str, Any]:
    """One edit as scripts see it."""
    return {"id": edit.id, "service": edit.service, "path": exact(edit.path), "state": edit.state, "since": edit.since,
            "by": edit.by, "branch": edit.branch, "request": edit.request, "because": edit.because,
            "until": edit.until}  # fmt: skip


def old_edits(site: Site) -> list[dict[str, Any]]:
    """Edits nobody decided about within `edit_warning` (A9)."""
    return [row_of(e) for e in edits.old(site.edits.living(), site.clock.now(), float(site.env.edit_warning))]


class SilentLedger:
    """Satisfies `Ledger` for a plan, which leaves no trace."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def living(self, target: str | None = None) -> list[Edit]:
        return self._ledger.living(target)

    def all(self) -> list[Edit]:
        return self._ledger.all()

    def save(self, changed: Sequence[Edit]) -> None:
        del changed
