"""Beside wiring.py, what only the daemon and its verbs need of the concrete doors."""

from __future__ import annotations

import os
import sys

from homeport.doors.forges.connect import address
from homeport.doors.secrets import Keyring
from homeport.doors.shell import detach, still_runs
from homeport.model.config import Forge
from homeport.model.errors import UsageFault
from homeport.wiring import host_file, read_host, state_root

PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "TZ")
"""Variables that the listening process gets: none of homeport's, no token, no secret."""


def socket_path(root: str) -> str:
    """Where the daemon of this state folder listens."""
    return os.path.join(root, ".homeport.sock")


def known_environments() -> list[tuple[str, str]]:
    """(project, environment) of all that this host knows. Raises UsageFault (code `no-project`) for none."""
    root = state_root()
    found = []
    for project in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        folder = os.path.join(root, project)
        if not project.startswith(".") and os.path.isdir(folder):
            found += [(project, name) for name in sorted(os.listdir(folder))
                      if os.path.isfile(os.path.join(folder, name, "homeport.db"))]  # fmt: skip
    if not found:
        raise UsageFault("this host knows no project yet", where=root, code="no-project",
                         next="homeport -C CHECKOUT deploy")  # fmt: skip
    return found


def forge_repository(forge: Forge, origin: str | None) -> str:
    """`owner/name` on the forge. Raises ConfigFault when it is not known."""
    return address(forge, origin)[1]


def secret_of(forge: Forge, number: int) -> str:
    """One webhook secret as it is now. Raises ConfigFault (code `no-secret`) for one that is not there, Refused (code
    `secrets`) for one that a commit may not name."""
    keyring = Keyring(host_file(), read_host())
    return keyring.value_of(forge.webhook_secret[number], f"forge.webhook_secret[{number}]")


def start_front(listening: int, pipe: int, ask_at: str, user: str | None) -> int:
    """Starts the process that listens on TCP with these two descriptors; its pid. See `daemon/front.py`."""
    argv = [sys.executable, "-m", "homeport.daemon.front", str(listening), str(pipe), ask_at, user or ""]
    env = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    for number in (listening, pipe):
        os.set_inheritable(number, True)
    try:
        return detach(argv, env, os.path.join(state_root(), ".front.log"))
    finally:
        for number in (listening, pipe):
            os.set_inheritable(number, False)


def front_runs(child: int) -> bool:
    return still_runs(child)
