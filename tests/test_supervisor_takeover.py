"""The supervisor, its keeper, or both are killed: what runs runs on, and the next supervisor has all of it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homeport.supervisor import instance
from homeport.supervisor.messages import UnitSpec
from homeport.supervisor.records import Child, Phase
from tests import supervisor_servers as servers
from tests.supervisor_rig import Client, Load, Rig, alive, eventually, free_port, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    servers.write(tmp_path)
    yield from rigged(tmp_path)


@pytest.fixture
def port(rig: Rig) -> int:
    """Of a Node service that runs and serves version `one`."""
    port = free_port()
    rig.unit("web", [servers.node(), "web.js"], listen=[f"127.0.0.1:{port}"], env={"PORT": str(port)})
    assert rig.restart("web")["ok"]
    return port


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        return answer.read().decode().strip()


def test_a_killed_supervisor_costs_no_request_and_the_next_one_restarts_as_before(rig: Rig, port: int) -> None:
    old = rig.status("web")

    def kill_and_take_over() -> None:
        rig.kill()
        assert get(port) == "one"
        rig.begin()
        state = rig.status("web")
        assert (state["pids"], state["restarts"], state["state"]) == (old["pids"], 0, "running")
        (rig.folder / "version").write_text("two")
        assert rig.restart("web")["ok"]
        assert get(port) == "two"

    load = Load(port)
    asyncio.run(load.during(kill_and_take_over))
    assert load.failures == [] and set(load.answers) == {"one", "two"}
    eventually(lambda: not alive(old["pid"]), "the old one, adopted and drained, is gone")


def test_a_child_that_ends_under_the_next_supervisor_is_started_again(rig: Rig, port: int) -> None:
    old = rig.status("web")["pid"]
    rig.kill()
    rig.begin()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: rig.status("web")["pid"] not in (None, old) and get(port) == "one", "started again")


def test_a_child_that_ends_while_nobody_supervises_is_started_by_the_next(rig: Rig, port: int) -> None:
    old = rig.status("web")["pid"]
    rig.kill()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: not alive(old), "killed")
    rig.begin()
    eventually(lambda: rig.status("web")["state"] == "running", "started again")
    assert get(port) == "one"


def test_a_killed_keeper_is_replaced_and_has_everything_again(rig: Rig, port: int) -> None:
    old, keeper = rig.status("web")["pid"], rig.keeper()
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: rig.keeper() != keeper and alive(rig.keeper()), "another keeper")
    rig.kill()
    rig.begin()
    assert rig.status("web")["pid"] == old
    load = Load(port)
    assert asyncio.run(load.during(lambda: rig.restart("web")))["ok"]
    assert load.failures == []


def test_supervisor_and_keeper_killed_together_cost_no_request(rig: Rig, port: int) -> None:
    """The sockets come back out of the children themselves; who lost the line drains on the signal."""
    old = rig.status("web")["pid"]

    def kill_both() -> None:
        keeper = rig.keeper()
        rig.kill()
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not alive(keeper), "killed")
        rig.begin()
        assert rig.status("web")["pid"] == old
        (rig.folder / "version").write_text("two")
        assert rig.restart("web")["ok"]

    load = Load(port)
    asyncio.run(load.during(kill_both))
    assert load.failures == [] and get(port) == "two"


def test_a_child_may_write_while_nobody_reads(rig: Rig) -> None:
    script = "import time\nfor n in range(10**6):\n    print('line', n, flush=True)\n    time.sleep(0.01)\n"
    rig.unit("talk", [servers.python(), "-c", script], ready={"line": "line 0"})
    assert rig.restart("talk")["ok"]
    pid, keeper = rig.status("talk")["pid"], rig.keeper()
    rig.kill()
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not alive(keeper), "killed")
    rig.begin()
    before = rig.log("talk").count("\n")
    eventually(lambda: rig.log("talk").count("\n") > before + 5, "it still writes")
    assert rig.status("talk")["pid"] == pid
    numbers = [int(line.split()[1]) for line in rig.log("talk").splitlines()]
    assert numbers == sorted(set(numbers)), "no line twice"


def test_a_keeper_that_is_killed_in_the_middle_of_a_line_loses_none_and_doubles_none(rig: Rig) -> None:
    """Right before each kind of call that a line costs it: looked at, moved to its log, done."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; ./dev test installs it")
    go = rig.folder / "go"
    os.mkfifo(go)
    script = f"exec 3<>{go}; echo begun; while read -r line <&3; do printf 'one half, '; echo $line; done"
    rig.unit("talk", script, ready={"line": "begun"})
    assert rig.restart("talk")["ok"]
    lines = ["begun"]
    for call in ("tee", "read", "splice", "epoll_wait"):
        keeper = rig.keeper()
        argv = ["strace", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL", "-p", str(keeper)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None and "attached" in strace.stderr.readline()
            lines.append(f"one half, {len(lines)}")
            go.write_text(f"{len(lines) - 1}\n")
            eventually(lambda: not alive(keeper), f"killed at {call}")  # noqa: B023
        eventually(lambda: rig.log("talk").splitlines() == lines, f"{lines}, killed at {call}")
        eventually(lambda: rig.keeper() != keeper and alive(rig.keeper()), "another keeper")  # noqa: B023


def test_a_keeper_hears_the_last_word_of_a_supervisor_that_has_left_already(rig: Rig) -> None:
    """It answered what came before, to nobody, heard no more and stayed for ever."""
    rig.unit("job", "echo begun; exec sleep 1000", ready={"line": "begun"})
    assert rig.restart("job")["ok"]
    keeper = rig.keeper()
    os.kill(keeper, signal.SIGSTOP)
    try:
        assert rig.one("shutdown")["ok"]
        assert rig.process is not None and rig.process.wait(30) == 0
    finally:
        os.kill(keeper, signal.SIGCONT)
    eventually(lambda: not alive(keeper), "it has ended too")


def test_the_last_words_of_a_child_are_in_its_log_though_the_keeper_is_killed_before_it_writes_them(rig: Rig) -> None:
    go = rig.folder / "go"
    os.mkfifo(go)
    rig.unit("job", f"echo begun; read -r line < {go}; echo $line", ready={"line": "begun"})
    assert rig.restart("job")["ok"]
    pid, keeper = rig.status("job")["pid"], rig.keeper()
    os.kill(keeper, signal.SIGSTOP)
    go.write_text("last words\n")
    eventually(lambda: rig.status("job")["pid"] != pid, "it has ended")
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: "last words" in rig.log("job").splitlines(), "the next keeper writes them")


def test_killed_in_the_middle_of_a_restart_one_version_serves(rig: Rig, port: int) -> None:
    old = rig.status("web")["pid"]
    spec = {"name": "web", "command": [servers.node(), "-e", "setInterval(() => {}, 1000)"],
            "listen": [f"127.0.0.1:{port}"], "env": {"PORT": str(port)}}  # fmt: skip
    assert rig.one("configure", units=[spec])["ok"]
    client = Client(rig.socket)
    client.send(b'{"id":7,"op":"restart","scope":"web"}\n')
    assert client.read()["type"] == "restart.ack"

    def starting() -> int:
        children = json.loads((rig.state / "supervisor.json").read_text())["children"]
        return next((one["pid"] for one in children if one["phase"] == "starting" and one["pid"]), 0)

    half = eventually(starting, "the new one starts")
    rig.kill()
    client.close()
    rig.begin()
    eventually(lambda: not alive(half), "what nobody waits for is ended")
    assert rig.status("web")["pids"] == [old] and get(port) == "one"


def test_killed_at_any_moment_of_a_restart_no_request_fails_and_one_process_is_left(
    rig: Rig, port: int, request: pytest.FixtureRequest
) -> None:
    moments = random.Random(11)

    def kill_again_and_again() -> None:
        for _ in range(60 if request.config.getoption("--soak") else 6):
            client = Client(rig.socket)
            client.send(b'{"id":1,"op":"restart","scope":"web"}\n')
            assert client.read()["type"] == "restart.ack"
            time.sleep(moments.random() * 0.25)
            rig.kill()
            client.close()
            rig.begin()
            assert rig.status("web")["state"] in ("running", "restarting")
        assert rig.restart("web")["ok"]

    load = Load(port)
    asyncio.run(load.during(kill_again_and_again))
    assert load.failures == []
    state = eventually(lambda: (s := rig.status("web"))["draining"] == [] and s, "the old ones have left")
    assert running_in(rig.folder) == set(state["pids"]) and len(state["pids"]) == 1
    eventually(lambda: [path.name.rsplit("-", 1)[0] for path in (rig.state / "out").iterdir()] == ["web-0"],
               "the keeper has put away what the others wrote to")  # fmt: skip


def running_in(folder: Path) -> set[int]:
    """Processes whose current folder is that one."""
    found = set()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.readlink(f"/proc/{name}/cwd") == str(folder):
                found.add(int(name))
    return found


def test_killed_between_record_and_fork_nothing_is_lost_or_started_twice(rig: Rig) -> None:
    """A process that was started and not yet recorded with its id is found by its mark."""
    rig.unit("job", ["sleep", "1000"])
    rig.kill()
    path = rig.state / "supervisor.json"
    saved = json.loads(path.read_text())
    saved["children"] = [{"id": "job-0-feed", "unit": "job", "slot": 0, "pid": 0, "phase": "starting", "at": 1.0}]
    path.write_text(json.dumps(saved))
    lost = subprocess.Popen(["sleep", "1000"], env={"HOMEPORT_INSTANCE": "job-0-feed", "PATH": os.environ["PATH"]},
                            start_new_session=True)  # fmt: skip
    other = subprocess.Popen(["sleep", "1000"], env={"HOMEPORT_INSTANCE": "job-0-feed2", "PATH": os.environ["PATH"]},
                             start_new_session=True)  # fmt: skip
    try:
        rig.begin()
        assert lost.wait(20) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for process in (lost, other):
            process.kill()
            process.wait()


def test_a_process_id_that_was_given_to_another_is_left_alone(rig: Rig) -> None:
    rig.unit("job", ["sleep", "1000"])
    rig.kill()
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        path = rig.state / "supervisor.json"
        saved = json.loads(path.read_text())
        saved["children"] = [{"id": "job-0-x", "unit": "job", "slot": 0, "pid": stranger.pid, "start": 12345,
                              "phase": "leaving", "at": 1.0}]  # fmt: skip
        path.write_text(json.dumps(saved))
        rig.begin()
        assert rig.status("job")["draining"] == [] and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_supervisor_that_leaves_and_keeps_is_followed_by_one_that_has_it_all(rig: Rig, port: int) -> None:
    old = rig.status("web")["pid"]
    assert rig.one("shutdown", keep=True)["ok"]
    assert rig.process is not None and rig.process.wait(20) == 0
    assert get(port) == "one" and not rig.socket.exists()
    rig.begin()
    assert rig.status("web")["pid"] == old


def test_what_was_wanted_before_a_shutdown_runs_after_it(rig: Rig, port: int) -> None:
    old = rig.status("web")["pid"]
    rig.unit("idle", ["sleep", "1000"])
    assert rig.one("shutdown")["ok"]
    assert rig.process is not None and rig.process.wait(20) == 0 and not alive(old)
    rig.begin()
    eventually(lambda: rig.status("web")["state"] == "running", "started again")
    assert get(port) == "one" and rig.status("idle")["state"] == "stopped"


def test_two_supervisors_do_not_share_a_folder(rig: Rig) -> None:
    words = [sys.executable, "-m", "homeport.supervisor", "--socket", str(rig.folder / "t.sock"), "--state", str(rig.state)]
    second = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert second.returncode == 2 and "another supervisor has this state folder" in second.stderr


def test_records_that_cannot_be_read_are_not_guessed_around(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    words = [sys.executable, "-m", "homeport.supervisor", "--socket", str(tmp_path / "s.sock"), "--state", str(state)]
    for text, why in (("{", "cannot be read"), ('{"version": 99}', "version 99")):
        (state / "supervisor.json").write_text(text)
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and why in done.stderr and "next:" in done.stderr


def test_logs_that_nobody_writes_any_more_are_removed_after_a_month(rig: Rig) -> None:
    rig.unit("talk", "echo begun; exec sleep 1000", ready={"line": "begun"})
    assert rig.restart("talk")["ok"]
    logs = rig.state / "logs"
    for name in ("talk.log.1", "gone.log", "gone.log.2", "fresh.log"):
        (logs / name).write_text("x")
    month = time.time() - 31 * 86400
    for name in ("talk.log", "talk.log.1", "gone.log", "gone.log.2"):
        os.utime(logs / name, (month, month))
    rig.kill()
    rig.begin()
    assert sorted(path.name for path in logs.iterdir()) == ["fresh.log", "talk.log"]


def test_a_socket_that_is_another_users_or_no_socket_at_all_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    words = [sys.executable, "-m", "homeport.supervisor", "--socket", str(path), "--state", str(tmp_path / "state")]
    path.write_text("notes")
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "cannot listen" in done.stderr and path.read_text() == "notes"
    if os.geteuid() == 0:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        os.chown(path, 65534, 65534)
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and "belongs to another user" in done.stderr and path.exists()


def test_a_keeper_that_nobody_can_find_any_more_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = [sys.executable, "-m", "homeport.supervisor", "--socket", str(tmp_path / "s.sock"), "--state", str(state)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as supervisor:
        try:
            eventually(lambda: (state / "keeper.pid").exists() and (state / "keeper.pid").read_text(), "it has a keeper")
            keeper = int((state / "keeper.pid").read_text().split()[0])
        finally:
            supervisor.kill()
    assert alive(keeper), "it waits for the next supervisor"
    shutil.rmtree(state)
    eventually(lambda: not alive(keeper), "the keeper of a removed state ended")


@pytest.mark.parametrize(("phase", "drains"), [("leaving", True), ("ready", False)])
def test_whom_an_earlier_supervisor_asked_to_leave_has_its_time_to_drain(
    phase: Phase, drains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer had gone with the one that asked; the next one took the silence for a refusal, and cut it off."""
    monkeypatch.setattr(instance, "ACKNOWLEDGE", 0.05)

    async def leaves() -> bool:
        ours, theirs = socket.socketpair()
        with theirs, subprocess.Popen(["sleep", "1000"]) as process:
            child = Child(id="web-0-x", unit="web", slot=0, pid=process.pid, phase=phase)
            line = instance.Control(ours)
            line.ports = {"8080"}
            reaper: Any = SimpleNamespace(take=lambda _: None)  # the real one takes every child of this process
            one = instance.Instance(child, UnitSpec(name="web", command=["true"]), reaper, line)
            answer = await one.leave()
            process.kill()
            await one.ended()
            one.release()
        return answer

    assert asyncio.run(leaves()) is drains
