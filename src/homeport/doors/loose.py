"""Objects of a repository written without a git: a process of its own takes longer than a few small files.

Each object is what git writes: its content after a head, compressed, under its own SHA-1 (gitformat-loose-object(5)).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from homeport.doors.objects import entries_of
from homeport.model.abreast import side_by_side
from homeport.model.live import Entry
from homeport.model.paths import to_bytes

KINDS = {b"commit": 1, b"tree": 2, b"blob": 3}
"""The numbers of the types in a pack."""
_TREE = b"40000"
_AT_ONCE = 8
"""Files that are brought to the disk at the same time: it waits for all of them once."""


def id_of(kind: bytes, content: bytes) -> str:
    found = hashlib.sha1(b"%s %d\0" % (kind, len(content)), usedforsecurity=False)
    found.update(content)
    return found.hexdigest()


def encoded(kind: bytes, content: bytes) -> tuple[str, bytes]:
    """(id, the bytes of its file)."""
    return id_of(kind, content), zlib.compress(b"%s %d\0" % (kind, len(content)) + content, 1)


def decoded(oid: str, raw: bytes) -> tuple[bytes, bytes] | None:
    """(type, content) of the bytes of a file; None when they are not the object of that id."""
    try:
        whole = zlib.decompress(raw)
    except zlib.error:
        return None
    head, _, content = whole.partition(b"\0")
    right = hashlib.sha1(whole, usedforsecurity=False).hexdigest() == oid
    return (head.split(b" ")[0], content) if right else None


def place(objects: str, oid: str) -> str:
    return os.path.join(objects, oid[:2], oid[2:])


def write(objects: str, oid: str, raw: bytes) -> None:
    """Into an object store that only has to outlive this process."""
    path = place(objects, oid)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(raw)
        os.rename(f"{path}.new", path)


def write_lasting(objects: str, files: Mapping[str, bytes]) -> None:
    """Into an object store, each on the disk before it is there under its name. Raises OSError."""
    new: dict[str, str] = {}
    for oid in files:
        path = place(objects, oid)
        try:
            os.utime(path)  # a prune spares what was wanted just now
        except FileNotFoundError:
            new[oid] = path
    begun = {oid: os.path.join(objects, f"tmp_obj_{os.getpid()}_{oid[:16]}") for oid in new}
    try:
        on_disk({begun[oid]: files[oid] for oid in new})
        for oid, path in new.items():
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path), 0o777)
            os.rename(begun[oid], path)
    finally:
        for left in begun.values():
            with suppress(FileNotFoundError):
                os.unlink(left)


def on_disk(files: Mapping[str, bytes], *, new: bool = True) -> None:
    """Makes these files, for reading only, or fills those that are there and empty; returns once all of them are on the
    disk. Raises OSError, such as FileExistsError for a new one that is there already."""
    how = os.O_CREAT | os.O_EXCL if new else 0

    def make(path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | how, 0o444)
        with os.fdopen(fd, "wb") as file:
            file.write(files[path])
            file.flush()
            os.fsync(fd)

    for done in side_by_side([partial(make, path) for path in files], _AT_ONCE):
        done.result()


def pack_of(objects: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A pack of these (type, content) (gitformat-pack(5))."""
    parts, count = [], 0
    for kind, content in objects:
        size, number = len(content), KINDS[kind]
        byte, size = number << 4 | size & 15, size >> 4
        while size:
            parts.append(bytes([byte | 128]))
            byte, size = size & 127, size >> 7
        parts += [bytes([byte]), zlib.compress(content)]
        count += 1
    whole = b"PACK" + struct.pack(">II", 2, count) + b"".join(parts)
    return whole + hashlib.sha1(whole, usedforsecurity=False).digest()


# Trees

Changes = Mapping[tuple[bytes, ...], Entry | None]


def changed_tree(read: Callable[[str], bytes], tree: str,
                 changes: Mapping[str, Entry | None]) -> tuple[str, dict[str, bytes]]:  # fmt: skip
    """(id of the tree with these paths replaced or removed, the trees that this takes: id to the bytes of their files).

    `read` gives the content of a tree. A file that comes where a folder was takes its place, and the other way round.
    """
    made: dict[str, bytes] = {}
    found = _changed(read, tree, {tuple(to_bytes(p).split(b"/")): entry for p, entry in changes.items()}, made)
    if found is None:
        oid, raw = encoded(b"tree", b"")
        return oid, {**made, oid: raw}
    return found, made


def _changed(read: Callable[[str], bytes], tree: str | None, changes: Changes, made: dict[str, bytes]) -> str | None:
    entries = entries_of(read(tree)) if tree is not None else {}
    below: dict[bytes, dict[tuple[bytes, ...], Entry | None]] = {}
    for path, entry in changes.items():
        if len(path) > 1:
            below.setdefault(path[0], {})[path[1:]] = entry
    for (name, *rest), entry in changes.items():
        if not rest and entry is not None:
            entries[name] = (to_bytes(entry.mode.lstrip("0")), entry.oid)
        elif not rest and entries.get(name, (_TREE, ""))[0] != _TREE:
            del entries[name]
    for name, those in below.items():
        mode, oid = entries.get(name, (_TREE, ""))
        if mode != _TREE and not any(those.values()):
            continue
        found = _changed(read, oid or None if mode == _TREE else None, those, made)
        if found is None:
            entries.pop(name, None)
        else:
            entries[name] = (_TREE, found)
    if not entries:
        return None
    order = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1][0] == _TREE else item[0])
    content = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in order)
    new, raw = encoded(b"tree", content)
    if new != tree:
        made[new] = raw
    return new
