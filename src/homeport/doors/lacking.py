"""What a command that failed may have lacked: memory, or room on a disk. What the kernel counted and counts is asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

_MACHINE = "/proc/vmstat"
_GROUP = "/proc/self/cgroup"
_GROUPS = "/sys/fs/cgroup"


class MemoryKills:
    """Whether the kernel ended processes for want of memory since this was made. What other processes of the machine had
    to suffer counts for a command only that was itself ended so; what those of homeport's own group did counts always:
    a build tool ends with a status of its own when one of its children was killed."""

    def __init__(self) -> None:
        self._group, self._machine = _group(), _counted(_MACHINE)

    def were(self, code: int) -> bool:
        """`code`: how the command ended; a shell says 137 of a child that SIGKILL ended."""
        if code == 0:
            return False
        killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL) and _counted(_MACHINE) > self._machine
        return killed or _group() > self._group


def _group() -> int:
    """Of the control group that this process and its commands are in; 0 where there is none, or it is the machine's."""
    try:
        with open(_GROUP, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return 0
    places = [f"{_GROUPS}{path}/memory.events" for _, which, path in rows if not which]
    places += [f"{_GROUPS}/memory{path}/memory.oom_control" for _, which, path in rows if which == "memory" and path != "/"]
    return sum(map(_counted, places))


def _counted(path: str) -> int:
    try:
        with open(path, encoding="utf-8") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def full(folders: Sequence[tuple[str, str]]) -> str:
    """The first whose disk has no block left, or no file: of pairs (where it is, what it is called). One that takes no
    writes at all is not meant."""
    for there, called in folders:
        try:
            disk = os.statvfs(there)
        except OSError:
            continue
        if not disk.f_flag & os.ST_RDONLY and (not disk.f_bavail or (disk.f_files and not disk.f_favail)):
            return called
    return ""
