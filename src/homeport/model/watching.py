"""What the flow may ask about changes of folders as they happen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from homeport.model.live import Difference, Target


class Stir(Struct, frozen=True):
    """What moved since the last time. `lost`: more than was kept, or what was watched went away; look at everything."""

    paths: frozenset[str] = frozenset()
    """Relative to what is watched; a folder stands for itself and all that is or was below it."""
    lost: bool = False
    folders: bool = False
    """A folder came, went or moved, with whatever it holds."""

    def __bool__(self) -> bool:
        return self.lost or bool(self.paths)

    def with_more(self, more: Stir) -> Stir:
        return Stir(self.paths | more.paths, self.lost or more.lost, self.folders or more.folders)


class FolderWatch(Protocol):
    """One folder with everything below it that is worth watching."""

    @property
    def folders(self) -> int:
        """How many are watched."""
        ...

    def wait(self, timeout: float) -> Stir:
        """What moved; waits up to `timeout` seconds for the first of it.

        Raises InfrastructureFault (code `watch-limit`) when a new folder cannot be watched any more.
        """
        ...

    def close(self) -> None: ...


class Watches(Protocol):
    """Live folders, watched."""

    def of_target(self, target: Target, branch: str) -> FolderWatch:
        """Watches every folder that is neither protected nor ignored; none of the others is even opened."""
        ...

    def look(self, target: Target, branch: str, paths: Iterable[str]) -> tuple[frozenset[str], list[Difference]]:
        """(the paths that were looked at, those of them that are not as recorded): `paths` with all below them."""
        ...
