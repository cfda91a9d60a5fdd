"""Which services a change of paths concerns (D5), fast for many services and many paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from homeport.decide.layout import folder_of
from homeport.decide.using import Used, used_by
from homeport.model.config import Config, Service
from homeport.model.live import Stat
from homeport.model.patterns import Matcher
from homeport.model.plan import Impact

REASONS = 20
"""Paths that an impact names; `count` has the number."""


def impacts(config: Config, services: Sequence[str], changes: Mapping[str, list[Stat]]) -> dict[str, Impact]:
    """Per service, the changed paths that concern it: below its `source` and not ignored, watched, or used.

    `changes` holds per service the paths between its own last success and the commit; services with the same list
    object share one index of it, so the work follows the paths that match and not services times paths.
    """
    indexes: dict[int, _Paths] = {}
    found = {}
    for name in services:
        stats = changes.get(name, [])
        paths = indexes.get(id(stats))
        if paths is None:
            paths = indexes[id(stats)] = _Paths(stats)
        found[name] = _impact(name, config.services[name], used_by(config, name), paths)
    return found


class _Paths:
    """Changed paths, sorted, so that those below a folder are one slice."""

    def __init__(self, stats: Iterable[Stat]) -> None:
        self.by_path = {s.path: s for s in stats}
        self.sorted = sorted(self.by_path)

    def below(self, folder: str) -> Sequence[str]:
        """The folder's own path (a file) or everything below it; all for the empty folder."""
        from bisect import bisect_left

        if not folder:
            return self.sorted
        inside = self.sorted[bisect_left(self.sorted, folder + "/"):bisect_left(self.sorted, folder + "0")]
        return [folder, *inside] if folder in self.by_path else inside


def _impact(name: str, service: Service, used: Used, paths: _Paths) -> Impact:
    if not paths.sorted:
        return Impact(service=name, affected=False)
    concerned: dict[str, None] = {}
    if service.source is not None:
        folder = folder_of(service)
        own = paths.below(folder)
        if service.ignore and own:
            ignored = Matcher(service.ignore)
            cut = len(folder) + 1 if folder else 0
            own = [p for p in own if not ignored.match(p[cut:])]
        concerned.update(dict.fromkeys(own))
    for place in used.folders:
        concerned.update(dict.fromkeys(paths.below(place)))
    if service.watch or used.patterns:
        watched = Matcher([*service.watch, *used.patterns])
        concerned.update(dict.fromkeys(p for p in paths.sorted if watched.match(p)))
    inserted = removed = 0
    for path in concerned:
        stat = paths.by_path[path]
        inserted += stat.inserted or 0
        removed += stat.removed or 0
    return Impact(service=name, affected=bool(concerned), reasons=tuple(list(concerned)[:REASONS]), count=len(concerned),
                  inserted=inserted, removed=removed)  # fmt: skip
