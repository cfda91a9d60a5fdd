"""Power cuts: live folders and state on an ext4 of their own that is shut down without writing back what it holds
(P1, P2, P6). What was not brought to the disk by then is gone, as after a cut."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Host
from tests.faults.moments import Moment, Share
from tests.world import World, eventually

pytestmark = [pytest.mark.timeout(3600), pytest.mark.root]

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""
WITHOUT_FLUSHING = 2
OPTIONS = "loop,commit=300,noauto_da_alloc"
"""Nothing is written back by itself: neither after five seconds nor when one file replaces another."""


class Disk:
    """An ext4 in a file."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "disk.img", folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", str(self.image)], check=True)

    def mount(self) -> bool:
        done = subprocess.run(["mount", "-o", OPTIONS, str(self.image), str(self.place)], capture_output=True)
        return done.returncode == 0

    def unmount(self) -> None:
        gone = ["umount", str(self.place)]
        eventually(lambda: subprocess.run(gone, capture_output=True).returncode == 0, f"{self.place} is unmounted")

    def released(self) -> bool:
        """Also out of the namespaces of builds, which end a moment after the runner that was killed. A namespace that
        somebody else on this machine made meanwhile has a copy of the mount for as long as it likes."""
        loops = ["losetup", "-j", str(self.image)]
        try:
            eventually(lambda: not subprocess.run(loops, capture_output=True, check=True).stdout, "nobody holds it", 3)
        except AssertionError:
            return False
        return True

    def settle(self) -> None:
        subprocess.run(["sync", "-f", str(self.place)], check=True)

    def cut(self) -> None:
        """The power goes and comes back."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(handle)
        self.unmount()
        if not self.released():
            old, self.image = self.image, self.image.with_suffix(f"{self.image.suffix}'")
            subprocess.run(["cp", "--sparse=always", str(old), str(self.image)], check=True)
            old.unlink()
        assert self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a file system of one's own needs root and e2fsprogs")
    disk = Disk(tmp_path)
    if not disk.mount():
        pytest.xfail("this machine lends no loop devices")
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.fixture
def host(world: World, disk: Disk) -> Iterator[Host]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; ./dev test installs it")
    world.live.rmdir()
    world.host_file.write_text(world.host_file.read_text().replace(str(world.live), str(disk.place / "live")))
    world.live, world.state = disk.place / "live", disk.place / "state"
    world.live.mkdir()
    yield Host(world)
    world.kill_homeport()


def test_the_disk_forgets_what_was_not_brought_to_it(disk: Disk) -> None:
    """The tests below can fail."""
    (disk.place / "kept").write_text("kept\n")
    disk.settle()
    (disk.place / "lost").write_text("lost\n")
    disk.cut()
    assert (disk.place / "kept").read_text() == "kept\n"
    assert not (disk.place / "lost").exists()


def test_what_is_called_deployed_outlives_a_power_cut(host: Host, disk: Disk) -> None:
    """The very first deploy, one in which files become folders, and one the other way round."""
    disk.cut()
    host.ended(host.number)
    for _ in range(2):
        host.publish()
        assert host.deploy()["status"] == "deployed"
        disk.cut()
        host.ended(host.number)
        assert host.world.json("status")["sha"] == host.sha


def brings_to_disk(moment: Moment) -> bool:
    """Each rename, removal and fsync from the first change to the stamp."""
    return moment.stage in ("sync", "stamp") and moment.syscall in (
        "fsync", "fdatasync", "syncfs", "renameat2", "renameat", "rename", "unlinkat", "pwrite64")  # fmt: skip


def test_a_power_cut_in_the_middle_is_ended_by_one_command(host: Host, disk: Disk, soak: Share | None) -> None:
    disk.settle()
    for moment in host.each(brings_to_disk, 3, soak=soak):
        host.publish()
        disk.settle()
        deploy, _ = host.killed(moment)
        disk.cut()
        with host.trying(soak, f"power cut before {moment}"):
            host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
            assert host.deploy()["ok"]
            assert host.row(deploy).state == "done"
            host.ended(host.number)
