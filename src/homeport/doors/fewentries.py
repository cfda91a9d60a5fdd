"""A git index of a few paths, written and read without git (gitformat-index(5), version 2).

git takes the files at such paths as it takes any file (filters, line ends, modes), and the cost is that of the few.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Mapping

from homeport.model.live import Entry
from homeport.model.paths import from_bytes, to_bytes

_HEAD, _FIXED = struct.Struct(">4sII"), 62
_SHA, _LONG = 20, 0xFFF


def write_few(path: str, entries: Mapping[str, Entry]) -> None:
    """An index of exactly these entries, of which nothing is known: git reads each file that it is asked about."""
    parts = [_HEAD.pack(b"DIRC", 2, len(entries))]
    for name, entry in sorted((to_bytes(name), entry) for name, entry in entries.items()):
        fixed = bytes(24) + struct.pack(">I", int(entry.mode, 8)) + bytes(12) + bytes.fromhex(entry.oid)
        raw = fixed + struct.pack(">H", min(len(name), _LONG)) + name
        parts.append(raw + bytes(8 - len(raw) % 8))
    whole = b"".join(parts)
    with open(path, "wb") as file:
        file.write(whole + hashlib.sha1(whole, usedforsecurity=False).digest())


def read_few(path: str) -> dict[str, Entry] | None:
    """What such an index says; None when git made something of it that is not read here."""
    with open(path, "rb") as file:
        raw = file.read()
    sign, version, count = _HEAD.unpack_from(raw)
    if sign != b"DIRC" or version != 2:
        return None
    found, at = {}, _HEAD.size
    for _ in range(count):
        (mode,) = struct.unpack_from(">I", raw, at + 24)
        (flags,) = struct.unpack_from(">H", raw, at + 60)
        end = raw.index(b"\0", at + _FIXED)
        if flags & 0x7000:  # a stage of a conflict, or flags of a later version
            return None
        found[from_bytes(raw[at + _FIXED : end])] = Entry(f"{mode:06o}", raw[at + 40 : at + 60].hex())
        at += (end - at + 8) & ~7
    return found


def tree_noted(path: str) -> str | None:
    """The tree that a whole index would be written as, where git noted it there; None says nothing.

    The note is the extension `TREE`. It is looked for from the end: what follows it has to lead to the closing sum, and
    it has to be about as many entries as there are.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            return _noted(raw, len(raw) - _SHA)
    except (OSError, ValueError):
        return None


def _noted(raw: mmap.mmap, end: int) -> str | None:
    sign, _, count = _HEAD.unpack_from(raw)
    at = raw.rfind(b"TREE", 0, end)
    while sign == b"DIRC" and at > 0:
        size = struct.unpack_from(">I", raw, at + 4)[0]
        note = raw[at + 8 : at + 8 + min(size, 64)]
        if _leads_to(raw, at, end) and note.startswith(b"\0"):
            said, _, rest = note[1:].partition(b"\n")
            return rest[:_SHA].hex() if said.split(b" ")[0] == b"%d" % count and len(rest) >= _SHA else None
        at = raw.rfind(b"TREE", 0, at)
    return None


def _leads_to(raw: mmap.mmap, at: int, end: int) -> bool:
    while at + 8 <= end:
        at += 8 + int(struct.unpack_from(">I", raw, at + 4)[0])
    return at == end


def same_place(path: str) -> tuple[int, ...] | None:
    """What tells one state of an index file from another; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
