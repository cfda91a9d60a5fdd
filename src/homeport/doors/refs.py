"""References of a repository set without a git, as git sets them (gitrepository-layout(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from homeport.doors.loose import on_disk


def write_refs(git_dir: str, refs: Mapping[str, str | None]) -> bool:
    """Sets full reference names (None: removes), as git does: locked, on the disk, then renamed. The caller keeps other
    writers away. False, with nothing changed, where git has to do it: another kind of store, a lock that is held, one to
    be removed that is packed, a folder in the way."""
    if os.path.exists(os.path.join(git_dir, "reftable")) or not all(_plain(ref) for ref in refs):
        return False
    gone = [ref for ref, oid in refs.items() if oid is None]
    if _packed(git_dir, gone, refs):
        return False
    paths = {ref: os.path.join(git_dir, ref) for ref in refs}
    locks = {ref: f"{path}.lock" for ref, path in paths.items()}
    held: list[str] = []
    try:
        for ref in refs:
            os.makedirs(os.path.dirname(paths[ref]), exist_ok=True)
            if os.path.lexists(locks[ref]) or os.path.isdir(paths[ref]) or os.path.islink(paths[ref]):
                return False
        for lock in locks.values():
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))
            held.append(lock)  # from here on it is ours to take away, and not before
        on_disk({locks[ref]: b"%s\n" % oid.encode() for ref, oid in refs.items() if oid is not None}, new=False)
        for ref, oid in refs.items():
            if oid is not None:
                os.rename(locks[ref], paths[ref])
        for ref in gone:
            with suppress(FileNotFoundError):
                os.unlink(paths[ref])
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return False
    finally:
        for lock in held:
            with suppress(FileNotFoundError):
                os.unlink(lock)
    return True


def _plain(ref: str) -> bool:
    parts = ref.split("/")
    return ref.isascii() and parts[0] == "refs" and not any(p in ("", ".", "..") or p.endswith(".lock") for p in parts)


def _packed(git_dir: str, gone: Sequence[str], refs: Iterable[str]) -> bool:
    """Whether the file of packed references has one that goes, or one that a new one would be above or below of."""
    try:
        with open(os.path.join(git_dir, "packed-refs"), "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return False
    above = {ref[:at] for ref in refs for at, char in enumerate(ref) if char == "/"}
    return any(f" {ref}\n".encode() in raw for ref in (*gone, *above)) or any(f" {ref}/".encode() in raw for ref in refs)
