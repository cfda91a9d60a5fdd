"""What this machine runs by the clock: cron tables, and the services that systemd timers start."""

from __future__ import annotations

import glob
import os

from homeport.doors.shell import LocalShell

LARGEST = 64 * 1024
"""Bytes; a larger file is no script that somebody wrote to deploy."""
_TABLES = ("etc/crontab", "etc/cron.d/*", "etc/cron.hourly/*", "etc/cron.daily/*", "var/spool/cron/crontabs/*",
           "var/spool/cron/*")  # fmt: skip
_TIMERS = ("etc/systemd/system/*.timer", "usr/local/lib/systemd/system/*.timer")


def scheduled(root: str = "/") -> list[tuple[str, str]]:
    """(path, text) of each table and unit that can be read. Below `/` the user's own ones too."""
    tables = [path for pattern in _TABLES for path in sorted(glob.glob(os.path.join(root, pattern)))]
    timers = [path for pattern in _TIMERS for path in sorted(glob.glob(os.path.join(root, pattern)))]
    if root == "/":
        timers += sorted(glob.glob(os.path.expanduser("~/.config/systemd/user/*.timer")))
    found = [(path, read_small(path)) for path in [*tables, *(path.removesuffix(".timer") + ".service" for path in timers)]]
    if root == "/" and os.geteuid() != 0 and os.path.exists("/usr/bin/crontab"):
        said = LocalShell().run(["crontab", "-l"], ok=range(256)).stdout.decode("utf-8", "replace")
        found.append(("crontab -l", said))
    return [(path, text) for path, text in found if text]


def read_small(path: str) -> str:
    """The text of a small regular file; empty when it is none, or cannot be read."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return ""
        with open(path, "rb") as file:
            raw = file.read(LARGEST)
    except OSError:
        return ""
    return "" if b"\0" in raw else raw.decode("utf-8", "replace")
