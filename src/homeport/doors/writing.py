"""Whole files written so that they are on the disk when the call returns."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable


def write_file(folder: int, name: str, content: bytes) -> None:
    """A small file in an open private folder: complete and on its disk, or not there."""
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.rename(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)


def write_through(fd: int, staged: bytes, stage: int) -> None:
    """Copies a staged file's bytes and x bit into an open file, and brings them to the disk."""
    source = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=stage)
    with os.fdopen(source, "rb"):
        write_all(fd, lambda: _copy(source, fd))
        os.fchmod(fd, stat.S_IMODE(os.fstat(source).st_mode) & 0o777)


def write_all(fd: int, bring: Callable[[], None]) -> None:
    """Makes what `bring` writes into an open file the whole content of it, through its inode."""
    os.lseek(fd, 0, os.SEEK_SET)
    bring()
    os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
    os.fsync(fd)


def _copy(source: int, to: int) -> None:
    while chunk := os.read(source, 1 << 20):
        at = 0
        while at < len(chunk):
            at += os.write(to, chunk[at:])
