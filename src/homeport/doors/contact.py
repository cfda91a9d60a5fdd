"""First contact: which commit of the branch is what already lies in a live folder most like?"""

from __future__ import annotations

import itertools

from msgspec import Struct

from homeport.doors.look import look_at
from homeport.model.live import Entry, TreeChange
from homeport.model.patterns import Matcher
from homeport.model.ports import Git

CONSIDERED = 50
"""Commits that are compared."""


class Choice(Struct, frozen=True, kw_only=True):
    commit: str | None
    """None: not one file is that of any commit."""
    differing: int
    considered: int


def most_alike(git: Git, root: int, source: str, tip: str, hidden: Matcher) -> Choice:
    """Compares the files below `root` with the last commits that touch `source`: fewest differing paths, newest wins."""
    commits: list[tuple[str, str]] = []
    for sha in dict.fromkeys((tip, *git.log(tip, CONSIDERED, source))):
        tree = git.tree_of(sha, source)
        if tree is not None:
            commits.append((sha, tree))
    commits = commits[:CONSIDERED]
    if not commits:
        return Choice(commit=None, differing=0, considered=0)
    state: dict[str, Entry | None] = {p: e for p, e in git.listing(commits[0][1]).items() if not hidden.match(p)}
    steps = [
        [c for c in git.changes(newer[1], older[1]) if not hidden.match(c.path)]
        for newer, older in itertools.pairwise(commits)
    ]
    for step in steps:
        for change in step:
            state.setdefault(change.path, None)
    live = {path: look_at(root, path) for path in state}
    if not any(_alike(live[path].entry, entry) for path, entry in _ever(state, steps)):
        return Choice(commit=None, differing=0, considered=len(commits))
    differing = {path for path, entry in state.items() if live[path].entry != entry or live[path].oddity}
    best, fewest = commits[0][0], len(differing)
    for (sha, _), step in zip(commits[1:], steps, strict=True):
        for change in step:
            same = live[change.path].entry == change.after and not live[change.path].oddity
            (differing.discard if same else differing.add)(change.path)
        if len(differing) < fewest:
            best, fewest = sha, len(differing)
    return Choice(commit=best, differing=fewest, considered=len(commits))


def _alike(live: Entry | None, entry: Entry | None) -> bool:
    return live is not None and live == entry


def _ever(state: dict[str, Entry | None], steps: list[list[TreeChange]]) -> list[tuple[str, Entry | None]]:
    """Every content that any path ever had in these commits."""
    return [*state.items(), *((change.path, change.after) for step in steps for change in step)]
