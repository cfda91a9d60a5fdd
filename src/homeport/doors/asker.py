"""Who asks, as this process can tell: the kind from the environment, the place from ssh or the terminal.

What the environment says of a person is a claim, as at any shell. An agent that must not pass for a person gets an
ssh key or an API token of its own: those are bound to the kind on the host's side.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from homeport.model.rules import Actor, ActorKind

AGENTS = ("AI_AGENT", "CLAUDECODE", "CODEX_SANDBOX", "CURSOR_AGENT", "GEMINI_CLI", "OPENCODE", "REPL_AGENT")
"""Variables that the shells of coding agents carry. `HOMEPORT_ACTOR=agent` says it for any other."""


def kind_of(env: Mapping[str, str]) -> ActorKind:
    """Nothing in the environment makes a person of an agent."""
    named = env.get("HOMEPORT_ACTOR")
    if named == "agent" or any(env.get(name) for name in AGENTS):
        return "agent"
    return "trigger" if named == "trigger" else "person"


def origin_of(env: Mapping[str, str]) -> str:
    """The address behind ssh, else the terminal, else nothing more than this machine."""
    client = env.get("SSH_CONNECTION", "").split(" ")[0]
    if client:
        return f"ssh {client}"
    for stream in (sys.stdin, sys.stderr):
        try:
            return os.ttyname(stream.fileno())
        except (OSError, ValueError, AttributeError):
            continue
    return "local"


def asker(name: str, env: Mapping[str, str] = os.environ) -> Actor:
    """Who asks from this shell."""
    return Actor(name=name, kind=kind_of(env), origin=origin_of(env))
