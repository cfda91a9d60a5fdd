"""Ownership of what git tracks in a live folder, mended: programs and people leave files of their own there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from itertools import groupby

from homeport.doors.beside import Owner
from homeport.doors.look import Blocked, folder_at, split
from homeport.model.paths import to_bytes


def mend(root: int, paths: Iterable[str], owner: Owner) -> list[str]:
    """Gives tracked files, links and their folders to the owner; the paths that belonged to somebody else.

    Links are given away themselves, never what they point to; a file with a second name is left alone, since that name
    may be anywhere.
    """
    mended: list[str] = []
    for folder, names in groupby(sorted(split(path) for path in paths), key=lambda pair: pair[0]):
        try:
            with folder_at(root, folder) as here:
                if _give(here, b".", owner):
                    mended.append(folder or ".")
                given = [name for _, name in names if _give(here, to_bytes(name), owner)]
                mended += [f"{folder}/{name}" if folder else name for name in given]
        except (Blocked, FileNotFoundError):
            continue  # something else is there: drift, which is not ours to change
    return mended


def _give(folder: int, name: bytes, owner: Owner) -> bool:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        alone = stat.S_ISDIR(found.st_mode) or found.st_nlink == 1
        if (found.st_uid, found.st_gid) == (owner.uid, owner.gid) or not alone:
            return False
        os.chown(name, owner.uid, owner.gid, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False  # gone, or immutable: the sync says so where it matters
    return True
