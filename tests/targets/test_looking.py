"""What a look at a live folder sees, and what must never make it say "no drift" or hang."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.targets.conftest import Host, executable, git, git_env, link, needs_root, refused


def index_of(host: Host) -> Path:
    return host.state / "targets/api.index"


def test_a_missing_index_is_not_no_drift(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "two"})
    host.write("a.txt", "edited")
    index_of(host).unlink()
    assert host.states() == {"a.txt": "modified"}


def test_an_index_cut_short_is_made_anew(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("a.txt", "edited")
    index_of(host).write_bytes(b"")
    assert host.states() == {"a.txt": "modified"}


def test_an_index_full_of_rubbish_is_never_no_drift(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("a.txt", "edited")
    index_of(host).write_bytes(b"DIRC" + os.urandom(200))
    assert host.states() == {"a.txt": "modified"}


def test_an_index_that_only_looks_whole_is_made_anew(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "two"})
    host.write("a.txt", "edited")
    raw = bytearray(index_of(host).read_bytes())
    raw[30] ^= 1
    index_of(host).write_bytes(raw)
    assert host.states() == {"a.txt": "modified"}


def test_a_look_that_finds_no_index_while_another_writes_one_waits_for_it(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("a.txt", "edited")
    index_of(host).unlink()
    found: list[dict[str, str]] = []
    look = threading.Thread(target=lambda: found.append(another_process_looks(host)))
    with host.targets._book.index(host.target).hold():
        look.start()
        look.join(0.3)
        assert not found
    look.join()
    assert found == [{"a.txt": "modified"}]


def another_process_looks(host: Host) -> dict[str, str]:
    store, _, targets = host.side(host.environment)
    try:
        return {d.path: d.state for d in targets.scan(host.target, "main").differences}
    finally:
        store.close()


def test_a_folder_that_is_gone_is_refused_not_called_deleted(host: Host) -> None:
    host.put({"a.txt": "one"})
    shutil.rmtree(host.live)
    refused("not-the-folder", host.meet)
    refused("not-the-folder", host.scan)


def test_another_folder_in_its_place_is_refused_as_something_not_mounted(host: Host) -> None:
    sha = host.put({"a.txt": "one"})
    host.live.rename(host.live.parent / "away")
    host.live.mkdir()
    refused("not-the-folder", host.meet)
    refused("not-the-folder", lambda: host.deploy(sha))
    assert host.files() == {}


@needs_root
def test_an_unmounted_live_folder_is_refused(host: Host) -> None:
    sha = host.commit({"a.txt": "one"})
    host.live.mkdir()
    mount("-t", "tmpfs", "none", str(host.live))
    try:
        host.meet()
        (host.live / "upload").write_text("x")
    finally:
        subprocess.run(["umount", str(host.live)], check=True)
    refused("not-the-folder", lambda: host.deploy(sha))


def test_the_same_folder_moved_to_another_disk_is_known_by_its_claim(host: Host) -> None:
    host.put({"a.txt": "one"})
    copy = host.live.parent / "copy"
    shutil.copytree(host.live, copy)
    shutil.rmtree(host.live)
    copy.rename(host.live)
    host.meet()
    assert host.states() == {}


def test_a_live_folder_that_is_a_link_is_refused(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.live.rename(host.live.parent / "elsewhere")
    host.live.symlink_to(host.live.parent / "elsewhere")
    refused("not-the-folder", host.meet)


def test_a_folder_that_was_emptied_is_all_deleted_and_nothing_else(host: Host) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    (host.live / "a.txt").unlink()
    shutil.rmtree(host.live / "lib")
    assert host.states() == {"a.txt": "deleted", "lib/b.txt": "deleted"}


def test_the_lock_of_a_killed_git_does_not_stop_anything(host: Host) -> None:
    host.put({"a.txt": "one"})
    Path(f"{index_of(host)}.lock").write_bytes(b"")
    host.put({"a.txt": "two"})
    assert host.read("a.txt") == "two"
    assert not Path(f"{index_of(host)}.lock").exists()


def test_edits_of_the_same_size_in_the_same_moment_are_seen(host: Host) -> None:
    names = [f"f{n}.txt" for n in range(40)]
    host.put(dict.fromkeys(names, "one"))
    for name in names:
        host.write(name, "two")
    assert host.states() == dict.fromkeys(names, "modified")


def test_an_edit_that_hides_behind_the_old_times_is_seen(host: Host) -> None:
    host.put({"a.txt": "one"})
    was = os.stat(host.live / "a.txt")
    host.write("a.txt", "two")
    os.utime(host.live / "a.txt", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert host.states() == {"a.txt": "modified"}


def test_a_touched_file_is_not_drift_and_is_not_read_twice(host: Host) -> None:
    host.put({"a.txt": "one"})
    os.utime(host.live / "a.txt", (1, 1))
    assert host.states() == {}
    assert host.states() == {}


def test_each_kind_of_difference_has_its_name(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "two", "c.txt": "three", "run": executable("x"), "to": link("a.txt")})
    host.write("a.txt", "edited")
    (host.live / "b.txt").unlink()
    (host.live / "c.txt").unlink()
    (host.live / "c.txt").symlink_to("a.txt")
    (host.live / "run").chmod(0o644)
    host.write("new/deep/file", "mine")
    assert host.states() == {"a.txt": "modified", "b.txt": "deleted", "c.txt": "type_changed", "run": "modified",
                             "new/deep/file": "added"}  # fmt: skip


def test_a_hand_made_600_is_no_drift_only_the_x_bit_is(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "a.txt").chmod(0o600)
    assert host.states() == {}
    (host.live / "a.txt").chmod(0o700)
    assert host.states() == {"a.txt": "modified"}


@pytest.mark.parametrize("kind", ["fifo", "socket", pytest.param("device", marks=needs_root)])
def test_a_file_replaced_by_something_strange_is_named_and_nothing_hangs(host: Host, kind: str) -> None:
    host.put({"a.txt": "one", "b.txt": "two"})
    (host.live / "a.txt").unlink()
    strange(host.live / "a.txt", kind)
    found = host.drift()["a.txt"]
    assert (found.state, found.oddity, found.actual) == ("type_changed", kind, None)
    refused("conflict", lambda: host.deploy(host.commit({"a.txt": "new"}), "discard"))
    assert not stat.S_ISREG(os.lstat(host.live / "a.txt").st_mode)


@pytest.mark.parametrize("kind", ["fifo", "socket", pytest.param("device", marks=needs_root)])
def test_something_strange_in_the_way_of_a_new_file_is_a_conflict(host: Host, kind: str) -> None:
    host.put({"b.txt": "two"})
    strange(host.live / "a.txt", kind)
    said = refused("conflict", lambda: host.deploy(host.commit({"a.txt": "new"})))
    assert kind in said.what


@pytest.mark.parametrize("kind", ["fifo", "socket", pytest.param("device", marks=needs_root)])
def test_something_strange_of_the_application_is_passed_over(host: Host, kind: str) -> None:
    host.put({"b.txt": "two"})
    (host.live / "run").mkdir()
    strange(host.live / "run/app", kind)
    assert host.states() == {}
    host.put({"b.txt": "three"})


def strange(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    else:
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)


def mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True, capture_output=True)


def test_ignore_rules_come_from_the_commit_and_the_folders_above_the_source(host: Host) -> None:
    host.origin.commit({".gitignore": "*.log\n"})
    host.put({".gitignore": "/cache/\n", "a.txt": "one"})
    host.write("x.log", "noise")
    host.write("cache/y", "noise")
    host.write("other/cache/z", "mine")
    assert host.states() == {"other/cache/z": "added"}


def test_a_gitignore_edited_in_the_live_folder_hides_nothing(host: Host) -> None:
    host.put({".gitignore": "*.log\n", "a.txt": "one"})
    host.write(".gitignore", "*\n")
    host.write("new.txt", "mine")
    assert host.states() == {".gitignore": "modified", "new.txt": "added"}


@pytest.mark.parametrize("where", [".gitignore", "lib/.gitignore"])
def test_a_live_gitignore_cannot_unprotect(host: Host, where: str) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    host.write(".env", "SECRET=1")
    host.write("lib/.env", "SECRET=2")
    host.write(where, "!.env\n!*\n")
    assert host.states() == {where: "added"}


def test_a_gitignore_of_the_commit_cannot_unprotect_either(host: Host) -> None:
    host.put({".gitignore": "!.env\n", "a.txt": "one"})
    host.write(".env", "SECRET=1")
    assert host.states() == {}


def test_the_users_own_ignore_file_is_not_read(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    home = host.root / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*\n")
    (home / ".gitconfig").write_text(f"[core]\n\texcludesFile = {home}/.config/git/ignore\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.excludesFile")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"{home}/.config/git/ignore")
    host.put({"a.txt": "one"})
    host.write("new.txt", "mine")
    assert host.states() == {"new.txt": "added"}


def test_an_exclude_file_of_the_mirror_or_of_a_git_folder_found_there_is_not_read(host: Host) -> None:
    host.put({"a.txt": "one"})
    git(host.live, "init", "-q")
    (host.live / ".git/info").mkdir(exist_ok=True)
    (host.live / ".git/info/exclude").write_text("*\n")
    host.write("new.txt", "mine")
    assert host.states() == {"new.txt": "added"}


def test_a_nested_repository_is_one_entry_and_is_not_entered(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "vendor").mkdir()
    git(host.live / "vendor", "init", "-q")
    host.write("vendor/x.txt", "theirs")
    found = host.drift()
    assert list(found) == ["vendor"]
    assert found["vendor"].oddity == "nested repository"


def test_a_nested_repository_in_the_way_is_a_conflict_and_stays(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "vendor").mkdir()
    git(host.live / "vendor", "init", "-q")
    sha = host.commit({"vendor": "a file now"})
    refused("conflict", lambda: host.deploy(sha, "keep"))
    assert (host.live / "vendor/.git/HEAD").exists()


def test_a_tracked_file_below_a_nested_repository_is_still_seen(host: Host) -> None:
    host.put({"vendor/x.txt": "ours"})
    git(host.live / "vendor", "init", "-q")
    host.write("vendor/x.txt", "edited")
    assert host.states()["vendor/x.txt"] == "modified"


def test_an_unreadable_file_is_named_and_never_replaced(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "a.txt").unlink()
    (host.live / "a.txt").mkdir()
    assert host.drift()["a.txt"].oddity == "directory"


def test_a_live_folders_own_git_configuration_runs_nothing(host: Host) -> None:
    host.put({"a.txt": "one"})
    git(host.live, "init", "-q")
    ran = host.root / "ran"
    hook = host.root / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    git(host.live, "config", "core.fsmonitor", str(hook))
    git(host.live, "config", "core.hooksPath", str(host.root))
    host.write("a.txt", "edited")
    assert host.states() == {"a.txt": "modified"}
    assert not ran.exists()


def test_an_fsmonitor_of_the_callers_environment_runs_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = host.root / "ran"
    hook = host.root / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    for name, value in (("COUNT", "1"), ("KEY_0", "core.fsmonitor"), ("VALUE_0", str(hook))):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_DIR", str(host.root / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(host.root / "nothing"))
    host.put({"a.txt": "one"})
    assert host.states() == {}
    assert not ran.exists()
    assert "GIT_DIR" not in git_env()


def test_content_that_the_branch_once_had_is_marked_with_its_commit(host: Host) -> None:
    first = host.put({"a.txt": "one", "b.txt": "x"})
    host.put({"a.txt": "two"})
    newer = host.commit({"a.txt": "three"})
    host.write("a.txt", "one")
    assert host.drift()["a.txt"].foreign == first
    host.write("a.txt", "three")
    assert host.drift()["a.txt"].foreign == newer
    host.write("a.txt", "by hand")
    assert host.drift()["a.txt"].foreign is None


def test_a_file_that_another_deployer_added_is_marked_with_its_commit(host: Host) -> None:
    host.put({"a.txt": "one"})
    newer = host.commit({"new.txt": "brought by git"})
    host.write("new.txt", "brought by git")
    assert host.drift()["new.txt"].foreign == newer


def test_a_hundred_scans_find_the_same_and_write_no_journal(host: Host) -> None:
    host.put({f"{n}/f": str(n) for n in range(30)})
    before = index_of(host).stat().st_mtime_ns
    assert all(host.states() == {} for _ in range(3))
    assert index_of(host).stat().st_mtime_ns == before
