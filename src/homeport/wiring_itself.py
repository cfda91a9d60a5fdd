"""Beside wiring.py: homeport itself as a program that this process starts, one command at a time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from homeport.doors.shell import Conversation

_PROGRAM = (sys.executable, "-m", "homeport")


def itself(words: Sequence[str]) -> Conversation:
    """`homeport WORDS`, in the same folder and for the same person. Raises InfrastructureFault (code `no-start`)."""
    return Conversation([*_PROGRAM, *words], os.environ, apart=True)


def asked_for(words: Sequence[str], entry: Sequence[str] | None) -> Conversation:
    """`homeport WORDS`, asked for by an agent: one that confirms nothing, or, where `entry` has the words that bind it
    to a token, by that token and within its rights. Raises InfrastructureFault (code `no-start`)."""
    if entry is None:
        return Conversation([*_PROGRAM, *words], {**os.environ, "HOMEPORT_ACTOR": "agent"}, apart=True)
    asked = {"SSH_ORIGINAL_COMMAND": shlex.join(["homeport", *words])}
    return Conversation([*_PROGRAM, *entry], {**os.environ, **asked}, apart=True)
