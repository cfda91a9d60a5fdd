"""Contents of many blobs in the order they are asked for, without holding much of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from homeport.doors.git_read import MirrorReader

Pour = Callable[[int], None]
"""Brings the content into an open file."""
Content = Callable[[str], bytes | Pour]
"""The bytes of a blob, by object id; of one that may be larger than the memory, what brings it into a file."""
POURED = 8 << 20
"""Bytes from which on a blob goes from git into its file and is never held here."""
HELD = 32 << 20
"""Bytes that are held at once, but for one blob more."""
BATCH = 256
"""Blobs read from the mirror at once."""


class Blobs:
    """Satisfies `Content`; reads ahead. Raises InfrastructureFault for a blob that is not here."""

    def __init__(self, git: MirrorReader, oids: Sequence[str]) -> None:
        self._git = git
        self._ahead = list(dict.fromkeys(oids))
        self._ahead.reverse()
        self._sizes: dict[str, int] | None = None
        self._here: dict[str, bytes] = {}

    def __call__(self, oid: str) -> bytes | Pour:
        if self._sizes is None:
            self._sizes = self._git.sizes(reversed(self._ahead))
        if self._sizes.get(oid, 0) >= POURED:
            return partial(self._git.pour, oid)
        if oid not in self._here:
            self._here = dict(self._git.read_many(self._batch(oid, self._sizes)))
        # a blob that is not here: git itself says so
        return self._here[oid] if oid in self._here else self._git.read(oid)

    def _batch(self, oid: str, sizes: dict[str, int]) -> list[str]:
        batch, held = [oid], sizes.get(oid, 0)
        while self._ahead and len(batch) < BATCH and held < HELD:
            following = self._ahead.pop()
            if following != oid and sizes.get(following, 0) < POURED:
                batch.append(following)
                held += sizes.get(following, 0)
        return batch
