"""Listening sockets: opened once, kept by the keeper too, and found again whoever was killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator

from homeport.supervisor.addresses import Address

BACKLOG = 4096
LONGEST_PATH = 107
PIDFD_GETFD = 438
"""The system call's number, the same on every architecture."""


def open_listening(address: Address) -> socket.socket:
    """A socket that listens. Raises OSError, the address in its text."""
    try:
        if address.path:
            return _open_unix(address.path)
        if address.host:
            return _open_inet(address.family, address.host, address.port)
        try:
            return _open_inet(socket.AF_INET6, "::", address.port)
        except OSError:
            if _has_ipv6():
                raise
            return _open_inet(socket.AF_INET, "0.0.0.0", address.port)  # noqa: S104
    except OSError as fault:
        raise OSError(fault.errno, f"cannot listen on {address.key}: {fault.strerror or fault}") from fault


@contextlib.contextmanager
def short(path: str) -> Iterator[str]:
    """A path for the same place that fits into the 107 bytes of a Unix socket's address. Raises OSError."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _open_inet(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((host, port))
        return _listening(found)
    except BaseException:
        found.close()
        raise


def _open_unix(path: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(path)
                raise OSError(98, "something listens there already")
        remove_socket(path)
        found.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - who may connect is said by the folder, as with systemd
        return _listening(found)
    except BaseException:
        found.close()
        raise


def free_port() -> int:
    """A port of the loopback that nobody listens on, outside of those that outgoing connections get. Raises OSError."""
    for _ in range(200):
        port = 20000 + secrets.randbelow(12000)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(98, "no port is free")


def remove_socket(path: str) -> None:
    """A socket that nobody listens on any more; never another kind of file, whose bind then fails."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def _listening(found: socket.socket) -> socket.socket:
    found.listen(BACKLOG)
    # Shared by every process that has the socket: set here, before the first of them.
    found.setblocking(False)
    return found


def inode(file: int) -> int:
    return os.fstat(file).st_ino


def connections_to(port: int) -> int:
    """Connections that are open to a local port."""
    found, mark = 0, f":{port:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            found += sum(row[1].endswith(mark) and row[3] == "01" for row in (line.split() for line in file))
    return found


def listens_at(file: int, address: Address) -> bool:
    """Whether a descriptor that somebody kept is a listening socket for this address."""
    try:
        with socket.socket(fileno=os.dup(file)) as found:
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            name = found.getsockname()
    except OSError:
        return False
    if address.path:
        return bool(name == address.path)
    if name[1] != address.port:
        return False
    return name[0] in ("::", "0.0.0.0") if not address.host else name[0] == address.host  # noqa: S104


def bring_back(pids: Iterable[int], number: int) -> int | None:
    """A copy of the socket with that inode, out of a process that has it; None when the kernel does not allow it."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{number}]":
                        return _getfd(pid, int(name))
    return None


def _getfd(pid: int, file: int) -> int:
    handle = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        found = int(libc.syscall(PIDFD_GETFD, handle, file, 0))
        if found < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return found
    finally:
        os.close(handle)
