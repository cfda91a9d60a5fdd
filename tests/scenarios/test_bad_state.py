"""A state folder that cannot be trusted is never guessed around, and nothing live pays for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.telling import SITE, deployed, disk, fault, mended, picture, remount, run
from tests.world import World, eventually

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")


@pytest.fixture
def database(world: World) -> Path:
    deployed(world)
    return world.state / "shop/production/homeport.db"


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def tear(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_but_its_log(path: Path) -> None:
    path.unlink()
    path.with_name("homeport.db-wal").write_bytes(b"x" * 5000)


@pytest.mark.parametrize("harm", [overwrite, tear, cut, empty, lose_but_its_log])
def test_a_damaged_database_stops_every_verb_and_moved_aside_the_deploy_works(
    world: World, database: Path, harm: Callable[[Path], None]
) -> None:
    eventually(lambda: not world.own_processes(), "the runner has left, which would tidy up after itself")
    harm(database)
    world.publish({"site/a.txt": "two\n"})
    before, bytes_before = picture(world.live), database.read_bytes() if database.exists() else None
    for verb in (("deploy",), ("status",), ("drift",), ("plan",), ("db", "check"), ("history",)):
        said = fault(world, *verb, code=2)
        assert "damaged" in said and str(database) in said and "homeport db backup" in said
    assert picture(world.live) == before
    assert (database.read_bytes() if database.exists() else None) == bytes_before
    assert not world.homeport("doctor", ok=(1,)).stdout.count("Traceback")
    aside = database.parent / "damaged"
    aside.mkdir()
    for file in database.parent.glob("homeport.db*"):
        file.rename(aside / file.name)
    mended(world)
    assert world.text("site/a.txt") == "two\n"


def test_a_database_of_a_newer_version_is_left_as_it_is(world: World, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO schema_migrations VALUES (999, '0999_later.sql', '2030-01-01')")
    connection.close()
    before = picture(world.live)
    for verb in ("deploy", "status", "plan"):
        assert "newer" in fault(world, verb, code=2)
    assert picture(world.live) == before
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM schema_migrations WHERE number = 999")
    connection.close()
    mended(world)


@pytest.mark.parametrize("content", [None, b"junk" * 200, b""], ids=["missing", "junk", "empty"])
def test_a_lost_index_hides_no_edit(world: World, database: Path, content: bytes | None) -> None:
    index = database.parent / "targets/site.index"
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    (world.live / "site/a.txt").write_text("by hand\n")
    said = world.json("drift", ok=(3,))
    assert [(p["path"], p["state"]) for p in said["services"][0]["paths"]] == [("a.txt", "modified")]
    assert world.deploy(ok=(3,))["status"] == "refused"
    assert world.text("site/a.txt") == "by hand\n"
    world.homeport("discard", "a.txt")
    mended(world)


def test_a_mirror_that_is_gone_is_made_again(world: World, database: Path) -> None:
    shutil.rmtree(world.state / "shop/repo.git")
    mended(world)


@pytest.mark.parametrize("harm", ["empty folder", "file", "torn HEAD"])
def test_something_else_in_the_mirrors_place_is_named(world: World, database: Path, harm: str) -> None:
    mirror = world.state / "shop/repo.git"
    if harm == "torn HEAD":
        (mirror / "HEAD").write_bytes(b"\0\0\0")
    else:
        shutil.rmtree(mirror)
        mirror.mkdir() if harm == "empty folder" else mirror.write_text("x")
    before = picture(world.live)
    for verb in ("deploy", "status", "plan"):
        said = fault(world, verb, code=2)
        assert str(mirror) in said and "mv " in said
    assert picture(world.live) == before
    mirror.rename(mirror.with_name("repo.git.old"))
    mended(world)


def test_the_state_folder_is_a_file(world: World) -> None:
    world.project(SITE, {"site/index.html": "one\n"})
    world.state.write_text("not a folder")
    for verb in ("deploy", "status"):
        said = fault(world, verb, code=2)
        assert "HOMEPORT_STATE" in said and "a file" in said
    assert world.state.read_text() == "not a folder" and not picture(world.live)
    world.state.unlink()
    mended(world)


def test_the_state_folder_cannot_be_made(world: World) -> None:
    world.project(SITE, {"site/index.html": "one\n"})
    for folder in ("/dev/null/state", "/proc/homeport-state"):
        assert folder in fault(world, "deploy", code=2, env={"HOMEPORT_STATE": folder})
    assert not picture(world.live)
    mended(world)


def test_a_live_folder_of_another_state_folder_is_not_taken_over(world: World) -> None:
    deployed(world)
    before = picture(world.live)
    said = fault(world, "deploy", code=3, env={"HOMEPORT_STATE": str(world.root / "other")})
    assert str(world.state) in said and f"HOMEPORT_STATE={world.state}" in said
    assert picture(world.live) == before
    mended(world)


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """The state folder on a disk of its own, of three megabytes."""
    with disk(world, world.state, "3m") as folder:
        yield folder


def gone(world: World) -> None:
    """A runner that has told its outcome tidies up, and would make room on a disk that was filled before."""
    eventually(lambda: not world.own_processes(), "the runner has gone")


def fill(folder: Path, leave: int) -> None:
    """Fills the disk below a folder up to `leave` bytes."""
    handle = os.open(folder / "fill", os.O_WRONLY | os.O_CREAT)
    size = 0

    def full() -> bool:
        nonlocal size
        with contextlib.suppress(OSError):
            while True:
                size += os.write(handle, b"x" * 4096)
        return os.statvfs(folder).f_bavail == 0

    try:
        eventually(full, "no block is left")  # the kernel may say so one block too early
        os.ftruncate(handle, max(0, size - leave))
    finally:
        os.close(handle)


@as_root
@pytest.mark.root
@pytest.mark.parametrize("leave", [0, 128, 400], ids=lambda kib: f"{kib}k free")
def test_a_full_disk_under_the_state_ends_the_command_and_leaves_whole_files(
    world: World, small_disk: Path, leave: int
) -> None:
    """The runner used to be started again every second, for ever, when it could not write its own record.

    With the most room the disk may fill up in the middle of the sync: then the new file may be there already.
    """
    deployed(world)
    world.publish({"site/a.txt": "two\n"})
    before = picture(world.live)
    gone(world)
    fill(small_disk, leave * 1024)
    said = run(world, "--json", "deploy", timeout=60)
    (small_disk / "fill").unlink()
    after = picture(world.live)
    if leave == 400 and after["site/a.txt"] == b"two\n":
        before["site/a.txt"] = b"two\n"
    assert {p: c for p, c in after.items() if p in before} == before
    if said.code != 0 or leave < 400:
        assert said.code == 1 and "df -h" in said.stdout, said.stdout + said.stderr
        assert "full" in said.stdout or "No space" in said.stdout, said.stdout
    assert world.json("status")["blocked"] == []
    mended(world)
    assert world.text("site/a.txt") == "two\n"


@as_root
@pytest.mark.root
@pytest.mark.parametrize("how", ["full", "full, and the database is open", "read-only"])
def test_a_state_disk_that_takes_no_writes_still_lets_look(world: World, small_disk: Path, how: str) -> None:
    """Looking used to fail with the database, when it was needed most; `diff` and `plan` with what they compare."""
    sha = deployed(world)
    with contextlib.ExitStack() as daemon:
        if "open" in how:
            opened = sqlite3.connect(world.state / "shop/production/homeport.db")
            opened.execute("SELECT count(*) FROM deploys")
            daemon.callback(opened.close)
        looks(world, small_disk, how.partition(",")[0], sha)
    world.homeport("discard", "a.txt")
    mended(world)


def looks(world: World, small_disk: Path, how: str, sha: str) -> None:
    (world.live / "site/a.txt").write_text("by hand\n")
    world.publish({"site/b.txt": "two\n"})
    before = picture(world.live)
    gone(world)
    fill(small_disk, 0) if how == "full" else remount(small_disk, "ro")
    assert "takes no writes" in world.homeport("status").stderr
    status = world.json("status")
    assert (status["sha"], status["services"][0]["drift"], status["services"][0]["state"]) == (sha, 1, "files")
    assert [row["status"] for row in world.json("history")["deploys"]] == ["deployed"]
    assert [p["path"] for p in world.json("drift", ok=(3,))["services"][0]["paths"]] == ["a.txt"]
    assert "+by hand" in world.json("diff", ok=(3,))["diff"]
    plan = world.json("plan")
    assert (plan["to"], [r["rule"] for r in plan["refusals"]]) == (world.git("rev-parse", "HEAD"), ["drift"])
    assert world.homeport("doctor", ok=None).stdout
    assert how in fault(world, "deploy", code=1)
    assert picture(world.live) == before
    (small_disk / "fill").unlink() if how == "full" else remount(small_disk, "rw")

