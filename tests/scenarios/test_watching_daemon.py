"""E6: the daemon knows of a hand edit as it is made, with nobody asking; what it cannot watch ends nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.rig import Daemon
from tests.world import PROGRAM, World, eventually

TWO = """
[services.one]
source = "one"
target = "{live}/one"

[services.two]
source = "two"
target = "{live}/two"
"""
FILES: dict[str, str | None] = {"one/a.txt": "a\n", "one/deep/b.txt": "b\n", "two/c.txt": "c\n", "two/more/d.txt": "d\n",
                                ".gitignore": "cache/\n*.log\n"}  # fmt: skip


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    made = Daemon(world)
    yield made
    made.close()


def living(world: World) -> set[tuple[str, str]]:
    """(service, path) of every edit in the ledger that lives, without a look: nobody asks."""
    with closing(sqlite3.connect(f"file:{world.state}/shop/production/homeport.db?mode=ro", uri=True)) as database:
        rows = [json.loads(body) for (body,) in database.execute("SELECT body FROM edits WHERE living = 1")]
    return {(row["service"], row["path"]) for row in rows}


def comes(world: World, *edits: tuple[str, str]) -> None:
    eventually(lambda: living(world) == set(edits), f"the ledger holds {edits}")


def figure(daemon: Daemon, name: str) -> int:
    lines = daemon.ask("GET", "/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith(f"homeport_{name}{{")).split()[1]))


def watches(daemon: Daemon, folders: int) -> None:
    eventually(lambda: figure(daemon, "watched_folders") == folders, f"{folders} folders are watched")


def said(daemon: Daemon, **wanted: object) -> list[dict[str, Any]]:
    """Lines of the daemon's log that hold all of this."""
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]


def test_an_edit_is_in_the_ledger_with_nobody_asking_and_closed_when_it_is_restored(world: World, daemon: Daemon) -> None:
    world.project(TWO, FILES, "converge = 0")
    world.homeport("history")
    daemon.start()
    assert figure(daemon, "watched_folders") == 0, "nothing is live yet, and nothing is wrong"
    world.deploy()
    watches(daemon, 4)
    one, two = world.live / "one", world.live / "two"
    for folder in ("node_modules/many", "cache/below", "made/by hand"):
        (one / folder).mkdir(parents=True)
    watches(daemon, 6)
    (one / "a.txt").write_text("edited\n")
    comes(world, ("one", "a.txt"))
    assert figure(daemon, "edits") == 1
    eventually(lambda: said(daemon, service="one", path="a.txt", state="modified"), "the log names it")
    (one / "made/by hand/new.txt").write_text("new\n")
    (one / "noise.log").write_text("ignored\n")
    (one / ".env").write_text("SECRET=1\n")
    comes(world, ("one", "a.txt"), ("one", "made/by hand/new.txt"))
    (one / "a.txt").write_text("a\n")
    shutil.rmtree(one / "made")
    comes(world)
    eventually(lambda: said(daemon, service="one", path="a.txt", state="settled"), "the log says so")
    world.publish({"one/a.txt": "second\n", "one/fresh/e.txt": "e\n", "two/c.txt": None})
    world.deploy()
    watches(daemon, 5)
    (one / "fresh/e.txt").write_text("by hand\n")
    comes(world, ("one", "fresh/e.txt"))
    (two / "more/d.txt").unlink()
    comes(world, ("one", "fresh/e.txt"), ("two", "more/d.txt"))
    told = {(line["service"], line["path"]) for line in said(daemon) if "path" in line}
    assert told == {("one", "a.txt"), ("one", "made/by hand/new.txt"), ("one", "fresh/e.txt"), ("two", "more/d.txt")}
    world.homeport("discard", "one/fresh/e.txt")
    world.homeport("accept", "two/more/d.txt", "--because", "to be seen", "--until", "7d")
    comes(world, ("two", "more/d.txt"))
    assert daemon.stop() == 0


def test_what_no_event_told_is_found_and_a_folder_that_went_is_watched_again(world: World, daemon: Daemon) -> None:
    """The daemon was away, the kernel lost events, the live folder was another's."""
    world.project(TWO, FILES, "converge = 0")
    world.deploy()
    (world.live / "one/a.txt").write_text("while it was away\n")
    daemon.start()
    comes(world, ("one", "a.txt"))
    watches(daemon, 4)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    ignored = [world.live / "two" / name for name in ("a.log", "b.log")]
    for path in ignored:
        path.touch()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    for number in range(most + 10):
        os.chmod(ignored[number % 2], 0o644)
    (world.live / "two/c.txt").write_text("its own event was dropped\n")
    daemon.process.send_signal(signal.SIGCONT)
    comes(world, ("one", "a.txt"), ("two", "c.txt"))
    os.rename(world.live / "two", world.root / "kept")
    eventually(lambda: figure(daemon, "unwatched_targets") == 1, "it is missed")
    (world.live / "one/a.txt").write_text("a\n")
    comes(world, ("two", "c.txt"))
    shutil.copytree(world.root / "kept", world.live / "two")
    watches(daemon, 4)
    (world.live / "two/more/d.txt").write_text("in the folder that came instead\n")
    comes(world, ("two", "c.txt"), ("two", "more/d.txt"))
    assert figure(daemon, "unwatched_targets") == 0
    warned = said(daemon, service="two", level="warning")
    assert [line["code"] for line in warned] == ["not-the-folder"] and "findmnt" in warned[0]["next"]


def test_where_no_watches_are_left_it_is_told_with_the_command_and_the_others_go_on(world: World, daemon: Daemon) -> None:
    """In an environment that only observes: it is watched like any other."""
    wide = {f"two/{number}/x.txt": "x\n" for number in range(30)}
    world.project(TWO, {**FILES, **wide}, "converge = 0\nobserve = true")
    shutil.copytree(world.clone / "one", world.live / "one")
    shutil.copytree(world.clone / "two", world.live / "two")
    assert world.json("drift")["equal"]
    (world.live / "two/c.txt").write_text("before\n")
    fewer = ["unshare", "-U", "-r", "sh", "-c", 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$@"', "-"]
    done = subprocess.run([*fewer, str(PROGRAM), "--json", "doctor"], cwd=world.clone, env=world.env, capture_output=True)
    row = next(row for row in json.loads(done.stdout)["checks"] if row["name"] == "watching")
    assert not row["ok"] and "34 folders" in row["detail"] and row["next"].startswith("sysctl -w user.max_inotify_watches")
    daemon.start(enter=fewer)
    watches(daemon, 2)
    comes(world, ("two", "c.txt"))
    (world.live / "one/a.txt").write_text("edited\n")
    comes(world, ("one", "a.txt"), ("two", "c.txt"))
    (limited,) = said(daemon, level="warning")
    assert (limited["service"], limited["code"]) == ("two", "watch-limit")
    assert limited["next"].startswith("sysctl -w user.max_inotify_watches=8192 ")
    assert figure(daemon, "unwatched_targets") == 1
