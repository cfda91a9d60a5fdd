"""Commits of a few changed paths: what is written here is what git itself would have written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homeport.doors import loose
from homeport.doors.fewentries import read_few, tree_noted, write_few
from homeport.doors.refs import write_refs
from homeport.doors.shell import LocalShell
from homeport.doors.workingtree import Checkout
from homeport.model.edits import Person
from homeport.model.live import Entry
from homeport.model.ports import Completed

ADA = Person(name="Ada Example", email="ada@example.com")


def git(folder: Path, *args: str, **env: str) -> str:
    whole = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder),
             "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_COMMITTER_NAME": "Ada",
             "GIT_COMMITTER_EMAIL": "ada@example.com", **env}  # fmt: skip
    return subprocess.run(["git", *args], cwd=folder, env=whole, check=True, capture_output=True, text=True).stdout.strip()


class Listening(LocalShell):
    """Notes which of git's commands were run."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def run(self, argv: Any, **more: Any) -> Completed:
        self.ran.append(next(word for word in argv[2:] if not word.startswith("-") and "=" not in word))
        return super().run(argv, **more)


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "checkout"
    made.mkdir()
    git(made, "init", "-q", "-b", "main", ".")
    for path in ("a.txt", "a/one", "a/two/deep/file", "a-b", "b/only", "run.sh", "crlf.txt", "z/y/x"):
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(f"{path}\n")
    (made / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    os.symlink("a.txt", made / "link")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "first")
    return made


def files(at: Path) -> None:
    (at / "a.txt").write_text("changed\n")
    (at / "a/two/deep/file").write_text("changed\n")
    (at / "new/folder").mkdir(parents=True)
    (at / os.fsdecode(b"new/folder/caf\xe9 \n\"x")).write_text("new\n")
    (at / "run.sh").chmod(0o755)


def kinds(at: Path) -> None:
    (at / "b/only").unlink()
    (at / "b").rmdir()
    (at / "b").write_text("a file where a folder was\n")
    (at / "a-b").unlink()
    (at / "a-b").mkdir()
    (at / "a-b/c").write_text("a folder where a file was\n")
    (at / "link").unlink()
    (at / "link").write_text("a file where a link was\n")
    shutil.rmtree(at / "z")
    os.symlink("../a", at / "a/to")


def index(at: Path) -> None:
    (at / "a/one").write_text("staged\n")
    git(at, "add", "a/one")
    (at / "a/one").write_text("staged and changed\n")
    git(at, "rm", "-q", "--cached", "a.txt")
    git(at, "rm", "-q", "b/only")
    git(at, "mv", "run.sh", "a/run.sh")
    (at / "seen").write_text("seen\n")
    git(at, "add", "-N", "seen")
    git(at, "update-index", "--add", "--cacheinfo", f"160000,{git(at, 'rev-parse', 'HEAD')},module")
    (at / "module").mkdir()


def nothing_left(at: Path) -> None:
    for path in at.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def line_ends(at: Path) -> None:
    git(at, "config", "core.autocrlf", "true")
    git(at, "config", "core.fileMode", "false")
    (at / "crlf.txt").write_bytes(b"one\r\nthree\r\n")
    (at / "a.txt").write_bytes(b"changed\r\n")
    (at / "run.sh").chmod(0o755)
    (at / "run.sh").write_text("changed\n")


def unchanged(at: Path) -> None:
    del at


def as_git(at: Path) -> str:
    """The tree of everything as it lies there, by an index of everything."""
    copy = at.parent / "index-of-everything"
    shutil.copy2(at / ".git/index", copy)
    git(at, "add", "-A", GIT_INDEX_FILE=str(copy))
    return git(at, "write-tree", GIT_INDEX_FILE=str(copy))


@pytest.mark.parametrize("change", [files, kinds, index, nothing_left, line_ends, unchanged])
def test_what_is_written_here_is_what_git_would_have_written(checkout: Path, change: Callable[[Path], None]) -> None:
    change(checkout)
    shell = Listening()
    tree, mirror = Checkout(str(checkout), shell), checkout.parent / "mirror.git"
    base = git(checkout, "rev-parse", "HEAD")
    git(checkout, "clone", "-q", "--bare", f"file://{checkout}", str(mirror))
    try:
        snapshot = tree.take(ADA, "Try it\n", lambda _: False)
        tree.pack(snapshot.sha, [base], str(mirror))
        packed = tree.packed(snapshot.sha, [base])
        assert not {"write-tree", "commit-tree", "pack-objects"} & set(shell.ran), shell.ran
        other = checkout.parent / "other.git"
        git(checkout, "clone", "-q", "--bare", f"file://{checkout}", str(other))
        shutil.copy(packed, other / "objects/pack/pack-x.pack")
        git(other, "index-pack", "--strict", "objects/pack/pack-x.pack")
    finally:
        tree.close()
    for place in (mirror, other):
        git(place, "fsck", "--strict", "--full", "--no-dangling", snapshot.sha)
        assert git(place, "log", "-1", "--format=%P %an <%ae> %cn %s", snapshot.sha) == (
            f"{base} Ada Example <ada@example.com> Ada Example Try it")  # fmt: skip
    assert git(mirror, "rev-parse", f"{snapshot.sha}^{{tree}}") == as_git(checkout)


@pytest.mark.parametrize("why", ["attributes", "name", "sparse", "torn"])
def test_what_only_an_index_of_everything_tells_is_left_to_git(checkout: Path, why: str) -> None:
    person, base = ADA, git(checkout, "rev-parse", "HEAD")
    (checkout / "a.txt").write_text("changed\n")
    if why == "attributes":
        (checkout / ".gitattributes").write_text("*.txt text\n")
    if why == "name":
        person = Person(name="Ada, of Example.", email="ada@example.com")
    if why == "sparse":
        (checkout / ".git/info/sparse-checkout").write_text("/*\n")
    shell = Listening()
    tree = Checkout(str(checkout), shell)
    try:
        snapshot = tree.take(person, "Try it\n", lambda _: False)
        if why == "torn":
            for store in Path(tree._own, "objects").rglob("*"):
                if store.is_file() and store.stat().st_size:
                    store.chmod(0o644)
                    store.write_bytes(store.read_bytes()[:-1])
        assert tree._files(snapshot.sha, [base]) is None
        if why != "torn":
            assert "write-tree" in shell.ran
            assert tree._git("rev-parse", f"{snapshot.sha}^{{tree}}").stdout.decode().strip() == as_git(checkout)
    finally:
        tree.close()


def test_a_base_that_the_mirror_lacks_is_packed_by_git_with_all_that_it_needs(checkout: Path) -> None:
    mirror = checkout.parent / "mirror.git"
    git(checkout, "clone", "-q", "--bare", f"file://{checkout}", str(mirror))
    (checkout / "a.txt").write_text("committed, not pushed\n")
    git(checkout, "commit", "-qam", "second")
    (checkout / "b/only").write_text("changed\n")
    tree = Checkout(str(checkout), LocalShell())
    try:
        snapshot = tree.take(ADA, "Try it\n", lambda _: False)
        tree.pack(snapshot.sha, [git(mirror, "rev-parse", "main")], str(mirror))
    finally:
        tree.close()
    git(mirror, "fsck", "--strict", "--full", "--no-dangling", snapshot.sha)


def test_the_note_of_an_index_is_only_believed_where_it_holds_for_everything(checkout: Path) -> None:
    path = checkout / ".git/index"
    tree = git(checkout, "rev-parse", "HEAD^{tree}")
    git(checkout, "read-tree", "HEAD")
    assert tree_noted(str(path)) == tree
    (checkout / "a/one").write_text("staged\n")
    git(checkout, "add", "a/one")
    assert tree_noted(str(path)) is None
    git(checkout, "write-tree")
    assert tree_noted(str(path)) == git(checkout, "write-tree") != tree
    path.write_bytes(path.read_bytes()[:-30])
    assert tree_noted(str(path)) is None
    assert tree_noted(str(checkout / "nothing")) is None


def test_a_small_index_is_one_that_git_reads_and_writes(checkout: Path) -> None:
    few, blob = checkout.parent / "few", git(checkout, "rev-parse", "HEAD:a.txt")
    entries = {"é" * 9: Entry("100644", blob), "a" * 5000: Entry("100755", blob), "x/y": Entry("120000", blob)}
    write_few(str(few), entries)
    assert read_few(str(few)) == entries
    listed = git(checkout, "-c", "core.quotePath=false", "ls-files", "-s", GIT_INDEX_FILE=str(few)).splitlines()
    assert {line.split("\t")[1]: line.split(" ")[0] for line in listed} == {p: e.mode for p, e in entries.items()}
    git(checkout, "update-index", "--index-version", "4", GIT_INDEX_FILE=str(few))
    assert read_few(str(few)) is None


def test_objects_are_whole_on_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oid, raw = loose.encoded(b"blob", b"content")
    (tmp_path / "objects").mkdir()
    synced: list[bytes] = []

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").read_bytes())
        assert not os.path.exists(loose.place(str(tmp_path / "objects"), oid))

    monkeypatch.setattr(os, "fsync", fsync)
    loose.write_lasting(str(tmp_path / "objects"), {oid: raw})
    assert synced == [raw]
    assert Path(loose.place(str(tmp_path / "objects"), oid)).read_bytes() == raw
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [oid[:2]]

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other, more = loose.encoded(b"blob", b"other")
    with pytest.raises(OSError, match="No space"):
        loose.write_lasting(str(tmp_path / "objects"), {other: more})
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [oid[:2]]


def test_a_lock_that_another_git_took_in_that_moment_stays_its_own(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, lock = git(checkout, "rev-parse", "HEAD"), checkout / ".git/refs/homeport/state/two.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("somebody's")
    monkeypatch.setattr("homeport.doors.refs.os.path.lexists", lambda _: False)
    assert not write_refs(str(checkout / ".git"), {"refs/homeport/state/one": head, "refs/homeport/state/two": head})
    assert [path.name for path in lock.parent.iterdir()] == ["two.lock"] and lock.read_text() == "somebody's"


def test_references_are_set_and_removed_as_git_does_or_left_to_it(checkout: Path) -> None:
    bare, head = checkout.parent / "bare.git", git(checkout, "rev-parse", "HEAD")
    git(checkout, "clone", "-q", "--bare", f"file://{checkout}", str(bare))
    one, two = "refs/homeport/state/one", "refs/homeport/state/two"
    assert write_refs(str(bare), {one: head, two: head})
    assert write_refs(str(bare), {one: None, two: head})
    assert git(bare, "for-each-ref", "--format=%(refname)", "refs/homeport") == two
    git(bare, "pack-refs", "--all")
    assert not write_refs(str(bare), {two: None})
    assert not write_refs(str(bare), {"refs/homeport/state": head})
    assert not write_refs(str(bare), {f"{two}/below": head})
    assert not write_refs(str(bare), {"refs/heads/../../escape": head})
    (bare / f"{one}.lock").parent.mkdir(parents=True, exist_ok=True)
    (bare / f"{one}.lock").write_text("somebody's")
    assert not write_refs(str(bare), {one: head})
    assert (bare / f"{one}.lock").read_text() == "somebody's"
    assert git(bare, "for-each-ref", "--format=%(refname)", "refs/homeport") == two
