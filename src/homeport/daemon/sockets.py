"""Where the daemon listens: a Unix socket of its own, or those that systemd hands over; and what systemd is told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Mapping

from homeport.model.errors import Busy, InfrastructureFault, Refused, UsageFault

LONGEST = 107
"""Bytes of a Unix socket's path (sun_path)."""
FIRST_FD = 3
"""The first descriptor that systemd hands over (sd_listen_fds(3))."""


class Claimed:
    """A Unix socket at a path, listening, and the lock beside it that says whose it is."""

    def __init__(self, path: str) -> None:
        """Raises Busy (code `serving`), Refused (code `socket-taken`), UsageFault (code `socket-path`)."""
        self.path = path
        if len(os.fsencode(path)) > LONGEST:
            raise UsageFault(f"the path of the socket is longer than {LONGEST} bytes", where=path, code="socket-path",
                             next="homeport serve --socket /run/homeport.sock")  # fmt: skip
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as fault:
            raise Refused(f"the lock beside the socket cannot be made: {fault.strerror}", where=f"{path}.lock",
                          next=f"ls -la {os.path.dirname(path)}", code="socket-taken") from fault  # fmt: skip
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            os.close(self._lock)
            raise Busy("another daemon serves there", where=path, next="stop it first", code="serving") from fault
        try:
            self._clear()
            self.socket = self._listen()
        except BaseException:
            os.close(self._lock)
            raise

    def _clear(self) -> None:
        """Only a dead socket of our own is in nobody's way. Raises Refused (code `socket-taken`), Busy."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise Refused("there is something else in the socket's place", where=self.path, code="socket-taken",
                          next=f"ls -la {self.path}; move it away, or homeport serve --socket OTHER")  # fmt: skip
        if found.st_uid != os.geteuid():
            raise Refused(f"the socket there belongs to another user (uid {found.st_uid})", where=self.path,
                          next="homeport serve --socket OTHER, or as that user", code="socket-taken")  # fmt: skip
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(self.path)
            except OSError as fault:
                if fault.errno == errno.ECONNREFUSED:
                    return
                raise Refused(f"the socket there cannot be tried: {fault.strerror or fault}", where=self.path,
                              next=f"ls -la {self.path}", code="socket-taken") from fault  # fmt: skip
        raise Busy("another program listens there", where=self.path, next="homeport serve --socket OTHER", code="serving")

    def _listen(self) -> socket.socket:
        """Bound beside its place and moved there, so that it is never there with other rights than 0600."""
        beside = f"{self.path}.{os.getpid()}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            listening.bind(beside if len(os.fsencode(beside)) <= LONGEST else self.path)
            listening.listen(512)
            if os.path.lexists(beside):
                os.rename(beside, self.path)
        except OSError as fault:
            listening.close()
            raise InfrastructureFault(f"the socket cannot be made: {fault.strerror or fault}", where=self.path,
                                      next=f"ls -la {os.path.dirname(self.path)}", code="socket") from fault  # fmt: skip
        finally:
            os.umask(before)
        self._inode = os.lstat(self.path).st_ino
        return listening

    def release(self) -> None:
        """Takes the socket away when it is still the one that was made here."""
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def handed_over(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd opened for this very process; empty without socket activation."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDS", "").isdigit():
        return []
    found = []
    for number in range(FIRST_FD, FIRST_FD + int(environ["LISTEN_FDS"])):
        os.set_inheritable(number, False)
        try:
            found.append(socket.socket(fileno=number))
        except OSError as fault:
            raise UsageFault(f"descriptor {number} that was handed over is no socket: {fault.strerror}", where="LISTEN_FDS",
                             next="ListenStream= in the socket unit", code="socket-path") from fault  # fmt: skip
    return found


def listen_tcp(address: str) -> socket.socket:
    """`host:port`, `[v6]:port`. Raises UsageFault (code `listen`), InfrastructureFault (code `socket`)."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageFault(f"{address!r} is no address to listen on", where="host.toml: listen.address",
                         next='address = "127.0.0.1:7420"', code="listen")  # fmt: skip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host or "0.0.0.0", int(port)))  # noqa: S104  # as host.toml says
        listening.listen(512)
    except OSError as fault:
        listening.close()
        raise InfrastructureFault(f"cannot listen on {address}: {fault.strerror or fault}", next="ss -ltnp",
                                  where="host.toml: listen.address", code="socket") from fault  # fmt: skip
    return listening


def between() -> tuple[socket.socket, str]:
    """The socket on which the listening process asks the daemon: abstract, so that no folder has to be opened for it.

    Whoever connects is checked by its credentials. (listening socket, address)
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"\0homeport-{os.urandom(16).hex()}"
    listening.bind(name)
    listening.listen(512)
    return listening, name


def tell_systemd(words: str, environ: Mapping[str, str] = os.environ) -> None:
    """sd_notify(3); nothing without a keeper that listens."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.connect("\0" + path[1:] if path.startswith("@") else path)
        out.send(words.encode())
