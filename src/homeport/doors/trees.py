"""Which files of a commit a target would have: protected paths left out, what homeport cannot put there refused."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct, json

from homeport.doors.git import Mirror
from homeport.model import ignore
from homeport.model.errors import InfrastructureFault, Refused
from homeport.model.live import Entry
from homeport.model.paths import from_bytes, printable, to_bytes
from homeport.model.patterns import Matcher

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
LFS_LARGEST = 1024
"""Bytes; a pointer is never longer."""
_LFS_IN_ATTRIBUTES = re.compile(rb"filter\s*=\s*lfs")
_HOSTILE = "file names that could reach outside the folder or into git's own"
_SHOWN = 10
_SHORT_NAME = re.compile(rb"git~[0-9]+", re.IGNORECASE)


class Cache(Protocol):
    """What `Store` offers for answers that never change."""

    def cached(self, key: str) -> str | None: ...
    def cache(self, key: str, value: str) -> None: ...


class Filtered(Struct, frozen=True):
    """The tree of a source folder without its protected paths, and those of them that git tracks."""

    tree: str
    protected_tracked: tuple[str, ...] = ()


def filtered_tree(git: Mirror, sha: str, folder: str, patterns: Sequence[str], cache: Cache) -> Filtered:
    """The tree that a target wants at a commit, checked (`refuse_unfit`) and without what `patterns` protect.

    The live folder is not looked at. Raises Refused: `no-source`, `submodule`, `lfs`, `hostile-name`.
    """
    whole = git.tree_of(sha, folder)
    if whole is None:
        raise Refused(f"the commit has no folder {printable(folder)}", where=sha,
                      next="homeport check", code="no-source")  # fmt: skip
    lfs = _uses_lfs(git, sha, folder)
    key = "filtered:" + hashlib.sha256(json.encode([whole, [to_bytes(p).hex() for p in patterns], lfs])).hexdigest()
    known = cache.cached(key)
    if known is not None:
        answer = json.decode(known, type=Filtered)
        if git.has(answer.tree):
            return Filtered(answer.tree, tuple(map(_unpacked, answer.protected_tracked)))
    answer = _filter(git, whole, patterns, lfs)
    packed = Filtered(answer.tree, tuple(map(_packed, answer.protected_tracked)))
    cache.cache(key, json.encode(packed).decode("utf-8"))
    return answer


def _filter(git: Mirror, tree: str, patterns: Sequence[str], lfs: bool) -> Filtered:
    matcher = Matcher(patterns, dir_only_matches_files=True)
    matches = matcher.match_bytes
    wanted: list[tuple[bytes, Entry]] = []
    taken_out: list[str] = []
    attributes: list[str] = []
    for path, entry in git.entries(tree):
        if path.endswith(b"/.gitattributes") and entry.mode.startswith("100"):
            attributes.append(entry.oid)
        if matches(path):
            taken_out.append(from_bytes(path))
        else:
            wanted.append((path, entry))
    lfs = lfs or any(map(_LFS_IN_ATTRIBUTES.search, git.read_many(attributes).values()))
    refuse_unfit(git, wanted, lfs)
    if not taken_out:
        return Filtered(tree)
    try:
        return Filtered(git.edit_tree(tree, dict.fromkeys(taken_out)), tuple(taken_out))
    except InfrastructureFault:
        # git reads no tree with a `.git` in it, protected or not
        _refuse([path for path in map(to_bytes, taken_out) if _any_hostile(path, {b"": False})], "hostile-name", _HOSTILE)
        raise


def refuse_unfit(git: Mirror, entries: Iterable[tuple[bytes, Entry]], lfs: bool) -> None:
    """Raises Refused for what must not, or cannot, be put into a live folder.

    `submodule`: git keeps its files in another repository. `hostile-name`: see `is_hostile`.
    `lfs` (only looked for where .gitattributes ask for it): the file is a pointer, not the content.
    """
    submodules, hostile, blobs = [], [], []
    folders: dict[bytes, bool] = {b"": False}
    for path, entry in entries:
        if entry.mode == "160000":
            submodules.append(path)
        if _any_hostile(path, folders):
            hostile.append(path)
        if lfs and entry.mode.startswith("100"):
            blobs.append((path, entry.oid))
    _refuse(hostile, "hostile-name", _HOSTILE)
    _refuse(submodules, "submodule", "submodules, which homeport does not deploy")
    if blobs:
        _refuse(_pointers(git, blobs), "lfs", "Git LFS pointers, whose content is not in the repository")


def is_hostile(name: bytes) -> bool:
    """Whether one component of a path is a name that git, or a file system somewhere, takes for something else.

    Refused are the empty name, `.`, `..`, `.git` in any disguise (case, ignorable characters, short names,
    trailing dots and spaces, streams) and names with a slash, a NUL or a backslash before such a name.
    """
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        return True
    if b"\\" in name and any(is_hostile(part) for part in name.split(b"\\") if part):
        return True
    lowered = name.lower()
    if b"git" not in lowered and name.isascii():
        return False
    plain = lowered.split(b":")[0].rstrip(b" .")
    if plain == b".git" or _SHORT_NAME.fullmatch(plain):
        return True
    text = from_bytes(name)
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return visible != text and visible.lower() in (".git", "..", ".", "")


def ignore_patterns(git: Mirror, sha: str, source: str, cache: Cache | None = None) -> list[str]:
    """The repository's own ignore rules at that commit as they read from the source folder.

    The .gitignore files of the folders above the source and of those within it, all from the commit: what lies
    on disk is not asked. Links and unreadable files count as absent.
    """
    folder = "" if source in ("", ".") else source.strip("/")
    files = [*_ignore_files_above(git, sha, folder)]
    tree = git.tree_of(sha, folder)
    within: list[tuple[str, str]] = []
    if tree is not None:
        within = _remembered(cache, f"gitignores:{tree}", lambda: _ignore_files_within(git, tree))
    files += [(_joined(folder, below), oid) for below, oid in within]
    contents = git.read_many(oid for _, oid in files)
    return ignore.flat({where: from_bytes(contents[oid]) for where, oid in files if oid in contents}, folder)


def _ignore_files_above(git: Mirror, sha: str, folder: str) -> list[tuple[str, str]]:
    parts = folder.split("/") if folder else []
    found = []
    for depth in range(len(parts)):
        above = "/".join(parts[:depth])
        entry = git.entry_at(sha, _joined(above, ".gitignore"))
        if entry is not None and entry.mode.startswith("100"):
            found.append((above, entry.oid))
    return found


def _ignore_files_within(git: Mirror, tree: str) -> list[tuple[str, str]]:
    found = []
    for path, entry in git.entries(tree):
        if path.endswith(b".gitignore") and entry.mode.startswith("100"):
            where, _, name = from_bytes(path).rpartition("/")
            if name == ".gitignore":
                found.append((where, entry.oid))
    return found


def _remembered(cache: Cache | None, key: str, ask: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    known = cache.cached(key) if cache else None
    if known is not None:
        return [(_unpacked(where), oid) for where, oid in json.decode(known, type=list[tuple[str, str]])]
    found = ask()
    if cache is not None:
        cache.cache(key, json.encode([(_packed(where), oid) for where, oid in found]).decode("ascii"))
    return found


def _uses_lfs(git: Mirror, sha: str, folder: str) -> bool:
    """Whether the .gitattributes at the repository's root, at the source or between them name the LFS filter.

    Those of folders below the source are part of its tree: `_filter` reads them.
    """
    parts = folder.split("/") if folder not in ("", ".") else []
    places = ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
    texts = (git.file_at(sha, _joined(place, ".gitattributes")) for place in places)
    return any(text is not None and _LFS_IN_ATTRIBUTES.search(text) for text in texts)


def _pointers(git: Mirror, blobs: Sequence[tuple[bytes, str]]) -> list[bytes]:
    sizes = git.sizes(oid for _, oid in blobs)
    small = {oid for oid, size in sizes.items() if len(LFS_POINTER) <= size < LFS_LARGEST}
    contents = git.read_many(small)
    return [path for path, oid in blobs if contents.get(oid, b"").startswith(LFS_POINTER)]


def _any_hostile(path: bytes, folders: dict[bytes, bool]) -> bool:
    above, slash, name = path.rpartition(b"/")
    if slash and not above:
        return True
    known = folders.get(above)
    if known is None:
        known = folders[above] = _any_hostile(above, folders)
    return known or is_hostile(name)


def _refuse(paths: Sequence[bytes], code: str, what: str) -> None:
    if paths:
        named = ", ".join(printable(from_bytes(path)) for path in paths[:_SHOWN])
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise Refused(f"the commit holds {what}: {named}{more}", where="the source folder of the service",
                      next="take them out of the folder, or protect them, then: homeport plan", code=code)  # fmt: skip


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _packed(path: str) -> str:
    """Any path as text that JSON can hold."""
    return to_bytes(path).decode("latin-1").encode("unicode_escape").decode("ascii")


def _unpacked(text: str) -> str:
    return from_bytes(text.encode("ascii").decode("unicode_escape").encode("latin-1"))
