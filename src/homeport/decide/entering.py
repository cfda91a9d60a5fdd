"""What a key that is bound to a token may run over ssh: the verbs, and the right each needs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from homeport.decide import scoping
from homeport.model.config import Config, HostConfig
from homeport.model.errors import Refused
from homeport.model.tokens import Token

READ, DEPLOY = "read", "deploy"
RIGHT_OF = {
    "status": READ, "history": READ, "show": READ, "logs": READ, "plan": READ, "drift": READ, "diff": READ, "edits": READ,
    "rules": READ, "audit": READ, "doctor": READ, "rescue list": READ, "rescue show": READ, "db check": READ,
    "deploy": DEPLOY, "rollback": DEPLOY, "rebuild": DEPLOY, "restart": DEPLOY, "cancel": DEPLOY, "converge": DEPLOY,
    "migrate": DEPLOY, "try": "try", "adopt": "adopt", "accept": "adopt", "discard": "adopt", "record": "adopt",
    "rescue restore": "adopt", "hostfile list": READ, "hostfile diff": READ, "hostfile record": "adopt",
    "hostfile edit": "try", "hold": "hold", "unhold": "hold", "block": "hold", "unblock": "hold",
}  # fmt: skip
"""Verbs that are not named here cannot be run with a token."""
WHOLE = ("hostfile edit",)
"""Verbs that also need the right to deploy everything: what they change belongs to no service."""
FORBIDDEN = ("to",)
"""Options that write where the caller says."""


def words_of(command: str | None) -> list[str]:
    """The arguments of the command that ssh was asked for, as a shell would cut them; no shell sees it.

    Raises Refused (code `entry`) for a login, another program, or quotes without end.
    """
    if not command or not command.strip():
        raise _refused("this key does not open a shell")
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise _refused(f"the command cannot be read: {str(fault).lower()}") from fault
    if not words or words[0].rpartition("/")[2] != "homeport":
        raise _refused("this key runs homeport and nothing else")
    return words[1:]


def right_for(verb: str) -> str:
    """Raises Refused (code `entry`) for a verb that no token runs."""
    if verb not in RIGHT_OF:
        raise _refused(f"`homeport {verb[:40]}` is not for a key that is bound to a token")
    return RIGHT_OF[verb]


def further_rights(verb: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """What a verb needs beside `right_for` as it is given: outputs of one's own are code that is in no commit, as a try."""
    return ("try",) if verb == "deploy" and given.get("built") else ()


def check_options(verb: str, folder: str, given: Mapping[str, Any], *, called: bool) -> None:
    """Raises Refused (code `entry`) for options that name places on the host, and for an editor there; `called` when a
    homeport at the other end of the connection has the files and the editor."""
    if folder != ".":
        raise _refused("a key that is bound to a token names no folder")
    for name in FORBIDDEN:
        if verb.startswith("rescue") and given.get(name) is not None:
            raise _refused(f"`--{name}` is not for a key that is bound to a token")
    if verb == "hostfile edit" and not called and given.get("source") != "-" and given.get("version") is None:
        raise _refused("a key that is bound to a token gives the content itself: `--from -`, or homeport from a checkout")


def token_of(named: str, key: str | None, host: HostConfig | None) -> str:
    """The token of a key: what its table in host.toml says, where the line of authorized_keys names one.

    Raises Refused (code `no-key`) when that table is gone.
    """
    if key is None:
        return named
    bound = host.keys.get(key) if host is not None else None
    if bound is None:
        raise Refused(f"this host knows no key {key[:80]}", where="host.toml: keys", code="no-key",
                      next="ask whoever runs this host")  # fmt: skip
    return bound.token


def check_scope(token: Token, config: Config, environment: str, services: Sequence[str]) -> None:
    """Raises Refused (code `no-right`) when no scope of the token holds all these services; none are all of them."""
    enough = scoping.rights_for(config, environment, services)
    if not any(right in token.rights for right in enough):
        what = ", ".join(services) or "everything"
        raise Refused(f"the token {token.name} has no right to deploy {what}", where=f"it has: {' '.join(token.rights)}",
                      next="name the services of your scope, or ask whoever runs this host", code="no-right")  # fmt: skip


def services_in(verb: str, given: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """The services that a deploying verb names; empty: all of them."""
    if verb == "deploy":
        words = list(given.get("words") or ())
        return words[1:] if words and words[0] not in known and given.get("ref") is None else words
    return list(given.get("services") or ())


def _refused(what: str) -> Refused:
    return Refused(what, where="ssh", next="homeport status, or another verb that the token's rights hold", code="entry")
