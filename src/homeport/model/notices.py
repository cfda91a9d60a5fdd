"""What is told to people and to the forge after a deploy: messages, and the outbox they wait in."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.config import Secret
from homeport.model.forge import Status

Outcome = Literal["failure", "full", "condensed", "suppressed"]


class Facts(Struct, frozen=True, kw_only=True):
    """Everything that the message about one deploy is decided from."""

    project: str
    environment: str
    host: str
    deploy: str
    kind: str
    status: str
    sha: str | None = None
    previous_sha: str | None = None
    subject: str = ""
    author: str = ""
    services: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """Changed since the commit that ran before."""
    duration_ms: int = 0
    error: str = ""
    error_code: str = ""
    next: str = ""
    requested_by: str = ""
    tail: tuple[str, ...] = ()
    """The last lines that it printed, secrets taken out."""
    page: str | None = None
    """Of the commit on the forge."""
    recovered: bool = False
    """The deploy before this one failed."""
    repeated: bool = False
    """The deploy before this one ended in the very same way, with the same commit."""
    migrates: bool = False
    """The project has migrations that every deploy runs."""


class Message(Struct, frozen=True, kw_only=True):
    """Ready to be shown; no text in it mentions anybody."""

    outcome: Outcome
    title: str
    text: str
    fields: tuple[tuple[str, str], ...] = ()
    tail: str = ""
    page: str | None = None


class Letter(Struct, frozen=True, kw_only=True):
    """One message for one channel, or one status for the forge."""

    id: int = 0
    deploy: str
    channel: Secret | str | None
    """As it stands in homeport.toml, so that no secret is written down; None: the forge."""
    message: Message | None = None
    status: Status | None = None
    sha: str | None = None
    attempts: int = 0
    since: float = 0.0
    """Unix time."""


LONGEST_WAIT = 3600.0
"""Seconds until a message that was not taken is tried again, at most."""


class Outbox(Protocol):
    def put(self, letters: list[Letter], now: float) -> None: ...
    def due(self, now: float) -> list[Letter]:
        """Those whose time has come, oldest first."""
        ...

    def waiting(self) -> int: ...
    def sent(self, letter: Letter) -> None: ...
    def failed(self, letter: Letter, again_at: float) -> None: ...


class Channel(Protocol):
    """Sends through Apprise."""

    def send(self, channel: Secret | str, message: Message) -> None:
        """Raises InfrastructureFault (code `channel`) when it was not taken, ConfigFault for an address that is
        none (code `channel-url`) or a secret that is not there (code `no-secret`)."""
        ...
