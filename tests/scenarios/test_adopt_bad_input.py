"""B5 B6 E1: what lies where a live file was, or changes while it is read, ends in a clear state; no edit is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.scenarios.test_adopt import FILES, SITE, edit, touched
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
