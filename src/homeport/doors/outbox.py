"""The outbox, in the environment's database: messages survive a crash and a channel that is down."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from homeport.doors.database import Database
from homeport.doors.encoding import encode
from homeport.model.notices import LONGEST_WAIT, Letter


class OutboxTable:
    """Satisfies `Outbox`, over the connection of the store."""

    def __init__(self, database: Database, redact: Callable[[str], str] = str) -> None:
        self._db, self._redact = database, redact

    def put(self, letters: list[Letter], now: float) -> None:
        with self._db.writing() as connection:
            for letter in letters:
                connection.execute("INSERT INTO outbox (body, since, due) VALUES (?, ?, ?)",
                                   (encode(self._safe(letter)).decode(), now, now))  # fmt: skip

    def _safe(self, letter: Letter) -> Letter:
        """The letter as it may be kept and sent: no secret in its words."""
        safe, told, status = self._redact, letter.message, letter.status
        if told is not None:
            fields = tuple((name, safe(value)) for name, value in told.fields)
            told = replace(told, title=safe(told.title), text=safe(told.text), fields=fields, tail=safe(told.tail))
        if status is not None:
            status = replace(status, text=safe(status.text))
        return replace(letter, message=told, status=status)

    def due(self, now: float) -> list[Letter]:
        """Also what would wait longer than anything does: the clock was ahead when it was put off."""
        rows = self._db.rows("SELECT id, body, attempts, since FROM outbox WHERE due <= ? OR due > ? ORDER BY id",
                             now, now + LONGEST_WAIT)  # fmt: skip
        try:
            return [replace(msgspec.json.decode(body, type=Letter), id=id, attempts=attempts, since=since)
                    for id, body, attempts, since in rows]  # fmt: skip
        except (msgspec.MsgspecError, UnicodeError) as fault:
            raise self._db.corrupt(f"a waiting message cannot be read: {fault}") from fault

    def waiting(self) -> int:
        return int(self._db.rows("SELECT count(*) FROM outbox")[0][0])

    def sent(self, letter: Letter) -> None:
        with self._db.writing() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (letter.id,))

    def failed(self, letter: Letter, again_at: float) -> None:
        with self._db.writing() as connection:
            connection.execute("UPDATE outbox SET attempts = attempts + 1, due = ? WHERE id = ?", (again_at, letter.id))
