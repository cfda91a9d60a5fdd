"""One look at a live folder: every path that is not as recorded. Nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from homeport.doors.git import Mirror
from homeport.doors.look import Seen, look_at, walk
from homeport.doors.smalllook import small_look
from homeport.doors.targetindex import TargetIndex
from homeport.doors.untracked import Untracked
from homeport.model.abreast import together
from homeport.model.live import Difference, DriftState, Entry, Target
from homeport.model.patterns import Matcher

HISTORY = 200
"""Commits of the branch in which foreign content is looked for."""
FOREIGN_AT_MOST = 2000
"""Paths whose history is asked for; a folder with more of them is no hand edit."""


def differences(target: Target, root: int, index: TargetIndex, ignored: Sequence[str],
                hidden: Sequence[str], *, held: bool) -> tuple[list[Difference], bool]:  # fmt: skip
    """(what differs, in path order; whether the index only needs to note new times).

    Content decides, not times: whatever git's stat cache does not vouch for is read and hashed here. `held`: nobody
    else writes the index.
    """
    by_project, by_us = Matcher(ignored), Matcher(hidden, dir_only_matches_files=True)

    def invisible(path: str, is_folder: bool) -> bool:
        return by_us.match(path, is_folder) or by_project.match(path, is_folder)

    small = small_look(index.path, root, invisible)
    if small is None:
        untracked = Untracked(index, target.path, root, sure=held)
        small = together(lambda: index.touched(target.path), lambda: untracked.others([*ignored, *hidden], invisible))
    touched, others = small
    found, stale = [], False
    for path, recorded in touched:
        seen = look_at(root, path)
        if seen.entry == recorded:
            stale = True
            continue
        found.append(difference(path, recorded, seen))
    known = {d.path for d in found}
    instead = [d.path for d in found if d.oddity == "directory"]
    for path, seen in _untracked(root, others, invisible, instead):
        if path not in known and not seen.absent:
            found.append(difference(path, None, seen))
    return sorted(found, key=lambda d: d.path), stale


def difference(path: str, recorded: Entry | None, seen: Seen) -> Difference:
    """A path that is not as recorded, by what was seen there."""
    state: DriftState = "modified"
    if recorded is None:
        state = "added"
    elif seen.absent or seen.oddity in ("link in the way", "file in the way"):
        state = "deleted"
    elif seen.oddity not in (None, "unreadable") or _is_link(seen.entry) != _is_link(recorded):
        state = "type_changed"
    return Difference(path=path, state=state, recorded=recorded, actual=seen.entry, oddity=seen.oddity)


def _is_link(entry: Entry | None) -> bool:
    return entry is not None and entry.mode == "120000"


def _untracked(root: int, others: Sequence[str], invisible: Callable[[str, bool], bool],
               instead: Sequence[str]) -> list[tuple[str, Seen]]:  # fmt: skip
    """Git does not look into folders that stand where it knows a file (`instead`): they are walked here."""
    found: list[tuple[str, Seen]] = []
    for listed in [*others, *(f"{path}/" for path in instead)]:
        path = listed.rstrip("/")
        if invisible(path, listed.endswith("/")):
            continue
        if not listed.endswith("/"):
            found.append((path, look_at(root, path)))
            continue
        for below, oddity in walk(root, path, invisible):
            found.append((below, Seen(oddity=oddity) if oddity else look_at(root, below)))
    return found


def with_foreign(git: Mirror, source: str, branch: str, drift: list[Difference]) -> list[Difference]:
    """Marks differences whose content the branch itself once brought to that path: another deployer wrote them."""
    asked = [d for d in drift if d.actual is not None][:FOREIGN_AT_MOST]
    if not asked or not git.has(f"refs/heads/{branch}"):
        return drift
    prefix = f"{source}/" if source else ""
    known = git.history_blobs(branch, [prefix + d.path for d in asked], HISTORY)
    marked = {}
    for difference in asked:
        assert difference.actual is not None
        commit = known.get(prefix + difference.path, {}).get(difference.actual.oid)
        if commit is not None and (difference.recorded is None or difference.recorded.oid != difference.actual.oid):
            marked[difference.path] = replace(difference, foreign=commit)
    return [marked.get(d.path, d) for d in drift]
