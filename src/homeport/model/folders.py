"""The doors around live folders: git checkouts among them, rescued bytes, builds beside them, what a machine allows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from homeport.model.live import Outputs, Rescue, Target


class LiveCheckouts(Protocol):
    """Live folders that are git checkouts themselves (`checkout = true`)."""

    def move(self, target: Target, commit: str, branch: str, *, attach: bool) -> None:
        """HEAD and index become those of the commit: on the environment's branch, or (`attach` false) detached.

        No file of the folder is touched. A commit or a staged change that only the checkout has stays reachable below
        refs/homeport/kept/. Raises Refused for a folder that is no checkout, belongs to another, or is in the middle
        of a merge (codes `checkout`, `checkout-owner`, `checkout-busy`), InfrastructureFault when git fails.
        """
        ...


class Rescues(Protocol):
    def save(self, service: str, path: str, mode: str, content: bytes | str, because: str, deploy: str | None) -> Rescue:
        """Saves bytes (or the file of that absolute path, when `content` is str) into the object store."""
        ...

    def listing(self) -> list[Rescue]: ...
    def find(self, id: str) -> Rescue: ...
    def read(self, rescue: Rescue) -> bytes: ...
    def pour(self, rescue: Rescue, into: int) -> None:
        """Writes the bytes, however many, into an open file."""
        ...



class Builds(Protocol):
    """Build folders and kept outputs, beside the live folder (DESIGN section 5)."""

    def prepare(self, target: Target, tree: str, inherit: Sequence[str], user: str | None) -> str:
        """Brings the build folder to exactly that tree, caches kept; returns its path."""
        ...

    def lend_history(self, folder: str, commit: str, source: str, branch: str, user: str | None) -> None:
        """Lets git in a prepared build folder answer about that commit: history, tags, an index of `source`; read-only."""
        ...

    def bring_in(self, target: Target, inherit: Sequence[str], folder: str, user: str | None) -> None:
        """Copies these files of the live folder into a build folder, never through a link."""
        ...

    def lay_out(self, target: Target, tree: str, inside: str, user: str | None) -> str:
        """A folder of its own with what was built elsewhere: the files of that tree below `inside`. For `collect`, and
        gone with the next one."""
        ...

    def collect(self, target: Target, key: str, outputs: Sequence[str], made_in: str | None = None) -> Outputs:
        """Copies what the build made, in its own build folder or `made_in`, into the kept set `key`. Raises Failed when
        one is missing."""
        ...

    def reached(self, folder: str, live: Target | None) -> AbstractContextManager[str]:
        """A path by a descriptor: to a folder that `prepare` made, or one below it; with `live` to that live folder, or one
        below. Raises Refused (code `not-the-folder`) when another one stands there by now."""
        ...

    def kept(self, target: Target) -> list[Outputs]: ...
    def swap_in(self, target: Target, key: str, previous: str | None) -> None:
        """Exchanges the live outputs with the kept set; the old ones become the kept set `previous`.
        Idempotent: already in is done."""
        ...

    def live_key(self, target: Target) -> str | None:
        """Which set is live by homeport's own mark; None when there is none."""
        ...

    def prune(self, target: Target, keep: int, budget: int | None = None) -> int:
        """Removes the oldest sets beyond `keep` (what is live counts), and more while all of them together take more
        than `budget` bytes; never what is live. How many went."""
        ...


class HostLists(Protocol):
    """What this machine lets homeport do. Each raises Refused (codes `roots`, `users`, `units`)."""

    def folder(self, path: str) -> None: ...
    def user(self, name: str) -> None: ...
    def unit(self, name: str) -> None: ...
    def hostfile(self, path: str) -> None:
        """Code `hostfiles`."""

    def lists(self) -> None:
        """Code `no-lists`: root changes nothing on a machine without a host file."""
        ...

    def new_file(self, folder: str, path: str, instead: str) -> None:
        """Before a file is made in that folder, whose path holds no links; `instead`: the command without this limit."""
