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
DEEPEST = 400
"""Folders above a file: a path of more is longer than most disks and tools take, and is nobody's by accident."""
_SHORT_NAME = re.compile(rb"git~[0-9]+", re.IGNORECASE)


class Cache(Protocol):
    """What `Store` offers for answers that never change."""

    def cached(self, key: str) -> str | None: ...
    def cache(self, key: str, value: str) -> None: ...


class Filtered(Struct, frozen=True):
    """The tree of a source folder without its protected paths, and those of them that git tracks."""

    tree: str
    protected_tracked: tuple[str, ...] = ()
    lfs: bool = False
    """Whether Git LFS pointers were looked for."""


class _Last(Struct, frozen=True):
    """The newest tree that was checked with some patterns: the next one differs from it by little."""

    whole: str
    answer: Filtered


def filtered_tree(git: Mirror, sha: str, folder: str, patterns: Sequence[str], cache: Cache) -> Filtered:
    """The tree that a target wants at a commit, checked (`refuse_unfit`) and without what `patterns` protect.

    The live folder is not looked at. Raises Refused: `no-source`, `submodule`, `lfs`, `hostile-name`.
    """
    git.ask_ahead(sha, _asked_of(folder))
    whole = git.tree_of(sha, folder)
    if whole is None:
        raise Refused(f"the commit has no folder {printable(folder)}", where=sha,
                      next="homeport check", code="no-source")  # fmt: skip
    lfs = _uses_lfs(git, sha, folder)
    rules = [[to_bytes(p).hex() for p in patterns], lfs]
    key = "filtered-2:" + hashlib.sha256(json.encode([whole, *rules])).hexdigest()
    known = cache.cached(key)
    if known is not None:
        answer = json.decode(known, type=Filtered)
        if git.has(answer.tree):
            return _unpacked_answer(answer)
    newest = "filtered-newest:" + hashlib.sha256(json.encode(rules)).hexdigest()
    answer = _filter(git, whole, patterns, lfs, _last(git, cache.cached(newest)))
    packed = Filtered(answer.tree, tuple(map(_packed, answer.protected_tracked)), answer.lfs)
    cache.cache(key, json.encode(packed).decode("utf-8"))
    cache.cache(newest, json.encode(_Last(whole, packed)).decode("utf-8"))
    return answer


def _unpacked_answer(answer: Filtered) -> Filtered:
    return Filtered(answer.tree, tuple(map(_unpacked, answer.protected_tracked)), answer.lfs)


def _last(git: Mirror, known: str | None) -> _Last | None:
    if known is None:
        return None
    last = json.decode(known, type=_Last)
    return _Last(last.whole, _unpacked_answer(last.answer)) if git.has(last.whole) else None


def _filter(git: Mirror, tree: str, patterns: Sequence[str], lfs: bool, last: _Last | None) -> Filtered:
    """Everything is looked at, or only what differs from a tree that passed the same checks.

    A path is protected, hostile or a submodule by itself, whatever else the tree holds; only whether pointers are
    looked for depends on other files, so a changed .gitattributes has everything looked at.
    """
    entries = git.entries(tree) if last is None else _changed(git, last.whole, tree)
    if entries is None:
        last, entries = None, git.entries(tree)
    matches = Matcher(patterns, dir_only_matches_files=True).match_bytes
    wanted: list[tuple[bytes, Entry]] = []
    out: list[str] = []
    attributes: list[str] = []
    for path, entry in entries:
        if path.endswith(b"/.gitattributes") and entry.mode.startswith("100"):
            attributes.append(entry.oid)
        if matches(path):
            out.append(from_bytes(path))
        else:
            wanted.append((path, entry))
    lfs = last.answer.lfs if last else lfs or any(map(_LFS_IN_ATTRIBUTES.search, git.read_many(attributes).values()))
    refuse_unfit(git, wanted, lfs)
    if last is not None:
        gone = {change.path for change in git.changes(last.whole, tree)}
        out = sorted({*(path for path in last.answer.protected_tracked if path not in gone), *out}, key=to_bytes)
    return _taken_out(git, tree, out, lfs)


def _changed(git: Mirror, before: str, tree: str) -> list[tuple[bytes, Entry]] | None:
    """What is new or another in a tree; None when a .gitattributes is, or is gone."""
    changes = git.changes(before, tree)
    if any(change.path.rpartition("/")[2] == ".gitattributes" for change in changes):
        return None
    return [(to_bytes(change.path), change.after) for change in changes if change.after is not None]


def _taken_out(git: Mirror, tree: str, out: Sequence[str], lfs: bool) -> Filtered:
    if not out:
        return Filtered(tree, (), lfs)
    try:
        return Filtered(git.edit_tree(tree, dict.fromkeys(out)), tuple(out), lfs)
    except InfrastructureFault:
        # git reads no tree with a `.git` in it, protected or not
        _refuse([path for path in map(to_bytes, out) if _any_hostile(path, {b"": False})], "hostile-name", _HOSTILE)
        raise


def refuse_unfit(git: Mirror, entries: Iterable[tuple[bytes, Entry]], lfs: bool) -> None:
    """Raises Refused for what must not, or cannot, be put into a live folder.

    `submodule`: git keeps its files in another repository. `hostile-name`: see `is_hostile`. `too-deep`: see DEEPEST.
    `lfs` (only looked for where .gitattributes ask for it): the file is a pointer, not the content.
    """
    submodules, hostile, deep, blobs = [], [], [], []
    folders: dict[bytes, bool] = {b"": False}
    for path, entry in entries:
        if entry.mode == "160000":
            submodules.append(path)
        if path.count(b"/") > DEEPEST:
            deep.append(path[:100] + b"...")
        elif _any_hostile(path, folders):
            hostile.append(path)
        if lfs and entry.mode.startswith("100"):
            blobs.append((path, entry.oid))
    _refuse(deep, "too-deep", f"files below more than {DEEPEST} folders")
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
    git.ask_ahead(sha, _asked_of(folder))
    files = [*_ignore_files_above(git, sha, folder)]
    tree = git.tree_of(sha, folder)
    within: list[tuple[str, str]] = []
    if tree is not None:
        within = _remembered(cache, f"gitignores:{tree}", lambda: _as_last_time(git, tree, folder, cache))
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
    found = git.named(tree, ".gitignore")
    return [(path.rpartition("/")[0], entry.oid) for path, entry in found if entry.mode.startswith("100")]


def _as_last_time(git: Mirror, tree: str, folder: str, cache: Cache | None) -> list[tuple[str, str]]:
    """As `_ignore_files_within`; where none changed since the tree asked for last, its answer, without a listing."""
    if cache is None:
        return _ignore_files_within(git, tree)
    last = cache.cached(f"gitignores-of:{folder}")
    cache.cache(f"gitignores-of:{folder}", tree)
    known = cache.cached(f"gitignores:{last}") if last is not None and git.has(last) else None
    if last is None or known is None:
        return _ignore_files_within(git, tree)
    if any(change.path.rpartition("/")[2] == ".gitignore" for change in git.changes(last, tree)):
        return _ignore_files_within(git, tree)
    return _decoded(known)


def _asked_of(folder: str) -> list[str]:
    """Every path of a commit that is asked for about one source folder: it, and the rules at it and above it."""
    parts = folder.strip("/").split("/") if folder not in ("", ".") else []
    places = ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
    return [folder, *(_joined(place, name) for place in places for name in (".gitattributes", ".gitignore"))]


def _remembered(cache: Cache | None, key: str, ask: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    known = cache.cached(key) if cache else None
    if known is not None:
        return _decoded(known)
    found = ask()
    if cache is not None:
        cache.cache(key, json.encode([(_packed(where), oid) for where, oid in found]).decode("ascii"))
    return found


def _decoded(known: str) -> list[tuple[str, str]]:
    return [(_unpacked(where), oid) for where, oid in json.decode(known, type=list[tuple[str, str]])]


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
    """`folders` are those known so far; the empty one is."""
    above, slash, name = path.rpartition(b"/")
    if slash and not above:
        return True
    unknown = []
    while (known := folders.get(above)) is None:
        unknown.append(above)
        above = above.rpartition(b"/")[0]
    for below in reversed(unknown):
        known = folders[below] = known or is_hostile(below.rpartition(b"/")[2])
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
