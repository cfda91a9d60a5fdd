"""Addresses that units listen on and that readiness is asked at. Only numbers and localhost: nothing is resolved."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from msgspec import Struct


class AddressFault(ValueError):
    """An address that cannot be listened on or asked; the text says what it should be."""


class Address(Struct, frozen=True):
    """`host` is numeric, or empty for every interface; `path` is that of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def key(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """How a preload names it: the port, or `u:` and the path in hexadecimal digits."""
        return f"u:{self.path.encode().hex()}" if self.path else str(self.port)

    @property
    def family(self) -> socket.AddressFamily:
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def reach(self) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
        """Where this machine reaches it."""
        if self.path:
            return self.family, self.path
        anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        return self.family, (anywhere.get(self.host, self.host), self.port)


def parse(text: str) -> Address:
    """`3000` or `:3000` (every interface), `127.0.0.1:3000`, `[::1]:3000`, `localhost:3000`, `unix:/path`.

    Raises AddressFault.
    """
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise AddressFault(f"listen: {text!r}: a Unix socket is unix: and an absolute path of at most 107 bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    return Address(host=_numeric(host, text), port=_port(port, text))


def parse_probe(http: str, tcp: str, listen: list[str]) -> tuple[Address, str]:
    """What readiness asks: the address, and the target of the HTTP request. Raises AddressFault.

    A path alone (`/health`) is asked at the unit's first listening address.
    """
    if tcp:
        return parse(tcp), ""
    if http.startswith("/"):
        if not listen:
            raise AddressFault(f"ready.http: {http!r} without a host needs `listen`")
        return parse(listen[0]), _target(http)
    parts = urlsplit(http)
    if parts.scheme != "http" or not parts.hostname:
        raise AddressFault(f"ready.http: {http!r} must be a path or http://ADDRESS:PORT/PATH")
    try:
        port = parts.port or 80
    except ValueError as fault:
        raise AddressFault(f"ready.http: {http!r} has no usable port") from fault
    query = f"?{parts.query}" if parts.query else ""
    return Address(host=_numeric(parts.hostname, http), port=port), _target((parts.path or "/") + query)


def _target(text: str) -> str:
    if any(not 0x21 <= ord(sign) <= 0x7E for sign in text):
        raise AddressFault(f"ready.http: {text!r} holds a space, a control character or one beyond ASCII")
    return text


def _numeric(host: str, text: str) -> str:
    host = host.removeprefix("[").removesuffix("]")
    if host in ("", "*"):
        return ""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as fault:
        raise AddressFault(f"{text!r}: the host must be an address in numbers, localhost, or nothing") from fault


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise AddressFault(f"{whole!r}: the port must be 1 to 65535")
    return int(text)
