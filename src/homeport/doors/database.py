"""One SQLite file: opened without guessing, migrated by numbered SQL, every write a transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from homeport.doors.durable import sync_folder
from homeport.model.errors import HomeportError, InfrastructureFault, StateFault
from homeport.model.ports import Clock

BUSY = 5.0
"""Seconds to wait for another writer."""
SMALL = 1024 * 1024
"""Bytes; a database of up to this size is checked whenever it is opened."""
_RECORD = """CREATE TABLE IF NOT EXISTS schema_migrations
  (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL) STRICT"""


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration this version knows, in order."""
    folder = os.path.join(os.path.dirname(__file__), "migrations")
    found = []
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".sql")):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            found.append((int(name[:4]), name, file.read()))
    return found


class Database:
    """A connection that threads may share.

    Raises StateFault (codes `corrupt`, `newer`, `older`) when the file cannot be trusted, and
    InfrastructureFault (code `database`) when the disk is full or another writer does not let go. Where the disk takes
    no writes at all a copy in memory is opened (`looks_only`): looking works, every write raises.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self.looks_only = False
        with self.told():
            orphaned = os.path.lexists(f"{path}-wal")
            if not os.path.lexists(path):
                if orphaned and not os.path.lexists(path):
                    raise self.corrupt("the file is gone, and its -wal file is still there")
                self._make()
            self._connection = self._open(path)

    def _make(self) -> None:
        """A new file appears complete or not at all, so an empty one is always a damaged one."""
        fresh = f"{self.path}.new-{os.getpid()}-{os.urandom(4).hex()}"
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(_connect(fresh)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                self._migrate(connection)
            with contextlib.suppress(FileExistsError):
                os.link(fresh, self.path)
        finally:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(fresh + end)
        sync_folder(os.path.dirname(os.path.abspath(self.path)))

    def _open(self, path: str) -> sqlite3.Connection:
        size = os.stat(path).st_size
        if size == 0:
            raise self.corrupt("the file is empty")
        with contextlib.suppress(OSError):
            disk = os.statvfs(path)
            self.looks_only = bool(disk.f_flag & os.ST_RDONLY or (disk.f_blocks and not disk.f_bavail))
        try:
            return self._checked(_connect(path), size)
        except sqlite3.OperationalError:
            copy = self._in_memory() if self._takes_no_writes() else None
            if copy is None:
                raise
            self.looks_only = True
            return self._checked(copy, size, readonly=True)

    def _takes_no_writes(self) -> bool:
        with contextlib.suppress(OSError):
            disk = os.statvfs(os.path.dirname(self.path))
            full = disk.f_bavail * disk.f_frsize < SMALL or bool(disk.f_files and not disk.f_favail)
            return full or bool(disk.f_flag & os.ST_RDONLY)
        return False

    def _in_memory(self) -> sqlite3.Connection | None:
        """All that is written, the log beside the file included; None when there is no room for it anywhere."""
        import shutil
        import tempfile

        from homeport.doors.twin import roomy

        try:
            with tempfile.TemporaryDirectory(prefix="homeport-", dir=roomy()) as folder:
                beside = os.path.join(folder, "copy.db")
                for end in ("", "-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(self.path + end, beside + end)
                with contextlib.closing(_connect(beside)) as copy:
                    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    copy.backup(memory)
            memory.execute("PRAGMA query_only = ON")
        except (OSError, sqlite3.Error):
            return None
        return memory

    def _checked(self, connection: sqlite3.Connection, size: int, *, readonly: bool = False) -> sqlite3.Connection:
        path = self.path
        try:
            if size <= SMALL:
                said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if said != "ok":
                    raise self.corrupt(str(said))
            missing = self._missing(connection)
            if missing and readonly:
                raise StateFault("the database is of an older version, and its disk takes no writes", where=path,
                                 next=f"df -h {os.path.dirname(path)}", code="older")  # fmt: skip
            if missing:
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _missing(self, connection: sqlite3.Connection) -> bool:
        """Whether migrations are to be carried out. Raises StateFault for a newer or foreign database."""
        try:
            done = {int(row[0]) for row in connection.execute("SELECT number FROM schema_migrations")}
        except sqlite3.OperationalError as fault:
            if "no such table" not in str(fault):
                raise
            done = set()
        if not done:
            raise self.corrupt("it is not a database of homeport")
        known = {number for number, _, _ in migrations()}
        if done - known:
            raise StateFault(
                f"the database was written by a newer homeport (migration {max(done)}, this one knows {max(known)})",
                where=self.path, next="install the newer homeport again, or restore a backup from before it", code="newer",
            )  # fmt: skip
        return bool(known - done)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        for number, name, sql in migrations():
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(_RECORD)
                if connection.execute("SELECT 1 FROM schema_migrations WHERE number = ?", (number,)).fetchone() is None:
                    for statement in _statements(sql):
                        connection.execute(statement)
                    connection.execute("INSERT INTO schema_migrations VALUES (?, ?, ?)", (number, name, self._clock.now()))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Every row of a query."""
        with self._guard, self.told():
            return self._open_connection().execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    @contextlib.contextmanager
    def writing(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; inside another one of the same thread it is part of that one.

        When not `lasting` a power cut may take it back, and only then: the next lasting one keeps it too.
        """
        with self._guard, self.told():
            connection = self._open_connection()
            if connection.in_transaction:
                yield connection
                return
            if not lasting:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if not lasting:
                    connection.execute("PRAGMA synchronous = FULL")

    def write(self, sql: str, *values: Any, lasting: bool = True) -> int:
        """One statement in its transaction; how many rows it changed."""
        with self.writing(lasting=lasting) as connection:
            return connection.execute(sql, values).rowcount

    def backup(self, path: str) -> None:
        """A complete copy while others write; it appears whole or not at all, and overwrites nothing.

        Raises StateFault (code `exists`) when there is something at `path`.
        """
        part = f"{path}.part-{os.getpid()}-{os.urandom(4).hex()}"
        with self._guard, self.told():
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            try:
                copy = _connect(part)
                with contextlib.closing(copy):
                    self._open_connection().backup(copy)
                    copy.execute("PRAGMA journal_mode = DELETE")
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
                os.link(part, path)
            except FileExistsError as fault:
                raise StateFault("there is a file of that name already", where=path, next="homeport db backup OTHER",
                                 code="exists") from fault  # fmt: skip
            finally:
                for end in ("", "-wal", "-shm", "-journal"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(part + end)
            sync_folder(os.path.dirname(os.path.abspath(path)))

    def close(self) -> None:
        """May be called twice."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def corrupt(self, why: str) -> StateFault:
        why = why.removeprefix("*** in database main ***").strip()
        aside = os.path.join(os.path.dirname(self.path), "damaged")
        return StateFault(
            f"the state database is damaged: {why}", where=self.path, code="corrupt",
            next=f"mkdir {aside} && mv {self.path}* {aside}/, put a copy made by `homeport db backup` in its place, then: "
                 "homeport plan (without a copy history and blocks are lost; live files are met anew)",
        )  # fmt: skip

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except HomeportError:
            raise
        except (sqlite3.OperationalError, OSError) as fault:
            why, next = self._why_not(fault)
            raise InfrastructureFault(f"the state database cannot be used: {why}", where=self.path, next=next,
                                      code="database") from fault  # fmt: skip
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.NotSupportedError):
            raise
        except sqlite3.DatabaseError as fault:
            raise self.corrupt(str(fault)) from fault

    def _why_not(self, fault: Exception) -> tuple[str, str]:
        """(why, next command): SQLite says `disk I/O error` for a full disk too."""
        folder = os.path.dirname(self.path)
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            if disk.f_flag & os.ST_RDONLY:
                return "it lies on a read-only file system", f"findmnt -T {folder}"
            if disk.f_bavail * disk.f_frsize < SMALL or (disk.f_files and not disk.f_favail):
                return f"its disk is full ({fault})", f"df -h {folder}; df -i {folder}"
            if not os.access(folder, os.W_OK | os.X_OK) or not os.access(self.path, os.R_OK | os.W_OK):
                return "this user may not write it", f"ls -la {folder}"
        return str(fault), f"ls -la {folder}; df -h {folder}"

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise InfrastructureFault("the database is closed", where=self.path, next="homeport doctor", code="database")
        return self._connection


def _connect(path: str) -> sqlite3.Connection:
    plain = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(
        f"file:{plain}?mode=rw", uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _statements(sql: str) -> Iterator[str]:
    text = ""
    for line in sql.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            yield text
            text = ""
    if any(line and not line.startswith("--") for line in text.split("\n")):
        yield text
