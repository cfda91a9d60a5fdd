"""A call of the runner that the kernel refuses, and disks that are really full: old or new, never mixed, never a
success that is none, never a blocked commit (P1, P5, P6)."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import let_everybody_in
from tests.faults.harness import Host, read
from tests.faults.moments import Moment, Share
from tests.world import World, eventually

pytestmark = pytest.mark.timeout(3600)

WRITES = ("write", "pwrite64", "ftruncate", "openat", "mkdir", "mkdirat", "symlinkat", "renameat2", "renameat", "rename")
REFUSALS = {
    "ENOSPC": (*WRITES, "fsync", "fdatasync"),
    "EIO": ("fsync", "fdatasync", "syncfs", "pwrite64", "write", "unlinkat"),
    "EACCES": ("openat", "renameat2", "renameat", "unlinkat", "mkdirat"),
    "EMFILE": ("openat",),
}
MUST_BE_HEARD = ("renameat2", "fsync", "syncfs")
"""Refused in the sync, these must not end in success: a file was not put in place, or is perhaps not on its disk."""


def refusable(moment: Moment, error: str) -> bool:
    """Whether a kernel may say so at that moment: reading finds no full disk, and a pipe is on none."""
    if moment.stage == "start" or moment.syscall not in REFUSALS[error] or "/proc/" in moment.shown:
        return False
    if "<pipe:" in moment.shown or "<socket:" in moment.shown:
        return False
    return moment.syscall != "openat" or error == "EMFILE" or "O_CREAT" in moment.shown


def must_be_heard(moment: Moment) -> bool:
    """A ref that cannot be written so is written again, by git itself."""
    return moment.syscall in MUST_BE_HEARD and "homeport.db" not in moment.shown and "/repo.git/refs/" not in moment.shown


@pytest.mark.parametrize("where", ["in the sync", "elsewhere"])
@pytest.mark.parametrize("error", REFUSALS)
def test_a_refused_call_leaves_old_or_new_and_the_next_deploy_works(
    host: Host, error: str, where: str, soak: Share | None
) -> None:
    def wanted(moment: Moment) -> bool:
        """Of the sync a sample takes those whose refusal must be heard."""
        heard = soak is not None or where == "elsewhere" or error == "EMFILE" or must_be_heard(moment)
        return heard and refusable(moment, error) and (moment.stage == "sync") == (where == "in the sync")

    for moment in host.each(wanted, 2, soak=soak):
        host.publish()
        with host.trying(soak, f"{error} at {moment}"):
            deploy, fault = host.refused(moment, error)
            row = host.row(deploy)
            host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
            if row.status == "deployed":
                assert read(host.world.live) == host.expected(host.number), "what is called deployed is live"
                assert fault is None or fault.stage != "sync" or not must_be_heard(fault), "a failure was not heard"
            assert host.blocked() == [], "an infrastructure fault blocks no commit"
            host.finish(soak)
            host.ended(host.number)
            row = host.row(deploy)
            assert row.status in ("deployed", "unchanged") or row.error_summary, "the owner is told"


def test_a_stamp_that_is_perhaps_not_on_its_disk_is_not_called_success(host: Host, soak: Share | None) -> None:
    """`EIO` where the record of the success is brought to its disk: journal and database."""
    found = [m for m in host.moments() if m.stage == "stamp" and m.syscall in ("fsync", "fdatasync")]
    assert {"journal" if "/journal/" in m.shown else "database" for m in found} == {"journal", "database"}
    for moment in found if soak else found[-1:]:
        host.publish()
        deploy, fell = host.refused(moment, "EIO")
        row = host.row(deploy)
        assert fell and row.status == "rolled_back", (str(moment), row)
        assert row.error_summary and host.blocked() == []
        host.ended(host.number - 1)
        assert host.deploy()["ok"]
        host.ended(host.number)


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 4 MB in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path_factory.mktemp("small-disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=600", "tmpfs", str(place)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("this machine allows no mounts")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def live_on(world: World, disk: Path) -> None:
    """The live folders lie on that disk."""
    world.live.rmdir()
    world.live.symlink_to(disk)
    world.live = disk
    world.host_file.write_text(world.host_file.read_text().replace(str(world.root / "live"), str(disk)))


PLAIN = '[services.plain]\nsource = "plain"\ntarget = "{live}/plain"\n'


@pytest.mark.root
@pytest.mark.parametrize("too_much", ["bytes", "inodes"])
def test_a_live_disk_that_is_full_keeps_the_old_version(world: World, small_disk: Path, too_much: str) -> None:
    live_on(world, small_disk)
    world.project(PLAIN, {"plain/a.txt": "one\n", "plain/b.txt": "one\n"})
    world.deploy()
    (world.live / "plain/.env").write_text("KEY=of the server\n")
    big = {"plain/big.txt": "x" * 6_000_000} if too_much == "bytes" else {f"plain/many/{n}": "x" for n in range(800)}
    world.publish({"plain/a.txt": "two\n", **big})
    done = world.deploy(ok=(1,))
    assert done["status"] == "failed", "nothing was changed, so nothing was rolled back"
    assert "nothing live was changed" in world.homeport("-v", "deploy", ok=(1,)).stdout
    assert "space" in done["errorSummary"].lower(), done
    assert (world.text("plain/a.txt"), world.text("plain/b.txt")) == ("one\n", "one\n")
    assert world.text("plain/.env") == "KEY=of the server\n"
    assert world.json("drift")["equal"] is True
    assert world.json("status")["blocked"] == []
    assert not list(world.live.glob(".homeport-*/stage/*")), "a full disk is not kept full by what was staged"
    world.publish({"plain/a.txt": "three\n", **dict.fromkeys(big)})
    assert world.deploy()["status"] == "deployed"
    assert world.text("plain/a.txt") == "three\n"


@pytest.mark.root
def test_a_build_or_a_check_that_fills_the_disk_keeps_the_old_version_and_does_not_blame_the_commit(
    world: World, small_disk: Path
) -> None:
    live_on(world, small_disk)
    build = '[services.plain.build]\nrun = ["sh", "build.sh"]\noutputs = ["dist"]\n'
    makes = "mkdir -p dist; cp a.txt dist/; "
    world.project(PLAIN + build, {"plain/a.txt": "one\n", "plain/build.sh": makes, ".gitignore": "dist/\n"})
    world.deploy()
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 3_000_000)
    world.publish({"plain/a.txt": "two\n", "plain/build.sh": makes + "head -c 3000000 /dev/zero > dist/large"})
    done = world.deploy(ok=(1,))
    assert (done["status"], done["errorCode"], "disk is full" in done["errorSummary"]) == ("failed", "build-disk", True)
    assert (world.text("plain/a.txt"), world.text("plain/dist/a.txt")) == ("one\n", "one\n")
    assert world.json("status")["blocked"] == []
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert world.json("converge")["status"] == "deployed", "a tick tries the same commit again"
    assert world.text("plain/dist/a.txt") == "two\n"

    # a check of homeport's own, in its clean checkout, which goes where temporary files do
    world.more["TMPDIR"] = str(small_disk)
    world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
    let_everybody_in(small_disk)
    checked = '\n[checks.size]\nrun = "head -c 30000000 /dev/zero > large"\n'
    world.publish({"plain/a.txt": "3\n", "homeport.toml": (world.clone / "homeport.toml").read_text() + checked})
    done = world.deploy(ok=(1,))
    assert done["errorCode"] == "build-disk"
    assert "check size ended with 1, and the disk is full" in done["errorSummary"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert world.json("converge")["status"] == "deployed", "what failed for want of room is not remembered as failed"


@pytest.mark.root
def test_a_state_disk_that_is_full_fails_or_carries_on_but_mixes_nothing(
    own_host: Host, small_disk: Path, soak: Share | None
) -> None:
    """The whole state folder (database, journal, mirror, indexes) on a disk that fills up between two deploys."""
    host = own_host
    state = host.world.state
    eventually(lambda: not host.world.own_processes(), "the runner has left, and with it what SQLite keeps beside")
    subprocess.run(["cp", "-a", f"{state}/.", str(small_disk)], check=True)
    subprocess.run(["rm", "-rf", str(state)], check=True)
    state.mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(state)], check=True)
    try:
        for left in (400_000, 200_000, 60_000, 20_000, 4096, 0) if soak else (200_000, 20_000):
            host.publish()
            filler = small_disk / "filler"
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            filler.write_bytes(b"x" * max(0, free - left))
            said = host.world.homeport("deploy", ok=None)
            assert said.code == 0 or re.search("full|space", said.stdout + said.stderr), "the owner is told"
            host.world.kill_homeport()
            host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
            filler.unlink()
            assert host.deploy()["ok"]
            host.ended(host.number)
            assert host.blocked() == []
    finally:
        host.world.kill_homeport()
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.parametrize("call", ["openat", "read"])
def test_a_live_file_that_cannot_be_read_is_neither_deleted_nor_written_over(host: Host, call: str) -> None:
    """A bad sector under a file that git's stat cache does not vouch for."""
    file = host.world.live / "plain/same.txt"
    before = host.number
    host.publish()
    os.utime(file)
    deploy = host.enqueue()
    log = host.world.root / "strace.log"
    host.run("-f", "-o", str(log), "-P", str(file), "-P", file.name, "-e", f"trace={call}",
             "-e", f"inject={call}:error=EIO")  # fmt: skip
    assert "(INJECTED)" in log.read_text(errors="replace"), "git or the runner reads it"
    row = host.row(deploy)
    assert (row.state, row.status) in (("done", "failed"), ("done", "refused"), ("done", "deployed"))
    assert file.read_text() == "always the same\n"
    host.old_or_new(before, host.number, "plain/in-place.txt")
    assert host.blocked() == []
    assert host.deploy()["ok"]
    host.ended(host.number)


def test_a_file_that_the_disk_does_not_give_back_after_its_exchange_is_put_back_and_is_no_conflict(host: Host) -> None:
    def reads(shown: str) -> bool:
        return "/stage/" in shown and ("O_NOCTTY" in shown or "0xa0900" in shown)

    moment = next(m for m in host.moments() if m.stage == "sync" and m.syscall == "openat" and reads(m.shown))
    for after in range(9):  # one or two files more are opened before, when another thread was slower
        host.publish()
        deploy, fault = host.refused(replace(moment, nth=moment.nth + after, within=moment.within + after), "EIO")
        if fault is not None and reads(fault.shown):
            break
        host.deploy()
    row = host.row(deploy)
    assert (row.status, row.error_code) == ("rolled_back", "unreadable"), row
    assert read(host.world.live) == host.expected(host.number - 1)
    assert host.deploy()["ok"]
    host.ended(host.number)


@pytest.mark.parametrize("stage", ["restart", "verify"])
def test_a_command_that_the_machine_cannot_start_blocks_no_commit(host: Host, stage: str, soak: Share | None) -> None:
    """No descriptor is left for what it reads: the restart, and a check, which is asked again."""
    opens = [m for m in host.moments() if m.syscall == "openat" and m.stage == stage and '"/dev/null"' in m.shown]
    for moment in opens if soak else opens[-1:]:
        host.publish()
        deploy, fault = host.refused(moment, "EMFILE")
        assert fault is not None and '"/dev/null"' in fault.shown
        assert host.blocked() == [], host.row(deploy)
        assert (host.row(deploy).status == "deployed") == (stage == "verify"), host.row(deploy)
        host.finish(soak)
        host.ended(host.number)


def test_a_machine_without_room_for_a_process_blocks_nothing(host: Host, soak: Share | None) -> None:
    """`fork` says EAGAIN from the Nth process on. Where none is left for the way back either, whatever comes next ends it:
    another commit too, which has a file where the sync has made a folder."""
    for nth in range(1, 60) if soak else (1, 8):
        if nth == 8:
            host.towards(odd=True)
        host.publish()
        deploy = host.enqueue()
        log = host.world.root / "strace.log"
        host.run("-o", str(log), "-e", "trace=clone,clone3,vfork,fork",
                 "-e", f"inject=clone,clone3,vfork,fork:error=EAGAIN:when={nth}+")  # fmt: skip
        row = host.row(deploy)
        host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
        assert host.blocked() == [], (nth, row)
        if row.error_code == "rollback-failed":
            host.publish()
        assert host.deploy()["ok"], (nth, row)
        row = host.row(deploy)
        assert row.state == "done"
        assert row.status in ("deployed", "unchanged") or row.error_summary, "the owner is told"
        host.ended(host.number)
        if "(INJECTED)" not in log.read_text(errors="replace"):
            break


NO_THREADS = """\
import sys
if "homeport.runner" in sys.orig_argv:
    import _thread
    def start_new_thread(work, words, *more):
        open({told!r}, "a").close()
        {how}
    _thread.start_new_thread = start_new_thread
"""


@pytest.mark.parametrize("how", ["raise RuntimeError('no room')", "return 0"], ids=["none starts", "each dies at once"])
def test_a_runner_that_gets_no_thread_deploys_without(host: Host, tmp_path: Path, how: str) -> None:
    told = tmp_path / "asked for a thread"
    (tmp_path / "sitecustomize.py").write_text(NO_THREADS.format(told=str(told), how=how))
    host.publish()
    deploy = host.enqueue()
    env = {**host.world.env, "PYTHONPATH": str(tmp_path)}
    subprocess.run(host.runner, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    assert told.exists()
    assert host.row(deploy).status == "deployed"
    host.ended(host.number)
