"""After the push: the ledger is told, the request is opened, and merged when asked. An adoption that was cut here
goes on here the next time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from homeport.decide import adopting
from homeport.flow import editing, guarding
from homeport.flow.site import Site
from homeport.model.edits import Adopted, Edit
from homeport.model.errors import Failed, HomeportError, InfrastructureFault, Refused
from homeport.model.forge import BranchLeft, Forge, ForgeFault, NewRequest, PullRequest
from homeport.model.live import Difference, Entry, Scan, Target
from homeport.model.paths import exact

TRY = "_try"
"""Target name of what a try changed outside of every live folder."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a person wants it."""

    branch: str | None = None
    message: str | None = None
    merge: bool = False
    foreign: bool = False
    allow_secret: tuple[str, ...] = ()
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is adopted of one live folder."""

    target: Target
    scan: Scan
    deployed: str | None
    """The commit that was last put there."""
    taken: tuple[Difference, ...]
    skipped: tuple[adopting.Skipped, ...] = ()
    entries: Mapping[str, Entry | None] = field(default_factory=dict)
    partly: frozenset[str] = frozenset()
    """Paths of which only some hunks were chosen."""


def skips(parts: Sequence[Part]) -> list[adopting.Skipped]:
    return [adopting.Skipped(editing.in_repository(part.target, row.path), row.because)
            for part in parts for row in part.skipped]  # fmt: skip


def record_adopted(site: Site, parts: Sequence[Part], branch: str, made: Adopted, by: str) -> list[Edit]:
    """Tells the ledger; returns the rows as they are to be when the push fails."""
    before: list[Edit] = []
    for part in (part for part in parts if part.target.name != TRY):
        known = {edit.path: edit for edit in site.edits.living(part.target.name)}
        service, now = editing.service_of(site, part.target), site.clock.now()
        rows = []
        for difference in part.taken:
            path = exact(difference.path)
            edit = known.get(path) or Edit(id=editing.new_id(), target=part.target.name, path=path, since=now,
                                           service=service(difference.path), state="open")  # fmt: skip
            before.append(edit if path in known else msgspec.structs.replace(edit, state="closed", ended=now))
            partly = difference.path in part.partly
            rows.append(msgspec.structs.replace(
                edit, state="open" if partly else "adopted", actual=difference.actual, by=by, branch=branch,
                commit=None if partly else made.commit, because=None, until=None, landed=None, request=None, number=None,
                unsure=not partly,
            ))  # fmt: skip
        if rows:
            site.edits.save(rows)
    return before


def note_pushed(site: Site, branch: str) -> None:
    """The branch is at the origin."""
    rows = [msgspec.structs.replace(e, unsure=False) for e in site.edits.living() if e.branch == branch and e.unsure]
    if rows:
        site.edits.save(rows)


def requested(site: Site, branch: str, made: Adopted, skipped: Sequence[adopting.Skipped], wish: Wish) -> dict[str, Any]:
    """Opens or finds the request, merges it when asked; the branch is at the origin already."""
    note_pushed(site, branch)
    title, body = site.merging.message_of(made.commit)
    asked = NewRequest(head=branch, base=site.env.branch, title=title, body=body)
    said: dict[str, Any] = {
        "branch": branch, "commit": made.commit, "base": made.base, "paths": [exact(p) for p in made.paths],
        "skipped": [{"path": exact(row.path), "because": row.because} for row in skipped], "pushed": True,
        "request": None, "merged": False, "review": guarding.wants_review(site, made.paths),
    }  # fmt: skip
    forge = site.forge(site.config)
    if forge is None:
        with contextlib.suppress(HomeportError):
            said["page"] = site.request_page(asked)
        return said
    try:
        request, _ = forge.open_request(asked)
        _note_request(site, branch, request)
        said["request"] = request.url
        if wish.merge:
            request = _merged(site, forge, request, asked, made.commit)
            said["merged"] = request.state == "merged"
    except HomeportError as fault:
        if fault.code == "branch-left":
            raise
        kind = Refused if isinstance(fault, Refused) else InfrastructureFault if fault.infrastructure else Failed
        at = "its request could not be merged" if said["request"] else "no request could be opened for it"
        raise kind(f"branch {branch} is pushed, but {at}: {fault.what}", where=said["request"] or fault.where,
                   next=f"homeport adopt{' --merge' if wish.merge else ''} (goes on with that branch{_not_before(fault)})",
                   code=fault.code) from fault  # fmt: skip
    finally:
        forge.close()
    return said


def _merged(site: Site, forge: Forge, request: PullRequest, asked: NewRequest, commit: str) -> PullRequest:
    """The request once it is merged and its branch deleted. Where the forge's answer was lost, or the deletion failed,
    the request itself says whether it was merged. Raises what merging raises, InfrastructureFault (`branch-left`)."""
    try:
        there = forge.merge(request.number, sha=commit, title=asked.title, body=asked.body)
    except ForgeFault as fault:
        there = _merged_after_all(forge, request, fault)
        _note_merged(site, asked.head, there)
        try:
            return forge.merge(request.number, sha=commit, title=asked.title, body=asked.body)
        except ForgeFault as again:
            raise InfrastructureFault(
                f"request {there.number} is merged, but its branch {asked.head} could not be deleted: {again.what}",
                where=there.url, next=f"homeport deploy   (the branch: git push origin --delete {asked.head})",
                code="branch-left",
            ) from again  # fmt: skip
    _note_merged(site, asked.head, there)
    return there


def _merged_after_all(forge: Forge, request: PullRequest, fault: ForgeFault) -> PullRequest:
    """The merged request. Raises the fault where it is not merged, or cannot be asked about."""
    if isinstance(fault, BranchLeft):
        return fault.request
    try:
        there = forge.request(request.number)
    except HomeportError:
        raise fault from None
    if there.state != "merged":
        raise fault
    return there


def _note_merged(site: Site, branch: str, request: PullRequest) -> None:
    _note_request(site, branch, request)
    if request.state == "merged":
        with contextlib.suppress(HomeportError):
            site.git.fetch()


def _not_before(fault: HomeportError) -> str:
    """When a forge that asked to wait may be asked again."""
    if not isinstance(fault, ForgeFault) or fault.code != "rate-limited" or fault.until is None:
        return ""
    return f"; not before {datetime.fromtimestamp(fault.until, UTC):%H:%M:%S} UTC"


def _note_request(site: Site, branch: str, request: PullRequest) -> None:
    state = "merged" if request.state == "merged" else None
    site.edits.save([
        msgspec.structs.replace(e, request=request.url, number=request.number, landed=request.merged_as or e.landed,
                                state=state if state and e.state == "adopted" else e.state)
        for e in site.edits.living() if e.branch == branch
    ])  # fmt: skip


def continues(site: Site, parts: Sequence[Part]) -> dict[str, list[Edit]]:
    """Branches that hold what was skipped because it was adopted before, each with its edits."""
    found: dict[str, list[Edit]] = {}
    for part in parts:
        left = {exact(row.path) for row in part.skipped if not row.by_choice}
        for edit in site.edits.living(part.target.name):
            if edit.state == "adopted" and edit.path in left and edit.branch and edit.commit:
                found.setdefault(edit.branch, []).append(edit)
    return found


def nothing_new(site: Site, parts: Sequence[Part], wish: Wish) -> dict[str, Any]:
    """Nothing to commit: an adoption that got no request yet goes on; else the answer says so."""
    branches = continues(site, parts)
    branch = wish.branch if wish.branch in branches else next(iter(branches)) if len(branches) == 1 else None
    if branch is not None:
        commit = branches[branch][0].commit or ""
        base = site.git.log(commit, 2)[-1]
        paths = tuple(sorted(change.path for change in site.git.changes(base, commit)))
        guarding.check_push(site, branch, paths, merge=wish.merge)
        return requested(site, branch, Adopted(commit=commit, base=base, paths=paths), _others(parts, branches[branch]),
                          wish)  # fmt: skip
    skipped = [{"path": exact(row.path), "because": row.because} for row in skips(parts)]
    return {"branch": None, "commit": None, "base": None, "paths": [], "skipped": skipped, "pushed": False,
            "request": None, "merged": False}  # fmt: skip


def _others(parts: Sequence[Part], edits: Sequence[Edit]) -> list[adopting.Skipped]:
    """What was skipped for another reason than being on that branch."""
    on_it = {(edit.target, edit.path) for edit in edits}
    left = [tuple(row for row in part.skipped if (part.target.name, exact(row.path)) not in on_it) for part in parts]
    return skips([replace(part, skipped=rows) for part, rows in zip(parts, left, strict=True)])
