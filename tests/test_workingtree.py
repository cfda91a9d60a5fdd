"""A checkout read as a commit: files that change while they are read, odd indexes, odd places."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.shell import LocalShell
from homeport.doors.workingtree import Checkout
from homeport.model.edits import Person
from homeport.model.errors import HomeportError, Refused, UsageFault
from homeport.model.ports import Completed

ADA = Person(name="Ada Example", email="ada@example.com")


def git(folder: Path, *args: str) -> str:
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
    return subprocess.run(["git", *args], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.strip()


class Meddling(LocalShell):
    """Lets somebody write while git reads the working tree."""

    def __init__(self, meddle: Callable[[int], None]) -> None:
        super().__init__()
        self._meddle, self._times = meddle, 0

    def run(self, argv: Any, **more: Any) -> Completed:
        done = super().run(argv, **more)
        if "update-index" in argv:
            self._times += 1
            self._meddle(self._times)
        return done


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main", ".")
    (tmp_path / "a.txt").write_text("a\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "first")
    return tmp_path


def taken(folder: Path, shell: LocalShell, path: str = "a.txt") -> str:
    """The content of a path in a commit of the working tree."""
    tree = Checkout(str(folder), shell)
    try:
        snapshot = tree.take(ADA, "try\n", lambda _: False)
        return tree._git("cat-file", "blob", f"{snapshot.sha}:{path}").stdout.decode()
    finally:
        tree.close()


def test_a_file_that_changes_while_it_is_read_is_read_again(checkout: Path) -> None:
    (checkout / "a.txt").write_text("half\n")

    def meddle(number: int) -> None:
        if number < 3:
            (checkout / "a.txt").write_text(f"half and half {number}\n")

    assert taken(checkout, Meddling(meddle)) == "half and half 2\n"


def test_a_file_that_never_holds_still_refuses(checkout: Path) -> None:
    (checkout / "a.txt").write_text("half\n")
    with pytest.raises(Refused) as told:
        taken(checkout, Meddling(lambda number: (checkout / "a.txt").write_text("x" * number * 10) and None))
    assert told.value.code == "changing"


def test_a_file_that_vanishes_while_it_is_read_is_gone_in_the_commit(checkout: Path) -> None:
    (checkout / "b.txt").write_text("b\n")
    with pytest.raises(HomeportError):
        taken(checkout, Meddling(lambda number: os.unlink(checkout / "b.txt") if number == 1 else None), "b.txt")


@pytest.mark.parametrize("how", ["split", "intent", "worktree", "folder below", "odd names", "no index"])
def test_every_kind_of_index_is_read_and_none_is_written(checkout: Path, how: str) -> None:
    (checkout / "new.txt").write_text("new\n")
    (checkout / "a.txt").write_text("changed\n")
    folder = checkout
    if how == "split":
        git(checkout, "update-index", "--split-index")
    if how == "intent":
        git(checkout, "add", "-N", "new.txt")
    if how == "worktree":
        git(checkout, "worktree", "add", "-q", str(checkout / "../other"), "-b", "other")
        folder = checkout / "../other"
        (folder / "new.txt").write_text("new\n")
    if how == "folder below":
        folder = checkout / "deep"
        folder.mkdir()
    if how == "odd names":
        (checkout / os.fsdecode(b"caf\xe9\n\t\"x")).write_text("odd\n")
    if how == "no index":
        os.unlink(checkout / ".git/index")
    before = {path: path.read_bytes() for path in (checkout / ".git").rglob("*") if path.is_file()}
    assert taken(folder, LocalShell(), "new.txt") == "new\n"
    assert {path: path.read_bytes() for path in (checkout / ".git").rglob("*") if path.is_file()} == before


def test_a_folder_without_a_checkout_or_without_a_commit_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageFault) as told:
        Checkout(str(tmp_path), LocalShell())
    assert told.value.code == "no-checkout"
    git(tmp_path, "init", "-q", ".")
    with pytest.raises(Refused) as refused:
        taken(tmp_path, LocalShell())
    assert refused.value.code == "no-commit"


class Listening(LocalShell):
    """Notes which of git's commands were run."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def run(self, argv: Any, **more: Any) -> Completed:
        self.ran += [word for word in argv if word in ("diff-files", "ls-files", "update-index")]
        return super().run(argv, **more)


def test_a_watched_checkout_is_looked_at_path_by_path_and_never_says_less_than_a_whole_look(checkout: Path) -> None:
    shell = Listening()
    tree = Checkout(str(checkout), shell)
    watch = tree.watch()
    (checkout / ".gitignore").write_text("*.log\n")

    def now() -> tuple[dict[str, str], bool]:
        """(the files of a commit made now, whether everything was looked at for it)"""
        while watch.wait(0.1):
            pass
        shell.ran.clear()
        snapshot = tree.take(ADA, "try\n", lambda path: path == ".env")
        whole = "diff-files" in shell.ran
        listed = tree._git("ls-tree", "-r", "--name-only", snapshot.sha).stdout.decode().split("\n")[:-1]
        return {p: tree._git("cat-file", "blob", f"{snapshot.sha}:{p}").stdout.decode() for p in listed}, whole

    try:
        ignore = {".gitignore": "*.log\n"}
        assert now() == ({"a.txt": "a\n", **ignore}, True)
        (checkout / "a.txt").write_text("b\n")
        (checkout / "new.txt").write_text("new\n")
        (checkout / "noise.log").write_text("ignored\n")
        assert now() == ({"a.txt": "b\n", "new.txt": "new\n", **ignore}, False)
        os.unlink(checkout / "a.txt")
        (checkout / "new.txt").chmod(0o755)
        assert now() == ({"new.txt": "new\n", **ignore}, False)
        (checkout / ".env").write_text("SECRET=1\n")
        assert now() == ({"new.txt": "new\n", **ignore}, True)
        (checkout / "folder").mkdir()
        (checkout / "folder/c.txt").write_text("c\n")
        assert now() == ({"new.txt": "new\n", "folder/c.txt": "c\n", **ignore}, True)
        git(checkout, "add", "new.txt")
        assert now() == ({"new.txt": "new\n", "folder/c.txt": "c\n", **ignore}, True)
        (checkout / "folder").rename(checkout.parent / "moved-away")
        assert now() == ({"new.txt": "new\n", **ignore}, True)
    finally:
        watch.close()
        tree.close()


def test_a_look_that_began_early_counts_once_and_only_for_the_same_index_and_commit(checkout: Path) -> None:
    shell = Listening()
    tree = Checkout(str(checkout), shell)

    def looks_for(act: Callable[[], object]) -> tuple[int, str]:
        """(looks at everything until a commit was made, the files in it); `act` happens after one began early."""
        shell.ran.clear()
        tree.begin()
        act()
        snapshot = tree.take(ADA, "try\n", lambda _: False)
        return shell.ran.count("diff-files"), tree._git("ls-tree", "-r", "--name-only", snapshot.sha).stdout.decode()

    try:
        (checkout / "new.txt").write_text("new\n")
        assert looks_for(lambda: None) == (1, "a.txt\nnew.txt\n")
        (checkout / "more.txt").write_text("more\n")
        tree.take(ADA, "try\n", lambda _: False)
        assert shell.ran.count("diff-files") == 2, "what was seen early is used once"

        def commit() -> None:
            looked = tree._ahead._turn
            assert looked is not None
            looked.ended(20)
            (checkout / "late.txt").write_text("late\n")
            git(checkout, "add", "-A")

        assert looks_for(commit) == (2, "a.txt\nlate.txt\nmore.txt\nnew.txt\n")
        tree.begin()
        watch = tree.watch()
        assert tree._ahead._turn is None, "what is saved before the watch stands would be missed"
        watch.close()
    finally:
        tree.begin()
        tree.close()
    assert not os.path.exists(tree._own)
