"""homeport tidies the mirror itself: fetches leave packs, tries and rescues loose objects, and git's own gc is off."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from homeport.doors import git as door
from homeport.doors import loose
from homeport.doors.git import Mirror
from homeport.doors.shell import LocalShell


def scattered(objects: Path, count: int) -> list[str]:
    """So many loose objects that no ref reaches."""
    made = [loose.encoded(b"blob", b"%d\n" % number) for number in range(count)]
    for oid, raw in made:
        loose.write(str(objects), oid, raw)
    return [oid for oid, _ in made]


def lying(objects: Path) -> tuple[int, int]:
    """(loose objects, packs), also while a git takes some away."""
    found = {folder.rpartition("/")[2]: files for folder, _, files in os.walk(objects)}
    loose = sum(len(files) for folder, files in found.items() if len(folder) == 2)
    return loose, sum(name.endswith(".pack") for name in found["pack"])


def test_many_loose_objects_become_one_pack_and_none_is_lost(tmp_path: Path) -> None:
    mirror = Mirror.open_or_create(str(tmp_path / "repo.git"), str(tmp_path), LocalShell())
    objects = tmp_path / "repo.git/objects"
    few = scattered(objects, 500)
    mirror.tidy()
    assert lying(objects) == (500, 0), "not yet worth a git"
    many = scattered(objects, 4000)
    killed, at_work = (objects / f"pack/{name}" for name in ("tmp_pack_old", "tmp_pack_new"))
    for path in (killed, at_work):
        path.write_text("half")
    os.utime(killed, (0, time.time() - door.ABANDONED - 60))
    mirror.tidy()
    assert lying(objects) == (0, 1) and all(mirror.has(oid) for oid in {*few, *many})
    assert not killed.exists() and at_work.exists(), "another git may be writing it"


def test_many_packs_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror.open_or_create(str(tmp_path / "repo.git"), str(tmp_path), LocalShell())
    objects = tmp_path / "repo.git/objects"
    monkeypatch.setattr(door, "PACKS", 6)
    kept = []
    for number in range(6):
        kept += (oids := scattered(tmp_path / "aside", number + 1)[-1:])
        pack = loose.pack_of([(b"blob", b"%d\n" % number)])
        mirror.cmd.run("index-pack", "--stdin", input=pack)
        assert mirror.has(oids[0])
    assert lying(objects) == (0, 6)
    mirror.tidy()
    assert lying(objects)[1] < 6 and all(mirror.has(oid) for oid in kept)
