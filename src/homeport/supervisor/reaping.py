"""Reaps every child: our own, whose status somebody awaits, and orphans that the kernel gave us (as PID 1)."""

from __future__ import annotations

import asyncio
import os
import signal


class Reaper:
    def __init__(self) -> None:
        self._awaited: dict[int, int | None] = {}

    def begin(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def expect(self, pid: int) -> None:
        """Keeps the status of this child until it is taken."""
        self._awaited[pid] = None

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._awaited:
                self._awaited[pid] = os.waitstatus_to_exitcode(status)

    def take(self, pid: int) -> int | None:
        """The exit status, negative for a signal; None when it was no child of ours."""
        self.reap()
        return self._awaited.pop(pid, None)
