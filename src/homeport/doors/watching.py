"""Live folders and checkouts as something to watch, and single live paths compared with what is recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable

from homeport.doors import scanning
from homeport.doors.git import Mirror
from homeport.doors.inotify import Inotify
from homeport.doors.look import look_at, open_root, walk
from homeport.doors.targetbook import TargetBook
from homeport.model.live import Difference, Entry, Target
from homeport.model.patterns import Matcher
from homeport.model.ports import Store
from homeport.model.watching import FolderWatch


class LiveWatches:
    """Satisfies `Watches`."""

    def __init__(self, book: TargetBook, git: Mirror, store: Store) -> None:
        self._book, self._git, self._store = book, git, store
        self._listed: dict[str, tuple[str, dict[str, Entry]]] = {}
        """By target: the recorded tree and what is in it."""

    def of_target(self, target: Target, branch: str) -> FolderWatch:
        """As `Watches.of_target`."""
        by_us, by_project = self._matchers(target, branch)
        recorded = {above for path in self._recorded(target) for above in _above(path)}

        def skip(folder: str) -> bool:
            if by_us.match(folder, True):
                return True
            return by_project.match(folder, True) and folder not in recorded

        return Inotify(target.path, skip)

    def look(self, target: Target, branch: str, paths: Iterable[str]) -> tuple[frozenset[str], list[Difference]]:
        """As `Watches.look`."""
        recorded = self._recorded(target)
        by_us, by_project = self._matchers(target, branch)
        mutable = Matcher(target.mutable, dir_only_matches_files=True)

        def invisible(path: str, is_folder: bool) -> bool:
            return by_us.match(path, is_folder) or by_project.match(path, is_folder)

        root = open_root(target.path)
        if root is None:
            return frozenset(recorded), []
        try:
            looked: set[str] = set()
            for path in paths:
                looked |= _known_below(path, recorded)
                looked |= {below for below, _ in walk(root, path, invisible)}
                looked.add(path)
            wanted = [p for p in looked if p in recorded or not invisible(p, False)]
            found = [d for path in wanted if (d := _compared(root, path, recorded.get(path))) is not None
                     and not (mutable.match(path) and d.state != "added")]  # fmt: skip
        finally:
            os.close(root)
        return frozenset(looked), scanning.with_foreign(self._git, target.source, branch, found)

    def _recorded(self, target: Target) -> dict[str, Entry]:
        tree = self._book.record(target).tree
        known = self._listed.get(target.name)
        if known is None or known[0] != tree:
            known = (tree, self._git.listing(tree))
            self._listed[target.name] = known
        return known[1]

    def _matchers(self, target: Target, branch: str) -> tuple[Matcher, Matcher]:
        record = self._book.record(target)
        return (Matcher(self._book.hidden(target), dir_only_matches_files=True),
                Matcher(self._book.ignored(target, record, branch)))  # fmt: skip


def _compared(root: int, path: str, recorded: Entry | None) -> Difference | None:
    seen = look_at(root, path)
    if seen.entry == recorded and not (recorded is None and seen.oddity):
        return None
    if recorded is None and (seen.absent or seen.oddity in ("directory", "fifo", "socket", "device", "link in the way",
                                                            "file in the way")):  # fmt: skip
        return None
    return scanning.difference(path, recorded, seen)


def _known_below(path: str, recorded: dict[str, Entry]) -> set[str]:
    """Recorded paths below a folder; a recorded file has none."""
    if path in recorded:
        return set()
    return {known for known in recorded if known.startswith(path + "/")}


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
