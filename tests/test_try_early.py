"""What a try begins with: its questions about the checkout, and a call that waits for its word."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homeport.doors import remote, workingtree
from homeport.doors.early import TREE, Called, Early
from homeport.doors.shell import Conversation, LocalShell
from homeport.doors.workingtree import Checkout
from homeport.model.edits import Person
from homeport.model.ports import Completed
from tests.test_workingtree import checkout, git, nobodys_settings

__all__ = ["checkout", "nobodys_settings"]
ADA = Person(name="Ada Example", email="ada@example.com")


class Listening(LocalShell):
    """Knows which questions about everything were asked of git when it was time."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[str] = []

    def run(self, argv: Any, **more: Any) -> Completed:
        self.late += [word for word in argv if word in ("diff-files", "ls-files")]
        return super().run(argv, **more)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Early]:
    """Begins a command with these words (`try`)."""
    monkeypatch.setenv("HOMEPORT_STATE", str(tmp_path_factory.mktemp("state")))

    def begun(*words: str) -> Early:
        made = Early()
        monkeypatch.setattr(workingtree, "EARLY", made)
        monkeypatch.setattr(remote, "EARLY", made)
        made.begin(list(words or ("try",)))
        return made

    return begun


def tried(checkout: Path, act: Callable[[], object] = lambda: None) -> tuple[dict[str, str], list[str]]:
    """(the files of a commit of the working tree, what was asked of git when it was time)."""
    shell = Listening()
    tree = Checkout(str(checkout), shell)
    try:
        act()
        sha = tree.take(ADA, "try\n", lambda _: False).sha
        names = tree._git("ls-tree", "-r", "--name-only", sha).stdout.decode().split()
        return {name: tree._git("cat-file", "blob", f"{sha}:{name}").stdout.decode() for name in names}, shell.late
    finally:
        tree.close()


def test_the_second_try_has_asked_before_it_knows_and_sees_what_was_saved(
    checkout: Path, begin: Callable[..., Early]
) -> None:
    first = begin()
    assert sorted(tried(checkout)[1]) == ["diff-files", "ls-files"]
    first.end()
    (checkout / "a.txt").write_text("saved\n")
    (checkout / "new.txt").write_text("new\n")
    second = begin()
    assert len(second.asked) == 2
    assert tried(checkout) == ({"a.txt": "saved\n", "new.txt": "new\n"}, [])
    (checkout / "new.txt").write_text("again\n")
    assert tried(checkout)[0]["new.txt"] == "again\n", "an answer counts once"
    second.end()


def staged(checkout: Path) -> None:
    (checkout / "late.txt").write_text("late\n")
    git(checkout, "add", "-A")


def other_path(_: Path) -> None:
    os.environ["PATH"] = f"/nonexistent:{os.environ['PATH']}"


@pytest.mark.parametrize("change", [staged, other_path])
def test_an_answer_about_another_checkout_does_not_count(
    change: Callable[[Path], None], checkout: Path, begin: Callable[..., Early], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    first = begin()
    tried(checkout)
    first.end()
    second = begin()
    files, late = tried(checkout, lambda: (change(checkout), (checkout / "more.txt").write_text("more\n")))
    assert files["more.txt"] == "more\n" and sorted(late) == ["diff-files", "ls-files"]
    second.end()
    assert not second.asked


@pytest.mark.parametrize("words", [("try", "--watch"), ("try", "api"), ("deploy",)])
def test_other_words_begin_with_nothing(checkout: Path, begin: Callable[..., Early], words: tuple[str, ...]) -> None:
    first = begin()
    tried(checkout)
    first.note_call(("sh", "-c", "read word"))
    first.end()
    again = begin(*words)
    assert not again.asked and again.call is None


ECHO = ("sh", "-c", "echo hello; read word; echo it was $word; echo trouble >&2; exit 3")


def test_a_call_that_was_guessed_right_is_talked_with(checkout: Path, begin: Callable[..., Early]) -> None:
    first = begin()
    tried(checkout)
    first.note_call(ECHO)
    first.end()
    second = begin()
    assert second.call is not None and second.called(("sh", "-c", "another")) is None
    begun = second.called(ECHO)
    assert isinstance(begun, Called) and second.called(ECHO) is None, "once"
    with Conversation(ECHO, os.environ, apart=True, begun=begun) as there:
        lines = iter(there.lines())
        assert next(lines) == b"hello\n"
        there.say(b"right")
        assert list(lines) == [b"it was right\n"]
        assert there.ended() == (3, "trouble")
    second.note_tree("top", "dir", "index")
    second.end()
    assert begin().call is None, "it went nowhere this time"


def test_a_call_that_nobody_wanted_ends_with_the_command(begin: Callable[..., Early], tmp_path: Path) -> None:
    first = begin()
    first.note_tree(*[str(tmp_path)] * 3)
    first.note_call(("sh", "-c", "read word; echo $word >> heard"))
    first.end()
    second = begin()
    assert second.call is not None and second.noted is not None and second.noted[0] == TREE
    pid = second.call.pid
    second.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert not (tmp_path / "heard").exists() and second.call is None


def test_a_call_is_not_taken_in_another_environment(begin: Callable[..., Early], monkeypatch: pytest.MonkeyPatch,
                                                    tmp_path: Path) -> None:  # fmt: skip
    first = begin()
    first.note_tree(*[str(tmp_path)] * 3)
    first.note_call(ECHO)
    first.end()
    second = begin()
    monkeypatch.setenv("SSH_AUTH_SOCK", "/another")
    assert second.called(ECHO) is None
    second.end()
    assert subprocess.run(["true"]).returncode == 0
