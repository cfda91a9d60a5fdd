"""What a written file looks like: owner, mode, ACLs, attributes, inode; and what is found out before the first change."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeport.doors import swap
from homeport.doors.beside import make_live
from homeport.model.errors import InfrastructureFault, Refused
from tests.conftest import let_everybody_in
from tests.targets.conftest import Host, executable, link, needs_root, refused

NOBODY = 65534


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form of a POSIX ACL: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who & 0xFFFFFFFF) for tag, bits, who in entries)


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 0x10, 0x20
DAEMON_READS = acl((USER_OBJ, 6, -1), (USER, 4, 1), (GROUP_OBJ, 0, -1), (MASK, 4, -1), (OTHER, 0, -1))
DAEMON_WRITES = acl((USER_OBJ, 6, -1), (USER, 6, 1), (GROUP_OBJ, 4, -1), (MASK, 6, -1), (OTHER, 4, -1))
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def test_new_files_have_plain_modes_whatever_the_umask_is(host: Host) -> None:
    was = os.umask(0o077)
    try:
        host.put({"a.txt": "one", "run": executable("x"), "deep/er/b.txt": "two"})
    finally:
        os.umask(was)
    assert [host.mode(p) for p in ("a.txt", "run", "deep/er/b.txt")] == [0o644, 0o755, 0o644]
    assert [host.mode(p) for p in ("deep", "deep/er", ".")] == [0o755, 0o755, 0o755]
    assert stat.S_IMODE(os.stat(host.live.parent / ".homeport-api/stage").st_mode) == 0o700


def test_a_live_folder_that_several_make_at_once_is_made_once_and_nobody_fails(tmp_path: Path) -> None:
    """Two services of one checkout build side by side at first contact, and each finds no live folder yet."""
    for turn in range(50):
        live, together = tmp_path / f"srv-{turn}/live/all", threading.Barrier(8)

        def permitted(_above: int, _below: str, together: threading.Barrier = together) -> None:
            together.wait(10)

        with ThreadPoolExecutor(8) as pool:
            for made in [pool.submit(make_live, str(live), permitted, None) for _ in range(8)]:
                made.result()
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (live, live.parent)] == [0o755, 0o755]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o400])
def test_a_replaced_file_keeps_its_mode(host: Host, mode: int) -> None:
    host.put({"a.txt": "one"})
    (host.live / "a.txt").chmod(mode)
    host.put({"a.txt": "two"})
    assert (host.read("a.txt"), host.mode("a.txt")) == ("two", mode)
    assert host.states() == {}


def test_only_the_x_bit_follows_git(host: Host) -> None:
    host.put({"a": "one"})
    (host.live / "a").chmod(0o640)
    host.put({"a": executable("one")})
    assert host.mode("a") == 0o750
    host.put({"a": "one"})
    assert host.mode("a") == 0o640
    assert host.rescued() == {}


def test_setuid_and_its_kin_are_never_kept(host: Host) -> None:
    host.put({"a": executable("one"), "in": executable("one")})
    host.target = host.make_target(in_place=("in",))
    for name in ("a", "in"):
        (host.live / name).chmod(0o7755)
    host.put({"a": executable("two"), "in": executable("two")})
    assert (host.mode("a"), host.mode("in")) == (0o755, 0o755)


@needs_root
def test_owner_and_group_of_a_replaced_file_are_kept(host: Host) -> None:
    host.put({"a.txt": "one"})
    os.chown(host.live / "a.txt", NOBODY, 1)
    host.put({"a.txt": "two"})
    found = os.stat(host.live / "a.txt")
    assert (host.read("a.txt"), found.st_uid, found.st_gid) == ("two", NOBODY, 1)


@needs_root
def test_new_files_belong_to_the_owner_of_their_folder(host: Host) -> None:
    host.put({"a.txt": "one"})
    os.chown(host.live, NOBODY, 1)
    host.put({"deep/er/b.txt": "two", "to": link("a.txt")})
    for name in ("deep", "deep/er", "deep/er/b.txt", "to"):
        found = os.lstat(host.live / name)
        assert (found.st_uid, found.st_gid) == (NOBODY, 1), name


@needs_root
def test_the_targets_owner_is_given_to_everything_written(host: Host) -> None:
    host.target = host.make_target(owner="nobody:daemon")
    host.put({"a.txt": "one", "deep/b.txt": "two", "to": link("a.txt")})
    os.chown(host.live / "a.txt", 0, 0)
    host.put({"a.txt": "more", "deep/b.txt": "changed"})
    for name in (".", "a.txt", "deep", "deep/b.txt", "to"):
        found = os.lstat(host.live / name)
        assert (found.st_uid, found.st_gid) == (NOBODY, 1), name


def test_an_owner_that_is_no_user_is_refused_before_anything_is_made(host: Host) -> None:
    host.target = host.make_target(owner="no-such-user")
    sha = host.commit({"a.txt": "one"})
    refused("no-user", lambda: host.deploy(sha))
    assert not host.live.exists()


def test_extended_attributes_and_acls_of_a_replaced_file_are_kept(host: Host) -> None:
    host.put({"a.txt": "one", "run": "x"})
    for name in ("a.txt", "run"):
        os.setxattr(host.live / name, "user.note", b"mine")
        os.setxattr(host.live / name, ACCESS, DAEMON_READS)
    host.put({"a.txt": "two", "run": executable("y")})
    assert host.read("a.txt") == "two"
    assert os.getxattr(host.live / "a.txt", "user.note") == b"mine"
    assert os.getxattr(host.live / "a.txt", ACCESS) == DAEMON_READS
    assert os.getxattr(host.live / "run", "user.note") == b"mine"
    assert host.mode("run") & 0o100


@needs_root
def test_file_capabilities_are_never_kept(host: Host) -> None:
    host.put({"run": executable("one")})
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(host.live / "run", "security.capability", capability)
    host.put({"run": executable("two")})
    assert "security.capability" not in os.listxattr(host.live / "run")


def test_an_acl_of_the_folder_above_does_not_leak_into_live_files(host: Host) -> None:
    os.setxattr(host.live.parent, DEFAULT, DAEMON_WRITES)
    host.live.mkdir()
    os.removexattr(host.live, DEFAULT)
    host.put({"a.txt": "one", "b.txt": "x"})
    host.put({"b.txt": "y"})
    assert os.listxattr(host.live / "a.txt") == []
    assert os.listxattr(host.live / "b.txt") == []


def test_a_default_acl_of_the_live_folder_reaches_new_files(host: Host) -> None:
    host.live.mkdir()
    os.setxattr(host.live, DEFAULT, DAEMON_WRITES)
    host.put({"a.txt": "one", "deep/b.txt": "two"})
    host.write("by-hand.txt", "x")
    for name in ("a.txt", "deep/b.txt"):
        assert os.getxattr(host.live / name, ACCESS) == os.getxattr(host.live / "by-hand.txt", ACCESS), name


def test_a_hard_link_elsewhere_keeps_the_old_bytes(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "one"})
    os.link(host.live / "a.txt", host.root / "outside")
    host.put({"a.txt": "two"})
    assert (host.root / "outside").read_text() == "one"
    assert host.read("a.txt") == "two"


def test_two_live_names_of_one_inode_are_told_apart(host: Host) -> None:
    host.put({"a.txt": "same", "b.txt": "same"})
    (host.live / "b.txt").unlink()
    os.link(host.live / "a.txt", host.live / "b.txt")
    assert host.states() == {}
    host.put({"a.txt": "changed"})
    assert host.files() == {"a.txt": "changed", "b.txt": "same"}


def test_in_place_keeps_the_inode_and_saves_the_old_bytes(host: Host) -> None:
    host.target = host.make_target(in_place=("conf/*.ini",))
    host.put({"conf/a.ini": "old and longer", "b.txt": "x"})
    os.link(host.live / "conf/a.ini", host.root / "as-a-container-sees-it")
    was = os.stat(host.live / "conf/a.ini").st_ino
    host.put({"conf/a.ini": "new"})
    assert os.stat(host.live / "conf/a.ini").st_ino == was
    assert (host.root / "as-a-container-sees-it").read_text() == "new"
    assert host.rescued() == {"conf/a.ini": b"old and longer"}
    assert host.states() == {}


def test_in_place_follows_the_x_bit_too(host: Host) -> None:
    host.target = host.make_target(in_place=("run",))
    host.put({"run": "one"})
    host.put({"run": executable("one")})
    assert host.mode("run") == 0o755
    host.put({"run": "two"})
    assert host.mode("run") == 0o644
    assert host.states() == {}


def test_an_edit_of_an_in_place_file_after_the_look_is_saved(host: Host) -> None:
    host.target = host.make_target(in_place=("a.ini",))
    host.put({"a.ini": "one"})
    sha = host.commit({"a.ini": "two"})
    plan = host.plan(sha)
    host.write("a.ini", "by hand")
    assert host.carry_out(plan, sha).surprised == ("a.ini",)
    assert host.read("a.ini") == "two"
    assert host.rescued() == {"a.ini": b"by hand"}


@contextmanager
def mounted(*args: str) -> Iterator[None]:
    subprocess.run(["mount", *args], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", args[-1]], check=True)


def unchanged_by(host: Host, sha: str, code: str) -> InfrastructureFault:
    """The deploy must fail with that code before it changes anything."""
    before, tree = host.files(), host.meet().tree
    with pytest.raises(InfrastructureFault) as caught:
        host.deploy(sha)
    assert caught.value.code == code, caught.value
    assert host.files() == before
    record = host.store.target("api")
    assert record is not None and record.tree == tree and record.syncing is None
    return caught.value


@needs_root
def test_a_bind_mounted_file_is_found_before_the_first_change(host: Host) -> None:
    host.put({"a.txt": "one", "mounted.ini": "one"})
    sha = host.commit({"a.txt": "two", "mounted.ini": "two"})
    (host.root / "source").write_text("one")
    with mounted("--bind", str(host.root / "source"), str(host.live / "mounted.ini")):
        assert "mounted.ini" in unchanged_by(host, sha, "mounted").where
        host.target = host.make_target(in_place=("mounted.ini",))
        host.deploy(sha)
        assert (host.root / "source").read_text() == "two"


@needs_root
def test_a_mount_with_a_space_in_its_name_is_found_too(host: Host) -> None:
    host.put({"a.txt": "one", "my dir/f": "one"})
    sha = host.commit({"a.txt": "two", "my dir/f": "two"})
    (host.root / "source").mkdir()
    (host.root / "source/f").write_text("one")
    with mounted("--bind", str(host.root / "source"), str(host.live / "my dir")):
        unchanged_by(host, sha, "mounted")


@needs_root
def test_a_read_only_live_folder_is_found_before_the_first_change(host: Host) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    sha = host.commit({"a.txt": "two", "lib/b.txt": "three"})
    subprocess.run(["mount", "--bind", str(host.live), str(host.live)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(host.live)], check=True)
        with pytest.raises((InfrastructureFault, Refused)) as caught:
            host.deploy(sha)
        assert caught.value.code in ("read-only", "unowned")
    finally:
        subprocess.run(["umount", str(host.live)], check=True)
    assert host.files() == {"a.txt": "one", "lib/b.txt": "two"}


@needs_root
@pytest.mark.parametrize("what", ["z.txt", "lib"])
@pytest.mark.parametrize("flag", ["i", "a"])
def test_chattr_is_found_before_the_first_change(host: Host, what: str, flag: str) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two", "z.txt": "one"})
    sha = host.commit({"a.txt": "two", "lib/b.txt": "three", "z.txt": None})
    done = subprocess.run(["chattr", f"+{flag}", str(host.live / what)], capture_output=True)
    assert done.returncode == 0, done.stderr
    try:
        assert what in unchanged_by(host, sha, "immutable").where
    finally:
        subprocess.run(["chattr", f"-{flag}", str(host.live / what)], check=True)
    host.deploy(sha)
    assert host.files() == {"a.txt": "two", "lib/b.txt": "three"}


@needs_root
def test_a_folder_that_is_immutable_is_found_when_a_new_folder_must_go_into_it(host: Host) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    sha = host.commit({"a.txt": "two", "lib/new/c.txt": "three"})
    subprocess.run(["chattr", "+i", str(host.live / "lib")], check=True)
    try:
        unchanged_by(host, sha, "immutable")
    finally:
        subprocess.run(["chattr", "-i", str(host.live / "lib")], check=True)


def no_flags(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As a file system answers that knows no flags of renameat2."""

    def rename(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(swap, "rename", rename)


@pytest.mark.parametrize("number", [22, 38], ids=["EINVAL", "ENOSYS"])
def test_a_file_system_without_exchange_gets_the_same_result(
    host: Host, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    host.put({"a.txt": "one", "gone.txt": "x", "lib": "file"})
    sha = host.commit({"a.txt": "two", "gone.txt": None, "new/b.txt": "new", "lib": None, "lib/c.txt": "c"})
    no_flags(monkeypatch, number)
    host.deploy(sha)
    assert host.files() == {"a.txt": "two", "new/b.txt": "new", "lib/c.txt": "c"}
    assert host.states() == {}


def test_a_file_system_without_exchange_saves_an_edit_made_after_the_look(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two", "new.txt": "new"})
    plan = host.plan(sha)
    host.write("a.txt", "by hand")
    host.write("new.txt", "also by hand")
    no_flags(monkeypatch, 22)
    assert set(host.carry_out(plan, sha).surprised) == {"a.txt", "new.txt"}
    assert host.rescued() == {"a.txt": b"by hand", "new.txt": b"also by hand"}
    assert host.files() == {"a.txt": "two", "new.txt": "new"}


@needs_root
def test_as_another_user_a_folder_of_somebody_else_is_refused_before_the_first_change(host: Host) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    sha = host.commit({"a.txt": "two", "lib/b.txt": "three"})
    os.chown(host.live / "lib", 1, 1)
    os.chown(host.live / "lib/b.txt", 1, 1)
    with as_user(host, NOBODY):
        assert "lib" in unchanged_by(host, sha, "unwritable").where


@contextmanager
def as_user(host: Host, uid: int) -> Iterator[None]:
    """This process as another user, who owns everything of the test but what the test gave away."""
    for folder, names, files in os.walk(host.root):
        for path in (folder, *(os.path.join(folder, name) for name in (*names, *files))):
            if os.lstat(path).st_uid == 0:
                os.chown(path, uid, uid, follow_symlinks=False)
    let_everybody_in(host.root.parent)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_flag_that_tells_immutable_files_is_asked_of_the_kernel_not_of_a_program() -> None:
    assert hasattr(ctypes.CDLL(None), "renameat2")
    assert Path("/proc/self/fd").is_dir()


@needs_root
def test_ownership_of_what_git_tracks_is_mended_and_of_nothing_else(host: Host) -> None:
    host.target = host.make_target(owner="nobody:daemon")
    host.put({"deep/a.txt": "one", "to": link("/etc/hostname"), "twice": "two"})
    host.write("cache.bin", "the application's own")
    os.link(host.live / "twice", host.live.parent / "elsewhere")
    outside = os.stat("/etc/hostname")
    for name in ("deep", "deep/a.txt", "to", "twice", "cache.bin"):
        os.chown(host.live / name, 0, 0, follow_symlinks=False)
    assert host.targets.mend(host.target) == ("deep", "deep/a.txt", "to")
    for name in ("deep", "deep/a.txt", "to"):
        assert os.lstat(host.live / name).st_uid == NOBODY, name
    for name in ("twice", "cache.bin"):
        assert os.lstat(host.live / name).st_uid == 0, f"{name}: a second name, or not git's"
    assert os.stat("/etc/hostname").st_uid == outside.st_uid
    assert host.targets.mend(host.target) == ()
    assert host.states() == {"cache.bin": "added"}
    os.chown(host.live / "deep/a.txt", 0, 0)
    assert host.targets.mend(host.target, "to") == host.targets.mend(host.target, "", ("deep",)) == ()
    assert host.targets.mend(host.target, "deep", ("to",)) == ("deep/a.txt",)
