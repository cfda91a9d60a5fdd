"""pm2's own socket: a tenth of the time of its command line, and private to pm2.

So it is spoken only to a daemon of the tested major version that runs as our own user, and every surprise is
a `SocketTrouble`, after which the command line is used. A frame is the byte `0x10 | parts`, then each part as
a 32-bit big-endian length and its bytes: `j:` and JSON, or `s:` and text; the last part is the request's id.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from types import TracebackType
from typing import Any

import msgspec

TESTED_MAJOR = 7
LARGEST = 64 * 1024 * 1024


class SocketTrouble(Exception):
    """pm2's socket did not answer as the tested version does."""


def daemon_listens(path: str) -> bool:
    """Whether a pm2 daemon accepts connections there; nothing is sent. A socket we may not open counts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except PermissionError:
            return True
        except OSError:
            return False
    return True


class Pm2Socket:
    """One connection to `$PM2_HOME/rpc.sock`. Raises SocketTrouble on anything unexpected."""

    def __init__(self, path: str, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._asked = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", peer)[1] != os.geteuid():
                raise SocketTrouble("the pm2 daemon runs as another user")
            version = self.call("getVersion", {})
            if not isinstance(version, str) or version.split(".")[0] != str(TESTED_MAJOR):
                raise SocketTrouble(f"pm2 {version!r} is not the tested version")
        except OSError as fault:
            self._socket.close()
            raise SocketTrouble(str(fault)) from fault
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Pm2Socket:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._socket.close()

    def call(self, method: str, argument: Any, timeout: float | None = None) -> Any:
        """The first result of a method of the daemon; `timeout` in seconds for the whole call."""
        self._asked += 1
        name = f"homeport:{self._asked}"
        deadline = time.monotonic() + (timeout or self._timeout)
        try:
            self._socket.settimeout(timeout or self._timeout)
            self._socket.sendall(frame({"type": "call", "method": method, "args": [argument]}, name))
            while True:
                parts = self._receive(deadline)
                if len(parts) == 2 and parts[1] == f"s:{name}".encode():
                    return _result(parts[0])
        except (OSError, msgspec.DecodeError, UnicodeError) as fault:
            raise SocketTrouble(f"{method}: {fault}") from fault

    def _receive(self, deadline: float) -> list[bytes]:
        head = self._exactly(1, deadline)[0]
        if head >> 4 != 1:
            raise SocketTrouble("not the framing of the tested version")
        parts, total = [], 0
        for _ in range(head & 0x0F):
            (size,) = struct.unpack(">I", self._exactly(4, deadline))
            total += size
            if total > LARGEST:
                raise SocketTrouble("an answer that is too large")
            parts.append(self._exactly(size, deadline))
        return parts

    def _exactly(self, size: int, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SocketTrouble("no answer in time")
            self._socket.settimeout(left)
            more = self._socket.recv(min(size - len(got), 1 << 20))
            if not more:
                raise SocketTrouble("the connection was closed")
            got += more
        return bytes(got)


def frame(message: dict[str, Any], name: str) -> bytes:
    """A request as it goes over the socket."""
    parts = (b"j:" + msgspec.json.encode(message), b"s:" + name.encode())
    return bytes([0x10 | len(parts)]) + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _result(part: bytes) -> Any:
    if not part.startswith(b"j:"):
        raise SocketTrouble("an answer that is not JSON")
    answer = msgspec.json.decode(part[2:])
    if not isinstance(answer, dict) or answer.get("error") or not isinstance(answer.get("args"), list):
        said = answer.get("error") if isinstance(answer, dict) else answer
        raise SocketTrouble(f"pm2 answered {said!r}"[:300])
    return answer["args"][0] if answer["args"] else None
