"""Hand edits told as they are made, without looking at everything (E6): for `homeport drift --watch` and the daemon.

A live folder is watched first and looked at then, so that what moves in between is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from homeport.flow import editing
from homeport.flow.looking import drift_of, met, targets_of
from homeport.flow.site import Site
from homeport.model.deploys import TargetRecord
from homeport.model.live import Difference, Scan, Target
from homeport.model.paths import exact
from homeport.model.watching import LiveWatch, Stir, Watches

QUIET = 0.05
"""Seconds in which nothing more has to move before a look; an editor writes a file in several steps."""
LONGEST = 0.5
"""Seconds after the first movement at which it is looked in any case."""
Stamp = tuple[str, str | None, str, str]


@dataclass
class Watched:
    """One live folder and what is known of it."""

    service: str
    target: Target
    watch: LiveWatch
    stamp: Stamp | None
    """Of the record that the watch and what is known stand on; None: homeport itself writes, or just did."""
    known: dict[str, Difference] = field(default_factory=dict)


class Change(NamedTuple):
    """A path that began to differ, does so in another way, or ceased to (`now` is None)."""

    path: str
    before: Difference | None
    now: Difference | None


def watch_drift(site: Site, services: Sequence[str]) -> Iterator[dict[str, Any]]:
    """First everything that differs (`drift.scan`), then one row for each path that begins or ceases to (`drift`).

    Never ends by itself. Raises InfrastructureFault (codes `watch-limit`, `watch`).
    """
    watches = site.watches()
    try:
        folders = []
        for name, target in targets_of(site, services):
            met(site, target)
            folders.append(begin(site, watches, name, target))
        yield {"type": "drift.scan", "at": site.clock.now(), **drift_of(site, services),
               "watching": {f.service: f.watch.folders for f in folders}}  # fmt: skip
        while True:
            for folder in folders:
                for change in _next(site, folder, watches, max(0.02, 0.4 / len(folders))):
                    yield told(site, folder, change)
    finally:
        watches.close()


def _next(site: Site, folder: Watched, watches: Watches, within: float) -> list[Change]:
    stir = folder.watch.wait(within)
    if not stir and not moved(site, folder):
        return []
    began = site.clock.monotonic()
    while site.clock.monotonic() - began < LONGEST and (more := folder.watch.wait(QUIET)):
        stir = stir.with_more(more)
    return look(site, folder, watches, stir)


def begin(site: Site, watches: Watches, service: str, target: Target) -> Watched:
    """Watches a live folder that was met, and looks at all of it. Raises as `Watches.of_target`, and Refused (code
    `not-the-folder`)."""
    site.targets.meet(target, site.env.branch, observe=True)
    record = site.store.target(target.name)
    watch = watches.of_target(target, site.env.branch)
    try:
        scan = met(site, target)
    except BaseException:
        watch.close()
        raise
    stamp = _stamp(site, target, _stamp_of(record))
    return Watched(service, target, watch, stamp, {d.path: d for d in scan.differences} if stamp is not None else {})


def look(site: Site, folder: Watched, watches: Watches, stir: Stir, *, whole: bool = False) -> list[Change]:
    """What changed, the ledger told. Raises as `begin`; the folder is then to be let go."""
    record = site.store.target(folder.target.name)
    if record is not None and record.syncing is not None:
        # homeport itself writes: looked at as a whole once it is done
        folder.stamp = None
        return []
    before = folder.known
    if stir.lost or folder.stamp is None or folder.stamp != _stamp_of(record):
        folder.watch.close()
        fresh = begin(site, watches, folder.service, folder.target)
        folder.watch, folder.stamp, folder.known = fresh.watch, fresh.stamp, fresh.known
    elif whole or stir:
        now = None if whole else _few(site, folder, watches, stir)
        if now is None:
            now = {d.path: d for d in met(site, folder.target).differences}
        folder.stamp, folder.known = _stamp(site, folder.target, folder.stamp), now
    if folder.stamp is None:
        folder.known = before
    return _changes(before, folder.known)


def moved(site: Site, folder: Watched) -> bool:
    """Whether something else is recorded than what the folder was compared with."""
    record = site.store.target(folder.target.name)
    return record is not None and folder.stamp != _stamp_of(record)


def _stamp(site: Site, target: Target, before: Stamp | None) -> Stamp | None:
    """After a look the same as before it; None where something was put live meanwhile."""
    record = site.store.target(target.name)
    return before if record is not None and record.syncing is None and _stamp_of(record) == before else None


def _stamp_of(record: TargetRecord | None) -> Stamp | None:
    return None if record is None else (record.tree, record.commit, record.patterns, record.path)


def _few(site: Site, folder: Watched, watches: Watches, stir: Stir) -> dict[str, Difference] | None:
    """What differs after a look at these paths only; None for too many of them."""
    seen = watches.look(folder.target, site.env.branch, stir.paths)
    if seen is None:
        return None
    gone = {p for p in folder.known if p in seen.paths or any(p.startswith(path + "/") for path in stir.paths)}
    now = {p: d for p, d in folder.known.items() if p not in gone} | {d.path: d for d in seen.differences}
    steady = _stamp(site, folder.target, folder.stamp) is not None
    if now != folder.known and steady and not site.store.looks_only:
        ordered = tuple(now[path] for path in sorted(now))
        tree = folder.stamp[0] if folder.stamp is not None else ""
        editing.note(site, folder.target, Scan(target=folder.target.name, recorded_tree=tree, differences=ordered))
    return now


def _changes(before: dict[str, Difference], now: dict[str, Difference]) -> list[Change]:
    return [Change(path, before.get(path), now.get(path)) for path in sorted(now.keys() | before.keys())
            if before.get(path) != now.get(path)]  # fmt: skip


def told(site: Site, folder: Watched, change: Change) -> dict[str, Any]:
    """A row of `drift`; `settled`: the path is as recorded again."""
    row = {"type": "drift", "at": site.clock.now(), "service": folder.service, "target": folder.target.path,
           "path": exact(change.path)}  # fmt: skip
    if change.now is None:
        return {**row, "state": "settled", "foreign": None, "because": None}
    return {**row, "state": change.now.state, "foreign": change.now.foreign, "because": change.now.oddity}
