"""Beside wiring.py: for whom this process works: a person here, one at another machine, or a key bound to a token."""

from __future__ import annotations

import os
import pwd

import msgspec

from homeport.doors.asker import asker
from homeport.doors.shell import LocalShell
from homeport.model.abreast import Turn, begun
from homeport.model.edits import Person
from homeport.model.remote import Caller
from homeport.model.rules import Actor, ActorKind
from homeport.model.tokens import Token

_callers: list[Caller] = []
_bound: list[Token | None] = []
_identities: dict[str, Turn[Person | None]] = {}


def called_by(asking: Caller) -> None:
    """This process works for somebody on another machine from now on."""
    _callers.append(asking)


def acting_as(token: Token | None) -> None:
    """This process works for an ssh key from now on, on this machine only, and with a token as that token."""
    _bound.append(token)


def for_a_key() -> bool:
    """Whether this process works for an ssh key, with or without a token yet."""
    return bool(_bound)


def _token() -> Token | None:
    return _bound[-1] if _bound else None


def caller() -> Caller | None:
    """Who asked from another machine; None for a person at this one."""
    return _callers[-1] if _callers else None


def at_terminal(argv: list[str]) -> int:
    """Runs a program of the person's own, such as an editor, at this terminal; its exit status."""
    from homeport.doors.shell import attached

    return attached(argv)


def actor() -> Actor:
    """Who asks, of what kind and from where; an agent stays one over ssh."""
    found = asker(person())
    bound = _token()
    if bound is not None:
        kind: ActorKind = "trigger" if bound.kind == "forge" else bound.kind
        return msgspec.structs.replace(found, kind=kind, confirms=bound.may("confirm"))
    asking = caller()
    return found if asking is None or asking.kind == "person" else msgspec.structs.replace(found, kind=asking.kind)


def person() -> str:
    """Who asks: the token of the key, else the person at the other machine, the login behind sudo, the user."""
    bound = _token()
    if bound is not None:
        return bound.name
    asking = caller()
    if asking is not None:
        return asking.by
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def identity(folder: str) -> Person | None:
    """Who commits: `user.name` and `user.email` as git knows them in the checkout around the folder, else
    GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL; None when neither says. For a caller, what it said."""
    turn = _identities.pop(folder, None)
    return turn.result() if turn is not None else _identity(folder)


def identity_ahead(folder: str) -> None:
    """Asks git for what `identity` will be asked for in a moment; once. Only after `runner_ahead`."""
    turn = Turn(lambda: _identity(folder))
    if begun(turn.do):
        _identities[folder] = turn


def _identity(folder: str) -> Person | None:
    from homeport.decide import adopting

    asking = caller()
    if asking is not None:
        return adopting.person_of(*asking.author) if asking.author else None
    # every repository's own settings have its format; without it the folder lies in none
    asked = r"^(user\.(name|email)|core\.repositoryformatversion)$"
    raw = LocalShell().run(["git", "-C", folder, "config", "-z", "--get-regexp", asked], ok=(0, 1, 128)).stdout
    told = dict(line.partition("\n")[::2] for line in raw.decode("utf-8", "replace").split("\0") if line)
    if "core.repositoryformatversion" in told:
        found = adopting.person_of(told.get("user.name", ""), told.get("user.email", ""))
        if found is not None:
            return found
    return adopting.person_of(os.environ.get("GIT_AUTHOR_NAME", ""), os.environ.get("GIT_AUTHOR_EMAIL", ""))
