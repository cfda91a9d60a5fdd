"""`homeport drift --watch`: a hand edit is told within a second, without looking at everything (E6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeport.flow import editing
from homeport.flow.looking import drift_of, met, targets_of
from homeport.flow.site import Site
from homeport.model.live import Difference, Scan, Target
from homeport.model.paths import exact
from homeport.model.watching import FolderWatch, Stir, Watches

QUIET = 0.05
"""Seconds in which nothing more has to move before a look; an editor writes a file in several steps."""
LONGEST = 0.5
"""Seconds after the first movement at which it is looked in any case."""
FEW = 500
"""Paths that are looked at one by one; for more the whole folder is."""


@dataclass
class Watched:
    """One live folder and what is known of it."""

    service: str
    target: Target
    watch: FolderWatch
    tree: str
    known: dict[str, Difference] = field(default_factory=dict)


def watch_drift(site: Site, services: Sequence[str]) -> Iterator[dict[str, Any]]:
    """First everything that differs (`drift.scan`), then one row for each path that begins or ceases to (`drift`).

    Never ends by itself. Raises InfrastructureFault (codes `watch-limit`, `watch`).
    """
    watches = site.watches()
    folders: list[Watched] = []
    try:
        for name, target in targets_of(site, services):
            # watched first and scanned then: what moves in between is looked at once more
            met(site, target)
            watch = watches.of_target(target, site.env.branch)
            scan = met(site, target)
            folders.append(Watched(name, target, watch, scan.recorded_tree, {d.path: d for d in scan.differences}))
        yield {"type": "drift.scan", "at": site.clock.now(), **drift_of(site, services),
               "watching": {f.service: f.watch.folders for f in folders}}  # fmt: skip
        while True:
            for folder in folders:
                yield from _look(site, folder, watches, len(folders))
    finally:
        for folder in folders:
            folder.watch.close()


def _look(site: Site, folder: Watched, watches: Watches, others: int) -> Iterator[dict[str, Any]]:
    stir = folder.watch.wait(max(0.02, 0.4 / others))
    record = site.store.target(folder.target.name)
    moved = record is not None and record.tree != folder.tree
    if not stir and not moved:
        return
    began = site.clock.monotonic()
    while site.clock.monotonic() - began < LONGEST and (more := folder.watch.wait(QUIET)):
        stir = stir.with_more(more)
    if record is not None and record.syncing is not None:
        # homeport itself writes: looked at as a whole once it is done
        folder.tree = ""
        return
    if stir.lost:
        folder.watch.close()
        folder.watch = watches.of_target(folder.target, site.env.branch)
    now = _now(site, folder, watches, stir, whole=stir.lost or moved or len(stir.paths) > FEW)
    yield from _told(site, folder, now)


def _now(site: Site, folder: Watched, watches: Watches, stir: Stir, *, whole: bool) -> dict[str, Difference]:
    """What differs now, the ledger told."""
    if whole:
        scan = met(site, folder.target)
        folder.tree = scan.recorded_tree
        return {d.path: d for d in scan.differences}
    looked, found = watches.look(folder.target, site.env.branch, stir.paths)
    gone = {p for p in folder.known if p in looked or any(p.startswith(path + "/") for path in stir.paths)}
    now = {p: d for p, d in folder.known.items() if p not in gone} | {d.path: d for d in found}
    if now != folder.known:
        ordered = tuple(now[path] for path in sorted(now))
        editing.note(site, folder.target, Scan(target=folder.target.name, recorded_tree=folder.tree, differences=ordered))
    return now


def _told(site: Site, folder: Watched, now: dict[str, Difference]) -> Iterator[dict[str, Any]]:
    """One row for each path whose state changed; `settled`: it is as recorded again."""
    at = site.clock.now()
    for path in sorted(now.keys() | folder.known.keys()):
        difference = now.get(path)
        if difference == folder.known.get(path):
            continue
        row = {"type": "drift", "at": at, "service": folder.service, "target": folder.target.path, "path": exact(path)}
        if difference is None:
            yield {**row, "state": "settled", "foreign": None, "because": None}
        else:
            yield {**row, "state": difference.state, "foreign": difference.foreign, "because": difference.oddity}
    folder.known = now
