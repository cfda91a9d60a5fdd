"""What rules are asked about: who does what to which thing, and the exceptions a person allowed."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from homeport.model.config import Deeds, Rule

ActorKind = Literal["person", "agent", "trigger"]


class Confirmation(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An exception from a rule, allowed by a person."""

    rule: str
    by: str
    because: str = ""


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks. Only a person confirms."""

    name: str
    kind: ActorKind = "person"
    origin: str = ""
    """From where: a terminal, an address, the timer."""
    confirms: bool = True
    """False for a token of a person without that right."""
    confirmed: tuple[Confirmation, ...] = ()
    """The exceptions that the command brought."""


class Deed(Struct, frozen=True, kw_only=True):
    """One thing that is about to be done."""

    action: Deeds
    subject: str
    """A service, a branch, or a path: of the repository, or absolute for a host file."""
    names: tuple[str, ...] = ()
    """What the thing is called besides: a service's unit, a path's absolute place on the host."""
    reviewed: bool = False
    """The content came by the environment's branch, and a second person stood for it."""
    since: str | None = None
    """The commit that the thing had before: what came after it is to be looked at."""
    lacking: str = ""
    """Why what came by the branch does not count as reviewed."""


class Rulebook(Struct, frozen=True, kw_only=True):
    """The rules in force: the host's own, and those of the configuration that is deployed."""

    host: tuple[Rule, ...] = ()
    deployed: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.host or self.deployed)


class Verdict(Struct, frozen=True, kw_only=True):
    """What the rules say to one deed."""

    effect: Literal["allow", "confirm", "review", "deny"]
    rule: Rule | None = None
    """The one that decides; None: no rule speaks of it."""
    equal: tuple[Rule, ...] = ()
    """All that have this effect, `rule` among them: each confirmation is asked for."""
    from_host: bool = False
    others: tuple[str, ...] = ()
    """Rules that speak of it too and gave way."""


class Audited(Struct, frozen=True, kw_only=True):
    """One thing that changed something, or was refused."""

    at: str
    who: str
    actor: str
    action: str
    detail: str
    origin: str
    outcome: str
