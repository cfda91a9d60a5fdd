"""The question that a command begins with: its answer counts when it is the right one, and changes nothing when not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from homeport.doors import early, smalllook, targetindex
from homeport.doors.early import DIFF_FILES, Asked, Early
from homeport.doors.gitcmd import GitCommand
from tests.targets.conftest import Host

FILES = {"a.txt": "one", "lib/b.txt": "two"}


@pytest.fixture
def begin(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Early]:
    """Begins a command with these words (`drift`); every index is large."""
    monkeypatch.setenv("HOMEPORT_STATE", str(host.root / "state"))
    monkeypatch.setattr(early, "WORTH", 0)
    monkeypatch.setattr(smalllook, "SMALL", 0)

    def begun(*words: str) -> Early:
        made = Early()
        monkeypatch.setattr(targetindex, "EARLY", made)
        made.begin(list(words or ("drift",)))
        return made

    return begun


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question about recorded files that was asked of git when it was time."""
    asked: list[str] = []
    run = GitCommand.run

    def told(self: GitCommand, *args: str, **more: object) -> bytes:
        asked.extend(["late"] if args == DIFF_FILES else [])
        return run(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(GitCommand, "run", told)
    return asked


def known(host: Host, begin: Callable[..., Early]) -> None:
    """A command has looked at the deployed folder, and wrote down its question."""
    host.put(FILES)
    first = begin()
    assert not first.asked
    host.scan()
    first.end()


def test_the_second_command_asks_before_it_is_time_and_once(
    host: Host, begin: Callable[..., Early], late: list[str]
) -> None:
    known(host, begin)
    host.write("a.txt", "edited")
    late.clear()
    begun = begin()
    assert [type(one) for one in begun.asked] == [Asked]
    assert host.states() == {"a.txt": "modified"} and not late
    host.write("lib/b.txt", "edited too")
    assert host.states() == {"a.txt": "modified", "lib/b.txt": "modified"} and late
    before = (host.root / "state/.early").stat().st_ino
    begun.end()
    assert (host.root / "state/.early").stat().st_ino == before, "it is written down when it changed"


def deployed_meanwhile(host: Host) -> dict[str, str]:
    host.put({"a.txt": "two", "new.txt": "new"})
    return {}


def index_gone(host: Host) -> dict[str, str]:
    (host.state / "targets/api.index").unlink()
    host.write("a.txt", "edited")
    return {"a.txt": "modified"}


def index_torn(host: Host) -> dict[str, str]:
    index = host.state / "targets/api.index"
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    host.write("a.txt", "edited")
    return {"a.txt": "modified"}


def other_git(host: Host) -> dict[str, str]:
    os.environ["PATH"] = f"/nonexistent:{os.environ['PATH']}"
    host.write("a.txt", "edited")
    return {"a.txt": "modified"}


def other_folder(host: Host) -> dict[str, str]:
    moved = host.live.rename(host.live.with_name("moved"))
    (moved / "a.txt").write_text("edited")
    host.target = host.make_target(path=moved)
    host.meet()
    return {"a.txt": "modified"}


@pytest.mark.parametrize("meanwhile", [deployed_meanwhile, index_gone, index_torn, other_git, other_folder],
                         ids=lambda act: act.__name__.replace("_", "-"))  # fmt: skip
def test_an_answer_to_another_question_changes_nothing(
    host: Host, begin: Callable[..., Early], late: list[str], monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Host], dict[str, str]],
) -> None:  # fmt: skip
    known(host, begin)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    begun = begin()
    assert [one.told(60) for one in begun.asked] == [b""]
    begun = begin()
    expected = meanwhile(host)
    late.clear()
    assert host.states() == expected and late == ["late"]
    begun.forget()
    assert not begun.asked


def test_what_was_asked_before_a_recovery_or_a_watch_counts_no_more(
    host: Host, begin: Callable[..., Early], late: list[str]
) -> None:
    known(host, begin)
    begun = begin()
    begun.forget()
    late.clear()
    assert host.states() == {} and late == ["late"]


@pytest.mark.parametrize("words", [("drift", "--watch"), ("deploy",), ("deploy", "drift"), ("-e", "drift", "deploy"),
                                   ("--caller", "{}", "drift"), ("drift", "api"), ()])  # fmt: skip
def test_other_words_ask_nothing(host: Host, begin: Callable[..., Early], words: tuple[str, ...]) -> None:
    known(host, begin)
    made = Early()
    made.begin(list(words))
    assert not made.asked


def test_what_is_written_down_is_read_only_when_it_is_whole_and_ones_own(
    host: Host, begin: Callable[..., Early], tmp_path: Path
) -> None:
    known(host, begin)
    notes = host.root / "state/.early"
    right = notes.read_bytes()
    for torn in (b"", right[:-1], right.replace(b"\0", b"\1"), bytes(len(right))):
        notes.write_bytes(torn)
        assert not begin().asked
    notes.rename(tmp_path / "elsewhere")
    notes.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(right)
    assert not begin().asked


def test_only_the_newest_command_lines_are_kept(host: Host, begin: Callable[..., Early]) -> None:
    host.put(FILES)
    for number in range(early.MOST + 2):
        begun = begin("drift", f"--{number}")
        host.scan()
        begun.end()
    noted = [key[-1] for key, _ in early._notes()]
    assert noted == [f"--{number}" for number in range(early.MOST + 1, 1, -1)]


def test_a_copy_of_the_process_has_no_part_in_it(host: Host, begin: Callable[..., Early], late: list[str]) -> None:
    known(host, begin)
    host.write("a.txt", "edited")
    begun = begin()
    (asked,) = begun.asked
    child = os.fork()
    if child == 0:
        told = begun.answer(asked.placed, asked.index)
        begun.end()
        os._exit(0 if told is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    late.clear()
    assert host.states() == {"a.txt": "modified"} and not late
