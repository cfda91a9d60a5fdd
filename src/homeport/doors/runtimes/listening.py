"""Ports of this machine: which are free, who listens, and whether somebody is connected. Reads /proc."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import socket
import time
from collections.abc import Iterator

from homeport.model.config import Ready

QUIET_FOR = 0.2
"""Seconds without a connection after which a process counts as left: somebody may just be on the way to it."""
LOOK = 0.02
ONE_TRY = 2.0


def free_port() -> int:
    """A port of the loopback that nobody listens on, outside of those that outgoing connections get. Raises OSError."""
    for _ in range(200):
        port = 20000 + secrets.randbelow(12000)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(98, "no port is free")


def until_left(port: int, within: float) -> bool:
    """Waits until nobody is connected to a local port any more; False when somebody still is after so many seconds."""
    ends = time.monotonic() + within
    quiet = None
    while True:
        now = time.monotonic()
        if any(True for row in _rows(port) if row[3] == "01"):
            quiet = None
            if now > ends:
                return False
        else:
            quiet = now if quiet is None else quiet
            if now - quiet >= QUIET_FOR:
                return True
        time.sleep(LOOK)


def listens(pid: int, address: str) -> bool:
    """Whether a process, or one that it started, listens on the port of an address (`127.0.0.1:3000`, `3000`)."""
    port = address.rpartition(":")[2]
    if not port.isdigit():
        return False
    wanted = {f"socket:[{row[9]}]" for row in _rows(int(port)) if row[3] == "0A"}
    return any(wanted & _sockets(one) for one in _tree(pid))


def answers(ready: Ready | None, port: int) -> bool:
    """One try, over a new connection, whether the process that was given this port is ready: an HTTP status from 200 to
    399, or that it listens."""
    try:
        if ready is None or ready.http is None:
            with socket.create_connection(("127.0.0.1", port), ONE_TRY):
                return True
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=ONE_TRY)
        with contextlib.closing(line):
            line.request("GET", ready.http)
            return 200 <= line.getresponse().status < 400
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _rows(port: int) -> Iterator[list[str]]:
    """The kernel's connections and listeners that have this local port."""
    mark = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            for line in file:
                row = line.split()
                if row[1].endswith(mark):
                    yield row


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    todo = [pid]
    for one in todo:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as file:
                    todo += [int(child) for child in file.read().split() if len(todo) < 1000]
    return todo
