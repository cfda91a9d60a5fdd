"""Outputs that were built on another machine and are brought to this host, instead of being built here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class Wanted(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is asked of the checkout in which a service was built. Paths are those of the repository."""

    folder: str
    """The source folder of the service; empty for the whole repository."""
    outputs: tuple[str, ...]
    """Relative to the source folder."""


class BuiltElsewhere(Protocol):
    """A checkout in which outputs were built."""

    def head(self) -> str:
        """The commit that is checked out. Raises Refused (code `no-commit`)."""
        ...

    def take(self, sha: str, wanted: Mapping[str, Wanted]) -> str:
        """Makes a commit of the outputs, `SERVICE/OUTPUT` in its tree, and returns its id.

        Raises Refused: `not-built-from` (another commit is checked out, or files of it are changed), `no-output` (one is
        missing), `oddity` (what git has no place for), `too-long` (more than can be sent).
        """
        ...

    def bring(self, commit: str, into: str) -> None:
        """Writes that commit and all it holds into the object store of the repository `into`, every object checked."""
        ...

    def close(self) -> None: ...


class BroughtOutputs(Protocol):
    """The outputs that were brought to one environment, below refs/homeport/built/ of the mirror."""

    def keep(self, source: BuiltElsewhere, commit: str, needed: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """Brings a commit of outputs here and keeps it, beside those that are `needed` and no others; by service: the
        paths in it. Raises InfrastructureFault (code `no-answer`) when it did not arrive as it should."""
        ...
