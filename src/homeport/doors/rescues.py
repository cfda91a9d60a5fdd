"""Bytes saved before they are overwritten or deleted: a blob of the mirror, a ref that keeps it, a row that finds it."""

from __future__ import annotations

import os
import stat
from base64 import b64encode

from homeport.doors.git import Mirror
from homeport.model.errors import InfrastructureFault, UsageFault
from homeport.model.live import Rescue
from homeport.model.paths import exact, printable, to_bytes
from homeport.model.ports import Clock, Store


class RescueBox:
    """Satisfies `Rescues`. The ref is set before the row, so that a row never names a blob that a gc may take."""

    def __init__(self, git: Mirror, store: Store, clock: Clock) -> None:
        self._git, self._store, self._clock = git, store, clock

    def save(self, service: str, path: str, mode: str, content: bytes | str, because: str, deploy: str | None) -> Rescue:
        """As `Rescues.save`; when it returns, the bytes are in the mirror and on its disk. Raises InfrastructureFault."""
        if isinstance(content, str):
            oid, size = _stored(self._git, content)
        else:
            oid, size = self._git.write_blob(content), len(content)
        told = exact(path)
        name = None if told == path else b64encode(to_bytes(path)).decode("ascii")
        rescue = Rescue(id=f"r-{os.urandom(4).hex()}", service=service, path=told, mode=mode, oid=oid, bytes=size,
                        because=because, at=self._clock.now(), deploy=deploy, raw=name)  # fmt: skip
        self._git.keep(f"rescue/{rescue.id}", oid)
        self._store.add_rescue(rescue)
        return rescue

    def listing(self) -> list[Rescue]:
        return self._store.rescues()

    def find(self, id: str) -> Rescue:
        """By id or unambiguous beginning of it. Raises UsageFault (code `no-rescue`)."""
        found = [r for r in self.listing() if r.id == id] or [r for r in self.listing() if id and r.id.startswith(id)]
        if len(found) != 1:
            several = "several rescues begin with" if found else "there is no rescue"
            raise UsageFault(f"{several} {printable(id)}", next="homeport rescue list", code="no-rescue")
        return found[0]

    def pour(self, rescue: Rescue, into: int) -> None:
        self._git.pour(rescue.oid, into)

    def read(self, rescue: Rescue) -> bytes:
        return self._git.read(rescue.oid)


def _stored(git: Mirror, path: str) -> tuple[str, int]:
    """Object id and size of a regular file, which git reads by itself."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as fault:
        raise InfrastructureFault(f"cannot be read to be saved: {fault.strerror}", where=printable(path),
                                  next="homeport doctor", code="unreadable") from fault  # fmt: skip
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise InfrastructureFault("only a regular file can be saved", where=printable(path), next="homeport drift")
        oid = git.write_blob_of(file)
        return oid, git.sizes([oid]).get(oid, found.st_size)
    finally:
        os.close(file)
