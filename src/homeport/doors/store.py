"""What homeport knows of one environment, in SQLite: the queue, the deploys, the records."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from homeport.doors.database import Database
from homeport.doors.encoding import encodable, encode
from homeport.model.deploys import (
    EXIT_CODES,
    Block,
    Deploy,
    Hold,
    Request,
    ServiceRecord,
    Stamp,
    Status,
    TargetRecord,
)
from homeport.model.edits import Edit
from homeport.model.errors import Busy, Refused, StateFault
from homeport.model.live import Rescue
from homeport.model.ports import Clock
from homeport.model.rules import Actor, Audited

T = TypeVar("T")
NOBODY = Actor(name="homeport")
_BODIES: tuple[tuple[str, type], ...] = (
    ("deploys", Deploy), ("services", ServiceRecord), ("targets", TargetRecord), ("rescues", Rescue),
    ("blocks", Block), ("holds", Hold), ("edits", Edit),
)  # fmt: skip


class SqliteStore:
    """Satisfies `Store`; threads may share it.

    Raises StateFault (codes `corrupt`, `newer`, `older`) and InfrastructureFault (`database`).
    """

    def __init__(self, path: str, clock: Clock, *, actor: Actor = NOBODY,
                 redact: Callable[[str], str] = str) -> None:  # fmt: skip
        self._clock, self._actor, self._redact = clock, actor, redact
        self._db = Database(path, clock)

    @property
    def database(self) -> Database:
        """For records that have a file of their own beside this one."""
        return self._db

    @property
    def looks_only(self) -> bool:
        return self._db.looks_only

    def meta(self, key: str) -> str | None:
        row = self._db.one("SELECT value FROM meta WHERE key = ?", key)
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        self._db.write("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, encodable(value))

    def untold(self) -> str:
        """As `Store.untold`."""
        return self.meta("untold") or ""

    def told(self) -> None:
        self._db.write("DELETE FROM meta WHERE key = 'untold'", lasting=False)

    # The queue: at most one runs, at most one waits.

    def enqueue(self, request: Request) -> tuple[str, bool]:
        """As `Store.enqueue`. One that runs is joined unless it is being cancelled."""
        key = encode(request.key).decode()
        with self._db.writing() as connection:
            again = self._asked_before(request, key)
            if again is not None:
                return again, True
            live = connection.execute(
                "SELECT id, state, request, cancel_by, body FROM deploys WHERE state IN ('waiting', 'running') "
                "ORDER BY state = 'running'"
            ).fetchall()
            for found, _, asked, cancel_by, _ in live:
                if asked == key and cancel_by is None:
                    self._note_asked(str(found), request, key, self._clock.now())
                    return str(found), True
            fresh = self._new_id(connection)
            for _, state, _, _, body in live:
                if state == "waiting":
                    self._end_waiting(self._read(body, Deploy), "superseded", f"superseded by {fresh}")
            deploy = Deploy(id=fresh, kind=request.kind, request=request, state="waiting", sha=request.sha,
                            attempts=0, requested_by=request.requested_by)  # fmt: skip
            connection.execute(
                "INSERT INTO deploys (id, request, state, sha, asked_at, body) VALUES (?, ?, 'waiting', ?, ?, ?)",
                (fresh, key, request.sha, now := self._clock.now(), encode(deploy).decode()),
            )
            self._note_asked(fresh, request, key, now)
            return fresh, False

    def _asked_before(self, request: Request, key: str) -> str | None:
        """The deploy that this caller's own request id stands for. Raises Refused when it stood for something else."""
        if request.request_id is None:
            return None
        row = self._db.one("SELECT deploy, request FROM asked WHERE who = ? AND request_id = ?",
                           encodable(request.requested_by), encodable(request.request_id))  # fmt: skip
        if row is not None and row[1] != key:
            raise Refused("this request id was used for something else", where=request.request_id, code="request-id",
                          next=f"another request id, or: homeport show {row[0]}")  # fmt: skip
        return str(row[0]) if row is not None else None

    def _note_asked(self, deploy: str, request: Request, key: str, at: str) -> None:
        own = None if request.request_id is None else encodable(request.request_id)
        self._db.write("INSERT INTO asked (deploy, who, request_id, request, at) VALUES (?, ?, ?, ?, ?)",
                       deploy, encodable(request.requested_by), own, key, at)  # fmt: skip

    def callers(self, deploy: str) -> list[str]:
        """As `Store.callers`."""
        return [who for (who,) in self._db.rows("SELECT DISTINCT who FROM asked WHERE deploy = ? ORDER BY number", deploy)]

    def asked_as(self, request_id: str) -> list[Deploy]:
        """As `Store.asked_as`."""
        return self._all(Deploy, "SELECT DISTINCT d.id, d.body FROM asked a JOIN deploys d ON d.id = a.deploy "
                         "WHERE a.request_id = ? ORDER BY d.id DESC", encodable(request_id), column=1)  # fmt: skip

    def outcomes(self) -> dict[str, int]:
        """As `Store.outcomes`."""
        return dict(self._db.rows("SELECT status, count(*) FROM deploys WHERE state = 'done' GROUP BY status"))

    def remember_delivery(self, id: str, event: str, said: str) -> bool:
        """As `Store.remember_delivery`. The last 10,000 are kept."""
        with self._db.writing() as connection:
            fresh = self._db.write("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)",
                                   encodable(id), encodable(event), encodable(said), self._clock.now()) > 0  # fmt: skip
            if fresh:
                connection.execute("DELETE FROM deliveries WHERE at < (SELECT at FROM deliveries ORDER BY at DESC "
                                   "LIMIT 1 OFFSET 10000)")  # fmt: skip
            return fresh

    def _new_id(self, connection: sqlite3.Connection) -> str:
        """UTC time and chance; never before one that is there already, so ids sort as they were asked for,
        also when the clock was put back."""
        stamp = self._clock.now()[:19].replace("-", "").replace(":", "").lower()
        (last,) = connection.execute("SELECT max(id) FROM deploys").fetchone()
        if last is None or last[:15] < stamp:
            return f"{stamp}-{os.urandom(2).hex()}"
        # the same second, or a clock that was set back: count on from the last one, second after second
        if last[16:20] < "ffff":
            return f"{last[:15]}-{int(last[16:20], 16) + 1:04x}"
        later = datetime.strptime(last[:15], "%Y%m%dt%H%M%S") + timedelta(seconds=1)  # ids are UTC
        return f"{later.strftime('%Y%m%dt%H%M%S')}-0000"

    def _end_waiting(self, deploy: Deploy, status: Status, because: str) -> None:
        ended = replace(
            deploy, state="done", status=status, exit_code=EXIT_CODES[status], ended_at=self._clock.now(),
            duration_ms=0, error_summary=because, error_code=status, next=None,
        )  # fmt: skip
        self._save(ended)
        self._audit_end(ended)

    def waiting(self) -> Deploy | None:
        return self._deploy_where("state = 'waiting'")

    def asked_at(self, deploy: str) -> str | None:
        row = self._db.one("SELECT asked_at FROM deploys WHERE id = ?", deploy)
        return row[0] if row else None

    def begin(self, deploy: str, pid: int) -> Deploy:
        """As `Store.begin`. Raises Busy when another one runs, StateFault when it has ended or is unknown."""
        with self._db.writing() as connection:
            row = connection.execute("SELECT body FROM deploys WHERE id = ?", (deploy,)).fetchone()
            found = self._read(row[0], Deploy) if row else None
            if found is None or found.state == "done":
                raise StateFault("this deploy has ended" if found else "there is no such deploy", where=deploy,
                                 next="homeport history", code="ended")  # fmt: skip
            begun = replace(found, state="running", pid=pid, attempts=found.attempts + 1,
                            started_at=found.started_at or self._clock.now())  # fmt: skip
            try:
                self._save(begun)
            except sqlite3.IntegrityError as fault:
                raise Busy("another deploy runs", where=deploy, next="homeport status", code="busy") from fault
            return begun

    def running(self) -> Deploy | None:
        return self._deploy_where("state = 'running'")

    def update(self, deploy: Deploy, *, lasting: bool = True) -> None:
        """Saves the row as it is given."""
        self._save(deploy, lasting=lasting)

    def finish(self, deploy: Deploy, stamp: Stamp | None = None, block: Block | None = None,
               hold: Hold | None = None) -> None:  # fmt: skip
        """As `Store.finish`."""
        with self._db.writing():
            self._save(replace(deploy, state="done", ended_at=deploy.ended_at or self._clock.now()))
            self.set_meta("untold", deploy.id)
            self._audit_end(deploy)
            for record in stamp.services if stamp else ():
                self.save_service(record)
            if block is not None:
                self.block(block)
                self.audit(block.by, "block", f"{block.sha} {block.because}")
            if hold is not None:
                self.hold(hold)
                self.audit(hold.by, "hold", f"until {hold.until}: {hold.because}")

    def _audit_end(self, deploy: Deploy) -> None:
        told = f"{deploy.id} {(deploy.sha or '')[:12]} {' '.join(deploy.services)}".rstrip()
        why = f": {deploy.error_summary}" if deploy.error_summary else ""
        self.audit(deploy.requested_by, deploy.kind, told + why, outcome=deploy.status or "failed",
                   actor=deploy.request.actor, origin=deploy.request.origin)  # fmt: skip

    def _save(self, deploy: Deploy, *, lasting: bool = True) -> None:
        if deploy.error_summary:
            deploy = replace(deploy, error_summary=self._redact(deploy.error_summary))
        changed = self._db.write(
            "UPDATE deploys SET state = ?, status = ?, sha = ?, pid = ?, body = ? WHERE id = ?",
            deploy.state, deploy.status, deploy.sha, deploy.pid, encode(deploy).decode(), deploy.id, lasting=lasting,
        )  # fmt: skip
        if not changed:
            raise StateFault("there is no such deploy", where=deploy.id, next="homeport db check", code="no-deploy")

    def stage(self, deploy: str, stage: str, state: str, detail: str = "") -> None:
        self._db.write("INSERT INTO stages (deploy, stage, state, detail, at) VALUES (?, ?, ?, ?, ?)",
                       deploy, stage, state, encodable(self._redact(detail)), self._clock.now(), lasting=False)  # fmt: skip

    def stages(self, deploy: str) -> list[tuple[str, str, str]]:
        return [(s, t, at) for s, t, at in
                self._db.rows("SELECT stage, state, at FROM stages WHERE deploy = ? ORDER BY number", deploy)]  # fmt: skip

    def deploy(self, id: str) -> Deploy | None:
        """As `Store.deploy`; None too when several begin so."""
        id = encodable(id)
        rows = self._db.rows("SELECT id, body FROM deploys WHERE substr(id, 1, ?) = ? ORDER BY id LIMIT 2", len(id), id)
        if rows and (rows[0][0] == id or (id and len(rows) == 1)):
            return self._read(rows[0][1], Deploy)
        return None

    def history(self, limit: int = 20) -> list[Deploy]:
        """Newest first; what waits is not history yet."""
        return self._all(Deploy, "SELECT body FROM deploys WHERE state <> 'waiting' ORDER BY id DESC LIMIT ?", limit)

    def ask_cancel(self, deploy: str, by: str) -> bool:
        """False when it has ended already. One that waits ends at once; who asked first stays on record."""
        with self._db.writing() as connection:
            row = connection.execute("SELECT body FROM deploys WHERE id = ? AND state <> 'done'", (deploy,)).fetchone()
            if row is None:
                return False
            connection.execute("UPDATE deploys SET cancel_by = coalesce(cancel_by, ?) WHERE id = ?",
                               (encodable(by), deploy))  # fmt: skip
            found = self._read(row[0], Deploy)
            if found.state == "waiting":
                self._end_waiting(found, "cancelled", f"cancelled by {by}")
            return True

    def cancel_asked(self, deploy: str) -> str | None:
        row = self._db.one("SELECT cancel_by FROM deploys WHERE id = ?", deploy)
        return row[0] if row else None

    # What is there.

    def services(self) -> dict[str, ServiceRecord]:
        return {r.service: r for r in self._all(ServiceRecord, "SELECT body FROM services ORDER BY name")}

    def save_service(self, record: ServiceRecord) -> None:
        self._db.write("INSERT OR REPLACE INTO services VALUES (?, ?, ?)",
                       record.service, record.sha, encode(record).decode())  # fmt: skip

    def target(self, name: str) -> TargetRecord | None:
        return next((record for record in self.targets() if record.name == name), None)

    def targets(self) -> list[TargetRecord]:
        rows = self._db.rows(
            "SELECT t.body, s.deploy, s.from_tree, s.to_tree FROM targets t "
            "LEFT JOIN syncing s ON s.target = t.name ORDER BY t.name"
        )
        return [replace(self._read(body, TargetRecord), syncing=(deploy, old, new) if deploy else None)
                for body, deploy, old, new in rows]  # fmt: skip

    def save_target(self, record: TargetRecord) -> None:
        """Saves the record; a sync that began stays begun."""
        self._db.write("INSERT OR REPLACE INTO targets VALUES (?, ?, ?)",
                       record.name, record.tree, encode(replace(record, syncing=None)).decode())  # fmt: skip

    def begin_sync(self, target: str, deploy: str, from_tree: str, to_tree: str) -> None:
        self._db.write("INSERT OR REPLACE INTO syncing VALUES (?, ?, ?, ?, ?)",
                       target, deploy, from_tree, to_tree, self._clock.now())  # fmt: skip

    def end_sync(self, record: TargetRecord) -> None:
        with self._db.writing() as connection:
            self.save_target(record)
            connection.execute("DELETE FROM syncing WHERE target = ?", (record.name,))

    def add_rescue(self, rescue: Rescue) -> None:
        """Saving the same one again changes nothing."""
        self._db.write("INSERT OR IGNORE INTO rescues VALUES (?, ?, ?)", rescue.id, rescue.at, encode(rescue).decode())

    def rescues(self) -> list[Rescue]:
        """Newest first."""
        return self._all(Rescue, "SELECT body FROM rescues ORDER BY at DESC, id DESC")

    # What stops a deploy.

    def blocks(self) -> list[Block]:
        """Newest first."""
        return self._all(Block, "SELECT body FROM blocks ORDER BY at DESC, sha")

    def block(self, block: Block) -> None:
        """The first reason stays."""
        block = replace(block, because=self._redact(block.because))
        self._db.write("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?)", block.sha, block.at, encode(block).decode())

    def unblock(self, sha: str) -> bool:
        """By the full id. False when it was not blocked."""
        return self._db.write("DELETE FROM blocks WHERE sha = ?", sha) > 0

    def holds(self) -> list[Hold]:
        """Those that have not run out, newest first."""
        return self._all(Hold, "SELECT body FROM holds WHERE until > ? ORDER BY number DESC", self._clock.now())

    def hold(self, hold: Hold) -> None:
        hold = replace(hold, because=self._redact(hold.because))
        self._db.write("INSERT INTO holds (until, body) VALUES (?, ?)", hold.until, encode(hold).decode())

    def release(self, *, by_hand: bool = True) -> int:
        """As `Store.release`."""
        mine = "" if by_hand else " AND json_extract(body, '$.deployId') IS NOT NULL"
        return self._db.write(f"DELETE FROM holds WHERE until > ?{mine}", self._clock.now())  # noqa: S608  # ours, above

    def cached(self, key: str) -> str | None:
        row = self._db.one("SELECT value FROM cached WHERE key = ?", key)
        return row[0] if row else None

    def cache(self, key: str, value: str) -> None:
        if self.looks_only:
            return
        self._db.write("INSERT OR REPLACE INTO cached VALUES (?, ?, ?)", key, encodable(value), self._clock.now(),
                       lasting=False)  # fmt: skip

    def audit(self, who: str, action: str, detail: str, *, outcome: str = "done", actor: str | None = None,
              origin: str | None = None) -> None:  # fmt: skip
        row = (who, actor or self._actor.kind, action, self._redact(detail),
               self._actor.origin if origin is None else origin, outcome)  # fmt: skip
        self._db.write("INSERT INTO audit (at, who, actor, action, detail, origin, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
                       self._clock.now(), *map(encodable, row))  # fmt: skip

    def audited(self, limit: int = 100) -> list[Audited]:
        rows = self._db.rows(
            "SELECT at, who, actor, action, detail, origin, outcome FROM audit ORDER BY number DESC LIMIT ?", limit
        )
        return [Audited(at=at, who=who, actor=actor, action=action, detail=detail, origin=origin, outcome=outcome)
                for at, who, actor, action, detail, origin, outcome in rows]  # fmt: skip

    def backup(self, path: str) -> None:
        """As `Database.backup`."""
        self._db.backup(path)

    def check(self) -> list[str]:
        """Everything that is wrong, a line each; empty when all is well."""
        problems = [str(row[0]) for row in self._db.rows("PRAGMA integrity_check(20)") if row[0] != "ok"]
        problems += [f"{row[0]}: row {row[1]} points to a {row[2]} row that is not there"
                     for row in self._db.rows("PRAGMA foreign_key_check")]  # fmt: skip
        for table, kind in _BODIES:
            for (body,) in self._db.rows(f"SELECT body FROM {table}"):  # noqa: S608  # names of our own, above
                try:
                    self._read(body, kind)
                except StateFault as fault:
                    problems.append(f"{table}: {fault.what}")
        return problems

    def close(self) -> None:
        self._db.close()

    def _deploy_where(self, condition: str) -> Deploy | None:
        row = self._db.one(f"SELECT body FROM deploys WHERE {condition}")  # noqa: S608  # conditions of our own
        return self._read(row[0], Deploy) if row else None

    def _all(self, kind: type[T], sql: str, *values: object, column: int = 0) -> list[T]:
        return [self._read(row[column], kind) for row in self._db.rows(sql, *values)]

    def _read(self, body: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeError) as fault:
            raise self._db.corrupt(f"a {kind.__name__} record cannot be read: {fault}") from fault
