"""The tokens of an environment, in its database: digests, never tokens."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from homeport.doors.database import Database
from homeport.doors.encoding import encodable, encode
from homeport.model.tokens import Token


class TokenBook:
    """Satisfies `Tokens`, over the connection of the store."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, token: Token) -> bool:
        return self._db.write("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)",
                              token.name, token.digest, encode(token).decode()) > 0  # fmt: skip

    def named(self, name: str) -> Token | None:
        return next(iter(self._read("SELECT body FROM tokens WHERE name = ?", encodable(name))), None)

    def with_digest(self, digest: str) -> Token | None:
        return next(iter(self._read("SELECT body FROM tokens WHERE digest = ?", digest)), None)

    def all(self) -> list[Token]:
        return self._read("SELECT body FROM tokens ORDER BY name")

    def revoke(self, name: str, at: str) -> bool:
        with self._db.writing() as connection:
            found = self.named(name)
            if found is None or found.revoked is not None:
                return False
            body = encode(replace(found, revoked=at)).decode()
            connection.execute("UPDATE tokens SET body = ? WHERE name = ?", (body, found.name))
            return True

    def _read(self, sql: str, *values: object) -> list[Token]:
        """Raises StateFault for a row that cannot be read: a right is never guessed."""
        try:
            return [msgspec.json.decode(body, type=Token) for (body,) in self._db.rows(sql, *values)]
        except (msgspec.MsgspecError, UnicodeError) as fault:
            raise self._db.corrupt(f"a token's record cannot be read: {fault}") from fault
