"""Live folders and records as something to watch, and single live paths compared with what is recorded.

Nothing here keeps a listing of a live folder: git is asked about the paths concerned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from homeport.doors import scanning
from homeport.doors.git import Mirror
from homeport.doors.inotify import Inotify, Queue, check, count
from homeport.doors.look import look_at, open_root, walk
from homeport.doors.targetbook import TargetBook
from homeport.model.deploys import TargetRecord
from homeport.model.live import Difference, Entry, Target
from homeport.model.patterns import Matcher
from homeport.model.watching import FolderWatch, LiveWatch, Looked

FEW = 500
"""Paths that are looked at one by one; for more the whole folder is."""
WORDS = 50_000
"""Bytes of paths that git is asked about at once."""
DULL = 1000
"""Files of a folder that are remembered for being nobody's business."""
Invisible = Callable[[str, bool], bool]


class LiveWatches:
    """Satisfies `Watches`. Raises InfrastructureFault (codes `watch-limit`, `watch`)."""

    def __init__(self, book: TargetBook, git: Mirror, environment: str) -> None:
        self._book, self._git, self._environment = book, git, environment
        self._queue = Queue()
        self._dull: dict[str, set[str]] = {}
        """By target: files that are ignored, or that the project lets its programs change."""

    def of_target(self, target: Target, branch: str) -> LiveWatch:
        """As `Watches.of_target`."""
        record = self._book.record(target)
        matchers = [self._matchers(target, record, branch)]
        self._dull[target.name] = set()
        watch = Inotify(target.path, lambda folder: self._skipped(record, folder, *matchers[0]), self._queue,
                        self._dull[target.name])  # fmt: skip
        matchers[0] = self._matchers(target, record, branch)  # the others remember every folder
        return watch

    def _skipped(self, record: TargetRecord, folder: str, by_us: Matcher, by_project: Matcher) -> bool:
        if by_us.match(folder, True):
            return True
        return by_project.match(folder, True) and self._git.tree_of(record.tree, folder) is None

    def needed(self, targets: Iterable[Target], branch: str) -> int:
        """As `Watches.needed`."""
        found = 0
        for target in targets:
            record = self._book.record(target)
            both = self._matchers(target, record, branch)
            found += count(target.path, lambda folder, r=record, m=both: self._skipped(r, folder, *m))  # type: ignore[misc]
        check(found)
        return found

    def of_records(self, branch: str) -> FolderWatch:
        """As `Watches.of_records`: whatever is recorded ends with a reference (`TargetBook.end`)."""
        own = f"homeport/state/{self._environment}"

        def skip(folder: str) -> bool:
            return not (f"{own}/".startswith(f"{folder}/") or folder.startswith(f"{own}/")
                        or f"heads/{branch}".startswith(f"{folder}/"))  # fmt: skip

        return Inotify(os.path.join(self._git.path, "refs"), skip, self._queue)

    def fileno(self) -> int:
        return self._queue.fileno()

    def close(self) -> None:
        self._queue.close()

    def look(self, target: Target, branch: str, paths: Collection[str]) -> Looked | None:
        """As `Watches.look`."""
        if len(paths) > FEW or sum(map(len, paths)) > WORDS:
            return None
        record = self._book.record(target)
        recorded = self._git.listing(record.tree, *paths)
        by_us, by_project = self._matchers(target, record, branch)

        def invisible(path: str, is_folder: bool) -> bool:
            return by_us.match(path, is_folder) or by_project.match(path, is_folder)

        root = open_root(target.path)
        try:
            self._book.refuse_other(target, record, root)
            if root is None:
                return Looked(frozenset(paths), ())
            looked = _with_below(root, paths, recorded, invisible)
            if len(looked) > FEW:
                return None
            mutable = Matcher(target.mutable, dir_only_matches_files=True)
            self._remember(target, paths, recorded, invisible, mutable)
            wanted = [path for path in looked if path in recorded or not invisible(path, False)]
            found = [d for path in wanted if (d := _compared(root, path, recorded.get(path))) is not None
                     and not (mutable.match(path) and d.state != "added")]  # fmt: skip
        finally:
            if root is not None:
                os.close(root)
        return Looked(frozenset(looked), tuple(scanning.with_foreign(self._git, target.source, branch, found)))

    def _remember(self, target: Target, paths: Collection[str], recorded: dict[str, Entry], invisible: Invisible,
                  mutable: Matcher) -> None:  # fmt: skip
        """A file that a program writes to all the time is looked at once; its watch does not tell it again."""
        dull = self._dull.setdefault(target.name, set())
        if len(dull) > DULL:
            dull.clear()
        dull.update(path for path in paths if (mutable.match(path) if path in recorded else invisible(path, False)))

    def _matchers(self, target: Target, record: TargetRecord, branch: str) -> tuple[Matcher, Matcher]:
        return (Matcher(self._book.hidden(target), dir_only_matches_files=True),
                Matcher(self._book.ignored(target, record, branch)))  # fmt: skip


def _with_below(root: int, paths: Collection[str], recorded: Collection[str], invisible: Invisible) -> set[str]:
    """Not many more than `FEW`, however many there are."""
    looked = {*paths, *islice(recorded, FEW + 1)}
    for path in paths:
        looked.update(below for below, _ in islice(walk(root, path, invisible), FEW + 1))
        if len(looked) > FEW:
            break
    return looked


def _compared(root: int, path: str, recorded: Entry | None) -> Difference | None:
    seen = look_at(root, path)
    if seen.entry == recorded and not (recorded is None and seen.oddity):
        return None
    if recorded is None and (seen.absent or seen.oddity in ("directory", "fifo", "socket", "device", "link in the way",
                                                            "file in the way")):  # fmt: skip
        return None
    return scanning.difference(path, recorded, seen)
