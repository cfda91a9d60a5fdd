"""What lies untracked in a large live folder is asked of git again only when it may have changed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from homeport.doors import smalllook, untracked
from homeport.doors.targetindex import TargetIndex
from tests.targets.conftest import Host, git

LOOKS = 200
"""Within which a folder is at rest, by the clock of any file system."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that git was asked; folders are at rest at once, and every folder is large."""
    monkeypatch.setattr(untracked, "WORTH", 0)
    monkeypatch.setattr(smalllook, "SMALL", 0)
    monkeypatch.setattr(untracked, "AT_REST", 0)
    monkeypatch.setattr(untracked, "ONE_COMMAND", -1)
    monkeypatch.setattr(untracked, "KINDS", untracked.KINDS | {kind_of_here()})
    told: list[str] = []
    list_with = TargetIndex._list

    def told_of(self: TargetIndex, *args: object, **more: object) -> bytes:
        told.append("asked")
        return list_with(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TargetIndex, "_list", told_of)
    return told


def kind_of_here() -> bytes:
    return untracked._kind_of(os.stat(os.environ.get("TMPDIR", "/tmp")).st_dev)


def kept(host: Host, asked: list[str], looks: int = LOOKS) -> bool:
    """Looks until git is not asked any more; whether that came."""
    for _ in range(looks):
        asked.clear()
        host.scan()
        if not asked:
            return True
    return False


def afresh(host: Host) -> dict[str, str]:
    """What a look sees that was told nothing by earlier ones."""
    (host.state / "targets/api.folders").unlink(missing_ok=True)
    return host.states()


FILES = {"a.txt": "one", "lib/b.txt": "two", "lib/deep/c.txt": "three", ".gitignore": "*.log\ncache/\n"}
CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "files": (lambda live: [(live / "lib/deep/new").write_text("x"), (live / "link").symlink_to("a.txt"),
                            (live / "lib/x.log").write_text("ignored"), (live / "a.txt").rename(live / "lib/a.txt")],
              {"lib/deep/new": "added", "link": "added", "a.txt": "deleted", "lib/a.txt": "added"}),
    "a folder": (lambda live: (live / "lib/sub").mkdir() or (live / "lib/sub/d").write_text("x"), {"lib/sub/d": "added"}),
    "a repository": (lambda live: git(live, "init", "-q", "nested") or (live / "nested/e").write_text("x"),
                     {"nested": "added"}),
    "a folder moved": (lambda live: (live / "lib/deep").rename(live / "lib/deeper"),
                       {"lib/deep/c.txt": "deleted", "lib/deeper/c.txt": "added"}),
    "a folder for a file": (lambda live: (live / "a.txt").unlink() or (live / "a.txt").mkdir()
                            or (live / "a.txt/f").write_text("x"), {"a.txt": "type_changed", "a.txt/f": "added"}),
    "a link for a folder": (lambda live: (live / "lib/deep").rename(live.parent / "deep")
                            or (live / "lib/deep").symlink_to(live.parent / "deep"),
                            {"lib/deep/c.txt": "deleted"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda name: name.replace(" ", "-"))
def test_what_changes_in_a_folder_is_seen_by_the_next_look(host: Host, asked: list[str], change: str) -> None:
    host.put(FILES)
    assert kept(host, asked)
    act, expected = CHANGES[change]
    act(host.live)
    assert host.states() == expected == afresh(host)
    assert asked


def test_an_untracked_file_is_told_at_every_look_and_not_when_it_is_gone(host: Host, asked: list[str]) -> None:
    host.put(FILES)
    host.write("left.txt", "by hand")
    assert kept(host, asked)
    host.write("left.txt", "edited in place")
    assert host.states() == {"left.txt": "added"}
    (host.live / "left.txt").unlink()
    assert host.states() == {}


def test_a_folder_that_just_changed_vouches_for_nothing(
    host: Host, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(FILES)
    monkeypatch.setattr(untracked, "AT_REST", 3600 * 10**9)
    assert not kept(host, asked, 5)


@pytest.mark.parametrize("made", ["empty/deep", "cachelike/only.log", "lib/.git"])
def test_a_folder_of_nobodys_whose_depths_may_change_is_looked_into_each_time(
    host: Host, asked: list[str], made: str
) -> None:
    """No answer names it today, and a file below it would not change the folder that it lies in."""
    host.put(FILES)
    folder = (host.live / made) if "." not in made[4:] or made.endswith(".git") else (host.live / made).parent
    folder.mkdir(parents=True)
    if made.endswith(".log"):
        (host.live / made).write_text("x")
    assert not kept(host, asked, 5)
    if not made.endswith(".git"):
        (folder / "new").write_text("x")
        assert list(host.states().values()) == ["added"]


def test_what_is_protected_or_ignored_may_grow_without_git_being_asked(host: Host, asked: list[str]) -> None:
    host.target = host.make_target(protect=("uploads/",))
    host.put(FILES)
    for folder in ("uploads", "lib/cache"):
        host.write(f"{folder}/one", "x")
    assert kept(host, asked)
    host.write("uploads/deep/two", "x")
    host.write("lib/cache/two", "x")
    asked.clear()
    assert host.states() == {} and not asked
    host.target = host.make_target()
    assert host.states() == {"uploads/one": "added", "uploads/deep/two": "added"}


def test_another_commit_and_other_rules_are_asked_about_anew(host: Host, asked: list[str]) -> None:
    host.put(FILES)
    host.write("x.log", "ignored until now")
    assert kept(host, asked)
    host.put({".gitignore": "cache/\n", "lib/deep/more/d.txt": "four"})
    assert host.states() == {"x.log": "added"}
    assert kept(host, asked)
    shutil.rmtree(host.live / "lib/deep/more")
    host.write("lib/deep/more", "a file")
    assert host.states() == {"x.log": "added", "lib/deep/more/d.txt": "deleted", "lib/deep/more": "added"}


def test_an_answer_that_a_power_cut_tore_is_not_believed(host: Host, asked: list[str]) -> None:
    host.put(FILES)
    host.write("left.txt", "by hand")
    assert kept(host, asked)
    answer = host.state / "targets/api.folders"
    raw = answer.read_bytes()
    assert b"left.txt" in raw
    answer.write_bytes(raw.replace(b"left.txt", bytes(8)))
    assert host.states() == {"left.txt": "added"}
    answer.write_bytes(b"")
    assert host.states() == {"left.txt": "added"}


def test_nothing_is_kept_while_another_writes_the_index_or_on_other_file_systems(
    host: Host, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(FILES)
    with host.targets._book.index(host.target).hold():
        assert not kept(host, asked, 4)
    monkeypatch.setattr(untracked, "KINDS", frozenset({b"nfs"}))
    assert not kept(host, asked, 4)


def test_a_deploy_that_looks_twice_does_not_pay_for_an_answer_that_it_ends(
    host: Host, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untracked, "ONE_COMMAND", 3600 * 10**9)
    host.put(FILES)
    assert not kept(host, asked, 5)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert kept(host, asked)


def put_over(host: Host, files: dict[str, str | None]) -> None:
    """Deploys, and leaves what was edited by hand."""
    host.deploy(host.commit(files), "keep")


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """The folders that git was asked about one by one, each time."""
    told: list[list[bytes]] = []
    others_in = TargetIndex.others_in

    def told_of(self: TargetIndex, work_tree: str, patterns: Sequence[str], folders: Sequence[bytes]) -> bytes:
        told.append(list(folders))
        return others_in(self, work_tree, patterns, folders)

    monkeypatch.setattr(TargetIndex, "others_in", told_of)
    return told


@pytest.mark.parametrize("change", CHANGES, ids=lambda name: name.replace(" ", "-"))
def test_an_answer_outlives_a_deploy_that_only_changes_files(
    host: Host, asked: list[str], below: list[list[bytes]], change: str
) -> None:
    host.put(FILES)
    host.write("left.txt", "by hand")
    assert kept(host, asked)
    put_over(host, {"lib/b.txt": "changed"})
    host.write("lib/left.txt", "by hand")
    asked.clear(), below.clear()
    assert host.states() == {"left.txt": "added", "lib/left.txt": "added"}
    assert (below, len(asked)) == ([[b"lib"]], 1), "of the folder that the deploy wrote to"
    assert kept(host, asked)
    put_over(host, {"lib/b.txt": "again"})
    act, expected = CHANGES[change]
    act(host.live)
    assert host.states() == {**expected, "left.txt": "added", "lib/left.txt": "added"} == afresh(host)


def test_an_answer_does_not_outlive_a_deploy_that_brings_or_takes_files(host: Host, asked: list[str]) -> None:
    host.put(FILES)
    assert kept(host, asked)
    put_over(host, {"lib/more.txt": "more", "other/x": "x"})
    host.write("other/y", "by hand")
    assert host.states() == {"other/y": "added"}
    assert kept(host, asked)
    put_over(host, {"other/x": None})
    host.write("lib/z", "by hand")
    assert host.states() == {"other/y": "added", "lib/z": "added"} == afresh(host)


def test_a_folder_that_changes_again_and_again_does_not_spoil_the_answer_about_the_others(
    host: Host, asked: list[str], below: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(FILES)
    host.write("lib/deep/one", "by hand")
    changed = (host.live / "lib/deep").stat().st_ctime_ns
    monkeypatch.setattr(untracked, "_now", lambda: changed)
    monkeypatch.setattr(untracked, "ONE_COMMAND", -(1 << 62))
    if max((host.live / at).stat().st_ctime_ns for at in (".", "lib")) >= changed:
        return  # a coarse clock: all of them changed at the same moment
    assert not kept(host, asked, 4)
    assert below[-1] == [b"lib/deep"]
    host.write("lib/deep/two", "by hand")
    assert host.states() == {"lib/deep/one": "added", "lib/deep/two": "added"}
    host.write("lib/three", "by hand")
    assert host.states().keys() == {"lib/deep/one", "lib/deep/two", "lib/three"}


def test_whatever_happens_in_whatever_order_a_look_sees_what_git_lists(
    host: Host, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    folders = ("", "lib/", "lib/deep/", "two/", "two/a/", "new/")
    host.put({f"{folder}{name}": "x" for folder in folders[:5] for name in ("f", "g")})
    for step in range(24):
        folder, name = chance.choice(folders), chance.choice(("f", "h", "i"))
        match chance.randrange(5):
            case 0:
                put_over(host, {f"{chance.choice(folders[:5])}g": f"{step}"})
            case 1:
                (host.live / f"{folder}{name}").unlink(missing_ok=True)
            case 2:
                (host.live / folder / f"d{name}").mkdir(parents=True, exist_ok=True)
            case 3:
                host.write(f"{folder}d{name}/deep", f"{step}")
            case _:
                host.write(f"{folder}{name}", f"{step}")
        seen = host.states()
        with monkeypatch.context() as plain:
            plain.setattr(untracked, "WORTH", 1 << 40)
            assert seen == host.states(), f"after step {step}"
        for drifted in [path for path, state in seen.items() if path.endswith("/f") and state != "added"]:
            host.write(drifted, "x")
