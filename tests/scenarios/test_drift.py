"""A6 B2 E1: a hand edit stops a deploy, is shown, and is never lost, whatever a person decides."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.world import PROGRAM, World

LITTLE = 180_000
"""KiB of address space: homeport and git need 110,000 to begin with."""

SITE = """
[services.site]
source = "site"
target = "{live}/site"
"""
FILES: dict[str, str | None] = {
    "site/index.html": "one\n",
    "site/other.txt": "other\n",
    "site/third.txt": "3\n",
}


@pytest.fixture
def edited(world: World) -> World:
    """Deployed once, then index.html changed by hand and a commit pushed that touches another file."""
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/index.html").write_text("by hand\n")
    world.publish({"site/other.txt": "new other\n"})
    return world


def test_a_deploy_refuses_to_run_over_a_hand_edit(edited: World) -> None:
    ran = edited.homeport("--json", "deploy", ok=(3,))
    assert (ran.last["ok"], ran.last["status"], ran.last["exitCode"]) == (False, "refused", 3)
    assert edited.text("site/index.html") == "by hand\n"
    assert edited.text("site/other.txt") == "other\n"
    spoken = edited.homeport("deploy", ok=(3,))
    assert "index.html" in spoken.stdout + spoken.stderr
    assert "homeport" in (spoken.stdout + spoken.stderr).rstrip().splitlines()[-1]


def test_drift_lists_every_difference_by_service(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    assert world.json("drift")["equal"] is True
    (world.live / "site/index.html").write_text("by hand\n")
    (world.live / "site/added.txt").write_text("new\n")
    (world.live / "site/third.txt").unlink()
    report = world.json("drift", ok=(3,))
    assert report["equal"] is False
    (service,) = [row for row in report["services"] if row["paths"]]
    assert (service["service"], service["target"]) == ("site", str(world.live / "site"))
    assert {row["path"]: row["state"] for row in service["paths"]} == {
        "index.html": "modified", "added.txt": "added", "third.txt": "deleted",
    }  # fmt: skip
    shown = world.homeport("diff", "site", ok=(3,)).stdout
    assert "-one" in shown and "+by hand" in shown


def test_odd_names_are_told_exactly_and_taken_as_they_were_shown(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/new\nline").write_text("x\n")
    (world.live / "site/to").symlink_to("other.txt")
    with open(os.fsencode(world.live) + b"/site/caf\xe9", "wb") as file:
        file.write(b"y\n")
    told = [row["path"] for service in world.json("drift", ok=(3,))["services"] for row in service["paths"]]
    assert sorted(told) == ["caf\\xe9", "new\nline", "to"]
    assert sorted(row["path"] for row in world.json("edits")["edits"]) == sorted(told)
    spoken = world.homeport("drift", ok=(3,)).stdout
    assert "A caf\\xe9" in spoken and "A new\\x0aline" in spoken
    assert "new file mode 120000" in world.homeport("diff", "site", "to", ok=(3,)).stdout
    assert world.json("accept", "caf\\xe9", "--because", "known", "--until", "7d")["accepted"][0]["path"] == "caf\\xe9"
    assert world.json("adopt", "site/new\\x0aline", "--branch", "named")["paths"] == ["site/new\nline"]
    assert world.json("discard", "caf\\xe9", "new\\x0aline", "to")["discarded"] == ["caf\\xe9", "new\nline", "to"]
    assert world.json("drift")["equal"] is True
    for rescue in world.json("rescue", "list")["rescues"]:
        world.homeport("rescue", "restore", rescue["id"])
    assert {b"caf\xe9", b"new\nline", b"to"} < set(os.listdir(os.fsencode(world.live / "site")))


def test_a_look_says_how_old_its_branch_is_as_long_as_another_deployer_may_have_been_there_since(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    looked = world.json("drift")["fetchedAt"]
    newest = world.publish({"site/other.txt": "new other\n"})
    (world.live / "site/other.txt").write_text("new other\n")  # as the other deployer does after that push
    said = world.json("drift", ok=(3,))
    assert (said["branch"], said["fetchedAt"], said["services"][0]["paths"][0]["foreign"]) == ("main", looked, None)
    assert "compared with main as it was fetched last, " in world.homeport("drift", ok=(3,)).stdout
    world.homeport("plan", ok=None)
    said = world.json("drift", ok=(3,))
    assert said["fetchedAt"] > looked and said["services"][0]["paths"][0]["foreign"] == newest
    shown = world.homeport("drift", ok=(3,)).stdout
    assert "by another deployer" in shown and "compared with" not in shown


@pytest.mark.timeout(1800)
def test_a_file_larger_than_the_memory_is_told_left_where_it_is_and_saved_when_it_is_discarded(
    world: World, request: pytest.FixtureRequest
) -> None:
    """5 GB with --soak, else as much as is handed to git as a file. What reads or writes it has less memory than that."""
    size = 5 << 30 if request.config.getoption("--soak") else 101 << 20
    world.project(SITE, FILES)
    world.deploy()
    big = world.live / "site/big.bin"
    with big.open("wb") as file:
        file.truncate(size)
    (path,) = world.json("drift", ok=(3,))["services"][0]["paths"]
    assert (path["path"], path["state"]) == ("big.bin", "added")
    assert world.homeport("diff", ok=(3,)).stdout == "site/big.bin: too large to be shown\n"
    (world.live / "site/third.txt").write_text("by hand\n")
    said = world.json("adopt", "--branch", "found")
    assert said["paths"] == ["site/third.txt"] and said["skipped"][0]["because"] == "too large for a commit"
    refused = world.json("adopt", "big.bin", ok=(3,))
    assert refused["code"] == "not-adoptable" and "too large" in refused["what"] and big.stat().st_size == size

    def in_little_memory(*words: str) -> str:
        argv = ["sh", "-c", f'ulimit -v {LITTLE}; exec "$@"', "sh", str(PROGRAM), "--json", *words]
        done = subprocess.run(argv, cwd=world.clone, env=world.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    in_little_memory("discard", "big.bin")
    (rescue,) = world.json("rescue", "list")["rescues"]
    assert (rescue["path"], rescue["bytes"], big.exists()) == ("big.bin", size, False)
    in_little_memory("rescue", "restore", rescue["id"])
    assert big.stat().st_size == size
    refused = world.json("rescue", "show", rescue["id"], ok=(3,))
    assert (refused["code"], refused["next"]) == ("too-large", f"on that host: homeport rescue show {rescue['id']} > FILE")
    if size < 5 << 30:
        return
    copy = world.live / "copy.bin"
    in_little_memory("rescue", "restore", rescue["id"], "--to", str(copy))
    assert copy.stat().st_size == size
    copy.unlink()
    world.json("discard", "third.txt")
    # it came into a file's place, and the deploy puts that back
    big.rename(world.live / "site/index.html")
    assert world.deploy(ok=(3,))["status"] == "refused"
    assert world.deploy("--discard-drift")["status"] == "deployed"
    assert world.text("site/index.html") == "one\n" and len(world.json("rescue", "list")["rescues"]) == 3


def test_an_edit_of_the_same_size_in_the_same_second_is_seen(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/index.html").write_text("two\n")
    assert world.json("drift", ok=(3,))["equal"] is False


def test_keep_drift_deploys_the_rest_and_leaves_the_edit(edited: World) -> None:
    assert edited.deploy("--keep-drift")["status"] == "deployed"
    assert edited.text("site/index.html") == "by hand\n"
    assert edited.text("site/other.txt") == "new other\n"
    assert edited.json("drift", ok=(3,))["equal"] is False


def test_discarded_drift_comes_back_from_the_rescue(edited: World) -> None:
    assert edited.deploy("--discard-drift")["status"] == "deployed"
    assert edited.text("site/index.html") == "one\n"
    assert edited.text("site/other.txt") == "new other\n"
    (rescue,) = edited.json("rescue", "list")["rescues"]
    assert (rescue["service"], rescue["path"], rescue["bytes"]) == ("site", "index.html", len("by hand\n"))
    assert edited.homeport("rescue", "show", rescue["id"]).stdout == "by hand\n"
    edited.homeport("rescue", "restore", rescue["id"])
    assert edited.text("site/index.html") == "by hand\n"


def test_a_commit_that_changes_the_edited_file_is_a_conflict_never_both(edited: World) -> None:
    edited.publish({"site/index.html": "from git\n"})
    assert edited.deploy("--keep-drift", ok=(3,))["status"] == "refused"
    assert edited.text("site/index.html") == "by hand\n"
    assert edited.text("site/other.txt") == "other\n"


def test_a_conflict_is_called_so_by_plan_and_drift(edited: World) -> None:
    edited.publish({"site/index.html": "of the branch\n"})
    assert edited.json("drift", ok=(3,))["services"][0]["paths"][0]["state"] == "modified", "nobody fetched it yet"
    plan = edited.json("plan")
    assert (plan["deployable"], [row["rule"] for row in plan["refusals"]]) == (False, ["conflict"])
    assert plan["services"] == [{"service": "site", "reasons": ["site/index.html", "site/other.txt"], "actions": ["sync"]}]
    edited.deploy(ok=(3,))
    (row,) = edited.json("drift", ok=(3,))["services"][0]["paths"]
    assert (row["path"], row["state"]) == ("index.html", "conflict")
    assert "C index.html" in edited.homeport("drift", ok=(3,)).stdout


def test_an_edit_that_arrives_through_git_closes_by_itself(edited: World) -> None:
    edited.publish({"site/index.html": "by hand\n"})
    assert edited.deploy()["status"] == "deployed"
    assert edited.text("site/other.txt") == "new other\n"
    assert edited.json("drift")["equal"] is True


def test_a_file_of_the_host_in_the_way_of_a_new_one_is_never_overwritten(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/new.txt").write_text("the host's own\n")
    world.publish({"site/new.txt": "git's\n"})
    assert world.deploy("--keep-drift", ok=(3,))["status"] == "refused"
    assert world.text("site/new.txt") == "the host's own\n"


def test_discard_puts_one_path_back_and_keeps_its_bytes(edited: World) -> None:
    edited.homeport("discard", "site/index.html", ok=(0,))
    assert edited.text("site/index.html") == "one\n"
    assert [row["path"] for row in edited.json("rescue", "list")["rescues"]] == ["index.html"]
    assert edited.deploy()["status"] == "deployed"


def test_a_commit_that_empties_a_target_asks_first(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    world.publish({"site/index.html": None, "site/other.txt": None})
    refused = world.homeport("deploy", "site", ok=(3,))
    assert "next: homeport deploy site --allow-mass-delete" in refused.stdout + refused.stderr
    assert world.text("site/index.html") == "one\n"
    assert world.deploy("--allow-mass-delete")["status"] == "deployed"
    assert sorted(p.name for p in (world.live / "site").glob("[!.]*")) == ["third.txt"]
    world.publish({f"site/{number}": "x\n" for number in range(9)})
    before = world.deploy()["previousSha"]
    refused = world.homeport("rollback", before, ok=(3,))
    assert f"next: homeport rollback {before} --allow-mass-delete" in refused.stdout + refused.stderr


def test_a_command_begins_with_the_question_that_it_led_to_before(world: World) -> None:
    """The program itself, from nothing: the git that it starts first is the one whose answer it uses."""
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/index.html").write_text("by hand\n")
    programs, asked = world.root / "programs", world.root / "asked"
    programs.mkdir()
    (programs / "git").write_text(f'#!/bin/sh\necho "$*" >>{asked}\nPATH=${{PATH#*:}} exec git "$@"\n')
    (programs / "git").chmod(0o755)
    (index,) = world.state.glob("*/production/targets/site.index")
    question = (index.parents[2] / "repo.git", index, world.live / "site")
    (world.state / ".early").write_text(f"{world.clone}\0drift\1" + "\0".join(map(str, question)) + "\2")
    env = {**world.env, "PATH": f"{programs}:{world.env['PATH']}"}
    argv = [sys.executable, "-m", "homeport", "drift"]
    ran = subprocess.run(argv, cwd=world.clone, env=env, capture_output=True, text=True)
    assert (ran.returncode, "index.html" in ran.stdout) == (3, True), ran
    first, *others = [line for line in asked.read_text().splitlines() if "diff-files" in line]
    assert first.startswith(f"-C {world.live}/site ") and not others
