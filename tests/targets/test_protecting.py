"""Protected, ignored, untracked: what homeport must neither read for drift nor ever write over."""

from __future__ import annotations

import os

import pytest

from homeport.model.errors import Refused
from tests.targets.conftest import Host, link, refused


def test_a_protected_file_that_git_tracks_is_reported_and_never_written(host: Host) -> None:
    host.put({"a.txt": "one", ".env": "SECRET=git"})
    assert host.files() == {"a.txt": "one"}
    assert host.scan().protected_tracked == (".env",)
    host.write(".env", "SECRET=live")
    host.put({"a.txt": "two", ".env": "SECRET=newer"})
    assert host.files() == {"a.txt": "two", ".env": "SECRET=live"}


def test_a_protected_file_that_git_stops_tracking_is_not_deleted(host: Host) -> None:
    host.put({"a.txt": "one", ".env": "SECRET=git"})
    host.write(".env", "SECRET=live")
    host.put({".env": None, "a.txt": "two"})
    assert host.read(".env") == "SECRET=live"


def test_a_protected_file_is_not_opened(host: Host) -> None:
    host.put({"a.txt": "one", ".env": "SECRET=git"})
    os.mkfifo(host.live / ".env")
    assert host.states() == {}
    host.put({"a.txt": "two", ".env": "SECRET=newer"})


@pytest.mark.parametrize("made", ["a file", link("/srv/shared")])
def test_a_folder_pattern_also_protects_a_file_or_link_of_that_name(host: Host, made: object) -> None:
    host.put({"a.txt": "one", "node_modules": made})  # type: ignore[dict-item]
    assert host.files() == {"a.txt": "one"}
    host.write("node_modules/x/index.js", "installed")
    assert host.states() == {}
    host.put({"a.txt": "two"})
    assert host.read("node_modules/x/index.js") == "installed"


def test_a_link_that_stands_in_for_a_protected_folder_is_left_alone(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "node_modules").symlink_to(host.root)
    assert host.states() == {}
    host.put({"node_modules/x.js": "committed by mistake", "a.txt": "two"})
    assert (host.live / "node_modules").is_symlink()
    assert not (host.root / "x.js").exists()


def test_a_folder_that_becomes_a_file_over_protected_content_is_refused(host: Host) -> None:
    host.put({"lib/code.js": "x", "a.txt": "one"})
    host.write("lib/.env", "SECRET=1")
    sha = host.commit({"lib/code.js": None, "lib": "now a file"})
    refused("conflict", lambda: host.deploy(sha, "discard"))
    assert host.files() == {"lib/code.js": "x", "a.txt": "one", "lib/.env": "SECRET=1"}


def test_a_folder_that_becomes_a_link_over_ignored_content_is_refused(host: Host) -> None:
    host.put({"lib/code.js": "x", ".gitignore": "*.log\n"})
    host.write("lib/deep/app.log", "precious")
    sha = host.commit({"lib/code.js": None, "lib": link("elsewhere")})
    refused("conflict", lambda: host.deploy(sha, "discard"))
    assert host.read("lib/deep/app.log") == "precious"


def test_a_folder_that_becomes_a_file_over_a_file_added_by_hand_is_refused(host: Host) -> None:
    host.put({"lib/code.js": "x"})
    host.write("lib/mine", "by hand")
    sha = host.commit({"lib/code.js": None, "lib": "now a file"})
    for on_drift in ("keep", "discard"):
        refused("conflict", lambda how=on_drift: host.deploy(sha, how))  # type: ignore[misc]
    assert host.read("lib/mine") == "by hand"


def test_protected_content_put_there_after_the_look_stops_the_change(host: Host) -> None:
    host.put({"lib/code.js": "x", "a.txt": "one"})
    sha = host.commit({"lib/code.js": None, "lib": "now a file", "a.txt": "two"})
    plan = host.plan(sha)
    host.write("lib/.env", "SECRET=1")
    refused("conflict", lambda: host.carry_out(plan, sha))
    assert host.read("lib/.env") == "SECRET=1"


def test_a_deleted_folder_keeps_what_is_protected_or_ignored_in_it(host: Host) -> None:
    host.put({"lib/code.js": "x", ".gitignore": "*.log\n", "a.txt": "one"})
    host.write("lib/.env", "SECRET=1")
    host.write("lib/app.log", "precious")
    host.put({"lib/code.js": None})
    assert host.files() == {".gitignore": "*.log\n", "a.txt": "one", "lib/.env": "SECRET=1", "lib/app.log": "precious"}


def test_a_file_made_by_hand_that_is_ignored_and_now_wanted_is_a_conflict(host: Host) -> None:
    host.put({".gitignore": "local.conf\n", "a.txt": "one"})
    host.write("local.conf", "made by hand")
    assert host.states() == {}
    sha = host.commit({"local.conf": "from git", ".gitignore": ""})
    for on_drift in ("refuse", "keep", "discard"):
        refused("conflict", lambda how=on_drift: host.deploy(sha, how))  # type: ignore[misc]
    assert host.read("local.conf") == "made by hand"


def test_an_ignored_file_with_the_wanted_bytes_is_simply_recorded(host: Host) -> None:
    host.put({".gitignore": "local.conf\n", "a.txt": "one"})
    file = host.write("local.conf", "same")
    was = file.stat().st_ino
    host.put({"local.conf": "same"})
    assert file.stat().st_ino == was
    assert host.states() == {}


def test_untracked_in_the_way_is_a_conflict_and_otherwise_drift(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("new.txt", "by hand")
    assert host.states() == {"new.txt": "added"}
    refused("conflict", lambda: host.deploy(host.commit({"new.txt": "from git"}), "discard"))
    assert host.read("new.txt") == "by hand"


def test_an_added_file_is_never_swept_away(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write("new.txt", "by hand")
    host.deploy(host.commit({"a.txt": "two"}), "discard")
    assert host.files() == {"a.txt": "two", "new.txt": "by hand"}


def test_a_newly_protected_path_is_not_deleted_from_the_live_folder(host: Host) -> None:
    host.put({"a.txt": "one", "conf/site.ini": "x", "conf/b.ini": "y"})
    host.target = host.make_target(protect=("conf/site.ini",))
    assert host.plan(host.commit({"a.txt": "two"})).steps[0].path == "a.txt"
    host.put({"conf/site.ini": None, "conf/b.ini": "z"})
    assert host.files() == {"a.txt": "two", "conf/site.ini": "x", "conf/b.ini": "z"}


def test_a_path_no_longer_protected_is_a_conflict_unless_it_is_as_wanted(host: Host) -> None:
    host.target = host.make_target(protect=("conf/*",))
    host.write("conf/same.ini", "same")
    host.write("conf/other.ini", "live")
    sha = host.put({"a.txt": "one", "conf/same.ini": "same", "conf/other.ini": "git"})
    host.target = host.make_target()
    with pytest.raises(Refused, match=r"^conf/other.ini \(conflict\)"):
        host.deploy(sha)
    host.write("conf/other.ini", "git")
    host.deploy(sha)
    assert host.states() == {}
    assert host.rescued() == {}


def test_a_newly_ignored_file_that_was_tracked_is_deleted_only_when_git_deletes_it(host: Host) -> None:
    host.put({"a.log": "tracked", "b.txt": "x"})
    host.put({".gitignore": "*.log\n"})
    assert host.read("a.log") == "tracked"
    host.write("a.log", "edited")
    assert host.states() == {"a.log": "modified"}


def test_unprotect_lets_go_of_a_built_in_pattern_only(host: Host) -> None:
    host.target = host.make_target(unprotect=(".env*",))
    host.put({".env": "A=1", "key.pem": "never", "a.txt": "one"})
    assert host.files() == {".env": "A=1", "a.txt": "one"}


def test_build_outputs_are_not_compared_and_not_written(host: Host) -> None:
    host.target = host.make_target(outputs=("dist",))
    host.put({"a.txt": "one", "dist/old.js": "committed by mistake"})
    host.write("dist/app.js", "built")
    assert host.states() == {}
    host.put({"a.txt": "two", "dist/old.js": None})
    assert host.files() == {"a.txt": "two", "dist/app.js": "built"}


def test_mutable_files_are_reset_and_saved_and_are_no_drift(host: Host) -> None:
    host.target = host.make_target(mutable=("lock.json",))
    host.put({"lock.json": "git", "a.txt": "one"})
    host.write("lock.json", "rewritten by a program")
    scan = host.scan()
    assert scan.differences == ()
    assert [d.path for d in scan.mutated] == ["lock.json"]
    host.put({"a.txt": "two"})
    assert host.read("lock.json") == "git"
    assert host.rescued() == {"lock.json": b"rewritten by a program"}


def test_a_mutable_file_that_was_deleted_comes_back(host: Host) -> None:
    host.target = host.make_target(mutable=("lock.json",))
    host.put({"lock.json": "git", "a.txt": "one"})
    (host.live / "lock.json").unlink()
    host.put({"a.txt": "two"})
    assert host.read("lock.json") == "git"
    assert host.rescued() == {}


def test_the_claim_itself_is_neither_drift_nor_overwritten_by_a_commit(host: Host) -> None:
    host.put({"a.txt": "one", ".homeport": "planted"})
    assert "production" in host.read(".homeport")
    assert host.states() == {}
