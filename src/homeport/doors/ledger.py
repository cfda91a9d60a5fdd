"""The ledger of edits, in the environment's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from homeport.doors.database import Database
from homeport.doors.encoding import encodable, encode
from homeport.model.edits import LIVING, Edit

PASSED = 2000
"""Edits that have ended, beyond which the oldest go that nobody ever decided about: a program that makes files and takes
them away again, in a folder that is watched, does so for years."""
_SLACK = 200


class EditLedger:
    """Satisfies `Ledger`, over the connection of the store."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def living(self, target: str | None = None) -> list[Edit]:
        """Oldest first. Raises StateFault when a record cannot be read."""
        if target is None:
            return self._read("SELECT body FROM edits WHERE living = 1 ORDER BY since, id")
        return self._read("SELECT body FROM edits WHERE living = 1 AND target = ? ORDER BY since, id", target)

    def all(self) -> list[Edit]:
        return self._read("SELECT body FROM edits ORDER BY since DESC, id DESC")

    def save(self, edits: Sequence[Edit]) -> None:
        """As `Ledger.save`; those that end are written first, so that a path's next edit finds its place free."""
        with self._db.writing() as connection:
            for edit in sorted(edits, key=lambda e: e.state in LIVING):
                row = (encodable(edit.target), encodable(edit.path), int(edit.state in LIVING), edit.since,
                       encode(edit).decode())  # fmt: skip
                connection.execute(
                    "INSERT OR IGNORE INTO edits (target, path, living, since, body, id) VALUES (?, ?, ?, ?, ?, ?)",
                    (*row, edit.id),
                )
                connection.execute(
                    "UPDATE edits SET target = ?, path = ?, living = ?, since = ?, body = ? WHERE id = ?", (*row, edit.id)
                )
            if any(edit.state not in LIVING for edit in edits):
                _let_pass(connection)

    def _read(self, sql: str, *values: str) -> list[Edit]:
        found = []
        for (body,) in self._db.rows(sql, *values):
            try:
                found.append(msgspec.json.decode(body, type=Edit))
            except (msgspec.MsgspecError, UnicodeError) as fault:
                raise self._db.corrupt(f"a record of an edit cannot be read: {fault}") from fault
        return found


def _let_pass(connection: sqlite3.Connection) -> None:
    ended, = connection.execute("SELECT COUNT(*) FROM edits WHERE living = 0").fetchone()
    if ended <= PASSED + _SLACK:
        return
    rows = connection.execute("SELECT id, body FROM edits WHERE living = 0 ORDER BY since, id").fetchall()
    passing = [id for id, body in rows if _nobodys(body)]
    connection.executemany("DELETE FROM edits WHERE id = ?", [(id,) for id in passing[: ended - PASSED]])


def _nobodys(body: bytes | str) -> bool:
    """It came and went, and nobody decided anything about it. A record that cannot be read stays."""
    try:
        edit = msgspec.json.decode(body, type=Edit)
    except (msgspec.MsgspecError, UnicodeError):
        return False
    return edit.state == "closed" and edit.by is None and edit.commit is None and edit.request is None
