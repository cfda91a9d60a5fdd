"""Doors that most verbs never ask: each is loaded and opened at the first question to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from homeport.doors.database import Database
    from homeport.doors.git import Mirror
    from homeport.doors.permits import Permits
    from homeport.model.config import Secret
    from homeport.model.edits import Ledger, Merging, SecretScan
    from homeport.model.folders import Builds, LiveCheckouts
    from homeport.model.hostfiles import HostFiles, HostHistory
    from homeport.model.notices import Channel, Outbox
    from homeport.model.ports import Clock, Shell
    from homeport.model.running import Overseer
    from homeport.model.tokens import Tokens
    from homeport.model.trying import Tries

_T = TypeVar("_T")


class _Later:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._door: Any = None

    def __getattr__(self, name: str) -> Any:
        # dunder names are looked for by copying and printing, which are no questions to the door
        if name.startswith("__"):
            raise AttributeError(name)
        if self._door is None:
            self._door = self._make()
        return getattr(self._door, name)


def later(make: Callable[[], _T]) -> _T:
    """What `make` returns, made when its first method is asked for (twice when two threads ask at once)."""
    return cast("_T", _Later(make))


def builds(git: Mirror, shell: Shell, clock: Clock, store: Any) -> Builds:
    from homeport.doors.builds import BuildFolders

    def known(path: str) -> tuple[int, int] | None:
        return next(((record.device, record.inode) for record in store.targets() if record.path == path), None)

    return BuildFolders(git, shell=shell, clock=clock, known=known)


def checkouts(state: str, project: str, environment: str, git: Mirror, store: Any, shell: Shell,
              permits: Permits) -> LiveCheckouts:  # fmt: skip
    from homeport.doors.checkouts import Checkouts
    from homeport.doors.targetbook import TargetBook

    return Checkouts(TargetBook(state, project, environment, git, store), git, shell, permits)


def tries(git: Mirror, environment: str) -> Tries:
    from homeport.doors.tries import TryBox

    return TryBox(git, environment)


def supervisor(socket: str) -> Overseer:
    from homeport.doors.runtimes.supervisor import SupervisorRuntime

    return SupervisorRuntime(socket)


def edits(database: Database) -> Ledger:
    from homeport.doors.ledger import EditLedger

    return EditLedger(database)


def host_files(folder: str) -> HostFiles:
    from homeport.doors.hostfiles import HostFileDoor

    return HostFileDoor(folder)


def host_history(git: Mirror, environment: str) -> HostHistory:
    from homeport.doors.hosthistory import MirrorHistory

    return MirrorHistory(git, environment)


def merging(git: Mirror, permits: Permits) -> Merging:
    from homeport.doors.merging import Branches

    return Branches(git, permits)


def secret_scan(state: str, known_in: Callable[[str], set[str]]) -> SecretScan:
    from homeport.doors.secretscan import SecretLook

    return SecretLook(state, known_in)


def tokens(database: Database) -> Tokens:
    from homeport.doors.tokenbook import TokenBook

    return TokenBook(database)


def outbox(database: Database, redact: Callable[[str], str]) -> Outbox:
    from homeport.doors.outbox import OutboxTable

    return OutboxTable(database, redact)


def channel(allowed: Sequence[str], secret: Callable[[Secret, str], str]) -> Channel:
    from homeport.doors.notifier import AppriseChannel

    return AppriseChannel(allowed, secret)
