"""Turns this process into the built-in supervisor of an environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec

from homeport.doors.runtimes.supervisor import spec_of
from homeport.model.running import Unit


def become(state: str, units: Sequence[Unit], scopes: Mapping[str, Sequence[str]], *, socket: str | None, dev: bool,
           ephemeral: bool, runner: Sequence[str] = ()) -> NoReturn:  # fmt: skip
    """Never returns. Listens on `supervisor.sock` of the state folder, and on `socket` too; `runner` is carried out
    once it answers. Raises OSError when the state folder does not take what it is to know."""
    folder = os.path.join(state, "supervisor")
    handed = os.path.join(folder, "units.json")
    told = {"op": "configure", "units": [spec_of(unit) for unit in units], "scopes": scopes, "replace": dev}
    os.makedirs(folder, mode=0o700, exist_ok=True)
    file = os.open(handed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as open_file:
        open_file.write(msgspec.json.encode(told))
    argv = [sys.executable, "-m", "homeport.supervisor", "--state", folder, "--units", handed,
            "--socket", os.path.join(state, "supervisor.sock")]  # fmt: skip
    argv += ["--socket", os.path.abspath(socket)] if socket else []
    argv += ["--dev"] if dev else []
    argv += ["--ephemeral"] if ephemeral else []
    argv += ["--then", *runner] if runner else []
    os.chdir("/")
    os.execv(sys.executable, argv)  # noqa: S606
