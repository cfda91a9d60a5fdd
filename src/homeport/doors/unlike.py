"""Where a checkout is not as its index, and its index not as a commit. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from homeport.doors.checkoutgit import BESIDES, DIFFERING
from homeport.doors.fewentries import tree_noted
from homeport.model.abreast import Turn, begun, together
from homeport.model.live import Entry
from homeport.model.paths import from_bytes
from homeport.model.ports import Completed

Git = Callable[..., Completed]
TIMEOUT = 600
"""Seconds."""


class Unlike(Struct, frozen=True):
    """What is not as the index says."""

    tracked: dict[str, Entry | None]
    """With what the index says of it; None: nothing yet."""
    untracked: tuple[str, ...]
    unmerged: tuple[str, ...]


def unlike_index(git: Git, meanwhile: Callable[[], object]) -> Unlike:
    """Looks at everything in the checkout."""
    def differing() -> bytes:
        return git(*DIFFERING, timeout=TIMEOUT).stdout

    def besides() -> bytes:
        beside = Turn(meanwhile)
        begun(beside.do)
        try:
            return git(*BESIDES, timeout=TIMEOUT).stdout
        finally:
            beside.do()
            beside.ended()

    raw, others = together(differing, besides)
    tracked, unmerged = dict[str, Entry | None](), []
    for path, head in _rows(raw):
        if head[4] == "U":
            unmerged.append(path)
        elif head[0] != "160000":
            tracked[path] = _entry(head[0], head[2])
    return Unlike(tracked, tuple(from_bytes(path) for path in others.split(b"\0")[:-1]), tuple(dict.fromkeys(unmerged)))


class Ahead:
    """A look that begins before anybody asks what was seen."""

    def __init__(self) -> None:
        self._turn: Turn[tuple[object, Unlike] | None] | None = None

    def begin(self, ground: Callable[[], object], look: Callable[[], Unlike]) -> None:
        """`ground`: what has to be the same when it is asked for."""

        def work() -> tuple[object, Unlike] | None:
            return (ground(), look()) if self._turn is not None else None

        self._turn = Turn(work)
        begun(self._turn.do)

    def taken(self, ground: object) -> Unlike | None:
        """What was seen, once; None where nothing was, or on another ground. Raises what the look raised."""
        turn = self._turn
        found = turn.result() if turn is not None else None
        self._turn = None
        return found[1] if found is not None and found[0] == ground else None

    def drop(self) -> None:
        """Nobody asks any more."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.do()
            turn.ended()


def staged(git: Git, git_dir: str, index: str, base: str, tree: str | None) -> dict[str, Entry | None] | None:
    """What the index has that the commit `base`, with that tree, has not; None where the whole index has to be read for
    more than that."""
    if tree is None or os.path.exists(os.path.join(git_dir, "info", "sparse-checkout")):
        return None
    if tree_noted(index) == tree:
        return {}
    rows = _rows(git("diff-index", "--cached", "-z", "--raw", "--abbrev=40", "--no-renames", base, timeout=TIMEOUT).stdout)
    if any(head[4] not in "AMDT" for _, head in rows):
        return None
    return {path: None if head[4] == "D" else _entry(head[1], head[3]) for path, head in rows}


def _rows(raw: bytes) -> list[tuple[str, tuple[str, str, str, str, str]]]:
    """Path and (mode before, mode after, id before, id after, status) of each line of git's raw differences."""
    fields = raw.split(b"\0")
    rows = []
    for head, path in zip(fields[::2], fields[1::2], strict=False):
        words = head.decode("ascii").lstrip(":").split(" ")
        rows.append((from_bytes(path), (words[0], words[1], words[2], words[3], words[4])))
    return rows


def _entry(mode: str, oid: str) -> Entry | None:
    return Entry(mode, oid) if mode != "000000" else None
