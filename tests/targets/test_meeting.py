"""First contact, claims, checkouts, and what must outlive a gc and a force-push."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from homeport.doors.contact import CONSIDERED
from homeport.doors.git import Mirror
from homeport.doors.git_read import EMPTY_TREE
from homeport.doors.shell import LocalShell
from homeport.model.deploys import TargetRecord
from homeport.model.live import FirstContact
from tests.targets.conftest import Host, git, git_env, link, refused
from tests.targets.test_moments import Crash, crash, right_before_the_first_change, start_again


def contact(host: Host) -> FirstContact:
    first = host.meet().first_contact
    assert first is not None
    return first


def test_the_commit_with_the_fewest_differing_paths_is_chosen_and_said(host: Host) -> None:
    host.commit({"a.txt": "1", "b.txt": "1", "c.txt": "1"})
    second = host.commit({"a.txt": "2", "b.txt": "2"})
    host.commit({"a.txt": "3", "b.txt": "3", "c.txt": "3"})
    for name, text in (("a.txt", "2"), ("b.txt", "2"), ("c.txt", "by hand")):
        host.write(name, text)
    assert contact(host) == FirstContact(target="api", commit=second, differing=1, considered=3)
    assert host.states() == {"c.txt": "modified"}
    assert host.meet().first_contact is None


def test_of_two_that_fit_alike_the_newest_wins(host: Host) -> None:
    host.commit({"a.txt": "1"})
    host.commit({"a.txt": "2"})
    again = host.commit({"a.txt": "1"})
    host.write("a.txt", "1")
    assert contact(host).commit == again


def test_files_that_later_commits_took_away_count(host: Host) -> None:
    old = host.commit({"a.txt": "1", "gone.txt": "x"})
    host.commit({"gone.txt": None})
    for name, text in (("a.txt", "1"), ("gone.txt", "x")):
        host.write(name, text)
    assert contact(host).commit == old
    assert host.states() == {}


def test_protected_files_do_not_sway_the_choice(host: Host) -> None:
    old = host.commit({"a.txt": "1", ".env": "A=1"})
    host.commit({"a.txt": "2", ".env": "A=2"})
    host.write("a.txt", "1")
    host.write(".env", "A=2")
    assert contact(host) == FirstContact(target="api", commit=old, differing=0, considered=2)


def test_history_is_only_looked_at_so_far_back(host: Host) -> None:
    host.commit({"a.txt": "first", "b.txt": "same"})
    for n in range(CONSIDERED + 2):
        host.origin.commit({"api/a.txt": str(n)})
    host.mirror.fetch()
    host.write("a.txt", "first")
    host.write("b.txt", "same")
    first = contact(host)
    assert first.considered == CONSIDERED
    assert first.commit == host.mirror.tip("main")
    assert host.states() == {"a.txt": "modified"}


def test_a_folder_that_is_absent_is_recorded_as_empty_and_made_by_the_deploy(host: Host) -> None:
    sha = host.commit({"a.txt": "one"})
    recorded = host.meet()
    assert recorded.tree == EMPTY_TREE
    assert recorded.first_contact == FirstContact(target="api", commit=None)
    assert not host.live.exists()
    host.deploy(sha)
    assert host.files() == {"a.txt": "one"}


def test_a_folder_that_was_absent_and_now_has_content_is_met_again(host: Host) -> None:
    old = host.commit({"a.txt": "one"})
    host.commit({"a.txt": "two"})
    host.meet()
    host.write("a.txt", "one")
    assert contact(host).commit == old
    assert host.states() == {}


def test_an_empty_folder_starts_from_nothing(host: Host) -> None:
    sha = host.commit({"a.txt": "one"})
    host.live.mkdir()
    assert contact(host).commit is None
    assert host.states() == {}
    host.deploy(sha)
    assert host.files() == {"a.txt": "one"}


def test_unrelated_content_is_drift_and_never_swept(host: Host) -> None:
    sha = host.commit({"a.txt": "one"})
    host.write("index.html", "somebody's page")
    host.write("lib/x", "more")
    assert contact(host).commit is None
    assert host.states() == {"index.html": "added", "lib/x": "added"}
    refused("drift", lambda: host.deploy(sha))
    host.deploy(sha, "discard")
    assert host.files() == {"a.txt": "one", "index.html": "somebody's page", "lib/x": "more"}


def test_unrelated_content_under_a_wanted_name_is_a_conflict(host: Host) -> None:
    sha = host.commit({"a.txt": "one", "b.txt": "x"})
    host.write("a.txt", "somebody's")
    assert contact(host).commit is None
    refused("conflict", lambda: host.deploy(sha, "discard"))
    assert host.files() == {"a.txt": "somebody's"}


def test_the_first_deploy_over_an_old_copy_takes_away_only_what_git_had(host: Host) -> None:
    host.commit({"a.txt": "1", "old/gone.txt": "x", ".gitignore": "*.log\n"})
    sha = host.commit({"a.txt": "2", "old/gone.txt": None})
    for name, text in (("a.txt", "1"), ("old/gone.txt", "x"), ("old/mine.log", "y"), (".gitignore", "*.log\n")):
        host.write(name, text)
    host.deploy(sha)
    assert host.files() == {"a.txt": "2", "old/mine.log": "y", ".gitignore": "*.log\n"}


def test_observing_writes_nothing_into_the_live_folder(host: Host) -> None:
    host.commit({"a.txt": "one"})
    host.write("a.txt", "one")
    before = host.live.stat().st_mtime_ns
    host.targets.meet(host.target, "main", observe=True)
    assert host.states() == {}
    assert host.live.stat().st_mtime_ns == before
    assert not (host.live / ".homeport").exists()
    assert not (host.live.parent / ".homeport-api").exists()


def test_another_state_folder_is_refused_and_changes_nothing(host: Host) -> None:
    sha = host.put({"a.txt": "one"})
    claim = json.loads(host.read(".homeport"))
    assert claim == {"project": "shop", "environment": "production", "service": "api", "state": str(host.state)}
    store, _, other = host.side("staging")
    refused("claimed", lambda: other.meet(host.target, "main"))
    refused("claimed", lambda: other.meet_anew(host.target, "main"))
    assert store.target("api") is None
    store.close()
    host.deploy(sha)


def test_two_services_cannot_have_one_folder(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.target = host.make_target(name="web")
    refused("claimed", host.meet)


def test_a_claim_that_came_after_the_meeting_stops_the_sync(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    plan = host.plan(sha)
    claim = json.loads(host.read(".homeport")) | {"state": "/somewhere/else"}
    host.write(".homeport", json.dumps(claim))
    refused("claimed", lambda: host.carry_out(plan, sha))
    assert host.read("a.txt") == "one"


@pytest.mark.parametrize("text", ["", "not json", '{"project": 1}', "[]", "x" * 5000])
def test_a_claim_that_says_nothing_is_written_anew(host: Host, text: str) -> None:
    host.put({"a.txt": "one"})
    host.write(".homeport", text)
    host.put({"a.txt": "two"})
    assert json.loads(host.read(".homeport"))["service"] == "api"


def test_a_claim_that_is_a_link_is_not_followed(host: Host) -> None:
    host.put({"a.txt": "one"})
    outside = host.root / "outside"
    outside.write_text("precious")
    (host.live / ".homeport").unlink()
    (host.live / ".homeport").symlink_to(outside)
    host.put({"a.txt": "two"})
    assert outside.read_text() == "precious"
    assert not (host.live / ".homeport").is_symlink()


def test_the_whole_project_in_a_git_checkout_is_synced_and_its_git_folder_left_alone(host: Host) -> None:
    first = host.commit_at_root({"api/a.txt": "one", "web/index.html": "hello", "README": "x"})
    git(host.root, "clone", "-q", str(host.origin.path), str(host.live))
    host.target = host.make_target(source="", name="_project")
    assert contact(host).commit == first
    assert host.states() == {}
    before = {p: p.read_bytes() for p in (host.live / ".git").rglob("*") if p.is_file()}
    host.deploy(host.commit_at_root({"api/a.txt": "two", "web/index.html": None, "web/app.js": "y"}))
    assert {p: p.read_bytes() for p in (host.live / ".git").rglob("*") if p.is_file()} == before
    assert host.read("api/a.txt") == "two"
    assert sorted(os.listdir(host.live / "web")) == ["app.js"]
    assert host.states() == {}


def test_a_worktree_whose_git_is_a_file_is_left_alone_too(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.write(".git", "gitdir: /somewhere/else\n")
    host.write("b.txt", "mine")
    assert host.states() == {"b.txt": "added"}
    host.deploy(host.commit({"a.txt": "two"}), "keep")
    assert host.read(".git") == "gitdir: /somewhere/else\n"


def gc(host: Host) -> None:
    """The harshest one: nothing that is not named by a ref survives."""
    git(host.mirror.path, "reflog", "expire", "--expire=now", "--all")
    git(host.mirror.path, "gc", "-q", "--prune=now")


def test_a_gc_after_a_force_push_keeps_what_is_recorded_and_what_was_saved(host: Host) -> None:
    gone = host.put({"a.txt": "one", ".env": "SECRET=1", "b.txt": "x"})
    host.write("a.txt", "by hand")
    host.targets.discard(host.target, list(host.drift().values()), None)
    sha = host.commit({"a.txt": "another history"}, anew=True)
    gc(host)
    assert host.mirror.has(gone)
    assert host.rescued() == {"a.txt": b"by hand"}
    assert host.states() == {}
    host.write("b.txt", "edited")
    assert host.states() == {"b.txt": "modified"}
    host.targets.discard(host.target, list(host.drift().values()), None)
    assert host.read("b.txt") == "x"
    host.deploy(sha)
    assert host.read("a.txt") == "another history"
    gc(host)
    looked_anew = Mirror(host.mirror.path, host.mirror.origin, LocalShell())
    assert not looked_anew.has(gone), "what is needed no more may go"
    assert host.rescued() == {"a.txt": b"by hand", "b.txt": b"edited"}


def test_a_gc_in_the_middle_of_a_sync_keeps_both_sides(host: Host) -> None:
    host.put({"a.txt": "one", "key.pem": "x"})
    sha = host.commit({"a.txt": "two"})
    right_before_the_first_change(host, crash)
    with pytest.raises(Crash):
        host.deploy(sha)
    host.commit({"a.txt": "another history"}, anew=True)
    gc(host)
    start_again(host)
    record = host.store.target("api")
    assert record is not None and record.syncing is not None
    assert all(host.mirror.has(tree) for tree in record.syncing[1:])


def test_a_gc_right_after_the_record_keeps_the_commit_that_it_names(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ref used to be set after the row."""
    host.put({"a.txt": "one", "key.pem": "x"})
    sha = host.commit({"a.txt": "two"})
    end = host.store.end_sync

    def ends_and_dies(record: TargetRecord) -> None:
        end(record)
        raise Crash

    monkeypatch.setattr(host.store, "end_sync", ends_and_dies)
    with pytest.raises(Crash):
        host.deploy(sha)
    monkeypatch.undo()
    host.commit({"a.txt": "another history"}, anew=True)
    gc(host)
    record = host.store.target("api")
    assert record is not None and record.commit == sha and host.mirror.has(sha) and host.mirror.has(record.tree)
    host.deploy(host.commit({"a.txt": "three"}))
    assert [ref for ref in host.mirror.kept("state/") if "next" in ref] == []


def test_a_gc_keeps_what_was_recorded_by_hand_and_after_patterns_changed(host: Host) -> None:
    sha = host.put({"a.txt": "one", "conf/x.ini": "x"})
    host.write("a.txt", "by hand")
    host.targets.take(host.target, host.scan().recorded_tree, sha, ["a.txt"])
    gc(host)
    assert host.states() == {}
    host.target = host.make_target(protect=("conf/",))
    host.meet()
    gc(host)
    host.write("a.txt", "edited")
    host.targets.discard(host.target, list(host.drift().values()), None)
    assert host.files() == {"a.txt": "by hand", "conf/x.ini": "x"}


def test_the_database_may_remember_a_filtered_tree_that_a_gc_took(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"b.txt": "x", "key.pem": "secret"})
    tree = host.targets.wanted(host.target, sha)
    gc(host)
    assert not host.mirror.has(tree)
    host.deploy(sha)
    assert host.files() == {"a.txt": "one", "b.txt": "x"}


def test_two_environments_share_one_mirror_and_nothing_else(host: Host) -> None:
    first = host.put({"a.txt": "one"})
    store, box, staging = host.side("staging")
    other = host.make_target(path=host.root / "srv/api-staging")
    second = host.commit({"a.txt": "two", "b.txt": "new"})
    production = (host.targets, host.store, host.box, host.target, host.live)
    host.targets, host.store, host.box, host.target, host.live = staging, store, box, other, Path(other.path)
    host.deploy(second)
    host.write("a.txt", "edited in staging")
    host.targets.discard(host.target, list(host.drift().values()), None)
    assert host.files() == {"a.txt": "two", "b.txt": "new"}
    host.targets, host.store, host.box, host.target, host.live = production
    gc(host)
    assert host.files() == {"a.txt": "one"}
    assert host.states() == {}
    assert host.rescued() == {}
    assert [r.path for r in box.listing()] == ["a.txt"]
    assert {host.meet().commit, staging.meet(other, "main").commit} == {first, second}
    host.commit({"a.txt": "anew"}, anew=True)
    gc(host)
    assert {d.path for d in staging.scan(other, "main").differences} == set()
    assert host.states() == {}
    store.close()


def test_the_state_folder_holds_one_index_and_its_lock_for_each_target(host: Host) -> None:
    host.put({"a.txt": "one", "to": link("a.txt")})
    assert sorted(p.name for p in (host.state / "targets").iterdir()) == ["api.index", "api.index.held"]


def test_the_branch_may_have_another_source_folder_than_before(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit_at_root({"api/a.txt": None, "server/a.txt": "one", "server/b.txt": "new"})
    host.target = host.make_target(source="server")
    host.deploy(sha)
    assert host.files() == {"a.txt": "one", "b.txt": "new"}


def test_the_live_folder_may_move_and_the_old_one_is_left_as_it_is(host: Host) -> None:
    sha = host.put({"a.txt": "one"})
    host.target = host.make_target(path=host.root / "srv/moved")
    host.deploy(sha)
    assert host.files() == {"a.txt": "one"}
    assert (host.root / "srv/moved/a.txt").read_text() == "one"


def test_nothing_beside_the_live_folder_is_left_but_the_empty_stage(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "x"})
    host.put({"a.txt": "two", "b.txt": None})
    assert [path for path in (host.live.parent / ".homeport-api").rglob("*") if not path.is_dir()] == []
    assert os.listdir(host.live.parent / ".homeport-api/stage") == []


def test_a_stage_folder_that_another_user_owns_is_refused(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    shutil.rmtree(host.live.parent / ".homeport-api")
    (host.live.parent / ".homeport-api").symlink_to(host.root)
    with pytest.raises(Exception, match="staged files"):
        host.deploy(sha)
    assert host.read("a.txt") == "one"
    assert not (host.root / "stage").exists()


def test_git_itself_sees_the_same_folder_as_homeport_does(host: Host) -> None:
    """The judge is `git status` in a checkout that has the same history."""
    sha = host.put({"a.txt": "one", "b.txt": "x", "lib/c.txt": "y", ".gitignore": "*.log\n"})
    host.write("a.txt", "edited")
    host.write("lib/new.txt", "mine")
    host.write("lib/app.log", "noise")
    (host.live / "b.txt").unlink()
    judge = host.root / "judge"
    git(host.root, "clone", "-q", str(host.origin.path), str(judge))
    shutil.rmtree(judge / "api")
    shutil.copytree(host.live, judge / "api", ignore=shutil.ignore_patterns(".homeport"))
    said = subprocess.run(["git", "-C", str(judge), "status", "--porcelain", "-uall"], env=git_env(), capture_output=True,
                          text=True, check=True).stdout.splitlines()  # fmt: skip
    short = {"modified": " M", "deleted": " D", "added": "??"}
    assert {f"{short[state]} api/{path}" for path, state in host.states().items()} == set(said)
    assert host.meet().commit == sha
