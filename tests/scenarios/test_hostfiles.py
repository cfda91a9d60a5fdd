"""B11: host files: listed, edited with validation and reload, put back when that fails, kept in a history, secrets kept out
of it, changes made outside noticed, and nothing touched that the host does not allow."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.world import World, eventually

SERVICE = '\n[services.api]\nsource = "api"\ntarget = "{live}/api"\n'


def registered(world: World, path: Path, more: str = "", before: str = "") -> None:
    entry = f'\n[[hostfiles]]\npath = "{path}"\npurpose = "the proxy"\n{more}\n'
    world.project(before + SERVICE + entry, {"api/a": "one\n"})
    world.deploy()


def listed(world: World) -> dict[str, Any]:
    return {row["path"]: row for row in world.json("hostfile", "list")["hostfiles"]}


def editor(world: World, script: str) -> dict[str, str]:
    """An $EDITOR that runs this shell text on the file it is given."""
    path = world.root / "editor"
    path.write_text(f'#!/bin/sh\nset -e\nfile="$1"\n{script}\n')
    path.chmod(0o755)
    return {"EDITOR": str(path)}


def edit(world: World, path: Path, content: str, *args: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Edits with the new content from a file."""
    new = world.root / "new-content"
    new.write_text(content)
    return world.json("hostfile", "edit", str(path), "--from", str(new), *args, ok=ok)


def test_an_edit_is_validated_put_in_place_reloaded_and_noted(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("timeout 10\n")
    conf.chmod(0o640)
    os.setxattr(conf, "user.note", b"ours")
    if os.geteuid() == 0:
        os.chown(conf, 12345, 12346)
    log = world.root / "reloads"
    registered(world, conf, f'validate = "grep -q timeout $HOMEPORT_FILE"\nreload = "cat {conf} >> {log}"')
    inode = conf.stat().st_ino
    # an editor that writes a new file in the copy's place, as many do
    env = editor(world, 'sed s/10/20/ "$file" > "$file.tmp"; mv "$file.tmp" "$file"')
    world.homeport("hostfile", "edit", str(conf), "--because", "slow uploads", env=env)
    assert (conf.read_text(), log.read_text()) == ("timeout 20\n", "timeout 20\n")
    now = conf.stat()
    assert now.st_ino != inode
    assert stat.S_IMODE(now.st_mode) == 0o640
    assert os.getxattr(conf, "user.note") == b"ours"
    if os.geteuid() == 0:
        assert (now.st_uid, now.st_gid) == (12345, 12346)
    assert [p.name for p in etc.iterdir()] == ["proxy.conf"]

    row = listed(world)[str(conf)]
    assert (row["state"], row["purpose"], row["mode"]) == ("recorded", "the proxy", "0640")
    versions = world.json("hostfile", "list", str(conf))["versions"]
    assert [(v["how"], v["because"]) for v in versions] == [("edit", "slow uploads"), ("seen", "seen for the first time")]
    assert any(r["action"] == "hostfile edit" and "slow uploads" in r["detail"] for r in world.json("audit")["audit"])
    # the session note is on a branch of its own, one page ahead of main
    branch = next(b for b in world.git("ls-remote", "--heads", str(world.origin)).split() if "/note-" in b)
    world.git("fetch", "-q", "origin", branch)
    (page,) = world.git("diff", "--name-only", "origin/main", "FETCH_HEAD").split()
    assert page.startswith("docs/operations/session-")
    note = world.git("show", f"FETCH_HEAD:{page}")
    for told in (str(conf), "host-1", "production", "the proxy", "slow uploads", "+timeout 20", "-timeout 10"):
        assert told in note
    # and an earlier version comes back
    world.homeport("hostfile", "edit", str(conf), "--version", versions[1]["id"], "--no-note")
    assert conf.read_text() == "timeout 10\n"


def test_what_is_not_valid_is_not_put_in_place_and_the_text_is_kept(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("timeout 10\n")
    registered(world, conf, 'validate = "grep -q timeout $HOMEPORT_FILE || { echo line 1 is wrong; exit 1; }"')
    done = world.homeport("hostfile", "edit", str(conf), env=editor(world, 'echo nonsense > "$file"'), ok=(1,))
    assert "is not valid" in done.stderr
    assert "line 1 is wrong" in done.stderr
    assert conf.read_text() == "timeout 10\n"
    draft = next(world.state.glob("**/*.draft"))
    assert draft.read_text() == "nonsense\n"
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    assert [p.name for p in etc.iterdir()] == ["proxy.conf"]
    assert world.homeport("hostfile", "edit", str(conf), env=editor(world, "exit 3"), ok=(2,)).code == 2
    assert world.json("hostfile", "edit", str(conf), "--from", str(conf))["changed"] is False


def test_a_reload_that_fails_brings_the_old_content_back_and_reloads_it(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("good\n")
    log = world.root / "reloads"
    registered(world, conf, f'reload = "cat {conf} >> {log}; ! grep -q bad {conf}"')
    failed = edit(world, conf, "bad\n", ok=(1,))
    assert failed["code"] == "reload"
    assert "the old content is in place again" in failed["what"]
    assert conf.read_text() == "good\n"
    assert log.read_text() == "bad\ngood\n"
    assert listed(world)[str(conf)]["state"] == "recorded"
    (row,) = [r for r in world.json("audit")["audit"] if r["action"] == "hostfile edit"]
    assert row["outcome"] == "restored"


def test_a_change_made_outside_is_noticed_shown_and_never_overwritten_unseen(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("one\n")
    registered(world, conf)
    assert world.json("status")["hostfiles"] == []
    conf.write_text("by hand\n")
    assert world.json("status")["hostfiles"] == [{"path": str(conf), "state": "changed", "because": ""}]
    assert f"changed outside homeport: {conf}" in world.homeport("status").stdout
    doctor = {row["name"]: row for row in world.json("doctor", ok=None)["checks"]}
    assert doctor[f"host file {conf}"]["ok"] is False
    shown = world.homeport("hostfile", "diff", ok=(3,)).stdout
    assert "-one" in shown
    assert "+by hand" in shown
    assert edit(world, conf, "mine\n", ok=(3,))["code"] == "hostfile-changed"
    assert conf.read_text() == "by hand\n"
    world.homeport("hostfile", "record", str(conf), "--because", "certificate renewed")
    assert world.json("hostfile", "diff")["equal"] is True
    assert edit(world, conf, "mine\n", "--no-note")["changed"] is True
    conf.unlink()
    assert listed(world)[str(conf)]["state"] == "missing"


def test_a_secret_is_never_shown_and_never_in_git(world: World, etc: Path) -> None:
    conf = world.live / "api.env"
    conf.write_text("PASSWORD=hunter2-first\n")
    conf.chmod(0o600)
    registered(world, conf, "secret = true")
    done = edit(world, conf, "PASSWORD=hunter2-second\n", "--because", "rotated")
    assert done["note"]["pushed"] is True
    conf.write_text("PASSWORD=hunter2-third\n")
    shown = world.homeport("hostfile", "diff", ok=(3,)).stdout
    assert "secret" in shown
    mirror = ["git", "-C", str(world.state / "shop/repo.git"), "cat-file", "--batch-all-objects", "--batch"]
    everything = subprocess.run(mirror, capture_output=True, check=True).stdout.decode("latin-1")
    assert "rotated" in everything
    for said in (shown, everything, world.homeport("audit").stdout, world.homeport("hostfile", "list").stdout):
        assert "hunter2" not in said
    backups = {p.read_text() for p in world.state.glob("**/*.bak")}
    assert {"PASSWORD=hunter2-first\n", "PASSWORD=hunter2-second\n"} <= backups
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in world.state.glob("**/*.bak"))
    # an earlier version of a secret comes from its backup
    world.homeport("hostfile", "record", str(conf))
    oldest = world.json("hostfile", "list", str(conf))["versions"][-1]["id"]
    world.homeport("hostfile", "edit", str(conf), "--version", oldest, "--no-note")
    assert conf.read_text() == "PASSWORD=hunter2-first\n"


def test_a_commit_cannot_make_a_host_file_of_what_the_host_does_not_allow(world: World, etc: Path) -> None:
    outside, link = world.root / "shadow", etc / "link"
    outside.write_text("root:x\n")
    link.symlink_to(outside)
    (etc / "linked").symlink_to(world.root)
    twice = etc / "twice"
    twice.write_text("x\n")
    os.link(twice, etc / "again")
    entries = "".join(f'\n[[hostfiles]]\npath = "{path}"\npurpose = "x"\nreload = "touch {world.root}/ran"\n'
                      for path in (outside, link, etc / "linked/shadow", twice))  # fmt: skip
    world.project(SERVICE + entries, {"api/a": "one\n"})
    world.deploy()
    rows = listed(world)
    assert {row["state"] for row in rows.values()} == {"odd"}
    codes = {str(path): edit(world, path, "mine\n", ok=(3,))["code"] for path in (outside, link, twice)}
    assert codes == {str(outside): "hostfiles", str(link): "hostfile-link", str(twice): "hostfile-odd"}
    assert edit(world, etc / "linked/shadow", "mine\n", ok=(3,))["code"] in ("hostfiles", "hostfile-link")
    assert edit(world, etc / "unknown", "mine\n", ok=(3,))["code"] == "no-hostfile"
    assert outside.read_text() == "root:x\n"
    assert not (world.root / "ran").exists()
    # the machine's owner lists it, with a reload of the host's own that wins
    world.host_file.write_text(world.host_file.read_text() + f'\n[[hostfiles]]\npath = "{outside}"\npurpose = "ours"\n'
                               f'reload = "touch {world.root}/own"\n')  # fmt: skip
    edit(world, outside, "mine\n", "--no-note")
    assert outside.read_text() == "mine\n"
    assert (world.root / "own").exists()
    assert not (world.root / "ran").exists()


def test_rules_guard_host_files_and_a_commit_that_drops_the_guard_has_to_be_deployed(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("one\n")
    guard = f'\n[[rules]]\nid = "proxy"\naction = "hostfile"\nmatch = "{etc}/"\neffect = "confirm"\n'
    registered(world, conf, before=guard)
    toml = world.clone / "homeport.toml"
    toml.write_text(toml.read_text().replace(guard, ""))
    refused = edit(world, conf, "two\n", ok=(3,))
    assert (refused["code"], conf.read_text()) == ("confirm", "one\n")
    assert "--confirm proxy" in refused["next"]
    edit(world, conf, "two\n", "--confirm", "proxy", "--because", "agreed", "--no-note")
    assert conf.read_text() == "two\n"
    (row,) = [r for r in world.json("audit")["audit"] if r["action"] == "exception proxy"]
    assert "agreed" in row["detail"]


def test_an_edit_that_is_killed_before_its_reload_is_ended_by_the_next_look(world: World, etc: Path) -> None:
    conf, ready, log = etc / "proxy.conf", world.root / "reloading", world.root / "reloads"
    conf.write_text("one\n")
    registered(world, conf, f'reload = "cat {conf} >> {log}; test -e {ready} && exit 0; touch {ready}; exec sleep 60"')
    (world.root / "new").write_text("two\n")
    process = world.start("hostfile", "edit", str(conf), "--from", str(world.root / "new"), "--because", "cut", "--no-note")
    eventually(ready.exists, "the reload runs")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert conf.read_text() == "two\n"
    assert world.json("status")["hostfiles"][0]["state"] == "interrupted"
    row = listed(world)[str(conf)]
    assert row["state"] == "recorded"
    assert log.read_text() == "two\ntwo\n"
    newest = world.json("hostfile", "list", str(conf))["versions"][0]
    assert (newest["how"], newest["because"]) == ("edit", "cut")


def test_a_new_file_whose_reload_fails_is_gone_again_and_what_a_crash_left_beside_it_goes(world: World, etc: Path) -> None:
    conf, old, fresh = etc / "new.conf", etc / ".new.conf.homeport-00112233", etc / ".new.conf.homeport-44556677"
    registered(world, conf, f'reload = "grep -q good {conf}"')
    assert listed(world)[str(conf)]["state"] == "new"
    for left in (old, fresh):
        left.write_text("left\n")
    os.utime(old, (1, 1))
    assert "gone again" in edit(world, conf, "bad\n", ok=(1,))["what"]
    assert sorted(path.name for path in etc.iterdir()) == [fresh.name]
    edit(world, conf, "good\n", "--no-note")
    assert listed(world)[str(conf)]["mode"] == "0644"


def test_two_people_who_edit_at_once_do_not_overwrite_each_other(world: World, etc: Path) -> None:
    conf = etc / "proxy.conf"
    conf.write_text("one\n")
    registered(world, conf)
    env = editor(world, f'echo theirs > {conf}; echo mine > "$file"')
    lost = world.homeport("--json", "hostfile", "edit", str(conf), env=env, ok=(3,))
    assert lost.last["code"] == "changing"
    assert conf.read_text() == "theirs\n"


def test_sshd_itself_says_whether_its_configuration_is_valid(world: World, etc: Path) -> None:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd, "sshd is not installed; ./dev setup installs it"
    key = world.root / "host-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    conf = etc / "sshd_config"
    conf.write_text(f"Port 2222\nHostKey {key}\n")
    registered(world, conf, f'validate = "{sshd} -t -f $HOMEPORT_FILE"')
    edit(world, conf, f"Port 2223\nHostKey {key}\n", "--no-note")
    assert "2223" in conf.read_text()
    assert edit(world, conf, f"Port 2224\nHostKey {key}\nPermitRootLogon no\n", ok=(1,))["code"] == "validate"
    assert "2223" in conf.read_text()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user owns the folder")
def test_a_commits_commands_run_as_the_owner_of_the_folder_unless_the_host_lists_the_path(world: World, etc: Path) -> None:
    conf, log = etc / "proxy.conf", etc / "log"
    conf.write_text("one\n")
    for path in (etc, conf):
        os.chown(path, 65534, 65534)
    world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
    # nobody may not walk there from the root, and stands in the folder already
    registered(world, conf, 'reload = "cd ${HOMEPORT_PATH%/*} 2>/dev/null; id -u >> log"')
    edit(world, conf, "two\n", "--no-note")
    listed_too = f'\n[[hostfiles]]\npath = "{conf}"\npurpose = "ours"\n'
    world.host_file.write_text(world.host_file.read_text() + listed_too)
    edit(world, conf, "three\n", "--no-note")
    assert log.read_text() == "65534\n0\n"
