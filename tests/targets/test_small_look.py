"""A small live folder is looked at without git, and the answer is git's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.doors import scanning, smalllook
from homeport.doors.gitcmd import GitCommand
from homeport.doors.look import open_root
from homeport.doors.shell import LocalShell
from homeport.doors.targetindex import TargetIndex
from homeport.model.live import Difference, Entry, Target
from homeport.model.paths import from_bytes
from tests.targets.conftest import Host, git

IGNORED, HIDDEN = ("*.log", "!keep.log", "/b/cache/"), (".env", "c/")
NAMES = ("a", "b", "c", "b/a", "b/b", "b/c/a", "b/cache/a", "c/a", "c/x.log", "x.log", "keep.log", ".env", "b/.env",
         "d/e/f", "b\\\n\udcff", "n/a")  # fmt: skip
CONTENTS = ("file", "program", "link")
OLD = 1_600_000_000


class Folder:
    """A live folder with an index of what was recorded there; everything in it is older than the index."""

    def __init__(self, root: Path) -> None:
        self.live = root / "live"
        self.live.mkdir()
        git(root, "init", "-q", "--bare", "mirror.git")
        self.index = TargetIndex(str(root / "index"), GitCommand(str(root / "mirror.git"), LocalShell()))
        self.target = Target(name="api", path=str(self.live), source="api")

    def put(self, path: str, kind: str, text: str) -> None:
        """A folder that is in the way is removed; below a file nothing is put."""
        file = self.live / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        self.remove(path)
        if kind == "link":
            file.symlink_to(text)
        elif kind == "fifo":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        elif kind == "repository":
            (file / ".git/objects").mkdir(parents=True)
            (file / ".git/refs").mkdir()
            (file / ".git/HEAD").write_text("ref: refs/heads/main\n")
        else:
            file.write_text(text)
            file.chmod(0o755 if kind == "program" else 0o644)
            os.utime(file, (OLD, OLD))

    def remove(self, path: str) -> None:
        file = self.live / path
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            with suppress(OSError):
                file.unlink()

    def record(self) -> None:
        """What lies there is what was put there, but for what nobody records."""
        paths = [os.fsencode(os.path.relpath(os.path.join(folder, name), self.live))
                 for folder, folders, names in os.walk(self.live) if ".git" not in Path(folder).parts
                 for name in (*names, *(f for f in folders if os.path.islink(os.path.join(folder, f))))
                 if os.path.basename(name) != ".git" and not _is_fifo(os.path.join(folder, name))]  # fmt: skip
        self.index._run("update-index", "--add", "-z", "--stdin", input=b"".join(p + b"\0" for p in paths),
                        work_tree=str(self.live))  # fmt: skip

    def changed(self, *how: str) -> None:
        self.index._command.run("update-index", *how, index=self.index.path, work_tree=str(self.live))

    def seen(self) -> tuple[list[Difference], bool]:
        root = open_root(str(self.live))
        assert root is not None
        try:
            return scanning.differences(self.target, root, self.index, IGNORED, HIDDEN, held=True)
        finally:
            os.close(root)


def _is_fifo(path: str) -> bool:
    return not os.path.islink(path) and not os.path.isfile(path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def both(folder: Folder) -> tuple[list[Difference], list[Difference], bool]:
    """What this process sees; what git lists and each recorded file tells that is read; whether the first asked no git."""
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TargetIndex, "touched", lambda *_: asked.append("git") or [])
        ours, _ = folder.seen()
        listed = folder.index._run("ls-files", "-s", "-z").split(b"\0")[:-1]
        recorded = [(from_bytes(path), Entry(*head.decode().split(" ")[:2])) for head, _, path in
                    (line.partition(b"\t") for line in listed)]  # fmt: skip
        patch.setattr(TargetIndex, "touched", lambda *_: recorded)
        patch.setattr(smalllook, "SMALL", 0)
        return ours, folder.seen()[0], not asked


changes = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([*CONTENTS, "fifo", "folder", "repository", "gone", "touched"]),
              st.sampled_from(["one", "two", "b"])), max_size=8)  # fmt: skip
contents = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(CONTENTS),
                              st.sampled_from(["one", "two", "b"])), min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(contents, changes)
def test_what_is_seen_is_what_lies_there(before: list[tuple[str, str, str]], after: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        for change in before:
            folder.put(*change)
        folder.record()
        for path, kind, text in after:
            if kind == "gone":
                folder.remove(path)
            elif kind == "touched" and (folder.live / path).is_file():
                os.utime(folder.live / path)
            elif kind != "touched":
                folder.put(path, kind, text)
        ours, truth, by_us = both(folder)
        assert ours == truth
        assert by_us


def _same_length_and_time(folder: Folder) -> None:
    """An edit that leaves size and mtime as they were."""
    (folder.live / "a").write_text("two")
    os.utime(folder.live / "a", (OLD, OLD))


EDITS: dict[str, Callable[[Folder], object]] = {
    "same length and time": _same_length_and_time,
    "mode": lambda f: (f.live / "a").chmod(0o755),
    "another file with all of its times": lambda f: (shutil.copy2(f.live / "b/b", f.live / "b/a.new"),
                                                     (f.live / "b/a.new").rename(f.live / "a")),
    "a folder replaced by a link to it": lambda f: ((f.live / "b").rename(f.live / "elsewhere"),
                                                    (f.live / "b").symlink_to("elsewhere")),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda name: name.replace(" ", "-"))
def test_an_edit_that_hides_is_seen(folder: Folder, edit: str) -> None:
    folder.put("a", "file", "one")
    folder.put("b/b", "file", "two")
    folder.record()
    EDITS[edit](folder)
    ours, truth, by_us = both(folder)
    assert by_us
    assert ours == truth != []


def test_an_edit_in_the_second_of_the_record_is_seen_though_nothing_but_the_content_tells(folder: Folder) -> None:
    """The file's times are those that were noted, as a clock that ticks slowly leaves them; git calls that racily clean."""
    folder.put("a", "file", "one")
    os.utime(folder.live / "a")
    folder.record()
    noted = (folder.live / "a").stat()
    os.utime(folder.index.path, ns=(noted.st_mtime_ns, noted.st_mtime_ns))
    assert folder.seen() == ([], False), "and reading it once more at each look is cheaper than to write the index"
    raw = Path(folder.index.path).read_bytes()
    (folder.live / "a").write_text("two")
    now = (folder.live / "a").stat()
    old, new = (b"".join(int.to_bytes(n, 4) for n in divmod(at, 10**9)) for at in (noted.st_ctime_ns, now.st_ctime_ns))
    os.utime(folder.live / "a", ns=(noted.st_atime_ns, noted.st_mtime_ns))
    new = b"".join(int.to_bytes(n, 4) for n in divmod((folder.live / "a").stat().st_ctime_ns, 10**9))
    assert old in raw
    Path(folder.index.path).write_bytes(raw.replace(old, new))
    os.utime(folder.index.path, ns=(noted.st_mtime_ns, noted.st_mtime_ns))
    assert [d.path for d in folder.seen()[0]] == ["a"]


def test_many_files_of_the_second_of_the_record_have_the_index_written_anew(folder: Folder) -> None:
    for number in range(smalllook.DOUBTS + 1):
        folder.put(f"{number}.txt", "file", "one")
    folder.record()
    assert folder.seen() == ([], False)
    os.utime(folder.index.path, (OLD, OLD))
    assert folder.seen() == ([], True)
    folder.index.refresh(str(folder.live))
    assert folder.seen() == ([], False)


UNREAD: dict[str, Callable[[Folder], object]] = {
    "a later version": lambda f: f.changed("--index-version", "4"),
    "a file that is not to be looked at": lambda f: f.changed("--assume-unchanged", "a"),
    "a file that is not wanted there": lambda f: f.changed("--skip-worktree", "a"),
    "a submodule": lambda f: f.changed("--add", "--cacheinfo", f"160000,{'1' * 40},sub"),
    "two parts": lambda f: f.changed("--split-index"),
    "no end": lambda f: Path(f.index.path).write_bytes(Path(f.index.path).read_bytes()[:-30]),
    "too many files beside": lambda f: [(f.live / f"{n}.log").touch() for n in range(smalllook.MOST + 1)],
}  # fmt: skip


@pytest.fixture
def answers(folder: Folder) -> Iterator[Callable[[], smalllook.Look | None]]:
    root = os.open(folder.live, os.O_RDONLY)
    yield lambda: smalllook.small_look(folder.index.path, root, lambda path, is_folder: False)
    os.close(root)


@pytest.mark.parametrize("what", UNREAD, ids=lambda name: name.replace(" ", "-"))
def test_what_is_not_understood_is_left_to_git(
    folder: Folder, answers: Callable[[], smalllook.Look | None], what: str
) -> None:
    folder.put("a", "file", "one")
    folder.record()
    assert answers() == ([], [])
    UNREAD[what](folder)
    assert answers() is None


def test_an_edit_of_a_deployed_file_is_seen_without_git(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put({"a.txt": "one", "lib/b.txt": "two"})
    monkeypatch.setattr(TargetIndex, "touched", lambda *a: pytest.fail("git was asked"))
    assert host.states() == {}
    host.write("a.txt", "edited")
    host.write("lib/new/c.txt", "by hand")
    assert host.states() == {"a.txt": "modified", "lib/new/c.txt": "added"}
