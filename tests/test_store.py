"""The store: one running, one waiting, whoever asks; a database that cannot be trusted is not opened."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from homeport.doors.clock import SystemClock
from homeport.doors.store import SqliteStore
from homeport.doors.twin import roomy
from homeport.model.deploys import Block, Hold, Request, ServiceRecord, Stamp, TargetRecord
from homeport.model.errors import Busy, InfrastructureFault, StateFault
from homeport.model.live import Rescue

SHA = "a" * 40


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "homeport.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, SystemClock())
    yield opened
    opened.close()


def commit(**more: Any) -> Request:
    return Request(kind="commit", **more)


def ask_in_process(path: str, ref: str | None, out: Any) -> None:
    store = SqliteStore(path, SystemClock())
    out.put(store.enqueue(commit(ref=ref)))
    store.close()


def from_processes(path: str, refs: list[str | None]) -> list[tuple[str, bool]]:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    asking = [context.Process(target=ask_in_process, args=(path, ref, out)) for ref in refs]
    for process in asking:
        process.start()
    answers = [out.get(timeout=60) for _ in asking]
    for process in asking:
        process.join(30)
        assert process.exitcode == 0
    return answers


def test_the_file_is_private_and_durable(store: SqliteStore, path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    assert store._db.one("PRAGMA synchronous")[0] == 2
    assert not [name for name in os.listdir(os.path.dirname(path)) if ".new-" in name]


def test_twenty_threads_that_ask_for_the_same_get_one_deploy(store: SqliteStore) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: store.enqueue(commit(ref="main")), range(20)))
    assert len({id for id, _ in answers}) == 1
    assert sum(not joined for _, joined in answers) == 1


def test_processes_that_ask_at_once_make_the_database_once_and_get_one_deploy(path: str) -> None:
    answers = from_processes(path, [None] * 12)
    assert len({id for id, _ in answers}) == 1
    assert sum(not joined for _, joined in answers) == 1


def test_different_requests_from_processes_leave_one_waiting_and_every_other_superseded(path: str) -> None:
    answers = from_processes(path, [f"branch-{n}" for n in range(8)])
    store = SqliteStore(path, SystemClock())
    waiting = store.waiting()
    ended = store.history(50)
    store.close()
    assert waiting is not None
    assert waiting.id == max(id for id, _ in answers), "the newest wins"
    assert {d.id for d in ended} | {waiting.id} == {id for id, _ in answers}
    assert {(d.state, d.status, d.exit_code) for d in ended} == {("done", "superseded", 6)}


def test_an_equal_request_joins_the_running_deploy_until_a_cancel_was_asked(store: SqliteStore) -> None:
    first, _ = store.enqueue(commit(services=("api", "web")))
    store.begin(first, 1)
    assert store.enqueue(commit(services=("web", "api"))) == (first, True)
    assert store.ask_cancel(first, "ann")
    second, joined = store.enqueue(commit(services=("web", "api")))
    assert second != first
    assert not joined
    assert store.cancel_asked(first) == "ann"


def test_a_different_request_waits_behind_the_running_one_and_replaces_the_waiting_one(store: SqliteStore) -> None:
    runs, _ = store.enqueue(commit(ref="a"))
    store.begin(runs, 1)
    waits, _ = store.enqueue(commit(ref="b"))
    newest, joined = store.enqueue(commit(ref="c"))
    assert not joined
    replaced = store.deploy(waits)
    assert replaced is not None
    assert (replaced.state, replaced.status, replaced.exit_code) == ("done", "superseded", 6)
    assert replaced.error_summary == f"superseded by {newest}"
    waiting, running = store.waiting(), store.running()
    assert waiting is not None
    assert running is not None
    assert (waiting.id, waiting.state, running.id) == (newest, "waiting", runs)


def test_only_one_runs_and_a_crash_counts_the_attempt(store: SqliteStore) -> None:
    first, _ = store.enqueue(commit(ref="a"))
    begun = store.begin(first, 11)
    second, _ = store.enqueue(commit(ref="b"))
    with pytest.raises(Busy):
        store.begin(second, 12)
    again = store.begin(first, 13)
    assert (begun.attempts, again.attempts, again.pid) == (1, 2, 13)
    assert again.started_at == begun.started_at
    store.finish(replace(again, status="deployed", exit_code=0))
    assert store.begin(second, 12).id == second
    with pytest.raises(StateFault):
        store.begin(first, 14)


def test_cancelling_what_waits_ends_it_and_what_has_ended_cannot_be_cancelled(store: SqliteStore) -> None:
    id, _ = store.enqueue(commit())
    assert store.ask_cancel(id, "ann")
    ended = store.deploy(id)
    assert ended is not None
    assert (ended.state, ended.status, ended.exit_code) == ("done", "cancelled", 6)
    assert not store.ask_cancel(id, "ann")
    assert not store.ask_cancel("nothing", "ann")


class Backwards(SystemClock):
    """A clock that is put back a second at every look."""

    left = 59

    def now(self) -> str:
        self.left -= 1
        return f"2026-11-21T05:30:{self.left:02}.000Z"


def test_ids_are_sortable_even_when_the_clock_goes_back(path: str) -> None:
    store = SqliteStore(path, Backwards())
    ids = [store.enqueue(commit(ref=str(n)))[0] for n in range(15)]
    store.close()
    assert ids == sorted(ids)
    assert len(set(ids)) == 15
    assert ids[0].startswith("20261121t0530")


def test_ids_keep_their_length_however_long_the_clock_is_behind(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They grew with each deploy, until the journal's name was too long for the disk."""
    monkeypatch.setattr("os.urandom", lambda size: b"\xff" * (size - 1) + b"\xfe")
    store = SqliteStore(path, Backwards())
    ids = [store.enqueue(commit(ref=str(n)))[0] for n in range(6)]
    store.close()
    assert ids == sorted(set(ids))
    assert {len(id) for id in ids} == {20}


def test_a_deploy_is_found_by_an_unambiguous_beginning(store: SqliteStore) -> None:
    first, _ = store.enqueue(commit(ref="a"))
    found = store.deploy(first[:12])
    assert found is not None
    assert found.id == first
    second, _ = store.enqueue(commit(ref="b"))
    assert store.deploy(first[:4]) is None
    assert store.deploy("") is None
    assert store.deploy("%") is None
    assert store.deploy("\udcff") is None
    assert store.deploy(second) is not None


def test_the_final_row_comes_with_stamp_block_and_hold_or_not_at_all(store: SqliteStore) -> None:
    id, _ = store.enqueue(commit())
    begun = store.begin(id, 1)
    final = replace(begun, status="failed", exit_code=1)
    block = Block(sha=SHA, because="failed", by="homeport", at="2026-01-01T00:00:00.000Z")
    hold = Hold(because="look", by="ann", at="2026-01-01T00:00:00.000Z", until="2099-01-01T00:00:00.000Z")
    stamp = Stamp(deploy=id, services=(ServiceRecord(service="api", sha=SHA),))
    store._db.write("CREATE TRIGGER no_hold BEFORE INSERT ON holds BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        store.finish(final, stamp, block, hold)
    still = store.deploy(id)
    assert still is not None
    assert still.state == "running"
    assert (store.blocks(), store.services(), store.holds()) == ([], {}, [])
    store._db.write("DROP TRIGGER no_hold")
    store.finish(final, stamp, block, hold)
    assert (store.blocks(), store.holds()) == ([block], [hold])
    assert store.services()["api"].sha == SHA
    assert store.unblock(SHA)
    assert not store.unblock(SHA)


def test_a_sync_that_began_stays_begun_until_its_record_is_written(store: SqliteStore) -> None:
    record = TargetRecord(name="api", path="/opt/api", source="api", tree="1" * 40, commit=SHA, device=1, inode=2)
    store.save_target(record)
    store.begin_sync("api", "d1", "1" * 40, "2" * 40)
    store.save_target(replace(record, patterns="x"))
    found = store.target("api")
    assert found is not None
    assert found.syncing == ("d1", "1" * 40, "2" * 40)
    store.end_sync(replace(found, tree="2" * 40))
    assert store.targets() == [replace(record, patterns="x", tree="2" * 40)]
    assert store.target("web") is None


def test_records_come_back_as_they_went_in(store: SqliteStore, path: str) -> None:
    id, _ = store.enqueue(commit(ref="caf\udce9", requested_by="ann"))
    store.stage(id, "fetch", "start")
    store.stage(id, "fetch", "done", "bytes \udcff")
    rescue = Rescue(id="r1", service="api", path="x", mode="100644", oid="1" * 40, bytes=3, because="discarded",
                    at="2026-01-01T00:00:00.000Z")  # fmt: skip
    store.add_rescue(rescue)
    store.add_rescue(rescue)
    store.set_meta("branch", "main")
    store.cache("k", "v")
    store.audit("ann", "ask", "one")
    store.audit("bob", "ask", "two", outcome="refused", actor="agent", origin="ssh 192.0.2.7")
    store.close()
    store.close()
    again = SqliteStore(path, SystemClock())
    assert [(s, t) for s, t, _ in again.stages(id)] == [("fetch", "start"), ("fetch", "done")]
    assert again.rescues() == [rescue]
    assert (again.meta("branch"), again.meta("none"), again.cached("k"), again.cached("n")) == ("main", None, "v", None)
    bob, ann = again.audited(5)
    assert (bob.who, bob.actor, bob.action, bob.detail) == ("bob", "agent", "ask", "two")
    assert (bob.origin, bob.outcome) == ("ssh 192.0.2.7", "refused")
    assert (ann.who, ann.actor, ann.detail, ann.origin, ann.outcome) == ("ann", "person", "one", "", "done")
    assert again.check() == []
    waiting = again.waiting()
    assert waiting is not None
    assert waiting.request.ref == "caf\\udce9"
    again.close()


def overwrite_header(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"not a database at all" * 10)


def overwrite_pages(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8 * 4096))


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path: str) -> None:
    os.truncate(path, 0)


def foreign(path: str) -> None:
    os.unlink(path)
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE things (name TEXT)")
    other.close()


@pytest.mark.parametrize("damage", [overwrite_header, overwrite_pages, cut, empty, foreign])
def test_a_damaged_database_is_not_opened_and_not_changed(
    store: SqliteStore, path: str, damage: Callable[[str], None]
) -> None:
    store.enqueue(commit())
    store.close()
    damage(path)
    before = Path(path).read_bytes()
    with pytest.raises(StateFault) as told:
        SqliteStore(path, SystemClock())
    assert told.value.code == "corrupt"
    assert told.value.where == path
    assert "homeport db backup" in told.value.next
    assert Path(path).read_bytes() == before


def test_a_newer_database_is_not_opened_and_not_changed(store: SqliteStore, path: str) -> None:
    store._db.write("INSERT INTO schema_migrations VALUES (9999, '9999_later.sql', 'then')")
    store.close()
    before = Path(path).read_bytes()
    with pytest.raises(StateFault) as told:
        SqliteStore(path, SystemClock())
    assert told.value.code == "newer"
    assert Path(path).read_bytes() == before


def test_a_record_that_cannot_be_read_is_a_state_fault_and_check_names_it(store: SqliteStore) -> None:
    store.save_service(ServiceRecord(service="api"))
    store._db.write("UPDATE services SET body = '{\"service\": 3}'")
    with pytest.raises(StateFault):
        store.services()
    assert len(store.check()) == 1
    assert store.check()[0].startswith("services: ")


def test_a_backup_is_whole_private_and_overwrites_nothing(store: SqliteStore, tmp_path: Path) -> None:
    id, _ = store.enqueue(commit())
    target = tmp_path / "copies" / "one.db"
    target.parent.mkdir()
    store.backup(str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy = SqliteStore(str(target), SystemClock())
    waiting = copy.waiting()
    copy.close()
    assert waiting is not None
    assert waiting.id == id
    with pytest.raises(StateFault):
        store.backup(str(target))
    assert [p.name for p in target.parent.iterdir() if ".part-" in p.name] == []


def test_a_writer_that_does_not_let_go_is_an_infrastructure_fault(store: SqliteStore, path: str) -> None:
    store._db.rows("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InfrastructureFault) as told:
        store.set_meta("a", "b")
    other.execute("ROLLBACK")
    other.close()
    assert told.value.code == "database"
    store.set_meta("a", "b")
    assert store.meta("a") == "b"


def test_temporary_files_of_a_look_come_into_memory_when_their_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with one disk the usual place for them is as full as the state."""
    disk = os.statvfs("/")
    assert roomy() is None
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*disk[:4], 0, *disk[5:])))
    assert roomy() == "/dev/shm"
