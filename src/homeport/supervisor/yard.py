"""Where instances are made: their descriptors, environment, output and records, and the sockets all of them share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable

from homeport.supervisor import forwarder, groups, preload
from homeport.supervisor.addresses import Address, parse
from homeport.supervisor.console import Console
from homeport.supervisor.instance import Control, Instance
from homeport.supervisor.keeping import Keeping
from homeport.supervisor.messages import UnitSpec
from homeport.supervisor.readiness import hear_notify, open_notify
from homeport.supervisor.reaping import Reaper
from homeport.supervisor.records import Child, start_of
from homeport.supervisor.sockets import free_port, inode, open_listening
from homeport.supervisor.spawning import Launch, LaunchFault, account_of, launch

CONTROL_FD = 99
"""Of the preload's line to us. Numbers below 16 do not survive npm."""
FIRST_FD = 100
COPIES = 8
"""Of each listening socket, for a preload: a server's close uses one up, and some servers probe."""


class Yard:
    def __init__(self, state: str, save: Callable[[], None], in_use: Callable[[], set[str]], console: Console) -> None:
        self.state = state
        self.console = console
        self.save = save
        self._in_use = in_use
        self.reaper = Reaper()
        self.keeping = Keeping(state, self._seen)
        self.sockets: dict[str, int] = {}
        """Held listening sockets, by address."""
        self.instances: dict[str, Instance] = {}
        self.children: list[Child] = []
        self._port_files: dict[str, int] = {}
        self._delegated = groups.delegated()

    def log_of(self, unit: str) -> str:
        return os.path.join(self.state, "logs", f"{unit}.log")

    def open(self, spec: UnitSpec) -> None:
        """Opens what the unit listens on and is not open yet. Raises OSError."""
        for text in spec.listen:
            address = parse(text)
            if address.key not in self.sockets:
                self.hold(address.key, open_listening(address).detach())

    def hold(self, key: str, file: int) -> None:
        self.sockets[key] = file
        self.keeping.put(key, file)

    def publish(self, unit: str, ports: list[int]) -> None:
        """Says to the forwarder of a unit where its processes listen: one write, which it sees whole or not at all."""
        with contextlib.suppress(OSError):
            os.pwrite(self._port_file(unit), " ".join(map(str, ports)).ljust(1024).encode("ascii"), 0)

    def unpublish(self, unit: str) -> None:
        file = self._port_files.pop(unit, None)
        if file is not None:
            os.close(file)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.state, f"ports.{unit}"))

    def _port_file(self, unit: str) -> int:
        if unit not in self._port_files:
            path = os.path.join(self.state, f"ports.{unit}")
            self._port_files[unit] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return self._port_files[unit]

    def close_unused(self) -> None:
        """Sockets that no unit needs any more."""
        for key in set(self.sockets) - self._in_use():
            del self.sockets[key]
            self.keeping.drop(key)
            if key.startswith("unix:"):
                with contextlib.suppress(OSError):
                    os.unlink(key.removeprefix("unix:"))

    def start(self, spec: UnitSpec, slot: int) -> Instance:
        """A new process of a unit. Raises LaunchFault; nothing is left of it then."""
        child = Child(id=f"{spec.name}-{slot}-{secrets.token_hex(8)}", unit=spec.name, slot=slot, at=time.time(),
                      port=free_port() if spec.how == "port" else 0)  # fmt: skip
        # Recorded before it exists: killed in between, the next supervisor finds it by this id.
        self.children.append(child)
        self.save()
        control: tuple[socket.socket, socket.socket] | None = None
        notify: socket.socket | None = None
        child.group = groups.make(self._delegated, child.id)
        try:
            account = account_of(spec.starts_as)
            os.mkfifo(os.path.join(self.state, "out", child.id), 0o600)
            self._read_output(child, spec)
            if spec.listen and spec.how not in ("fd", "port"):
                control = socket.socketpair()
            if spec.ready and spec.ready.notify:
                notify = open_notify(child.id)
            log_from = _size(self.log_of(spec.name))
            env, files = self._surroundings(spec, child, control[1] if control else None)
            child.pid = launch(Launch(
                argv=spec.argv, env=env, cwd=spec.cwd, account=account, files=files,
                output=os.path.join(self.state, "out", child.id), group=child.group,
                pid_name="LISTEN_PID" if "LISTEN_FDS" in env else None,
            ))  # fmt: skip
        except (LaunchFault, OSError) as fault:
            for end in (*(control or ()), *([notify] if notify else [])):
                end.close()
            self._drop(child)
            raise fault if isinstance(fault, LaunchFault) else LaunchFault(str(fault)) from fault
        try:
            return self._started(child, spec, control, notify, log_from)
        except OSError as fault:
            # It runs and cannot be followed (no descriptor is left): what is not followed must not run.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            self._drop(child)
            raise LaunchFault(f"it cannot be followed: {fault.strerror}") from fault

    def _started(
        self, child: Child, spec: UnitSpec, control: tuple[socket.socket, socket.socket] | None,
        notify: socket.socket | None, log_from: int,
    ) -> Instance:  # fmt: skip
        self.reaper.expect(child.pid)
        child.start = start_of(child.pid)
        self.save()
        if control:
            control[1].close()
            self.keeping.put(f"control:{child.id}", os.dup(control[0].fileno()))
        instance = self._made(child, spec, Control(control[0]) if control else None, notify)
        instance.log_from = log_from
        return instance

    def adopt(self, child: Child, spec: UnitSpec, control: int | None) -> Instance:
        """A process that an earlier supervisor started."""
        line = Control(socket.socket(fileno=os.dup(control))) if control is not None else None
        if line is not None:
            line.ports = {parse(text).name for text in spec.listen}
        self.children.append(child)
        self._read_output(child, spec)
        return self._made(child, spec, line, None)

    def sweep_groups(self) -> None:
        """Control groups of processes that are gone."""
        groups.sweep(self._delegated, {child.group for child in self.children})

    def forget(self, instance: Instance) -> None:
        """It has ended: closes and removes what was kept for it."""
        instance.release()
        self.instances.pop(instance.child.id, None)
        self._drop(instance.child)

    def _drop(self, child: Child) -> None:
        self.keeping.drop(f"control:{child.id}")
        self.keeping.unpipe(child.id)
        if child in self.children:
            self.children.remove(child)
        if child.group:
            groups.remove(child.group)
        self.save()

    def _made(
        self, child: Child, spec: UnitSpec, control: Control | None, notify: socket.socket | None
    ) -> Instance:
        instance = Instance(child, spec, self.reaper, control)
        if notify is not None:
            instance.notify = notify
            asyncio.get_running_loop().add_reader(notify, hear_notify, instance)
        for text in spec.listen if not child.port else ():
            address = parse(text)
            if address.key in self.sockets:
                instance.sockets[address.name] = inode(self.sockets[address.key])
        self.instances[child.id] = instance
        return instance

    def _read_output(self, child: Child, spec: UnitSpec) -> None:
        awaited = spec.ready.line if spec.ready and spec.ready.line else ""
        self.keeping.pipe(child.id, self.log_of(spec.name), spec.log_bytes, spec.log_files, awaited)

    def _seen(self, id: str) -> None:
        instance = self.instances.get(id)
        if instance is not None:
            instance.line_seen.set()

    def _surroundings(
        self, spec: UnitSpec, child: Child, control: socket.socket | None
    ) -> tuple[dict[str, str], dict[int, int]]:
        """The environment, and which descriptors stand where."""
        id = child.id
        env = {**spec.env, "HOMEPORT_INSTANCE": id}
        if spec.ready and spec.ready.notify:
            env["NOTIFY_SOCKET"] = f"@homeport/{id}"
        if child.port:
            return {**env, "PORT": str(child.port)}, {}
        held = [(parse(text), self.sockets[parse(text).key]) for text in spec.listen]
        if not held:
            return env, {}
        copies = COPIES if control is not None else 1
        files = {FIRST_FD + place * copies + copy: file for place, (_, file) in enumerate(held) for copy in range(copies)}
        env["HOMEPORT_FD"] = str(FIRST_FD)
        env["HOMEPORT_FDS"] = ",".join(str(FIRST_FD + place * copies) for place in range(len(held)))
        if spec.how in ("fd", "stop-first"):
            env["LISTEN_FDS"] = str(len(held))
            files |= {3 + place: file for place, (_, file) in enumerate(held)}
        if spec.forwards_for is not None:
            files[forwarder.PORTS] = self._port_file(spec.forwards_for)
        if control is not None:
            files[CONTROL_FD] = control.fileno()
            env["HOMEPORT_SHIM"] = _shim_words(held, control)
            env |= preload.variables(env)
        return env, files


def _shim_words(held: list[tuple[Address, int]], control: socket.socket) -> str:
    """`99:INODE PORT=FIRST-LAST:INODE ...`: with the inodes a preload knows whether a number is still the socket."""
    words = [f"{CONTROL_FD}:{inode(control.fileno())}"]
    for place, (address, file) in enumerate(held):
        first = FIRST_FD + place * COPIES
        words.append(f"{address.name}={first}-{first + COPIES - 1}:{inode(file)}")
    return " ".join(words)


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0
