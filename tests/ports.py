"""Loopback ports for services of tests, each for one test at a time on this machine."""

from __future__ import annotations

import random
import socket


def claimed_port() -> tuple[int, socket.socket]:
    """A port outside the range that the kernel hands to outgoing connections, and of that from which the supervisor
    chooses; and a claim to keep open as long as it is in use: a port that is free now may be that of another test's
    service between two starts."""
    while True:
        port = random.randrange(10000, 20000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0homeport-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        return port, claim
