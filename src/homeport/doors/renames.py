"""A service that has another name since: what is known of its live folder, and its edits, stay with the folder."""

from __future__ import annotations

import os
from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from homeport.doors.claims import Claim, read_claim, write_claim
from homeport.doors.database import Database
from homeport.doors.encoding import encodable, encode
from homeport.doors.git import Mirror
from homeport.doors.look import open_root
from homeport.doors.targetbook import TargetBook
from homeport.model.deploys import ServiceRecord, TargetRecord
from homeport.model.edits import Edit
from homeport.model.live import Target
from homeport.model.ports import Store


class Renames:
    """Moves the records of one environment. Whoever dies in between is followed by a run that goes on."""

    def __init__(self, book: TargetBook, git: Mirror, store: Store, database: Database) -> None:
        self._book, self._git, self._store, self._db = book, git, store, database

    def take_over(self, target: Target, configured: Collection[str]) -> str | None:
        """The old name, when this folder was claimed by a service of ours that is not configured any more."""
        root = open_root(target.path)
        if root is None:
            return None
        try:
            there = read_claim(root)
            if there is None or there.service == target.name or there.service in configured:
                return None
            if there.service.startswith("_") or not self._same_but_name(there, target):
                return None
            record = self._store.target(there.service)
            if record is not None and record.path == target.path and record.syncing is None:
                self._move(record, target)
            known = self._store.target(target.name)
            if known is None or known.path != target.path:
                return None
            write_claim(root, target.path, self._book.claim(target))
            return there.service
        finally:
            os.close(root)

    def _same_but_name(self, there: Claim, target: Target) -> bool:
        return replace(there, service=target.name) == self._book.claim(target)

    def _move(self, record: TargetRecord, target: Target) -> None:
        old, new = record.name, target.name
        was = replace(target, name=old)
        self._git.keep(self._book.ref(target, "tree"), record.tree)
        if record.commit is not None:
            self._git.keep(self._book.ref(target, "commit"), record.commit)
        with self._book.index(was).hold(), self._book.index(target).hold():
            if os.path.exists(self._book.index(was).path):
                os.replace(self._book.index(was).path, self._book.index(target).path)
            with self._db.writing() as connection:
                connection.execute("DELETE FROM targets WHERE name IN (?, ?)", (old, new))
                moved = encode(replace(record, name=new)).decode()
                connection.execute("INSERT INTO targets (name, tree, body) VALUES (?, ?, ?)", (new, record.tree, moved))
                self._move_service(old, new)
                rows = connection.execute("SELECT id, body FROM edits WHERE target = ?", (encodable(old),)).fetchall()
                for id, body in rows:
                    edit = replace(msgspec.json.decode(body, type=Edit), target=new, service=new)
                    connection.execute("UPDATE edits SET target = ?, body = ? WHERE id = ?",
                                       (encodable(new), encode(edit).decode(), id))  # fmt: skip
        for what in ("tree", "commit", "next"):
            self._git.keep(self._book.ref(was, what), None)

    def _move_service(self, old: str, new: str) -> None:
        known = self._store.services()
        if old not in known:
            return
        mine: ServiceRecord = replace(known[old], service=new)
        self._db.write("DELETE FROM services WHERE name = ?", old)
        if new not in known:
            self._store.save_service(mine)
