"""What a service is surrounded by when homeport starts it: its user, its home, its scrubbed environment."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence

from msgspec.structs import replace

from homeport.model.errors import Failed
from homeport.model.running import Inside, Unit

DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def account(unit: Unit) -> pwd.struct_passwd:
    """The account a unit runs as. Raises Failed (code `user`) when there is none of that name."""
    try:
        return pwd.getpwnam(unit.user) if unit.user else pwd.getpwuid(os.geteuid())
    except KeyError as fault:
        raise Failed(
            f"there is no user {unit.user or os.geteuid()} on this host",
            where=f"services.{unit.service}.user", next="homeport check", code="user",
        ) from fault  # fmt: skip


def home_of(unit: Unit) -> str:
    return unit.home or account(unit).pw_dir


def environment_of(unit: Unit) -> dict[str, str]:
    """PATH, HOME, USER, LOGNAME and LANG, then the unit's own variables; nothing of the caller's."""
    name = account(unit).pw_name
    return {
        "PATH": os.pathsep.join(dict.fromkeys((*unit.path, *DEFAULT_PATH))),
        "HOME": home_of(unit), "USER": name, "LOGNAME": name, "LANG": "C.UTF-8", **unit.env,
    }  # fmt: skip


def inside(unit: Unit, command: Sequence[str]) -> Inside:
    """How to run a command as the service would: in its folder, with its environment, as its user; for root the owner
    of the folder where it names none. Without a command, a shell."""
    if unit.user is None and os.geteuid() == 0 and os.path.isdir(unit.cwd):
        owner = os.stat(unit.cwd).st_uid
        unit = replace(unit, user=pwd.getpwuid(owner).pw_name if owner else None)
    shell = account(unit).pw_shell
    words = tuple(command) or ((shell if os.access(shell, os.X_OK) and not shell.endswith("nologin") else "/bin/sh"),)
    env = {**environment_of(unit), **({"TERM": os.environ["TERM"]} if "TERM" in os.environ else {})}
    return Inside(argv=(*as_user(unit), *words), cwd=unit.cwd, env=env)


def as_user(unit: Unit) -> list[str]:
    """The words before a command that make it run as the unit's user; none when that is ourselves.

    Raises Failed (code `user`) when it would have to be another user and we are not root.
    """
    who = account(unit)
    if who.pw_uid == os.geteuid():
        return []
    if os.geteuid() != 0:
        raise Failed(
            f"{unit.service} runs as {who.pw_name}, and only root may start it so",
            where=f"services.{unit.service}.user", next="run homeport as root or as that user", code="user",
        )  # fmt: skip
    setpriv = shutil.which("setpriv", path=os.pathsep.join(DEFAULT_PATH))
    if setpriv:
        return [setpriv, f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--init-groups", "--"]
    return ["runuser", "-u", who.pw_name, "--"]
