"""Host files (B11): files outside the repository that homeport keeps a history of, and what the flow asks of the doors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.config import Command

Look = Literal["recorded", "changed", "missing", "new", "odd", "interrupted"]
"""As recorded; changed or gone outside homeport; not there yet; no plain file; an edit was cut before its reload."""


class Registered(Struct, frozen=True, kw_only=True):
    """An entry of `[[hostfiles]]` that concerns this host."""

    path: str
    purpose: str
    validate: Command | None = None
    reload: Command | None = None
    secret: bool = False
    source: str = "homeport.toml"
    """The file that registers it."""


class Held(Struct, frozen=True, kw_only=True):
    """A plain file as it lies on the host."""

    content: bytes
    digest: str
    """SHA-256 of the content."""
    mode: int
    owner: str
    """`user:group`, by number."""


class Version(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One entry of a host file's history."""

    at: str
    digest: str | None = None
    """None: the file was gone."""
    mode: int = 0
    owner: str = ""
    how: str = "seen"
    """seen, edit, record."""
    by: str = ""
    because: str = ""
    secret: bool = False
    """Its content is not in the history; a backup may hold it."""
    id: str = ""
    """The commit that holds it; not stored, it is where it was read from."""


class Editing(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Written before a host file is replaced, removed when its reload is over: what a crash leaves."""

    path: str
    before: str | None
    after: str
    by: str
    because: str = ""
    copy: str = ""
    """The copy that takes its place."""


class HostFiles(Protocol):
    """The files themselves. No link is followed, in no part of a path."""

    def read(self, path: str) -> Held | None:
        """None when it is not there. Raises Refused (codes `hostfile-link`, `hostfile-odd`), InfrastructureFault."""
        ...

    def reached(self, path: str) -> AbstractContextManager[str]:
        """The folder of a path by a descriptor, for commands. Raises as `read`."""
        ...

    def copy(self, path: str, content: bytes, like: Held | None, secret: bool) -> str:
        """A new file beside `path` with this content, and mode, owner, ACL and attributes of what lies there; its path."""
        ...

    def take(self, copy: str) -> bytes:
        """What the copy holds now, whatever an editor put in its place."""
        ...

    def put(self, path: str, copy: str, expected: str | None) -> None:
        """The copy becomes the file, at once. Raises Refused (code `changing`) unless it still has that digest."""
        ...

    def remove(self, path: str, expected: str) -> None:
        """Takes the file away, if it still has that digest."""
        ...

    def clear(self, path: str) -> None:
        """Removes copies that a crash left beside it long ago."""
        ...

    def drop(self, copy: str) -> None: ...
    def back_up(self, path: str, held: Held, at: str) -> str:
        """Keeps the content in homeport's own folder, mode 0600; where. The newest of each path are kept."""
        ...

    def backup_of(self, path: str, digest: str) -> bytes | None: ...
    def draft(self, path: str, content: bytes, at: str) -> str:
        """Keeps a text that was not taken, mode 0600; where."""
        ...


class HostHistory(Protocol):
    """What host files were, in the mirror; of secret ones only their digests."""

    def add(self, path: str, version: Version, content: bytes | None) -> None: ...
    def latest(self) -> dict[str, Version]:
        """The newest version of each path."""
        ...

    def of(self, path: str, limit: int = 50) -> list[Version]:
        """Newest first."""
        ...

    def content(self, path: str, version: Version) -> bytes | None:
        """None for a secret one, and where the file was gone."""
        ...

    def diff(self, path: str, before: bytes | None, after: bytes | None) -> str:
        """A unified diff, for a person."""
        ...
