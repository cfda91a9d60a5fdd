"""A working tree on another machine, as `homeport try` needs it there: what it holds is asked for over the connection."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from homeport.doors.gitcmd import GitCommand
from homeport.model.edits import Person
from homeport.model.errors import InfrastructureFault, UsageFault
from homeport.model.ports import Shell
from homeport.model.trying import Snapshot
from homeport.model.watching import FolderWatch

UNPACK_TIMEOUT = 900.0
"""Seconds."""


class SentTree:
    """Satisfies `WorkingTree` but for watching, which the person's own side does."""

    top = "the working tree of the person who tries"

    def __init__(self, ask: Callable[[str, Any], Any], shell: Shell) -> None:
        """`ask(what, with)`: the answer of the other side, about `take` or `pack`."""
        self._ask, self._shell = ask, shell
        self._came: tuple[str, list[str], object] | None = None
        """What came with the answer: the commit, what its pack builds on, the pack."""

    def take(self, person: Person, message: str, hidden: Callable[[str], bool]) -> Snapshot:
        """As `WorkingTree.take`; what is hidden is decided by the checkout's own configuration."""
        del hidden
        said = self._ask("take", {"name": person.name, "email": person.email, "message": message})
        try:
            taken = msgspec.convert(said, Snapshot)
        except msgspec.ValidationError as fault:
            raise _garbled(str(fault)) from fault
        pack = said.get("pack") if isinstance(said, dict) else None
        self._came = (taken.sha, [taken.base], pack) if pack is not None else None
        return taken

    def pack(self, commit: str, have: Sequence[str], into: str) -> None:
        """As `WorkingTree.pack`: every object is checked before it is taken into the mirror."""
        came, self._came = self._came, None
        if came is not None and came[:2] == (commit, list(have)):
            said = came[2]
        else:
            said = self._ask("pack", {"commit": commit, "have": list(have)})
        try:
            unpack(said, into, self._shell)
        except (binascii.Error, TypeError, ValueError) as fault:
            raise _garbled(str(fault)) from fault

    def packed(self, commit: str, have: Sequence[str]) -> str:
        raise UsageFault("the working tree is packed where it lies", next="homeport try", code="usage")

    def watch(self) -> FolderWatch:
        raise UsageFault("the working tree is watched where it lies", next="homeport try --watch", code="usage")

    def concerns(self, paths: Iterable[str]) -> bool:
        return bool(list(paths))

    def written(self, paths: Iterable[str]) -> float | None:
        del paths
        return None

    def close(self) -> None:
        return


def unpack(said: Any, into: str, shell: Shell) -> None:
    """Takes a pack that came as text into the repository `into`, every object checked. Raises binascii.Error, TypeError and
    ValueError for what is no such text."""
    raw = base64.b64decode(said, validate=True)
    GitCommand(into, shell).run("index-pack", "--stdin", "--strict", input=raw, timeout=UNPACK_TIMEOUT)


def _garbled(said: str) -> InfrastructureFault:
    return InfrastructureFault(f"the working tree did not arrive as it should: {said[:200]}", where="over ssh",
                               next="homeport try", code="no-answer")  # fmt: skip
