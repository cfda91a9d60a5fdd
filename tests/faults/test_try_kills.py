"""A try that is killed -9 between its files being in place and its record being written (docs/decisions/0016): one command
ends it, path by path (P1, P3). Index, row and references are written by a thread beside the restart, where strace's counts
do not lead; so the runner kills itself at each boundary, and who asked with it."""

from __future__ import annotations

from homeport.doors.clock import SystemClock
from homeport.doors.store import SqliteStore
from tests.faults.moments import Share
from tests.scenarios.telling import picture
from tests.world import World, eventually

APP = """
[services.app]
source = "app"
target = "{live}/app"
runtime = "command"
command = "cat version.txt >> ../started.log"
checks = [{ command = "test -s version.txt", within = "5s" }]
"""
DYING = """\
import os, threading
from homeport.doors.git import Mirror
from homeport.doors.live import LiveTargets
from homeport.doors.store import SqliteStore
from homeport.doors.targetbook import TargetBook
from homeport.doors.targetindex import TargetIndex
ASKED, HERE, STARTED = os.getpid(), threading.local(), threading.Event()
def die():
    os.mkdir({told!r})
    os.kill(ASKED, 9)
    os.kill(os.getpid(), 9)
def at(moment):
    if moment == {moment!r} and getattr(HERE, "noting", False):
        die()
def before(kind, name, moment):
    plainly = getattr(kind, name)
    def method(*args, **more):
        at(moment)
        return plainly(*args, **more)
    setattr(kind, name, method)
before(TargetIndex, "sync", "the index is written")
before(TargetBook, "end", "the index is on its disk")
before(Mirror, "keep_all", "the row is written")
note, saved = LiveTargets._note, SqliteStore.save_service
def noting(*args):
    HERE.noting = True
    at("the files are in place")
    if {moment!r} == "the service was started first":
        STARTED.wait(20)
        die()
    note(*args)
    at("all is written")
def save(store, record):
    saved(store, record)
    if record.started is not None:
        STARTED.set()
LiveTargets._note, SqliteStore.save_service = noting, save
"""
MOMENTS = {"the files are in place": True, "the index is written": True, "the index is on its disk": True,
           "the row is written": False, "all is written": False, "the service was started first": True}  # fmt: skip
"""When the runner dies, and whether the row says `syncing` then."""
SAMPLE = ("the index is written", "the row is written", "the service was started first")


def files(world: World, version: str) -> dict[str, str | None]:
    odd = version == "tried"
    return {"app/version.txt": f"{version}\n", "app/sub/more.txt": f"{version}\n", "app/odd.txt": "x" if odd else None,
            "app/even.txt": None if odd else "x"}  # fmt: skip


def test_a_try_that_is_killed_before_its_record_is_written_is_ended_by_one_command(
    world: World, soak: Share | None
) -> None:
    first = {name: text for name, text in files(world, "first").items() if text is not None}
    world.project(APP, first, "try = true\n")
    world.deploy()
    live, place, log = world.live / "app", world.root / "dying", world.live / "started.log"
    old = picture(live)
    place.mkdir()
    for number, moment in enumerate(MOMENTS if soak else SAMPLE):
        syncing = MOMENTS[moment]
        told = world.root / f"died-{number}"
        (place / "sitecustomize.py").write_text(DYING.format(moment=moment, told=str(told)))
        world.write(files(world, "tried"))
        ran = world.homeport("try", ok=None, env={"PYTHONPATH": str(place)})
        assert (ran.code, told.exists()) == (-9, True), (moment, ran)
        eventually(lambda: not world.own_processes(), "the runner is dead")
        new = picture(live)
        assert {name: new.get(name) for name in ("version.txt", "sub/more.txt", "odd.txt", "even.txt")} == {
            "version.txt": b"tried\n", "sub/more.txt": b"tried\n", "odd.txt": b"x", "even.txt": None}, moment  # fmt: skip
        before = state(world)
        assert (before[0], before[1]) == ("running", syncing), (moment, before)

        assert world.json("drift")["equal"] is True, moment
        row = world.json("history")["deploys"][0]
        assert (row["kind"], row["status"], row["attempts"]) == ("try", "deployed", 2), (moment, row)
        assert state(world) == ("done", False, row["sha"], []), moment
        assert picture(live) == new and log.read_text().endswith("tried\n"), moment
        assert [one["sha"] for one in world.json("status")["tries"]] == [row["sha"]]
        world.git("checkout", "-q", ".")
        world.git("clean", "-qfd")
        assert world.deploy("--over-try")["ok"]
        assert picture(live) == old and log.read_text().endswith("first\n"), moment
        assert not list(world.live.glob(".homeport-*/stage/*")), moment


def state(world: World) -> tuple[str, bool, str | None, list[str]]:
    """(of the newest deploy, whether a sync is under way, the commit that is recorded, what the database lacks)."""
    store = SqliteStore(str(world.state / "shop/production/homeport.db"), SystemClock())
    try:
        (target,) = store.targets()
        return store.history(1)[0].state, target.syncing is not None, target.commit, store.check()
    finally:
        store.close()
