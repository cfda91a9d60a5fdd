"""B5: chosen hunks, asked for on a real terminal."""

from __future__ import annotations

import json
import re

import pexpect
import pytest

from tests.scenarios.test_adopt import SITE, branches
from tests.world import PROGRAM, World

OLD = "first\n" + "".join(f"line {n}\n" for n in range(20)) + "last\n"
NEW = OLD.replace("first\n", "first by hand\n").replace("line 9\n", "line 9\r\n").replace("last\n", "last by hand")


@pytest.fixture
def edited(world: World) -> World:
    world.project(SITE, {"site/a.txt": OLD, "site/b.txt": "b\n", "site/logo.bin": "\0one", "site/run.sh": "x\n"})
    world.deploy()
    (world.live / "site/a.txt").write_bytes(NEW.encode())
    (world.live / "site/b.txt").unlink()
    return world


def asked(world: World, answers: list[str], *args: str) -> tuple[str, int]:
    """What the terminal showed, and the exit code."""
    child = pexpect.spawn(str(PROGRAM), ["adopt", "--patch", *args], cwd=str(world.clone), env=world.env,
                          encoding="utf-8", timeout=60, dimensions=(50, 120))  # fmt: skip
    shown = ""
    for answer in answers:
        child.expect(r"\[y,n,q\] ")
        shown += child.before + child.after
        child.sendline(answer)
    child.expect(pexpect.EOF)
    shown += child.before
    child.close()
    return shown, child.exitstatus


def content(world: World, name: str) -> bytes:
    import subprocess

    (branch,) = [b for b in branches(world) if b != "main"]
    done = subprocess.run(["git", "cat-file", "blob", f"{branch}:{name}"], cwd=world.origin, capture_output=True)
    return done.stdout


def test_chosen_hunks_become_the_commit_and_the_others_stay_open(edited: World) -> None:
    shown, code = asked(edited, ["n", "what", "y", "y", "n"], "site")
    assert code == 0, shown
    assert "-line 9" in shown and "+line 9\\x0d" in shown and "delete the whole file?" in shown
    left = shown.partition("left out:")[2]
    assert "1 of 3 changes not chosen" in left and re.search(r"site/b\.txt +.*not chosen", left)
    assert content(edited, "site/a.txt") == NEW.replace("first by hand\n", "first\n").encode()
    assert content(edited, "site/b.txt") == b"b\n"
    rows = {row["path"]: row["state"] for row in edited.json("edits")["edits"]}
    assert rows == {"a.txt": "open", "b.txt": "open"}
    assert (edited.live / "site/a.txt").read_bytes() == NEW.encode()


def test_q_keeps_what_was_chosen_and_asks_no_more(edited: World) -> None:
    shown, code = asked(edited, ["y", "q"])
    assert code == 0, shown
    assert content(edited, "site/a.txt") == OLD.replace("first\n", "first by hand\n").encode()
    assert content(edited, "site/b.txt") == b"b\n"


def test_every_hunk_is_the_whole_file_and_what_has_none_is_shown_before_it_is_taken_whole(edited: World) -> None:
    site = edited.live / "site"
    (site / "index").symlink_to("a.txt")
    (site / "logo.bin").write_bytes(b"\0three")
    (site / "new.txt").write_text("brand new\n")
    (site / "run.sh").chmod(0o755)
    shown, code = asked(edited, ["y", "y", "y", "y", "y", "n", "y", "y"])
    assert code == 0, shown
    modes = "not executable before, executable now"
    for said in ("-b", "+link to a.txt", "binary: 4 bytes before, 6 now", "+brand new", modes):
        assert said in shown
    assert content(edited, "site/a.txt") == NEW.encode()
    (branch,) = [b for b in branches(edited) if b != "main"]
    tree = edited.git("ls-tree", "-r", branch, "site/", cwd=edited.origin).splitlines()
    kinds = {line.split("\t")[1]: line.split()[0] for line in tree}
    assert kinds == {"site/a.txt": "100644", "site/index": "120000", "site/logo.bin": "100644", "site/new.txt": "100644",
                     "site/run.sh": "100755"}  # fmt: skip
    assert content(edited, "site/logo.bin") == b"\0one"
    rows = {row["path"]: row["state"] for row in edited.json("edits")["edits"]}
    assert rows.pop("logo.bin") == "open" and set(rows.values()) == {"adopted"}


def test_the_rest_is_adopted_later_on_top_of_the_merged_part(edited: World) -> None:
    asked(edited, ["y", "n", "n", "n"])
    (branch,) = [b for b in branches(edited) if b != "main"]
    edited.git("fetch", "-q", "origin")
    edited.git("push", "-q", "origin", f"{edited.git('rev-parse', branch, cwd=edited.origin)}:refs/heads/main")
    edited.git("push", "-q", "origin", "--delete", branch)
    said = edited.json("adopt")
    assert said["paths"] == ["site/a.txt", "site/b.txt"]
    assert content(edited, "site/a.txt") == NEW.encode()


def test_nothing_chosen_makes_nothing(edited: World) -> None:
    shown, code = asked(edited, ["q"])
    assert code == 0, shown
    assert branches(edited) == ["main"]


def test_without_a_terminal_it_is_refused(edited: World) -> None:
    ran = edited.homeport("--json", "adopt", "--patch", ok=(3,))
    assert json.loads(ran.stdout)["code"] == "no-terminal"
    assert branches(edited) == ["main"]
