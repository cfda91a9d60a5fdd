"""A12: `homeport setup` of the machine one sits at: no ssh, the same steps."""

from __future__ import annotations

import os
import stat

import pytest

from tests.world import World


def test_setup_of_this_very_machine_needs_no_ssh(world: World) -> None:
    world.host_file.unlink()
    world.project('[services.site]\nsource = "site"\ntarget = "{live}/site"\n', {"site/a.txt": "one\n"})
    said = world.json("setup", "--host", os.uname().nodename)
    assert said["ok"] and f'roots = ["{world.live}"]' in world.host_file.read_text()
    assert world.deploy()["status"] == "deployed"
    world.state.chmod(0o755)
    assert [step["name"] for step in world.json("setup")["steps"] if step["changed"]] == ["state folder"]
    assert stat.S_IMODE(world.state.stat().st_mode) == 0o700


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is not limited")
def test_as_root_nothing_is_deployed_without_a_host_file(world: World) -> None:
    world.project('[services.site]\nsource = "site"\ntarget = "{live}/site"\n', {"site/a.txt": "one\n"})
    world.host_file.unlink()
    refused = world.deploy(ok=(3,))
    assert (refused["errorCode"], refused["status"]) == ("no-lists", "refused") and "setup" in refused["next"]
    assert not (world.live / "site").exists()
    assert world.json("status")["services"], "looking is free"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is not limited")
def test_as_root_no_verb_changes_what_is_live_without_the_lists_of_a_host_file(world: World) -> None:
    world.project('[services.site]\nsource = "site"\ntarget = "{live}/site"\n', {"site/a.txt": "one\n"})
    world.deploy()
    lists, live = world.host_file.read_text(), world.live / "site/a.txt"
    live.write_text("hand\n")
    world.homeport("discard", "site/a.txt")
    saved = world.json("rescue", "list")["rescues"][0]["id"]
    live.write_text("again\n")
    changing = (("discard", "site/a.txt"), ("rescue", "restore", saved))
    world.host_file.unlink()
    for words in changing:
        refused = world.json(*words, ok=(3,))
        assert (refused["code"], refused["next"][:31]) == ("no-lists", "homeport -e production setup   "), words
    world.host_file.write_text(lists.replace(str(world.live), str(world.root / "elsewhere")))
    for words in changing:
        assert world.json(*words, ok=(3,))["code"] == "roots", words
    world.host_file.write_text(lists + "observe = true\n")
    for words in changing:
        assert world.json(*words, ok=(3,))["code"] == "observe", words
    for look in ("drift", "edits"):
        told = world.homeport(look, ok=None).stdout
        assert "discard" not in told and "deploy --keep" not in told and "homeport setup --no-observe " in told, told
    assert live.read_text() == "again\n"
    world.host_file.write_text(lists)
    (world.live / "door").symlink_to(world.root / "home")
    for to, code in (
        (world.root / "home/job", "roots"), (world.live / "door/job", "roots"), (world.live / "site/.env", "live-folder"),
        (world.live / "nowhere/job", "usage"), (world.live / "aside", None), (world.live / "aside", "exists"),
    ):  # fmt: skip
        said = world.json("rescue", "restore", saved, "--to", str(to), ok=(0, 2, 3))
        assert said.get("code") == code, (to, said)
    assert (world.live / "aside").read_text() == "hand\n" and not (world.root / "home/job").exists()
    assert world.json("accept", "site/a.txt", "--because", "known", "--until", "7d")["accepted"], "it writes nothing live"
