"""Keeps the process that listens on TCP: it may only ask, and it runs as the user that host.toml names."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
from urllib.parse import urlsplit

from homeport.model.config import HostConfig
from homeport.model.errors import ConfigFault, HomeportError

log = logging.getLogger("homeport.daemon")
AGAIN, LONGEST = 0.5, 30.0
"""Seconds until it is started again after it died: twice as long each time."""


def names_of(host: HostConfig | None, network: socket.socket | None) -> list[str]:
    """The hosts under which the daemon may be asked: the address it listens on, and its public one."""
    found = []
    if network is not None:
        address = str(network.getsockname()[0])
        found.append(f"[{address}]" if ":" in address else address)
    if host is not None and host.listen.url:
        name = urlsplit(host.listen.url).hostname
        if not name:
            raise ConfigFault(f"{host.listen.url!r} is no address", where="host.toml: listen.url", code="listen",
                              next='url = "https://deploy.example.com"')  # fmt: skip
        found.append(name)
    return found


def uids_of(user: str | None) -> set[int]:
    """Who may be the listening process. Raises ConfigFault (code `listen-user`)."""
    if user is None:
        return {os.geteuid()}
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError as fault:
        raise ConfigFault(f"there is no user {user}", where="host.toml: listen.user", code="listen-user",
                          next=f"useradd --system --no-create-home {user}") from fault  # fmt: skip
    if uid not in (os.geteuid(),) and os.geteuid() != 0:
        raise ConfigFault(f"only root can let {user} listen", where="host.toml: listen.user", code="listen-user",
                          next="leave `user` out, or run the daemon as root")  # fmt: skip
    return {uid}


async def keep(network: socket.socket, ask_at: str, user: str | None) -> None:
    """Starts the listening process, again when it dies; it ends when this process does, for it holds a pipe of ours."""
    from homeport.wiring_daemon import front_runs, start_front

    held, hold = os.pipe()
    wait, child = AGAIN, 0
    try:
        while True:
            began = asyncio.get_running_loop().time()
            try:
                child = start_front(network.fileno(), held, ask_at.removeprefix("\0"), user)
                while front_runs(child):
                    await asyncio.sleep(0.5)
            except HomeportError as fault:
                log.error("the listening process: %s", fault)  # noqa: TRY400  # told, not traced
            lasted = asyncio.get_running_loop().time() - began
            wait = AGAIN if lasted > LONGEST else min(wait * 2, LONGEST)
            log.warning("the listening process ended; it is started again in %.1f s", wait)
            await asyncio.sleep(wait)
    finally:
        os.close(hold)
        os.close(held)
