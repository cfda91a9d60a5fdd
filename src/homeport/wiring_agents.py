"""Beside wiring.py: homeport itself as a program that the face for agents runs, one command at a time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from homeport.doors.shell import Conversation


def asked_for(words: Sequence[str], entry: Sequence[str] | None) -> Conversation:
    """`homeport WORDS`, asked for by an agent: one that confirms nothing, or, where `entry` has the words that bind it
    to a token, by that token and within its rights. Raises InfrastructureFault (code `no-start`)."""
    program = [sys.executable, "-m", "homeport.cli.main"]
    if entry is None:
        return Conversation([*program, *words], {**os.environ, "HOMEPORT_ACTOR": "agent"}, apart=True)
    asked = {"SSH_ORIGINAL_COMMAND": shlex.join(["homeport", *words])}
    return Conversation([*program, *entry], {**os.environ, **asked}, apart=True)
