"""What follows a crash: forward once, back after the second one, never lost hand edits, and never a second try of
what had touched nothing (DESIGN section 1)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.faults.harness import BUILD, Host, outputs, read
from tests.faults.moments import Moment, Share
from tests.world import eventually

pytestmark = pytest.mark.timeout(3600)
TORN_AT_MOST = "plain/in-place.txt"


def moves(moment: Moment) -> bool:
    return moment.stage == "sync" and moment.syscall == "renameat2"


def in_sync(host: Host) -> list[Moment]:
    return [m for m in host.moments() if moves(m)]


def old_is_live(host: Host) -> None:
    """What was live before this version is, in every byte."""
    assert read(host.world.live) == host.expected(host.number - 1)


def test_a_crash_before_anything_live_changed_ends_as_failed_and_is_not_tried_again(host: Host) -> None:
    moment = next(m for m in host.moments() if m.stage == "build" and m.syscall == "write")
    host.publish()
    deploy, killed = host.killed(moment)
    assert killed
    assert host.run() == 0
    row = host.row(deploy)
    assert (row.state, row.status, row.attempts, row.error_code) == ("done", "failed", 1, "interrupted")
    old_is_live(host)
    host.tidy()
    assert host.world.json("status")["blocked"] == []


def test_a_second_crash_in_the_same_stage_goes_back_and_blocks_nothing(host: Host) -> None:
    moments = in_sync(host)
    host.publish()
    deploy, killed = host.killed(moments[3])
    assert killed
    again, killed = host.killed(Moment("renameat2", 2, "sync", "the second move of the second attempt"))
    assert (again, killed) == (deploy, True), "an equal request joins the interrupted one"
    assert (host.row(deploy).attempts, host.row(deploy).crashed_in) == (2, "sync")
    host.old_or_new(host.number - 1, host.number, TORN_AT_MOST)

    assert host.run() == 0
    row = host.row(deploy)
    assert (row.state, row.status, row.attempts) == ("done", "rolled_back", 3)
    host.ended(host.number - 1)
    status = host.world.json("status")
    assert status["blocked"] == []
    assert host.deploy()["status"] == "deployed"
    host.ended(host.number)


def test_a_crash_while_going_back_is_gone_on_with(host: Host) -> None:
    moments = in_sync(host)
    host.publish()
    deploy, _ = host.killed(moments[8])
    host.killed(Moment("renameat2", 2, "sync", ""))
    _, killed = host.killed(Moment("renameat2", 3, "rollback:sync", ""))
    assert killed
    assert host.row(deploy).stage == "rollback:sync"
    host.old_or_new(host.number - 1, host.number, TORN_AT_MOST)
    _, killed = host.killed(Moment("renameat2", 1, "rollback:sync", ""))
    assert killed

    assert host.run() == 0
    assert host.row(deploy).status == "rolled_back"
    host.ended(host.number - 1)


def forge_lock(host: Host, deploy: str, pid: int) -> None:
    """What a dead runner left names a process that lives: its number was given again."""
    (host.database.parent / "lock").write_text(f"pid {pid} deploy {deploy}\n")
    store = host.store()
    try:
        store.update(msgspec.structs.replace(host.row(deploy), pid=pid))
    finally:
        store.close()


def test_drift_ends_what_a_crash_left_before_it_looks(host: Host) -> None:
    moments = in_sync(host)
    host.publish()
    deploy, _ = host.killed(moments[5])
    with subprocess.Popen(["sleep", "600"], env=host.world.env) as other:
        forge_lock(host, deploy, other.pid)
        assert host.world.json("drift")["equal"] is True
        assert other.poll() is None, "whoever has the number of the dead runner now is left alone"
        other.kill()
    assert host.row(deploy).status == "deployed"
    host.ended(host.number)


def test_an_edit_that_was_kept_outlives_every_crash(host: Host, soak: Share | None) -> None:
    edit = host.world.live / "plain/same.txt"
    host.moments()
    edit.write_text("tuned by hand\n")
    for moment in host.each(moves, 3, soak=soak):
        host.publish()
        _, killed = host.killed(moment, on_drift="keep")
        assert killed
        assert edit.read_text() == "tuned by hand\n"
        assert host.deploy("--keep-drift")["ok"]
        assert edit.read_text() == "tuned by hand\n"
        host.ended(host.number, "plain/same.txt")


@pytest.mark.parametrize("path", ["plain/003.txt", "plain/same.txt", "plain/in-place.txt", "plain/mine.txt"])
def test_an_edit_between_crash_and_recovery_is_kept_or_rescued(host: Host, path: str, soak: Share | None) -> None:
    """Whatever the next command makes of it: the edited bytes are live, or can be had with `homeport rescue`."""
    early = path in ("plain/003.txt", "plain/mine.txt")
    host.towards(odd=early)
    moments = in_sync(host)
    for moment in moments if soak else [moments[2 if early else -1]]:
        host.towards(odd=early)
        host.publish()
        deploy, killed = host.killed(moment)
        assert killed
        edit = host.world.live / path
        edited = f"edited after the crash of version {host.number}\n"
        edit.write_text(edited)

        host.deploy(ok=(0, 1, 3))
        assert host.row(deploy).state == "done"
        assert kept(host, edit, edited), f"after {moment}"
        settle_by_hand(host)
        if path != "plain/mine.txt":
            assert kept(host, edit, edited), f"discarded after {moment}"


def kept(host: Host, edit: Path, edited: str) -> bool:
    """Whether these bytes are live at that path, or those of one of the newest rescues."""
    if edit.is_file() and edit.read_text() == edited:
        return True
    rescues = host.world.json("rescue", "list")["rescues"]
    for number, rescue in enumerate(sorted(rescues, key=lambda r: r["at"], reverse=True)[:8]):
        to = host.world.live / f"rescued-{host.number}-{number}"
        host.world.homeport("rescue", "restore", rescue["id"], "--to", str(to))
        found = to.read_text()
        to.unlink()
        if found == edited:
            return True
    return False


def settle_by_hand(host: Host) -> None:
    """As a person would: what is still in conflict is discarded, then the version is deployed."""
    drift = host.world.json("drift", ok=(0, 3))
    paths = [p["path"] for s in drift["services"] for p in s["paths"] if p["state"] != "added"]
    if paths:
        host.world.homeport("discard", *paths)
    (host.world.live / "plain/mine.txt").unlink(missing_ok=True)
    assert host.deploy()["ok"]
    host.ended(host.number)


def test_the_asker_killed_leaves_the_deploy_going(host: Host) -> None:
    going = host.world.root / "going-on"
    host.world.write({"web/build.sh": f"echo waiting; while [ ! -e {going} ]; do sleep 0.05; done; {BUILD}"})
    host.number += 1
    host.world.write({"web/page.txt": "version 2\n"})
    host.world.commit("a build that waits")
    host.world.push()
    asker = host.world.start("--json", "deploy")
    assert asker.stdout is not None
    with asker.stdout:
        for line in asker.stdout:
            if "waiting" in line:
                break
        asker.send_signal(signal.SIGKILL)
    assert asker.wait(timeout=10) == -signal.SIGKILL
    going.touch()
    eventually(lambda: not host.world.own_processes(), "the runner has ended by itself")
    row = host.world.json("history")["deploys"][0]
    assert (row["state"], row["status"]) == ("done", "deployed")
    assert host.world.text("web/dist/page.html") == outputs(2)["web/dist/page.html"][1]


def test_a_runner_that_is_killed_while_somebody_waits_is_started_again(host: Host) -> None:
    hold, toml = host.world.root / "hold-restart", host.world.clone / "homeport.toml"
    toml.write_text(toml.read_text().replace("started.log", f"started.log; while [ -e {hold} ]; do sleep 0.05; done"))
    hold.touch()
    host.publish()
    asker = host.world.start("--json", "deploy")
    assert asker.stdout is not None
    lines = []
    with asker.stdout:
        for line in asker.stdout:
            lines.append(line)
            if '"restart","state":"start"' in line:
                os.kill(host.row(host.world.json("history")["deploys"][0]["id"]).pid or 0, signal.SIGKILL)
                hold.unlink()
                break
        lines += list(asker.stdout)
    assert asker.wait(timeout=60) == 0, "".join(lines)
    assert '"status":"deployed"' in lines[-1]
    host.ended(host.number)
