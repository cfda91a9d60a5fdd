"""The long-lived `git cat-file`: what it answers is what a git of its own would, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.doors.git import Mirror
from homeport.doors.git_read import _raw_lines
from homeport.doors.objects import Objects, compared
from homeport.doors.shell import LocalShell
from homeport.model.errors import HomeportError
from homeport.model.live import Entry, TreeChange


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror.open_or_create(str(tmp_path / "repo.git"), "", LocalShell())
    yield made
    made.close()


def git_of(mirror: Mirror) -> int:
    """The pid of the git that answers."""
    assert mirror._objects._git is not None
    return mirror._objects._git._child.pid


def commit(mirror: Mirror, *parents: str, **files: bytes) -> str:
    entries = {name: Entry("100644", mirror.write_blob(content)) for name, content in files.items()}
    sha = mirror.commit(mirror.write_tree(entries), parents, "change\n")
    mirror.keep(f"state/{sha}", sha)
    return sha


def test_it_sees_what_others_write_and_outlives_its_own_death(mirror: Mirror) -> None:
    first = commit(mirror, a=b"one")
    assert mirror.file_at(first, "a") == b"one"
    talking = git_of(mirror)
    second = commit(mirror, first, a=b"two", b=b"")
    assert (mirror.file_at(second, "a"), mirror.file_at(second, "b")) == (b"two", b"")
    assert mirror.is_ancestor(first, second)
    assert not mirror.is_ancestor(second, first)
    assert git_of(mirror) == talking, "one git for all of it"
    os.kill(talking, signal.SIGKILL)
    os.waitid(os.P_PID, talking, os.WEXITED | os.WNOWAIT)
    third = commit(mirror, second, a=b"three")
    assert mirror.file_at(third, "a") == b"three"
    assert mirror.is_ancestor(first, third)


def test_a_try_is_not_on_its_branch_and_no_git_is_started_to_say_so(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    tip = commit(mirror, a=b"one")
    tried = commit(mirror, tip, a=b"two")
    asked: list[tuple[str, ...]] = []
    code = mirror.cmd.code
    monkeypatch.setattr(mirror.cmd, "code", lambda *args, **more: asked.append(args) or code(*args, **more))
    assert not mirror.is_ancestor(tried, tip) and not asked
    aside = commit(mirror, tip, a=b"three")
    assert not mirror.is_ancestor(tried, aside) and asked


def test_trees_compared_folder_by_folder_differ_where_git_says_so(mirror: Mirror) -> None:
    blobs = [mirror.write_blob(content) for content in (b"1", b"2")]
    plain, other = (Entry("100644", oid) for oid in blobs)
    first = {"a": plain, "a.b": plain, "b/c/d": plain, "b/c/e": other, "d\udcff": plain, "k/x": plain, "m": plain,
             "z": plain}  # fmt: skip
    second = {"a/one": plain, "a.b": other, "b/c/d": plain, "b-": plain, "k": plain, "m": Entry("120000", blobs[0]),
              "z": Entry("100755", blobs[0])}  # fmt: skip
    one, two = mirror.write_tree(first), mirror.write_tree(second)
    for before, after in ((one, two), (two, one), (one, one)):
        ours = compared(mirror._objects, before, after)
        raw = mirror.cmd.run("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", before, after)
        assert ours == [TreeChange(p, old, new) for p, old, new in _raw_lines(raw.split(b"\0"))]
    many = mirror.write_tree({f"{n}/file": plain for n in range(100)})
    assert compared(mirror._objects, one, many) is None
    assert len(mirror.changes(one, many)) == 108


def test_names_that_are_odd_or_absent_are_answered_as_by_a_git_of_its_own(mirror: Mirror) -> None:
    odd = {"a b": b"1", "line\nend": b"2", "return\r": b"3", "missing": b"4", "d\udcff": b"5", "sub/deep/x": b"6"}
    entries = {name: Entry("100644", mirror.write_blob(content)) for name, content in odd.items()}
    entries |= {"link": Entry("120000", mirror.write_blob(b"a b")), "run": Entry("100755", mirror.write_blob(b"7"))}
    sha = mirror.commit(mirror.write_tree(entries), [], "odd\n")
    assert {name: mirror.file_at(sha, name) for name in odd} == odd
    assert mirror.entry_at(sha, "link") == entries["link"]
    assert (mirror.file_at(sha, "link"), mirror.file_at(sha, "run")) == (None, b"7")
    assert mirror.tree_of(sha, "sub/deep") is not None
    assert [mirror.entry_at(sha, path) for path in ("sub/deep", "sub/none", "none/x", "a b/x")] == [None] * 4
    assert mirror.tree_of(sha, "run") is None
    assert not mirror.has("0" * 40)
    with pytest.raises(HomeportError):
        mirror.read("0" * 40)


def test_a_large_blob_is_left_to_a_git_of_its_own(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeport.doors.objects.LARGEST", 10)
    large = b"x" * 11
    assert mirror.read(mirror.write_blob(large)) == large


def test_a_git_that_does_not_know_how_is_asked_once(mirror: Mirror, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Before 2.36 there is no `--batch-command`."""
    sha = commit(mirror, a=b"one")
    asked, old = tmp_path / "asked", tmp_path / "bin/git"
    old.parent.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    old.write_text(f'#!/bin/sh\ncase "$*" in *batch-command*) echo >> {asked}; exit 129;; esac\nexec {real} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    mirror._objects = Objects(mirror.cmd)
    assert [mirror.file_at(sha, name) for name in ("a", "b")] == [b"one", None]
    assert asked.read_text() == "\n"


def test_a_mirror_that_was_made_anew_is_not_taken_for_the_one_before(mirror: Mirror, tmp_path: Path) -> None:
    sha = commit(mirror, a=b"one")
    assert mirror.file_at(sha, "a") == b"one"
    Path(mirror.path).rename(tmp_path / "old.git")
    Mirror.open_or_create(mirror.path, "", LocalShell()).close()
    assert not mirror.has("refs/heads/main")
    with pytest.raises(HomeportError):
        mirror.read(sha)


def test_what_a_gc_took_away_is_not_there_any_more(mirror: Mirror) -> None:
    """A git that stands holds the old packs open."""
    sha = commit(mirror, a=b"one")
    mirror.cmd.run("repack", "-adq")
    assert mirror.file_at(sha, "a") == b"one"
    mirror.keep(f"state/{sha}", None)
    mirror.cmd.run("repack", "-adq")
    assert not mirror.has(f"{sha}^{{commit}}")
