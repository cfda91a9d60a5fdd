"""IP addresses that a name or a redirect may not lead a message to unless this machine's owner says so: they lead back
here, or to what a cloud tells its machines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
TOLD_BY_CLOUDS = frozenset(map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200")))
"""Where clouds answer their machines, credentials included, besides 169.254.0.0/16."""
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address."""


def plain(text: str) -> Address:
    """The address itself: without a zone, and as IPv4 where IPv6 only wraps one. Raises ValueError for a name."""
    found = ip_address(text.partition("%")[0])
    if isinstance(found, IPv4Address) or found in (IPv6Address("::"), IPv6Address("::1")):
        return found
    if any(found in network for network in _TRANSLATED):
        return IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour or found


def why_not(address: Address) -> str:
    """Why nothing goes there by itself; empty for one that is somebody else's."""
    if address in TOLD_BY_CLOUDS or address.is_link_local:
        return "belongs to this network's own services"
    if address.is_loopback or address.is_unspecified or (address.version == 4 and int(address) >> 24 == 0):
        return "leads back to this machine"
    if address.is_multicast or (address.version == 4 and address == IPv4Address("255.255.255.255")):
        return "is no single machine's"
    return ""


def named(url: str) -> list[str]:
    """Entries (see `entry`) for the machine itself where an URL plainly names it and nobody else could have led there:
    `localhost`, or its address in the usual form. Empty for names and for anything else that is odd."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
        found = [ip_address(one) for one in (("127.0.0.1", "::1") if host == "localhost" else (host,))]
    except ValueError:
        return []
    if any(plain(str(one)) != one or (why_not(one) and not one.is_loopback) for one in found):
        return []
    return [f"[{one}]{port}" if port and one.version == 6 else f"{one}{port}" for one in found]


def entry(text: str) -> tuple[str, int]:
    """An entry of a list of addresses as (address or network, port); port 0 for any. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(text)
        port = rest[1:]
    elif text.count(":") == 1:
        host, port = text.split(":")
    else:
        host, port = text, "0"
        if "/" not in text:
            ip_address(text)
    ip_network(host)
    if not port.isascii() or not port.isdigit() or int(port) > 65535 or (text != host and port == "0"):
        raise ValueError(text)
    return host, int(port)


def listed(address: Address, port: int, entries: Sequence[str]) -> bool:
    """Whether one of the entries, `127.0.0.1:8080`, `[::1]:8080`, `127.0.0.1` or `10.0.0.0/8`, holds it."""
    for text in entries:
        host, only = entry(text)
        network = ip_network(host)
        if network.version == address.version and address in network and only in (0, port):
            return True
    return False
