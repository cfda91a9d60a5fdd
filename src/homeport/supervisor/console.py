"""What the supervisor says in the foreground: one line for each event, in development what the units print too.

Nothing waits for the reader: what the terminal or pipe does not take at once is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time

from homeport.model.paths import printable
from homeport.supervisor.tailing import follow, from_here

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
LONGEST = 4000
"""Bytes of a line that are shown; a pipe takes so many at once."""


class Console:
    """`output`: follows the logs of the units too."""

    def __init__(self, file: int, *, output: bool) -> None:
        self._file, self._output = file, output
        self._colour = os.isatty(file) and not os.environ.get("NO_COLOR")
        self._names: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def meet(self, unit: str, log: str) -> None:
        """A unit that may be told about; its log is followed from here on."""
        if unit in self._names:
            return
        self._names[unit] = COLOURS[len(self._names) % len(COLOURS)]
        if self._output:
            task = asyncio.ensure_future(self._follow(unit, log))
            self._tasks.add(task)

    def event(self, unit: str, text: str) -> None:
        self._write(unit, f"* {text}")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self, unit: str, log: str) -> None:
        file, _ = from_here(log)
        async for line in follow(log, file):
            self._write(unit, f"| {line}")

    def _write(self, unit: str, text: str) -> None:
        width = max(map(len, self._names), default=0)
        name = f"{unit:<{width}}"
        if self._colour:
            name = f"\x1b[{self._names.get(unit, 0)}m{name}\x1b[0m"
        data = f"{time.strftime('%H:%M:%S')} {name} {printable(text)}".encode("utf-8", "replace")[:LONGEST] + b"\n"
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [self._file], [], 0)[1]:
                os.write(self._file, data)


def tell_systemd(state: str) -> None:
    """sd_notify; nothing without systemd."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
