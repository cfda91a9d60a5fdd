"""Work that another machine carries out: where, who asks, and what the two programs say to each other over ssh.

The far side runs `homeport --caller JSON ... VERB` and prints JSON lines: first a `Hello`, then what `--json` prints,
and between it lines of the types in `OWN_TYPES`. The near side may send lines too: a cancel, or an answer to a question.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from msgspec import Struct, field

from homeport.model.rules import ActorKind

PROTOCOL = 1
"""Raised when an older program could not understand a newer one; both sides must speak the same."""
MOST_SENT = 256 * 1024 * 1024
"""Bytes that a try, or outputs that were built elsewhere, send at once."""
OWN_TYPES = ("hello", "note", "asked", "question", "error")
"""Types of lines that are for the near side only; an error is passed on too."""


class Place(Struct, frozen=True, kw_only=True):
    """One host of an environment, as homeport.toml names it."""

    host: str
    destination: str
    """`[user@]host[:port]`; the host may be an alias of the person's ssh configuration."""
    environment: str
    project: str
    addresses: tuple[str, ...] = ()
    """The machine must have one of them, when there are any."""


class Caller(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who asks from another machine. What it says of the person is a claim: ssh decides who may ask."""

    protocol: int
    version: str
    by: str
    """`login@machine`, for records."""
    kind: ActorKind = "person"
    author: tuple[str, str] | None = None
    """Name and address of the person, for commits."""
    addresses: tuple[str, ...] = ()
    run: str | None = None
    """The CI run that asks."""
    waits: bool = False
    """Nothing is to be done before `Spoken.go`: this is a guess at what the person will ask for."""


class Hello(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", tag="hello"):
    """The far side's first line."""

    protocol: int
    version: str
    host: str
    waits: bool = False
    """It knows `Caller.waits`."""


class Spoken(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One line from the near side to the far side."""

    cancel: bool = False
    answer: Any = None
    go: bool = False
    """The guess was right."""


class ToldFault(Struct, frozen=True, kw_only=True, rename="camel"):
    """An error as a line of JSON."""

    what: str
    where: str = ""
    next: str = ""
    code: str = ""
    exit_code: int = 1
    unconfirmed: tuple[tuple[str, str], ...] = ()
    """Rules that want a person's word: (id, what is wanted) of each."""


class Elsewhere(Exception):
    """The environment is not on this machine. Not an error: the command line carries it out over ssh."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        super().__init__(", ".join(place.host for place in places))
        self.places = places


class SetupStep(Struct, frozen=True, kw_only=True):
    """What one step of `homeport setup` found or did."""

    name: str
    ok: bool
    done: str
    """What is there now, or why it is not."""
    changed: bool = False
    next: str = ""
    lines: list[str] = field(default_factory=list)
    """What a person has to copy or look at, such as a public key."""


class Talk(Protocol):
    """A program that is listened to, line by line, while it runs."""

    def lines(self) -> Iterable[bytes]:
        """What it prints, each line with its end."""

    def interrupt(self) -> None:
        """Ctrl-C, for it alone."""

    def ended(self) -> tuple[int, str]:
        """(exit status, the end of its standard error), once it ended by itself."""


def split(destination: str) -> tuple[str, str]:
    """(`[user@]host`, port or empty) of `[user@]host[:port]`; IPv6 addresses with a port are in brackets."""
    host, colon, port = destination.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return host.replace("[", "").replace("]", ""), port
    return destination.replace("[", "").replace("]", ""), ""
