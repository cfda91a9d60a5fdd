"""Who has a file open for writing just now: the kernel is asked for a read lease, which it gives to nobody then."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import suppress

from homeport.model.paths import printable


def open_for_writing(fd: int) -> bool:
    """Whether somebody has this file open (or mapped) for writing; False too where that cannot be known: a file of another
    user's for who is not root, or a file system without leases. Who opens it meanwhile waits for microseconds."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # of which nobody dies, as of the SIGIO that a broken lease sends
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as fault:
        return fault.errno == errno.EAGAIN
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def writer_of(fd: int) -> str:
    """Its name and process id, as far as we may see it; empty when not."""
    wanted = os.fstat(fd)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted) and _writes(pid, name):
                        with open(f"/proc/{pid}/comm", "rb") as file:
                            return f"{printable(os.fsdecode(file.read().rstrip()))} (process {pid})"
    return ""


def _writes(pid: str, name: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{name}", encoding="utf-8") as file:
        flags = next((line.split()[1] for line in file if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
