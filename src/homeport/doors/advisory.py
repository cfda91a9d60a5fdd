"""PostgreSQL advisory locks: one migration at a time on one database, whichever host or deployer asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from homeport.model.errors import Cancelled, Failed, InfrastructureFault
from homeport.model.ports import Clock

EVERY = 0.25
"""Seconds between two tries."""
CONNECT_WITHIN = 10
"""Seconds."""
WHERE = "homeport.toml: migrate.lock"


def key_of(project: str) -> int:
    """The lock's number (signed, 64 bits) for a project: the same on every host."""
    raw = hashlib.sha256(f"homeport migrate {project}".encode()).digest()[:8]
    return int.from_bytes(raw, "big", signed=True)


@contextmanager
def advisory_lock(url: str, project: str, clock: Clock, within: float, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Holds the project's lock on that database; it is free again when this process dies.

    Waits up to `within` seconds. Raises Failed (code `migrate-lock`) when another holds it all the time,
    InfrastructureFault when the database does not answer or psycopg is not installed, Cancelled.
    """
    try:
        import psycopg
    except ImportError as fault:
        raise InfrastructureFault("migrate.lock needs the package psycopg", where=WHERE,
                                  next="pip install 'homeport[postgres]'", code="no-psycopg") from fault  # fmt: skip
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_WITHIN,
                                     application_name="homeport migrate")  # fmt: skip
    except psycopg.Error as fault:
        raise InfrastructureFault(f"the database does not answer: {_without_password(str(fault))}",
                                  where=WHERE, next="homeport doctor", code="database") from None  # fmt: skip
    try:
        until = clock.monotonic() + within
        while not _try(connection.execute, key_of(project)):
            if cancelled():
                raise Cancelled("cancelled while another migration ran", code="cancelled")
            if clock.monotonic() >= until:
                raise Failed(f"another migration held the database for {within:g} s", where=WHERE,
                             next="homeport deploy, when it has ended", code="migrate-lock")  # fmt: skip
            clock.sleep(EVERY)
        yield
    except psycopg.Error as fault:
        raise InfrastructureFault(f"the database went away: {_without_password(str(fault))}",
                                  where=WHERE, next="homeport doctor", code="database") from None  # fmt: skip
    finally:
        connection.close()


def _try(execute: Callable[..., object], key: int) -> bool:
    row = execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()  # type: ignore[attr-defined]
    return bool(row and row[0])


def _without_password(said: str) -> str:
    return re.sub(r"(?<=://)[^/\s]*@", "", said).strip().splitlines()[0][:300]
