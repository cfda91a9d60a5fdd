"""Reads logs back: the last lines, and what comes after, in bounded pieces."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

MOST = 1024 * 1024
"""Bytes looked through for the last lines."""
LONGEST_LINE = 8 * 1024
"""Characters; the rest of a line is left out."""
EVERY = 0.1


def tail(path: str, lines: int, start: int | None = None, end: int | None = None) -> list[str]:
    """The last lines of a log, at most; of its file only what lies after `start` and before `end`, in bytes."""
    found: list[str] = []
    room = MOST
    for name in (path, f"{path}.1") if start is None else (path,):
        with contextlib.suppress(OSError):
            with open(name, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if end is not None and name == path:
                    size = min(size, end)
                begin = max(0, size - room, start if start is not None and start <= size else 0)
                file.seek(begin)
                data = file.read(size - begin)
            found = [*readable(data), *found]
            room -= len(data)
        if len(found) >= lines or room <= 0:
            break
    return found[-lines:] if lines > 0 else []


def readable(data: bytes) -> list[str]:
    return [shown(line) for line in data.splitlines()]


def shown(line: bytes) -> str:
    text = line[: LONGEST_LINE * 4].decode("utf-8", "replace")
    return text if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + "…"


def from_here(path: str) -> tuple[int, int]:
    """Opens a log at its end, for `follow`: the descriptor (-1 when there is no log yet), and where that is."""
    file = _open(path, at_end=True)
    return file, os.lseek(file, 0, os.SEEK_CUR) if file >= 0 else 0


async def follow(path: str, file: int) -> AsyncIterator[str]:
    """Lines that are written after where `file` stands, over rotations; never ends by itself. Closes it."""
    rest = b""
    try:
        while True:
            data = os.read(file, 65536) if file >= 0 else b""
            if data:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield shown(line)
                rest = rest[-MOST:]
                await asyncio.sleep(0)
                continue
            await asyncio.sleep(EVERY)
            if _moved(file, path):
                if file >= 0 and (data := os.read(file, 65536)):
                    rest += data
                    continue
                if file >= 0:
                    os.close(file)
                file = _open(path, at_end=False)
    finally:
        if file >= 0:
            os.close(file)


def _open(path: str, *, at_end: bool) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    if at_end:
        os.lseek(file, 0, os.SEEK_END)
    return file


def _moved(file: int, path: str) -> bool:
    if file < 0:
        return True
    try:
        there, here = os.stat(path), os.fstat(file)
    except OSError:
        return False
    return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev) or here.st_size < os.lseek(file, 0, os.SEEK_CUR)
