"""The address that a message really goes to is looked at in the moment of connecting, whatever name or redirect led there.

Names are resolved by whoever connects, so a name that is looked up twice may lead elsewhere the second time. Here
nothing is looked up: Python says where each connection goes (`socket.connect`), after the name has become an address and
before the kernel is asked, for every library alike.
"""

from __future__ import annotations

import functools
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from homeport.model import addresses

_guards: list[Outgoing] = []
_known = threading.Lock()


class NotThere(PermissionError):
    """What a library that connects sees; the guard keeps the words for people."""


class Outgoing:
    """What this process connects to while one message is sent. `refused` says what it was kept from, the latest last."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.refused: list[str] = []
        self._allowed = allowed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Every connection of this process is looked at meanwhile, in whatever thread."""
        _install()
        with _known:
            _guards.append(self)
        try:
            yield
        finally:
            with _known:
                _guards.remove(self)

    def look(self, asked: object) -> None:
        """Raises NotThere for an address that nothing may go to from here."""
        if not isinstance(asked, tuple):
            return  # a Unix socket has a path, which no answer from elsewhere can name
        host, port = str(asked[0]), int(asked[1])
        try:
            address = addresses.plain(host)
        except ValueError:
            self._refuse(f"{host} was to be connected to by its name; write its address", host)
            return
        why = addresses.why_not(address) or ("leads back to this machine" if _is_own(address) else "")
        if why and not addresses.listed(address, port, self._allowed):
            self._refuse(f"{address} port {port} {why}", host)

    def _refuse(self, what: str, host: str) -> None:
        self.refused.append(what)
        raise NotThere(f"homeport does not send to {host}")


def _is_own(address: addresses.Address) -> bool:
    """Whether the machine carries it: then the kernel would speak from the very address. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            _mine.probing = True
            try:
                probe.connect((str(address), 9))
            finally:
                _mine.probing = False
            return bool(probe.getsockname()[0] == str(address))
    except OSError:
        return False


class _Mine(threading.local):
    probing = False


_mine = _Mine()


@functools.cache
def _install() -> None:
    """Once in the life of a process: Python never forgets such a hook."""
    sys.addaudithook(_hears)


def _hears(event: str, args: tuple[object, ...]) -> None:
    if _guards and not _mine.probing and event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        for guard in tuple(_guards):
            guard.look(args[1])
