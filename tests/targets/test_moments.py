"""What happens between the look and the change, in the middle of it, and after a crash: nothing is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from homeport.model.errors import InfrastructureFault
from tests.targets.conftest import Host, executable, git, link, refused


class Crash(BaseException):
    """The process is gone; nothing may catch it."""


def right_before_the_first_change(host: Host, act: Callable[[], object]) -> None:
    """Runs `act` when everything is staged and nothing live has changed yet: the last moment."""
    begin = host.store.begin_sync

    def begin_and_act(*args: Any) -> None:
        begin(*args)
        act()

    host.store.begin_sync = begin_and_act  # type: ignore[method-assign]


def while_bytes_are_saved(host: Host, act: Callable[[], object]) -> None:
    save = host.box.save

    def act_and_save(*args: Any) -> Any:
        act()
        return save(*args)

    host.box.save = act_and_save  # type: ignore[method-assign]


def crash() -> None:
    raise Crash


def start_again(host: Host) -> None:
    """Another process takes over."""
    host.store.close()
    host.store, host.box, host.targets = host.side(host.environment)


def settle(host: Host) -> dict[str, bytes]:
    host.targets.settle(host.target)
    return host.rescued()


def test_an_edit_in_the_last_moment_is_saved_and_named(host: Host) -> None:
    host.put({"a.txt": "one", "gone.txt": "x", "b.txt": "y"})
    sha = host.commit({"a.txt": "two", "gone.txt": None, "new.txt": "new"})

    def edit() -> None:
        host.write("a.txt", "by hand")
        host.write("gone.txt", "by hand too")
        host.write("new.txt", "and this")

    right_before_the_first_change(host, edit)
    result = host.deploy(sha)
    assert set(result.surprised) == {"a.txt", "gone.txt", "new.txt"}
    assert len(result.rescued) == 3
    assert host.rescued() == {"a.txt": b"by hand", "gone.txt": b"by hand too", "new.txt": b"and this"}
    assert host.files() == {"a.txt": "two", "new.txt": "new", "b.txt": "y"}
    assert host.states() == {}


def test_an_edit_of_the_last_moment_that_only_changes_the_mode_is_saved(host: Host) -> None:
    host.put({"run": "one"})
    sha = host.commit({"run": "two"})
    right_before_the_first_change(host, lambda: (host.live / "run").chmod(0o755))
    assert host.deploy(sha).surprised == ("run",)
    assert [(r.mode, host.box.read(r)) for r in host.box.listing()] == [("100755", b"one")]


def test_an_edit_of_an_untouched_file_is_drift_the_next_time(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    sha = host.commit({"a.txt": "two"})
    right_before_the_first_change(host, lambda: host.write("b.txt", "by hand"))
    host.deploy(sha)
    assert host.states() == {"b.txt": "modified"}


def test_an_edit_right_after_the_exchange_is_not_taken_for_what_was_put_there(host: Host) -> None:
    host.put({"a.txt": "one", "z.txt": "x"})
    sha = host.commit({"a.txt": "two", "z.txt": "y"})
    plan = host.plan(sha)
    host.write("z.txt", "by hand")
    while_bytes_are_saved(host, lambda: host.write("a.txt", "2nd"))
    host.carry_out(plan, sha)
    assert host.states() == {"a.txt": "modified"}


def test_a_file_deleted_in_the_last_moment_is_written_all_the_same(host: Host) -> None:
    host.put({"a.txt": "one", "gone.txt": "x"})
    sha = host.commit({"a.txt": "two", "gone.txt": None})

    def delete() -> None:
        (host.live / "a.txt").unlink()
        (host.live / "gone.txt").unlink()

    right_before_the_first_change(host, delete)
    assert host.deploy(sha).surprised == ("a.txt",)
    assert host.files() == {"a.txt": "two"}


@pytest.mark.parametrize("wanted", ["two", None])
def test_a_folder_that_came_into_the_way_stays_whole(host: Host, wanted: str | None) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    sha = host.commit({"a.txt": wanted})

    def replace() -> None:
        (host.live / "a.txt").unlink()
        host.write("a.txt/precious", "by hand")

    right_before_the_first_change(host, replace)
    refused("conflict", lambda: host.deploy(sha))
    assert host.read("a.txt/precious") == "by hand"


@pytest.mark.parametrize("wanted", ["two", None])
def test_a_folder_that_a_crash_left_beside_comes_back(host: Host, wanted: str | None) -> None:
    """It came into the way in the last moment, was taken out by the exchange, and then the power went."""
    host.put({"a.txt": "one", "b.txt": "x"})
    sha = host.commit({"a.txt": wanted})
    right_before_the_first_change(host, crash)
    with pytest.raises(Crash):
        host.deploy(sha)
    start_again(host)
    stage = host.live.parent / ".homeport-api/stage/d-2"
    staged = stage / "0"
    (host.live / "a.txt").unlink()
    if wanted is not None:
        os.rename(staged, host.live / "a.txt")
    staged.mkdir()
    (staged / "precious").write_text("by hand")
    settle(host)
    assert host.read("a.txt/precious") == "by hand"


def test_crashed_before_the_first_change_everything_is_as_it_was(host: Host) -> None:
    first = host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    right_before_the_first_change(host, crash)
    with pytest.raises(Crash):
        host.deploy(sha)
    assert host.read("a.txt") == "one"
    start_again(host)
    assert host.scan().syncing == "d-2"
    assert settle(host) == {}
    host.deploy(sha)
    assert host.read("a.txt") == "two"
    assert host.meet().commit == sha != first


def test_crashed_between_exchange_and_rescue_the_bytes_are_saved_at_the_next_start(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    sha = host.commit({"a.txt": "two", "b.txt": "y"})
    plan = host.plan(sha)
    host.write("a.txt", "by hand")
    while_bytes_are_saved(host, crash)
    with pytest.raises(Crash):
        host.carry_out(plan, sha)
    start_again(host)
    assert host.rescued() == {}
    host.meet()
    assert host.rescued() == {"a.txt": b"by hand"}
    host.deploy(sha, "keep")
    assert host.files() == {"a.txt": "two", "b.txt": "y"}
    assert host.states() == {}


def test_crashed_while_a_file_was_deleted_the_bytes_are_saved_at_the_next_start(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    sha = host.commit({"a.txt": None})
    plan = host.plan(sha)
    host.write("a.txt", "by hand")
    while_bytes_are_saved(host, crash)
    with pytest.raises(Crash):
        host.carry_out(plan, sha)
    start_again(host)
    host.meet()
    assert host.rescued() == {"a.txt": b"by hand"}


def test_crashed_after_the_first_change_it_runs_forward(host: Host) -> None:
    host.put(dict.fromkeys("abcdef", "one"))
    sha = host.commit(dict.fromkeys("abcdef", "two"))
    plan = host.plan(sha)
    host.write("d", "by hand")
    while_bytes_are_saved(host, crash)
    with pytest.raises(Crash):
        host.carry_out(plan, sha)
    start_again(host)
    assert set(host.files().values()) == {"one", "two"}
    host.deploy(sha)
    assert host.files() == dict.fromkeys("abcdef", "two")
    assert host.rescued() == {"d": b"by hand"}
    assert host.states() == {}


def test_a_crash_while_an_in_place_file_was_written_gives_back_the_old_bytes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    from homeport.doors import swap

    host.target = host.make_target(in_place=("a.ini",))
    host.put({"a.ini": "the old bytes", "b": "x"})
    inode = os.stat(host.live / "a.ini").st_ino
    sha = host.commit({"a.ini": "new"})

    def half_way(fd: int, *_: object) -> None:
        os.pwrite(fd, b"ne", 0)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(swap, "write_through", half_way)
        with pytest.raises(Crash):
            host.deploy(sha)
    assert host.read("a.ini") == "nee old bytes"
    start_again(host)
    host.meet()
    assert host.read("a.ini") == "the old bytes"
    assert os.stat(host.live / "a.ini").st_ino == inode
    host.deploy(sha)
    assert host.read("a.ini") == "new"


def test_a_disk_full_while_staging_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InfrastructureFault):
            host.deploy(sha)
    assert host.read("a.txt") == "one"
    host.deploy(sha)
    assert host.read("a.txt") == "two"


def test_when_the_bytes_cannot_be_saved_they_are_not_thrown_away(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    plan = host.plan(sha)
    host.write("a.txt", "by hand")

    def no_room(*_: object) -> None:
        raise InfrastructureFault("no space left on device", where="/", next="df -h", code="disk")

    save, host.box.save = host.box.save, no_room  # type: ignore[method-assign, assignment]
    with pytest.raises(InfrastructureFault):
        host.carry_out(plan, sha)
    host.box.save = save  # type: ignore[method-assign]
    host.targets.settle(host.target)
    assert host.rescued() == {"a.txt": b"by hand"}


def test_a_blob_that_went_bad_in_the_mirror_is_never_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    read_many = host.mirror.read_many
    monkeypatch.setattr(host.mirror, "read_many", lambda oids: dict.fromkeys(read_many(oids), b"rotten"))
    with pytest.raises(InfrastructureFault):
        host.deploy(sha)
    assert host.read("a.txt") == "one"


def test_discard_saves_first_and_restore_brings_back(host: Host) -> None:
    host.put({"a.txt": "one", "run": executable("x"), "to": link("a.txt"), "gone.txt": "y"})
    host.write("a.txt", "by hand")
    (host.live / "run").chmod(0o644)
    (host.live / "to").unlink()
    (host.live / "to").symlink_to("elsewhere")
    (host.live / "gone.txt").unlink()
    host.targets.discard(host.target, list(host.drift().values()), None)
    assert host.states() == {}
    assert host.files() == {"a.txt": "one", "run": "x", "to": "-> a.txt", "gone.txt": "y"}
    saved = {r.path: r for r in host.box.listing()}
    assert {p: host.box.read(r) for p, r in saved.items()} == {"a.txt": b"by hand", "run": b"x", "to": b"elsewhere"}
    for path in ("a.txt", "to", "run"):
        host.targets.restore(host.target, saved[path])
    assert host.files() == {"a.txt": "by hand", "run": "x", "to": "-> elsewhere", "gone.txt": "y"}
    assert host.mode("run") == 0o644


def test_discarding_an_added_file_deletes_it_and_keeps_its_bytes(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("deep/new.txt", "by hand")
    host.targets.discard(host.target, list(host.drift().values()), None)
    assert host.files() == {"a.txt": "one"}
    assert host.rescued() == {"deep/new.txt": b"by hand"}


def test_record_takes_what_is_there_and_touches_nothing(host: Host) -> None:
    sha = host.put({"a.txt": "one", "b.txt": "x", "c.txt": "y"})
    host.write("a.txt", "by hand")
    (host.live / "b.txt").unlink()
    host.write("c.txt", "not named")
    host.targets.take(host.target, host.scan().recorded_tree, sha, ["a.txt", "b.txt"])
    assert host.states() == {"c.txt": "modified"}
    assert host.files() == {"a.txt": "by hand", "c.txt": "not named"}


def test_a_crash_while_recording_never_leaves_an_index_that_says_more_than_the_record(host: Host) -> None:
    sha = host.put({"a.txt": "one", "b.txt": "x"})
    host.write("a.txt", "by hand")
    tree = host.scan().recorded_tree
    host.store.end_sync = lambda _: crash()  # type: ignore[method-assign]
    with pytest.raises(Crash):
        host.targets.take(host.target, tree, sha, ["a.txt"])
    start_again(host)
    assert host.states() == {"a.txt": "modified"}


def test_a_crash_while_meeting_anew_never_leaves_an_index_that_says_more_than_the_record(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    host.put({"a.txt": "two"})
    host.write("a.txt", "one")
    host.store.end_sync = lambda _: crash()  # type: ignore[method-assign]
    with pytest.raises(Crash):
        host.targets.meet_anew(host.target, "main")
    start_again(host)
    assert host.states() == {"a.txt": "modified"}


def test_what_is_live_becomes_a_commit_of_its_own(host: Host) -> None:
    sha = host.put({"a.txt": "one", "run": executable("x"), "b.txt": "y", ".env.example": "A="})
    host.write("a.txt", "by hand")
    (host.live / "b.txt").unlink()
    host.write("new name.txt", "mine")
    host.write(".env", "SECRET=1")
    made = host.targets.snapshot(host.target, host.scan(), sha)
    git(host.mirror.path, "fsck", "--strict")
    assert git(host.mirror.path, "rev-parse", f"{made}^") == sha
    listed = git(host.mirror.path, "diff-tree", "-r", "--name-status", "--no-renames", sha, made).splitlines()
    assert listed == ["M\tapi/a.txt", "D\tapi/b.txt", "A\tapi/new name.txt"]
    assert host.mirror.file_at(made, "api/a.txt") == b"by hand"
    assert host.files()["a.txt"] == "by hand"


def test_what_is_recorded_later_is_recorded_by_the_time_it_is_asked_for(host: Host) -> None:
    host.put({"a.txt": "one", "gone.txt": "x"})
    sha = host.commit({"a.txt": "two", "gone.txt": None})
    plan, go_on, began = host.plan(sha), threading.Event(), threading.Event()
    noting = host.targets._note

    def patiently(*args: Any) -> None:
        began.set()
        assert go_on.wait(20)
        noting(*args)

    host.targets._note = patiently  # type: ignore[method-assign]
    host.targets.sync(host.target, plan, "d-2", sha, later=True)
    assert began.wait(20)
    assert host.files() == {"a.txt": "two"}
    record = host.store.target("api")
    assert record is not None
    assert record.syncing == ("d-2", plan.from_tree, plan.to_tree)
    host.write("a.txt", "by hand")
    go_on.set()
    assert host.states() == {"a.txt": "modified"}
    host.targets.noted()
    record = host.store.target("api")
    assert record is not None
    assert (record.tree, record.commit, record.syncing) == (plan.to_tree, sha, None)


@pytest.mark.parametrize("how", ["it failed", "the process died"])
def test_what_could_not_be_recorded_later_is_told_and_found_as_after_a_crash(host: Host, how: str) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    plan = host.plan(sha)

    def fails(*args: Any) -> None:
        del args
        raise InfrastructureFault("no room") if how == "it failed" else SystemExit

    host.targets._note = fails  # type: ignore[method-assign]
    host.targets.sync(host.target, plan, "d-2", sha, later=True)
    if how == "it failed":
        with pytest.raises(InfrastructureFault, match="no room"):
            host.targets.noted()
        host.targets.noted()
    start_again(host)
    host.write("a.txt", "by hand")
    host.meet()
    assert host.scan().syncing == "d-2"
    refused("conflict", lambda: host.deploy(sha))
    host.write("a.txt", "two")
    host.deploy(sha)
    assert (host.files(), host.states()) == ({"a.txt": "two"}, {})
    assert host.scan().syncing is None
    host.mirror.close()  # the fault that was raised beside holds on to all of this
