"""One running command of the project: read until it has ended, its deadline has passed, or the deploy is cancelled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import IO, Literal, Protocol, cast

from homeport.doors.lines import Lines, Stream
from homeport.model.ports import OnLine

PIPE = 256 * 1024
"""Bytes of output that wait in the kernel, and that are taken at once."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
LINGER = 1.0
"""Seconds that a child may hold the output after the command itself ended."""
TICK = 0.1
"""Seconds between two looks at the deadline and the cancel."""


class Child(Protocol):
    """A process that the shell door started."""

    pid: int
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


def signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class Watch:
    """Reads one child until it has ended, its deadline has passed or the deploy is cancelled."""

    def __init__(self, child: Child, timeout: float, cancelled: Callable[[], bool],
                 on_line: OnLine) -> None:  # fmt: skip
        self._child = child
        self._cancelled = cancelled
        self._deadline = time.monotonic() + timeout
        self._selector = selectors.DefaultSelector()
        self._ended = os.pidfd_open(child.pid)
        self._selector.register(self._ended, selectors.EVENT_READ)
        for stream, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            assert pipe is not None
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
            self._selector.register(pipe, selectors.EVENT_READ, Lines(cast("Stream", stream), on_line))
        self.leftovers = True
        """Something may still run: false only after a clean end."""
        self.why: Literal["timeout", "cancelled"] | None = None

    def until_end(self) -> Literal["timeout", "cancelled"] | None:
        """Why it was stopped, None when it ended by itself. The child is not reaped yet, so that its process
        group cannot become another's."""
        next_look = 0.0
        while open_ends := self._selector.get_map():
            for key, _ in self._selector.select(max(0.0, min(TICK, self._deadline - time.monotonic()))):
                self._take(key)
            now = time.monotonic()
            if self.why is None and self._ended in open_ends:
                if now >= self._deadline:
                    self._stop("timeout")
                elif now >= next_look:
                    next_look = now + TICK
                    if self._cancelled():
                        self._stop("cancelled")
            elif now >= self._deadline:
                break
        self.leftovers = self.why is not None or bool(self._selector.get_map())
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Lines):
                key.data.end()
        return self.why

    def _take(self, key: selectors.SelectorKey) -> None:
        if not isinstance(key.data, Lines):
            self._selector.unregister(self._ended)
            self._deadline = min(self._deadline, time.monotonic() + LINGER)
            return
        chunk = os.read(key.fd, PIPE)
        if chunk:
            key.data.feed(chunk)
        else:
            self._selector.unregister(key.fileobj)
            key.data.end()

    def _stop(self, why: Literal["timeout", "cancelled"]) -> None:
        self.why = why
        self._deadline = time.monotonic() + GRACE
        signal_group(self._child.pid, signal.SIGTERM)

    def close(self) -> None:
        """Reaps the child, which has ended or been killed by now."""
        self._selector.close()
        os.close(self._ended)
        if self._child.poll() is None and self.leftovers:
            signal_group(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdout, self._child.stderr):
            cast("IO[bytes]", pipe).close()
