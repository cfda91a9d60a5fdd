"""E6: a hand edit is told as it is made; folders that are protected or ignored are not watched at all."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.world import PROGRAM, World

SITE = """
[services.site]
source = "site"
target = "{live}/site"
"""


class Lines:
    """JSON lines of a program that goes on, each waited for."""

    def __init__(self, world: World, *args: str) -> None:
        argv = [str(PROGRAM), "--json", *args]
        self.process = subprocess.Popen(argv, cwd=world.clone, env=world.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._rest = b""
        self._lines: list[dict[str, Any]] = []

    def until(self, **wanted: object) -> dict[str, Any]:
        """The next line that holds all of this; those before it are passed over."""
        deadline = time.monotonic() + 20
        while True:
            while self._lines:
                line = self._lines.pop(0)
                if all(line.get(key) == value for key, value in wanted.items()):
                    return line
            assert time.monotonic() < deadline, f"never came: {wanted}"
            assert self.process.stdout is not None
            if self._selector.select(0.5) and (chunk := self.process.stdout.read()):
                *whole, self._rest = (self._rest + chunk).split(b"\n")
                self._lines += [json.loads(line) for line in whole]
            elif self.process.poll() is not None:
                raise AssertionError(f"ended: {self.process.stderr.read() if self.process.stderr else ''!r}")

    def interrupt(self) -> tuple[int, str]:
        """(exit code, what it said as errors) after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[1].decode()
        self._selector.close()
        return self.process.returncode, said


def test_every_kind_of_hand_edit_is_told_and_a_restored_file_is_settled(world: World) -> None:
    world.project(SITE, {"site/a.txt": "a\n", "site/deep/b.txt": "b\n", ".gitignore": "cache/\n*.log\n"})
    world.deploy()
    live = world.live / "site"
    for folder in ("node_modules/many", "cache/below"):
        (live / folder).mkdir(parents=True)
    (live / "deep/b.txt").write_text("edited before\n")
    lines = Lines(world, "drift", "--watch")
    first = lines.until(type="drift.scan")
    assert [p["path"] for s in first["services"] for p in s["paths"]] == ["deep/b.txt"]
    assert first["watching"] == {"site": 2}, "the root and deep/: neither node_modules/ nor cache/"
    (live / "a.txt").write_text("edited\n")
    began = time.monotonic()
    assert lines.until(path="a.txt")["state"] == "modified"
    assert time.monotonic() - began < 10, "an event, not the next scan of somebody"
    (live / "new/folder").mkdir(parents=True)
    (live / "new/folder/c.txt").write_text("c\n")
    assert lines.until(path="new/folder/c.txt")["state"] == "added"
    (live / "new/folder/c.txt").write_text("d\n")
    lines.until(path="new/folder/c.txt", state="added")
    (live / "noise.log").write_text("ignored\n")
    (live / ".env").write_text("SECRET=1\n")
    os.rename(live / "deep", live / "moved")
    assert lines.until(path="deep/b.txt")["state"] == "deleted"
    assert lines.until(path="moved/b.txt")["state"] == "added"
    (live / "a.txt").write_text("a\n")
    lines.until(path="a.txt", state="settled")  # it is empty before that, and may be looked at just then
    os.unlink(live / "a.txt")
    os.mkfifo(live / "a.txt")
    assert lines.until(path="a.txt", because="fifo")["state"] == "type_changed"
    assert {e["path"] for e in world.json("edits")["edits"]} >= {"deep/b.txt", "moved/b.txt", "new/folder/c.txt"}
    assert lines.interrupt()[0] == 0


def test_what_a_deploy_writes_is_no_drift_and_is_watched_from_then_on(world: World) -> None:
    world.project(SITE, {"site/a.txt": "a\n"})
    world.deploy()
    lines = Lines(world, "drift", "--watch")
    lines.until(type="drift.scan")
    world.publish({"site/a.txt": "second\n", "site/more/b.txt": "b\n"})
    world.deploy()
    (world.live / "site/more/b.txt").write_text("by hand\n")
    row = lines.until(type="drift", state="modified")
    assert row["path"] == "more/b.txt"
    assert lines.interrupt()[0] == 0


def test_the_limit_of_watches_is_told_with_the_command_that_raises_it(world: World) -> None:
    world.project(SITE, {"site/a.txt": "a\n", "site/one/b.txt": "b\n", "site/two/c.txt": "c\n"})
    world.deploy()
    fewer = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$@\""
    done = subprocess.run(["unshare", "-U", "-r", "sh", "-c", fewer, "-", str(PROGRAM), "--json", "drift", "--watch"],
                          cwd=world.clone, env=world.env, capture_output=True, text=True, timeout=60)  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["code"]) == (1, "watch-limit")
    assert said["next"].startswith("sysctl -w user.max_inotify_watches=8192 ")


def test_more_events_than_the_kernel_keeps_end_in_a_look_at_everything(world: World) -> None:
    world.project(SITE, {"site/a.txt": "a\n", ".gitignore": "*.log\n"})
    world.deploy()
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    ignored = [world.live / "site" / name for name in ("a.log", "b.log")]
    for path in ignored:
        path.touch()
    lines = Lines(world, "drift", "--watch")
    lines.until(type="drift.scan")
    lines.process.send_signal(signal.SIGSTOP)
    for number in range(most + 10):
        os.chmod(ignored[number % 2], 0o644)
    (world.live / "site/a.txt").write_text("its own event was dropped\n")
    lines.process.send_signal(signal.SIGCONT)
    assert lines.until(path="a.txt")["state"] == "modified"
    assert lines.interrupt()[0] == 0


def test_every_save_goes_live_and_what_a_build_makes_starts_no_try(world: World) -> None:
    build = '  [services.site.build]\n  run = "mkdir -p out && cp a.txt out/"\n  outputs = ["out"]\n'
    world.project(SITE + build, {"site/a.txt": "a\n", ".gitignore": "made/\n*.log\n"}, "try = true\n")
    world.deploy()
    lines = Lines(world, "try", "--watch")
    lines.until(type="deploy.done", status="unchanged")
    world.write({"site/made/by/build.txt": "ignored\n", "site/noise.log": "ignored\n", "site/a.txt": "saved\n"})
    done = lines.until(type="deploy.done")
    assert done["status"] == "deployed"
    assert lines.until(type="try.live", deployId=done["deployId"])["saveToVerifiedMs"] > 0
    assert world.text("site/a.txt") == world.text("site/out/a.txt") == "saved\n"
    world.write({"site/made/by/build.txt": "again\n", "site/noise.log": "again\n"})
    world.git("commit", "-qam", "what was saved")
    for number in range(5):
        world.write({"site/a.txt": f"save {number}\n"})
    while world.text("site/out/a.txt") != "save 4\n":
        assert lines.until(type="deploy.done")["ok"]
    ids = [d["id"] for d in world.json("history")["deploys"] if d["kind"] == "try"]
    assert 3 <= len(ids) <= 8, "neither one for each write nor one for what is ignored"
    assert lines.interrupt()[0] == 0
