"""B5 B6 E1: what lies where a live file was, or changes while it is read, ends in a clear state; no edit is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.scenarios.test_adopt import FILES, SITE, branches, edit, touched
from tests.world import World, eventually

KINDS = ("dangling", "fifo", "folder", "hard", "link", "socket")
"""What comes into a live file's place; a file of that name each."""
ODD = {"fifo": "fifo", "folder": "directory", "socket": "socket"}
"""What is neither a file nor a link, and how it is called."""


@pytest.fixture
def deployed(world: World) -> World:
    world.project(SITE, FILES)
    world.deploy()
    return world


def put_in_place(world: World, shelf: Path, name: str) -> None:
    """Takes the live file `name` away and puts there what it is called."""
    place = world.live / "site" / name
    place.unlink()
    if name == "link":
        place.symlink_to(shelf / "theirs")
    elif name == "dangling":
        place.symlink_to("nowhere")
    elif name == "hard":
        os.link(shelf / "theirs", place)
    elif name == "fifo":
        os.mkfifo(place)
    elif name == "folder":
        place.mkdir()
        (place / "inside.txt").write_text("inside\n")
    else:
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(place.parent):
            bound.bind(name)


def test_what_is_no_plain_file_any_more_is_told_by_every_verb_and_never_followed_nor_lost(world: World) -> None:
    """drift, diff, status, accept, adopt, discard, rebuild, deploy and rescue restore meet each of them."""
    world.project(SITE, {f"site/{name}": f"{name}\n" for name in (*KINDS, "plain")})
    world.deploy()
    shelf = world.root / "shelf"
    shelf.mkdir()
    (shelf / "theirs").write_text("somebody else's\n")
    for name in KINDS:
        put_in_place(world, shelf, name)
    site = world.live / "site"
    rows = {row["path"]: row for row in world.json("drift", ok=(3,))["services"][0]["paths"]}
    assert {name: row["because"] for name, row in rows.items() if row["because"]} == ODD
    assert (rows["link"]["state"], rows["hard"]["state"]) == ("type_changed", "modified")
    shown = world.homeport("diff", ok=(3,)).stdout
    assert "fifo: fifo" in shown and "+nowhere" in shown and shown.count("+somebody else's") == 1
    assert f"+{shelf / 'theirs'}" in shown, "a link is its target's name, not what lies there"
    assert world.json("status")["services"][0]["drift"] == len(rows)
    for name in ("fifo", "socket"):
        refused = world.json("adopt", f"site/{name}", ok=(3,))
        assert (refused["code"], refused["next"]) == ("not-adoptable", "homeport drift") and name in refused["what"]
        refused = world.json("discard", f"site/{name}", ok=(3,))
        assert refused["code"] == "oddity" and refused["next"].startswith(f"mv {site / name} ELSEWHERE, then: ")
    refused = world.deploy(ok=(3,))
    assert refused["status"] == "refused" and "fifo (fifo)" in refused["errorSummary"]
    refused = world.json("rebuild", "site", ok=(3,))
    assert "cannot be built from" in refused["errorSummary"] and f"mv {site}" in refused["next"]
    said = world.json("adopt", "--branch", "found")
    assert {row["path"].split("/")[1] for row in said["skipped"]} == {"fifo", "socket"}
    git = ["ls-tree", "found", "site/link", "site/dangling", "site/hard"]
    assert [line.split()[0] for line in world.git(*git, cwd=world.origin).splitlines()] == ["120000", "100644", "120000"]
    assert world.git("show", "found:site/link", cwd=world.origin) == str(shelf / "theirs")
    assert "D\tsite/folder" in touched(world, "found") and "A\tsite/folder/inside.txt" in touched(world, "found")
    for name in ("link", "dangling", "hard"):
        world.json("discard", f"site/{name}")
        assert (site / name).read_text() == f"{name}\n" and not (site / name).is_symlink()
    saved = {row["path"]: row["id"] for row in world.json("rescue", "list")["rescues"]}
    assert sorted(saved) == ["dangling", "hard", "link"] and (shelf / "theirs").read_text() == "somebody else's\n"
    world.json("accept", "site/fifo", "--because", "a queue", "--until", "7d")
    world.publish({"site/fifo": "from git\n"})
    refused = world.deploy("--discard-drift", ok=(3,))
    assert "both changed" in refused["errorSummary"] and "mv fifo ELSEWHERE, then: " in refused["next"]
    for name in ODD:  # what the messages advise
        (site / name).rename(shelf / name)
        world.json("discard", f"site/{name}")
    assert world.deploy("--discard-drift")["status"] == "deployed" and world.json("drift")["equal"]
    assert world.text("site/fifo") == "from git\n" and (shelf / "folder/inside.txt").read_text() == "inside\n"
    (site / "link").unlink()
    os.mkfifo(site / "link")
    refused = world.json("rescue", "restore", saved["link"], ok=(3,))
    assert refused["code"] == "oddity" and refused["next"] == f"homeport rescue restore {saved['link']} --to FILE"


def test_what_changes_between_the_look_and_the_reading_is_taken_as_it_is_then(deployed: World) -> None:
    """A file that became a FIFO is not taken for deleted. homeport is held in git, which stores the first file."""
    began, go, tools = deployed.root / "began", deployed.root / "go", deployed.root / "tools"
    names = ("a-first.txt", "index.html", "other.txt", "third.txt")
    for name in names:
        edit(deployed, name, "by hand\n")
    tools.mkdir()
    (tools / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *hash-object*--stdin*) if mkdir {began} 2>/dev/null; then\n'
        f'while [ ! -e {go} ]; do sleep 0.02; done; fi;; esac\nexec {shutil.which("git")} "$@"\n'
    )
    (tools / "git").chmod(0o755)
    deployed.more["PATH"] = f"{tools}:{deployed.env['PATH']}"
    child = deployed.start("--json", "adopt", "--branch", "caught")
    eventually(began.exists, "the first file is read")
    for name in names[1:3]:
        (deployed.live / "site" / name).unlink()
    os.mkfifo(deployed.live / "site/index.html")
    edit(deployed, "third.txt", "by hand, and again\n")
    go.touch()
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, out
    said = json.loads(out.splitlines()[-1])
    assert said["skipped"] == [{"path": "site/index.html", "because": "not a file or link: fifo"}]
    assert touched(deployed, "caught") == ["A\tsite/a-first.txt", "D\tsite/other.txt", "M\tsite/third.txt"]
    assert deployed.git("show", "caught:site/third.txt", cwd=deployed.origin) == "by hand, and again"
    states = {row["path"]: row["state"] for row in deployed.json("edits")["edits"]}
    assert states == {"a-first.txt": "adopted", "index.html": "open", "other.txt": "adopted", "third.txt": "adopted"}


def hook(world: World, name: str, script: str) -> Path:
    place = world.origin / "hooks" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    return place


def rewritten(world: World, text: str) -> str:
    """A history of its own with the same files and another README, which the origin has."""
    world.write({"README.md": text})
    world.git("add", "-A")
    tree = world.git("write-tree")
    made = world.git("commit-tree", tree, "-m", text)
    world.git("push", "-q", "origin", f"{made}:refs/heads/kept")
    world.git("push", "-q", "origin", "--delete", "kept")
    return made


def test_a_base_that_is_forced_to_another_history_is_the_one_that_the_branch_is_cut_from(deployed: World) -> None:
    """Before the adoption, and again between its fetch and its push."""
    first, second = rewritten(deployed, "rewritten\n"), rewritten(deployed, "once more\n")
    deployed.git("push", "-qf", "origin", f"{first}:refs/heads/main")
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt", "--branch", "one")
    assert said["base"] == first and touched(deployed, "one") == ["M\tsite/other.txt"]
    assert deployed.git("rev-parse", "one^", cwd=deployed.origin) == first
    edit(deployed, "third.txt", "by hand\n")
    forced = hook(deployed, "pre-receive", f"env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main {second}")
    said = deployed.json("adopt", "--branch", "two")
    forced.unlink()
    assert said["base"] == first and deployed.git("rev-parse", "two^", cwd=deployed.origin) == first
    assert deployed.git("rev-parse", "main", cwd=deployed.origin) == second
    assert {row["branch"] for row in deployed.json("edits")["edits"]} == {"one", "two"}
    again = deployed.json("adopt", "site/third.txt")
    assert (again["branch"], sorted(branches(deployed))) == ("two", ["main", "one", "two"]), "no second branch"
    fresh = deployed.json("adopt", "site/third.txt", "--branch", "three")
    assert fresh["base"] == second and touched(deployed, "three") == ["M\tsite/third.txt"]
    assert deployed.text("site/third.txt") == "by hand\n"


@pytest.mark.parametrize("arrived", [True, False], ids=["the branch arrived", "it did not"])
def test_a_push_whose_answer_was_lost_with_the_whole_origin_is_looked_for_by_the_next_one(
    deployed: World, arrived: bool
) -> None:
    away = deployed.origin.with_name("away.git")
    script = f"mv {deployed.origin} {away}; kill -9 $PPID"
    hook(deployed, "post-receive" if arrived else "pre-receive", script)
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt", ok=(1,))
    assert said["code"] == "push-unknown" and said["next"].startswith("homeport adopt ("), said
    refused = deployed.json("adopt", ok=(1,))
    assert refused["code"] == "no-origin" and refused["next"].startswith("git ls-remote "), "still away"
    (row,) = deployed.json("edits")["edits"]
    assert (row["state"], row["unsure"]) == ("adopted", True), "nobody can know"
    shown = deployed.homeport("edits").stdout
    assert "or not: the push of homeport/adopt-" in shown and "next: homeport adopt " in shown, shown
    away.rename(deployed.origin)
    (row,) = deployed.json("edits")["edits"]
    assert (row["state"], row["branch"] is None, "unsure" in row) == (
        ("adopted", False, False) if arrived else ("open", True, False)), "the origin was asked"
    (deployed.origin / "hooks" / ("post-receive" if arrived else "pre-receive")).unlink()
    again = deployed.json("adopt")
    assert branches(deployed) == [again["branch"], "main"] and again["paths"] == ["site/other.txt"]
    assert [row["state"] for row in deployed.json("edits")["edits"]] == ["adopted"]
