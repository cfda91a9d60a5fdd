"""authorized_keys of the user who runs homeport here: read without following links, replaced at once as it was owned."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile

from homeport.model.errors import InfrastructureFault

_LARGEST = 1024 * 1024


class AuthorizedKeys:
    """`~/.ssh/authorized_keys`, where sshd looks unless its own configuration says another place."""

    def __init__(self) -> None:
        self.path = os.path.join(os.path.expanduser("~"), ".ssh", "authorized_keys")

    def read(self) -> str | None:
        """None where there is no such file. Raises InfrastructureFault (code `authorized-keys`)."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise self._fault(f"it cannot be read: {fault.strerror}") from fault
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                raise self._fault("it is not an ordinary file")
            if found.st_uid != os.geteuid():
                raise self._fault("it belongs to another user than the one who runs homeport")
            return file.read().decode("utf-8", "surrogateescape")

    def write(self, before: str | None, text: str) -> None:
        """Replaces it where it still is as read. Owner and mode stay; a new one is for its owner only.

        Raises InfrastructureFault (code `authorized-keys`).
        """
        folder = os.path.dirname(self.path)
        beside = None
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if os.stat(folder).st_uid != os.geteuid():
                raise self._fault("its folder belongs to another user than the one who runs homeport")
            handle, beside = tempfile.mkstemp(prefix=".authorized_keys-", dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                if before is not None:
                    found = os.stat(self.path, follow_symlinks=False)
                    if os.geteuid() == 0 or found.st_gid != os.getegid():
                        os.fchown(handle, found.st_uid, found.st_gid)
                    os.fchmod(handle, stat.S_IMODE(found.st_mode))
                file.flush()
                os.fsync(handle)
            if self.read() != before:
                raise self._fault("somebody changed it meanwhile; nothing was written", "homeport setup")
            os.replace(beside, self.path)
            beside = None
        except OSError as fault:
            raise self._fault(f"it cannot be written: {fault.strerror}") from fault
        finally:
            if beside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(beside)

    def _fault(self, what: str, next: str = "") -> InfrastructureFault:
        return InfrastructureFault(what, where=self.path, next=next or f"ls -ld {self.path}", code="authorized-keys")


def own_program() -> str:
    """The path that runs this homeport: a link of it on the PATH, which outlives an upgrade, else its own place."""
    beside = os.path.join(os.path.dirname(sys.executable), "homeport")
    for folder in ("/usr/local/bin", os.path.expanduser("~/.local/bin"), *os.environ.get("PATH", "").split(":")):
        place = os.path.join(folder, "homeport")
        if os.path.isabs(place) and os.path.realpath(place) == os.path.realpath(beside) and os.path.exists(place):
            return place
    return beside
