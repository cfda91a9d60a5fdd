"""One running process of a unit: what is known of it, what its preload says, and how it is retired."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable

from homeport.supervisor import groups
from homeport.supervisor.messages import UnitSpec
from homeport.supervisor.reaping import Reaper
from homeport.supervisor.records import Child, group_of, start_of
from homeport.supervisor.sockets import connections_to

ACKNOWLEDGE = 5.0
"""Seconds a preload has to say that it closed the door: a busy process needs a while, and is cut off afterwards."""
GROUP_LOOK = 0.02
"""Seconds between two looks whether a process group is empty."""
LISTENER_LOOK = 0.5
"""Seconds between two looks whether a process that has not answered still runs."""
QUIET_LOOK = 0.05
"""Seconds between two looks whether a forwarder still has connections to a process."""
MOST_SAID = 64 * 1024


class Control:
    """The line to the preloads in the child. They say `starting PID` before they listen, `listening PID NAME`,
    `draining PID`, `drained PID`; we end our side of it, which every process that shares the line sees, and that means
    drain."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._rest = b""
        self.ports: set[str] = set()
        self._said: dict[str, set[int]] = {word: set() for word in ("starting", "listening", "draining", "drained")}
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(end, self._hear)

    def drain(self) -> bool:
        """False when nobody is at the other end."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    async def until(self, word: str) -> None:
        """Until each process that listens, or is about to, and still runs has said so."""
        while True:
            self.changed.clear()
            said = self._said[word]
            if said and not any(start_of(pid) for pid in self._opened() - said):
                return
            await first(self.changed.wait(), timeout=LISTENER_LOOK)

    def _opened(self) -> set[int]:
        return self._said["starting"] | self._said["listening"] | self._said["draining"]

    def has(self, word: str) -> bool:
        return bool(self._said[word])

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()

    def _hear(self) -> None:
        try:
            data = self._end.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._end)
            return
        *lines, self._rest = (self._rest + data)[-MOST_SAID:].split(b"\n")
        for line in lines:
            word, _, rest = line.decode("ascii", "replace").partition(" ")
            pid, _, name = rest.partition(" ")
            heard = self._said.get(word)
            if heard is not None and pid.isdigit() and len(pid) < 10 and len(heard) < 1000:
                heard.add(int(pid))
                if word == "listening" and len(self.ports) < 1000:
                    self.ports.add(name.strip())
        self.changed.set()


class Instance:
    """`gone` is done when the process has ended: its exit status, or None when it was no child of ours."""

    def __init__(self, child: Child, spec: UnitSpec, reaper: Reaper, control: Control | None) -> None:
        self.child = child
        self.spec = spec
        self.control = control
        self._asked_before = child.phase == "leaving"
        """An earlier supervisor asked it to leave, and may have taken its answer along."""
        self.notify: socket.socket | None = None
        self.line_seen = asyncio.Event()
        self.log_from = 0
        """How long the unit's log was when it started."""
        self.watch: asyncio.Task[None] | None = None
        self.sockets: dict[str, int] = {}
        """Port (or path) to inode of what it was given."""
        self.gone: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._reaper = reaper
        self._handle = -1
        self._follow()

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return not self.gone.done()

    def _follow(self) -> None:
        try:
            self._handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.gone.set_result(self._reaper.take(self.pid))
            return
        asyncio.get_running_loop().add_reader(self._handle, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._handle = -1
        if not self.gone.done():
            self.gone.set_result(self._reaper.take(self.pid))

    def release(self) -> None:
        """Closes what is held for it here."""
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.notify is not None:
            with contextlib.suppress(ValueError):
                asyncio.get_running_loop().remove_reader(self.notify)
            self.notify.close()
            self.notify = None
        if self.watch is not None and self.watch is not asyncio.current_task():
            self.watch.cancel()

    def said(self) -> str:
        """How it ended, for a message."""
        status = self.gone.result() if self.gone.done() else None
        if status is None:
            return "it ended"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"it was ended by {signal.Signals(-status).name}"
        return f"it ended with status {abs(status)}"

    async def leave(self) -> bool:
        """Asks its preload to close the door; True when it has, and reports later that it is drained. Behind a
        forwarder the door is closed already."""
        if self.child.port:
            return self.alive
        if self.control is None or not self.control.ports or not self.alive or not self.control.drain():
            return False
        if self._asked_before:
            return True
        await first(self.control.until("draining"), self.ended(), timeout=min(ACKNOWLEDGE, self.spec.drain))
        return self.control.has("draining")

    async def finish(self, drains: bool) -> None:
        """Waits until it is drained, signals its group, waits, kills the whole group. Never raises."""
        spec = self.spec
        if drains and self.control is not None:
            await first(self.control.until("drained"), self.ended(), timeout=spec.drain)
        elif drains and self.child.port:
            await first(self._quiet(), self.ended(), timeout=spec.drain)
        self.signal(spec.stop_signal)
        # One that takes its descriptor natively drains by itself on the signal.
        patience = spec.stop_timeout if drains or not spec.listen else spec.stop_timeout + spec.drain
        ends = asyncio.get_running_loop().time() + patience
        await first(self.ended(), timeout=patience)
        while self.group_lives() and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(GROUP_LOOK)
        await self.kill()

    async def _quiet(self) -> None:
        while connections_to(self.child.port):
            await asyncio.sleep(QUIET_LOOK)

    async def kill(self) -> None:
        """SIGKILL to all of the group, until nothing of it is left."""
        for _ in range(250):
            if not self.group_lives():
                break
            self.signal(signal.SIGKILL)
            if self.child.group:
                groups.kill(self.child.group)
            await asyncio.sleep(GROUP_LOOK)
        await first(self.ended(), timeout=5.0)

    def signal(self, number: int) -> None:
        """To the whole group: a wrapper such as `npm start` or `sh -c` does not hand signals on. What left it for a
        session of its own is still in the control group, where there is one."""
        for pid in groups.members(self.child.group) if self.child.group else ():
            if group_of(pid) not in (0, self.pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def signal_main(self, number: int) -> None:
        """To the process itself, by its handle: never to another that got its number."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._handle, number)

    def group_lives(self) -> bool:
        """Whether anything of the group still runs; remains that nobody reaped do not count."""
        if self.child.group and any(start_of(pid) for pid in groups.members(self.child.group)):
            return True
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.alive or any(group_of(int(name)) == self.pid for name in os.listdir("/proc") if name.isdigit())

    async def ended(self) -> None:
        await asyncio.shield(self.gone)


async def first(*waits: Awaitable[object], timeout: float) -> None:
    """Until the first of them is done, or the time is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=max(timeout, 0), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
