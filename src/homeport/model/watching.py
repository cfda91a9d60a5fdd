"""What the flow may ask about changes of folders as they happen."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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


class Looked(Struct, frozen=True):
    """Some paths of a live folder, compared."""

    paths: frozenset[str]
    """All that were looked at."""
    differences: tuple[Difference, ...]
    """Those of them that are not as recorded."""


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


class LiveWatch(FolderWatch, Protocol):
    """A folder that somebody may put away, and another one in its place."""

    def there(self) -> bool:
        """Whether what is watched still lies where it did."""
        ...


class Watches(Protocol):
    """Live folders, watched together."""

    def of_target(self, target: Target, branch: str) -> LiveWatch:
        """Watches every folder that is neither protected nor ignored; none of the others is even opened.

        Raises InfrastructureFault (codes `watch-limit`, `watch`).
        """
        ...

    def of_records(self, branch: str) -> FolderWatch:
        """Watches what is recorded of the environment's live folders, and where the branch is. Raises as `of_target`."""
        ...

    def needed(self, targets: Iterable[Target], branch: str) -> int:
        """How many folders are to be watched of live folders that were met.

        Raises InfrastructureFault (code `watch-limit`) for more than this machine lets a user watch.
        """
        ...

    def look(self, target: Target, branch: str, paths: Collection[str]) -> Looked | None:
        """`paths` with all below them, compared with what is recorded; None for so many that a look at everything is
        quicker. Raises Refused (code `not-the-folder`)."""
        ...

    def fileno(self) -> int:
        """Of what can be read from when one of the watches has something to tell."""
        ...

    def close(self) -> None:
        """Ends all of them."""
        ...
