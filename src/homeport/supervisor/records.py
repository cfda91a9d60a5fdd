"""What a later supervisor must know: units, what runs, and which sockets are open. One small file, replaced whole.

It holds the units' environments, so it is readable by its owner alone (0600 in a 0700 folder).
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Literal

import msgspec
from msgspec import Struct, field

from homeport.model.errors import StateFault
from homeport.supervisor.messages import UnitSpec

VERSION = 1
Phase = Literal["starting", "ready", "leaving"]


class Child(Struct, kw_only=True):
    """One process: `pid` and `start` (field 22 of /proc/PID/stat) name it for good within a boot."""

    id: str
    unit: str
    slot: int
    pid: int = 0
    """0: about to be started."""
    start: int = 0
    phase: Phase = "starting"
    at: float = 0.0
    """Unix time it was started."""
    group: str = ""
    """The folder of its control group, where it has one."""
    port: int = 0
    """Where it listens by itself (`handoff = "port"`)."""


class UnitRecord(Struct, kw_only=True):
    desired: UnitSpec
    current: UnitSpec | None = None
    """What last got ready; a process that crashes is started again with this."""
    wanted: bool = False
    restarts: int = 0


class Saved(Struct, kw_only=True):
    version: int = VERSION
    boot: str = ""
    """Boot id and process namespace: process ids of another mean nothing here."""
    units: dict[str, UnitRecord] = field(default_factory=dict)
    scopes: dict[str, list[str]] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    sockets: dict[str, int] = field(default_factory=dict)
    """Address to inode."""


def this_boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def start_of(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none (or only its remains)."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def group_of(pid: int) -> int:
    """The process group of a process; 0 when there is none (or only its remains)."""
    fields = _stat(pid)
    return int(fields[2]) if fields else 0


def _stat(pid: int) -> list[bytes]:
    """What follows the name in /proc/PID/stat; empty for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return fields if fields and fields[0] not in (b"Z", b"X") else []


def leader_with(mark: bytes) -> int:
    """The leader of a session whose environment holds `mark`; 0 when there is none."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == int(name) and mark in _environment(name).split(b"\0"):
                    return int(name)
    return 0


def _environment(pid: str) -> bytes:
    """It is empty for a moment while a process becomes another program; that is asked again. Raises OSError for one that
    has ended, and for the kernel's own."""
    for _ in range(200):
        with open(f"/proc/{pid}/environ", "rb") as file:
            if found := file.read():
                return found
        os.readlink(f"/proc/{pid}/exe")
        time.sleep(0.001)
    return b""


class Records:
    """`supervisor.json` of a state folder."""

    def __init__(self, state: str) -> None:
        self.path = os.path.join(state, "supervisor.json")

    def load(self) -> Saved:
        """Raises StateFault: corrupt or newer records are not guessed around."""
        try:
            with open(self.path, "rb") as file:
                saved = msgspec.json.decode(file.read(), type=Saved)
        except FileNotFoundError:
            return Saved()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as fault:
            raise StateFault(
                f"the supervisor's records cannot be read: {fault}", where=self.path,
                next=f"restore {self.path}, or move it away and start the services again", code="records",
            ) from fault  # fmt: skip
        if saved.version != VERSION:
            raise StateFault(
                f"the supervisor's records have version {saved.version}, this one knows {VERSION}", where=self.path,
                next="run the homeport that wrote them", code="newer",
            )  # fmt: skip
        return saved

    def save(self, saved: Saved, *, durable: bool) -> None:
        """Raises OSError. `durable` survives a power cut; what runs need not, it ends with the boot."""
        new = f"{self.path}.new"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            data = msgspec.json.encode(saved)
            while data:
                data = data[os.write(file, data) :]
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.replace(new, self.path)
        if durable:
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
