"""The way back of a live try: what it changed since the branch, as if it had been edited on the host (A10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from homeport.decide import adopting, layout
from homeport.decide.using import used_by
from homeport.flow import tries
from homeport.flow.requesting import TRY, Part
from homeport.flow.site import Site
from homeport.model.deploys import ServiceRecord
from homeport.model.live import Difference, DriftState, Entry, Scan, Target, TreeChange
from homeport.model.paths import within
from homeport.model.patterns import Matcher, effective_protect


@dataclass(frozen=True)
class Lying:
    """What lies in one live folder, beside what the branch had when the work began."""

    differences: tuple[Difference, ...]
    since: str | None
    """The commit they are differences from."""


def lying(site: Site, target: Target, scan: Scan) -> Lying:
    """Edits as a look found them; where a try runs, all that it and later edits changed since the branch."""
    record = site.store.target(target.name)
    deployed = record.commit if record is not None else None
    tried = _record_of(site, target, deployed)
    if tried is None or tried.tried is None:
        return Lying(scan.differences, deployed)
    base = tried.tried.base
    whole = folder_at(site, target, base) if base is not None else site.merging.with_changes(None, {})
    changes = {c.path: c for c in site.git.changes(whole, scan.recorded_tree)}
    edited = {d.path: d for d in scan.differences}
    found = [_of_try(change) for path, change in changes.items() if path not in edited]
    found += [_rebased(d, changes.get(path)) for path, d in edited.items()]
    return Lying(tuple(sorted((d for d in found if d.recorded != d.actual or d.oddity), key=lambda d: d.path)), base)


def _record_of(site: Site, target: Target, deployed: str | None) -> ServiceRecord | None:
    """The service of this folder that runs a try, when a try was the folder's last sync too: that very one, or one before
    it, where the later ones changed nothing there."""
    for name, record in site.store.services().items():
        if record.tried is None or name not in site.config.services:
            continue
        if record.sha != deployed and not tries.is_try(site, deployed):
            continue
        where = layout.target_of(site.config, name)
        if where is not None and where.name == target.name:
            return record
    return None


def _of_try(change: TreeChange) -> Difference:
    state = _state(change.before, change.after)
    return Difference(path=change.path, state=state, recorded=change.before, actual=change.after)


def _rebased(difference: Difference, change: TreeChange | None) -> Difference:
    if change is None:
        return difference
    return replace(difference, recorded=change.before, foreign=None, state=_state(change.before, difference.actual))


def _state(before: Entry | None, after: Entry | None) -> DriftState:
    return "added" if before is None else "deleted" if after is None else "modified"


def folder_at(site: Site, target: Target, sha: str) -> str:
    """The folder as the target would have it at that commit, protected paths left out; empty when it is not there."""
    if site.git.tree_of(sha, target.source) is None:
        return site.merging.with_changes(None, {})
    return site.targets.wanted(target, sha)


def outside(site: Site, services: Sequence[str], named: Sequence[str]) -> list[Part]:
    """What live tries changed outside of every live folder: taken where a tried service uses or watches it, or where
    a person named it; else listed as left out."""
    parts = []
    for sha, tried in _live(site, services).items():
        base, config = tried[0].tried.base if tried[0].tried else None, site.config
        inside = [layout.folder_of(s) for n, s in config.services.items() if layout.target_of(config, n) is not None]
        changes = [c for c in site.git.changes(base, sha)
                   if not any(within(c.path, folder) for folder in inside)]  # fmt: skip
        if not changes:
            continue
        target = Target(name=TRY, path="/nonexistent", source="",
                        protect=effective_protect(config.project.protect, (), config.project.unprotect, ()))  # fmt: skip
        branch = tried[0].tried.branch if tried[0].tried else None
        if branch is not None and site.git.has(f"refs/heads/{branch}") and not named:
            parts.append(_nothing(target, base, [adopting.Skipped(c.path, f"on branch {branch} already") for c in changes]))
            continue
        hidden, theirs = Matcher(target.protect, dir_only_matches_files=True), _theirs(site, tried)
        taken = [c for c in changes if adopting.named_by(c.path, named) or (not named and theirs.match(c.path))]
        taken = [c for c in taken if not hidden.match(c.path)]
        left = [adopting.Skipped(c.path, "tried, but no tried service uses it; name it to adopt it")
                for c in changes if c not in taken and not named]  # fmt: skip
        whole = folder_at(site, target, base) if base else site.merging.with_changes(None, {})
        scan = Scan(target=TRY, recorded_tree=whole)
        parts.append(Part(target=target, scan=scan, deployed=base, taken=tuple(_of_try(c) for c in taken),
                          entries={c.path: c.after for c in taken}, skipped=tuple(left)))  # fmt: skip
    return parts


def _nothing(target: Target, base: str | None, skipped: Sequence[adopting.Skipped]) -> Part:
    scan = Scan(target=TRY, recorded_tree="")
    return Part(target=target, scan=scan, deployed=base, taken=(), skipped=tuple(skipped))


def _live(site: Site, services: Sequence[str]) -> dict[str, list[ServiceRecord]]:
    """The tries that run, newest state, by commit."""
    found: dict[str, list[ServiceRecord]] = {}
    for name, record in site.store.services().items():
        if record.tried is not None and record.sha is not None and (not services or name in services):
            found.setdefault(record.sha, []).append(record)
    return found


def _theirs(site: Site, tried: Sequence[ServiceRecord]) -> Matcher:
    patterns: list[str] = []
    for record in tried:
        service = site.config.services.get(record.service)
        if service is not None:
            used = used_by(site.config, record.service)
            patterns += [*service.watch, *used.patterns, *(f"/{folder}" for folder in used.folders)]
    return Matcher(patterns, dir_only_matches_files=True)


def note_adopted(site: Site, parts: Sequence[Part], branch: str, commit: str, request: str | None) -> None:
    """Marks the tries whose changes are on a branch now."""
    folders = {part.target.name for part in parts if part.taken}
    for name, record in site.store.services().items():
        where = layout.target_of(site.config, name) if name in site.config.services else None
        if record.tried is not None and where is not None and where.name in folders:
            mark = replace(record.tried, branch=branch, commit=commit, request=request)
            site.store.save_service(replace(record, tried=mark))
