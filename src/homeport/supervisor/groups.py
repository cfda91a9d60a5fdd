"""A control group (cgroup v2) for each process, where ours is delegated to us: nothing that it starts escapes its end.

Only where systemd says so (`Delegate=yes` of the unit); elsewhere there is the process group alone.
"""

from __future__ import annotations

import contextlib
import os

PREFIX = "homeport-"


def delegated() -> str:
    """The folder of our own control group, when we may make others below it; else empty."""
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mount = next(words for line in file if " - cgroup2 " in line for words in [line.split(" ")])
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            path = next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
        folder = os.path.normpath(f"{mount[4]}/{os.path.relpath(path, mount[3])}")
        if ".." not in folder.split("/") and _says_so(folder) and os.access(folder, os.W_OK):
            return folder
    return ""


def _says_so(folder: str) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def make(above: str, name: str) -> str:
    """A fresh group; empty where there is none to be had."""
    folder = f"{above}/{PREFIX}{name}"
    with contextlib.suppress(OSError):
        if above:
            os.mkdir(folder)
            return folder
    return ""


def enter(folder: str) -> None:
    """This process, and what it starts from now on."""
    with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")


def members(folder: str) -> list[int]:
    """Who is in it; processes of other namespaces, which are 0, left out."""
    with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as file:
        return [int(line) for line in file if int(line) > 0]
    return []


def kill(folder: str) -> None:
    """SIGKILL to all of them at once, those that are being started included."""
    with contextlib.suppress(OSError), open(f"{folder}/cgroup.kill", "w", encoding="ascii") as file:
        file.write("1")


def remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def sweep(above: str, kept: set[str]) -> None:
    """Removes empty groups that nobody uses any more."""
    with contextlib.suppress(OSError):
        for name in os.listdir(above) if above else ():
            if name.startswith(PREFIX) and f"{above}/{name}" not in kept:
                remove(f"{above}/{name}")
