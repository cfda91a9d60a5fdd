"""What an interrupted sync left beside a live folder: saved when it is somebody's bytes, then cleared."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress

from homeport.doors.beside import EXCHANGE, NOREPLACE, folder_beside, open_stages, rename
from homeport.doors.look import Blocked, folder_at, kept_in, look_at, look_in, read_in, split
from homeport.doors.swap import BEGUN, IN_PLACE
from homeport.doors.writing import write_all
from homeport.model.errors import InfrastructureFault
from homeport.model.folders import Rescues
from homeport.model.live import Target
from homeport.model.paths import to_bytes
from homeport.model.ports import Git

INTERRUPTED = "left by an interrupted sync"


def settle(git: Git, rescues: Rescues, target: Target, root: int | None, known: Callable[[], set[str]],
           deploy: str | None) -> tuple[str, ...]:  # fmt: skip
    """Rescues what only the stage folders still hold and ends writes through an inode; returns rescue ids.

    Raises InfrastructureFault. Nothing of ours runs on this target meanwhile: the caller holds its lock.
    """
    saved: list[str] = []
    stages = open_stages(root, target.path)
    if stages is None:
        return ()
    try:
        for name in sorted(os.listdir(stages)):
            stage = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stages)
            try:
                if root is not None:
                    saved += _end_in_place(git, rescues, target, root, stage, deploy)
                    _put_back_oddities(root, stage)
                saved += _save_all(rescues, target, stage, known, deploy)
            finally:
                os.close(stage)
            shutil.rmtree(name, ignore_errors=True, dir_fd=stages)
    except (OSError, Blocked) as fault:
        why = f"{fault.path} is a {fault.oddity}" if isinstance(fault, Blocked) else fault.strerror
        raise InfrastructureFault(f"leftovers of a sync cannot be saved: {why}", where=folder_beside(target.path),
                                  next="homeport doctor", code="stage") from fault  # fmt: skip
    finally:
        os.close(stages)
    return tuple(saved)


def clear(root: int, path: str, deploy: str) -> None:
    """Removes the stage folder of one deploy beside an open live folder."""
    stages = open_stages(root, path)
    if stages is not None:
        shutil.rmtree(deploy, ignore_errors=True, dir_fd=stages)
        os.close(stages)


def _put_back_oddities(root: int, stage: int) -> None:
    """A folder or FIFO that came into the way in the last moment was taken out by the exchange: no bytes to save,
    so it goes back to where it lay, and what was put there instead comes out."""
    for name, path in _names(stage).items():
        if look_in(stage, name).oddity in (None, "unreadable"):
            continue
        folder, last = split(path)
        with folder_at(root, folder) as here:
            flag = NOREPLACE if look_in(here, last).absent else EXCHANGE
            rename(stage, name.encode(), here, to_bytes(last), flag)


def _names(stage: int) -> dict[str, str]:
    """Which path each staged name belongs to; empty when nothing live was touched yet."""
    marker = read_in(stage, BEGUN)
    names: dict[str, str] = {} if marker is None else json.loads(marker[1])
    return names


def _save_all(rescues: Rescues, target: Target, stage: int, known: Callable[[], set[str]], deploy: str | None) -> list[str]:
    paths = _names(stage)
    saved = []
    oids: set[str] | None = None
    for name in sorted(os.listdir(stage)):
        there = look_in(stage, name).entry
        if name not in paths or there is None:
            continue
        oids = known() if oids is None else oids
        if there.oid not in oids and (found := kept_in(stage, name)) is not None:
            saved.append(rescues.save(target.name, paths[name], found[0], found[1], INTERRUPTED, deploy).id)
    return saved


def _end_in_place(git: Git, rescues: Rescues, target: Target, root: int, stage: int, deploy: str | None) -> list[str]:
    """A file that was being written through its inode gets its old content back, through the same inode."""
    marker = read_in(stage, IN_PLACE)
    if marker is None:
        return []
    said = json.loads(marker[1])
    path, saved = str(said["path"]), []
    there, (folder, name) = look_at(root, path).entry, split(path)
    if there is not None and there.mode != "120000" and there.oid != said["oid"]:
        with suppress(FileNotFoundError, Blocked), folder_at(root, folder) as here:
            found = kept_in(here, name)
            if found is not None:
                saved.append(rescues.save(target.name, path, found[0], found[1], INTERRUPTED, deploy).id)
            fd = os.open(to_bytes(name), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            try:
                write_all(fd, lambda: git.pour(str(said["oid"]), fd))
                mode = os.fstat(fd).st_mode & 0o777
                executable = said["mode"] == "100755"
                os.fchmod(fd, mode | 0o100 if executable else mode & ~0o111)
            finally:
                os.close(fd)
    os.unlink(IN_PLACE, dir_fd=stage)
    return saved
