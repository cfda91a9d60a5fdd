"""What this machine lets homeport do (P8): the lists of host.toml, asked at the doors and not only when planning."""

from __future__ import annotations

import os
import pwd
from collections.abc import Hashable, Iterator, Sequence
from fnmatch import fnmatchcase

from homeport.model.config import Command, HostConfig
from homeport.model.errors import Refused
from homeport.model.paths import printable
from homeport.model.ports import OnLine
from homeport.model.running import BatchingImages, Container, ImageRuntime, Inside, Restarted, Runtime, Unit, UnitState


class Permits:
    """Without a host file everything that this user may do is allowed, and root changes nothing. As root an empty list
    allows nothing; for another user it does not limit."""

    def __init__(self, host: HostConfig | None, environment: str = "") -> None:
        self._host = host
        self._environment = environment

    def lists(self) -> None:
        """Raises Refused (code `no-lists`) for root on a machine without a host file: nothing would limit it."""
        if self._host is None and os.geteuid() == 0:
            named = f" -e {self._environment}" if self._environment else ""
            raise Refused("as root, homeport works only within the lists of a host file, and there is none",
                          where=f"host {os.uname().nodename}", next=f"homeport{named} setup   (writes it, and shows it)",
                          code="no-lists")  # fmt: skip

    def changing(self, path: str) -> None:
        """As `folder`, before something below it is written or removed; code `no-lists` too."""
        self.lists()
        self.folder(path)

    def folder(self, path: str) -> None:
        """Raises Refused (code `roots`) for a live folder that does not lie below one of the `roots`."""
        if self._host is None or (not self._host.roots and os.geteuid() != 0):
            return
        try:
            real = os.path.realpath(path)
        except OSError as fault:
            raise Refused(f"where the live folder leads changes while it is looked at: {fault.strerror}", code="roots",
                          where=printable(path), next=f"ls -ld {path} {os.path.dirname(path)}") from fault  # fmt: skip
        if self._below_a_root(real):
            return
        if real != os.path.abspath(path):
            raise Refused(f"the live folder leads through a link to {printable(real)}, outside the roots of this host",
                          where=printable(path), next=f"ls -ld {path} {os.path.dirname(path)}", code="roots")  # fmt: skip
        raise self._refused(f"the live folder {printable(path)} lies outside the roots of this host", "roots")

    def opened(self, folder: int, path: str, below: str = "") -> None:
        """As `folder`, for a live folder that is open (or is to be made `below` an open one): a link may have come into
        its path since it was asked for."""
        if self._host is None or (not self._host.roots and os.geteuid() != 0):
            return
        real = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), below)
        if not self._below_a_root(real):
            raise Refused(f"the live folder leads to {printable(real)} now, outside the roots of this host",
                          where=printable(path), next=f"ls -ld {path} {os.path.dirname(path)}", code="roots")  # fmt: skip

    def new_file(self, folder: str, path: str, instead: str) -> None:
        """As `HostLists.new_file`. Raises Refused (codes `no-lists`, `roots`)."""
        self.lists()
        if self._host is None or (not self._host.roots and os.geteuid() != 0):
            return
        if not self._below_a_root(folder):
            raise Refused("that folder lies outside the roots of this host", where=printable(path), code="roots",
                          next=instead)  # fmt: skip

    def _below_a_root(self, real: str) -> bool:
        roots = self._host.roots if self._host is not None else []
        return any(real.startswith(os.path.realpath(root).rstrip("/") + "/") for root in roots)

    def hostfile(self, path: str) -> None:
        """Raises Refused (code `hostfiles`) for a host file that this machine neither lists nor has below a root."""
        if self._host is None or any(entry.path == path for entry in self._host.hostfiles):
            return
        if (not self._host.roots and not self._host.hostfiles and os.geteuid() != 0) or _below_one(path, self._host.roots):
            return
        raise self._refused(f"homeport may not touch {printable(path)} on this host", "hostfiles")

    def user(self, name: str) -> None:
        """Raises Refused (codes `no-lists`, `users`) for a user that homeport may not become here."""
        self.lists()
        if self._host is None or (not self._host.users and os.geteuid() != 0) or name in self._host.users:
            return
        if name == pwd.getpwuid(os.geteuid()).pw_name:
            return
        raise self._refused(f"homeport may not become user {printable(name)} on this host", "users")

    def unit(self, name: str) -> None:
        """Raises Refused (codes `no-lists`, `units`) for a process or unit that homeport may not touch here."""
        self.lists()
        if self._host is None or (not self._host.units and os.geteuid() != 0):
            return
        if not any(fnmatchcase(name, pattern) for pattern in self._host.units):
            raise self._refused(f"homeport may not touch {printable(name)} on this host", "units")

    def _refused(self, what: str, key: str) -> Refused:
        return Refused(what, where=f"host.toml: {key}", next=f"add it to `{key}` in host.toml, as this machine's owner",
                       code=key)  # fmt: skip


def _below_one(path: str, roots: Sequence[str]) -> bool:
    real = os.path.realpath(os.path.dirname(path)) + "/"
    return any(real.startswith(os.path.realpath(root).rstrip("/") + "/") for root in roots)


class PermittedRuntime:
    """A runtime that is asked only about units, and started only as users, that the host's lists hold."""

    def __init__(self, runtime: Runtime, permits: Permits) -> None:
        self._runtime, self._permits = runtime, permits
        self.name = runtime.name

    def inspect(self, unit: Unit) -> UnitState:
        return self._runtime.inspect(unit)

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        self.check(unit)
        return self._runtime.restart(unit, on_line)

    def forget(self, unit: Unit) -> None:
        self.check(unit)
        self._runtime.forget(unit)

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        return self._runtime.logs(unit, lines, follow)

    def check(self, unit: Unit) -> None:
        self._permits.unit(unit.name)
        if unit.user is not None:
            self._permits.user(unit.user)


class PermittedImages(PermittedRuntime):
    """The same for a runtime whose services run images."""

    def __init__(self, runtime: ImageRuntime, permits: Permits) -> None:
        super().__init__(runtime, permits)
        self._images = runtime

    def stale(self, units: Sequence[Unit]) -> dict[str, str]:
        return self._images.stale(units)

    def containers(self, units: Sequence[Unit]) -> list[Container]:
        return self._images.containers(units)

    def has_images(self, unit: Unit) -> bool:
        return self._images.has_images(unit)

    def build(self, unit: Unit, folder: str, fresh: bool, on_line: OnLine) -> None:
        self.check(unit)
        self._images.build(unit, folder, fresh, on_line)

    def validate(self, unit: Unit, command: Command, on_line: OnLine) -> None:
        self.check(unit)
        self._images.validate(unit, command, on_line)

    def inside(self, unit: Unit, command: Sequence[str], terminal: bool) -> Inside:
        self.check(unit)
        return self._images.inside(unit, command, terminal)

    def prune(self, unit: Unit, keep: int) -> None:
        self.check(unit)
        self._images.prune(unit, keep)


class PermittedBatches(PermittedImages):
    """The same for one that starts several services with one call: each of them has to be allowed."""

    def __init__(self, runtime: BatchingImages, permits: Permits) -> None:
        super().__init__(runtime, permits)
        self._batches = runtime

    def states(self, units: Sequence[Unit]) -> dict[str, UnitState]:
        return self._batches.states(units)

    def together(self, unit: Unit) -> Hashable | None:
        return self._batches.together(unit)

    def restart_together(self, units: Sequence[Unit], on_line: OnLine) -> list[Restarted]:
        for unit in units:
            self.check(unit)
        return self._batches.restart_together(units, on_line)


def permitted(runtime: Runtime, permits: Permits) -> Runtime:
    if isinstance(runtime, BatchingImages):
        return PermittedBatches(runtime, permits)
    return PermittedImages(runtime, permits) if isinstance(runtime, ImageRuntime) else PermittedRuntime(runtime, permits)
