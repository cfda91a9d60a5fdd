"""Texts for systemd: names, the environment file and drop-in of a unit, and the unit of a service that has none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from homeport.model.config import Command
from homeport.model.errors import Failed
from homeport.model.paths import printable
from homeport.model.running import Unit

MADE_BY_US = "# Written by homeport; changes here are overwritten."
DROP_IN, VALUES = "50-homeport.conf", "50-homeport.env"
_NAME = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,240}")
_SPECIAL, _ESCAPED = re.compile(r'([\\"`$])'), r"\\\1"
_TYPES = (".service", ".socket", ".timer", ".path", ".target", ".mount", ".scope", ".slice", ".automount", ".swap",
          ".device")  # fmt: skip


class Named(Struct, frozen=True, kw_only=True):
    """Which unit of which manager."""

    name: str
    """With its type: `api.service`."""
    of_user: bool
    """It belongs to the systemd of the service's user, not to the machine's."""


def named(unit: Unit, root: bool) -> Named:
    """`user/web` is a unit of the user's own systemd, `system/web` one of the machine's; without either, root means
    the machine's and anybody else their own. Raises Failed (code `bad-unit`) for what is no unit's name.
    """
    kind, slash, name = unit.name.rpartition("/")
    if (slash and kind not in ("user", "system")) or not _NAME.fullmatch(name):
        raise Failed(f"{printable(unit.name)} cannot be the name of a systemd unit", where=f"services.{unit.service}.unit",
                     next="homeport check", code="bad-unit")  # fmt: skip
    of_user = kind == "user" or (kind != "system" and not root)
    return Named(name=name if name.endswith(_TYPES) else f"{name}.service", of_user=of_user)


def drop_in(values: str) -> str:
    """The drop-in that gives a unit the variables of the file `values`."""
    return f"{MADE_BY_US}\n[Service]\nEnvironmentFile=-{values.replace('%', '%%')}\n"


def environment_file(env: Mapping[str, str]) -> str:
    """As systemd reads it: every value in double quotes, nothing expanded."""
    lines = [f'{name}="{_SPECIAL.sub(_ESCAPED, value)}"' for name, value in sorted(env.items())]
    return "\n".join([MADE_BY_US, *lines]) + "\n"


def unit_file(unit: Unit, path: str, of_user: bool) -> str:
    """The unit of a service that has a `command` and no unit of its own."""
    assert unit.command is not None
    user = f"User={unit.user}\n" if unit.user and not of_user else ""
    return (
        f"{MADE_BY_US}\n[Unit]\nDescription={_plain(unit.service)} (homeport)\nAfter=network.target\n\n"
        f"[Service]\n{user}WorkingDirectory={unit.cwd.replace('%', '%%')}\n"
        f"Environment={word(f'PATH={path}', command=False)}\nExecStart={command_line(unit.command)}\n"
        f"KillSignal={unit.signal}\nTimeoutStopSec={unit.stop_timeout:g}\nRestart=on-failure\n\n"
        f"[Install]\nWantedBy={'default' if of_user else 'multi-user'}.target\n"
    )  # fmt: skip


def command_line(command: Command) -> str:
    words: Sequence[str] = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    # a program that is no absolute path is looked up on the PATH that systemd was built with
    first, *rest = words
    if "/" not in first:
        first, rest = "/usr/bin/env", [first, *rest]
    return " ".join(word(each) for each in (first, *rest))


def word(text: str, *, command: bool = True) -> str:
    """One word of a unit file's line: in double quotes; specifiers and (in commands) variables stay text."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("%", "%%")
    return '"' + (text.replace("$", "$$") if command else text) + '"'


def _plain(text: str) -> str:
    return printable(text).replace("%", "%%")
