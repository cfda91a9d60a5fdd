"""Retention of journals: the newest stay, the rest by age and by size."""

from __future__ import annotations

import os
from pathlib import Path

from homeport.doors.journals import prune

NOW = 1_800_000_000.0
DAY = 86400


def journal(folder: Path, name: str, days: float, size: int = 4096) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.jsonl"))


def test_the_old_go_and_the_newest_stay_however_old(tmp_path: Path) -> None:
    for days in (1, 50, 91, 200, 400):
        journal(tmp_path, f"d{days:03}", days)
    assert prune(tmp_path.as_posix(), 10**9, NOW, spared=1) == 3
    assert left(tmp_path) == ["d001", "d050"]
    assert prune(tmp_path.as_posix(), 10**9, NOW + 300 * DAY, spared=1) == 1
    assert left(tmp_path) == ["d001"]


def test_beyond_the_room_of_all_the_oldest_go_first(tmp_path: Path) -> None:
    for number in range(10):
        journal(tmp_path, f"d{number}", number, size=100_000)
    assert prune(tmp_path.as_posix(), 350_000, NOW, spared=2) == 7
    assert left(tmp_path) == ["d0", "d1", "d2"]
    assert prune(tmp_path.as_posix(), 0, NOW, spared=2) == 1
    assert left(tmp_path) == ["d0", "d1"]


def test_links_other_files_and_a_folder_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("x")
    target = journal(tmp_path, "target", 500)
    kept = target.rename(tmp_path / "target.kept")
    (tmp_path / "link.jsonl").symlink_to(kept)
    assert prune(tmp_path.as_posix(), 0, NOW, spared=0) == 0
    assert other.exists() and kept.exists() and (tmp_path / "link.jsonl").is_symlink()
    assert prune((tmp_path / "none").as_posix(), 0, NOW) == 0
