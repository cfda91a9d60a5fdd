"""How long journals stay: the newest ones always, the others by age and by the room all of them take."""

from __future__ import annotations

import contextlib
import os

DAYS = 90.0
SPARED = 20
"""The newest journals, which stay whatever their size."""


def prune(folder: str, most: int, now: float, days: float = DAYS, spared: int = SPARED) -> int:
    """Removes journals older than `days` and, oldest first, those beyond `most` bytes of all; how many.

    `now` is a unix time. What cannot be removed stays: a full or odd disk fails no deploy.
    """
    found: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.endswith(".jsonl") and entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append((stat.st_mtime, stat.st_blocks * 512, entry.path))
    found.sort(reverse=True)
    room, gone = most, 0
    for place, (changed, size, path) in enumerate(found):
        room -= size
        if place < spared or (room >= 0 and now - changed < days * 86400):
            continue
        with contextlib.suppress(OSError):
            os.unlink(path)
            gone += 1
    return gone
