"""Commits of a working tree that differs from its base at a few paths: one git reads the files at these paths, as it
would for a commit, and the trees around them are written here. No index of the whole tree is copied, read or written.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from homeport.doors import loose
from homeport.doors.fewentries import read_few, write_few
from homeport.doors.objects import Objects, Silent, entry_in
from homeport.model.edits import Person
from homeport.model.live import Entry
from homeport.model.paths import to_bytes
from homeport.model.ports import Completed

DEEPEST = 200
"""Folders in a path; deeper ones are left to git."""
MOST = 2000
"""Paths that differ; for more of them git reads the whole index faster."""
LARGEST = 8 << 20
"""Bytes of a file as it is stored; a try with a larger one is packed by git."""
_WHO = re.compile(r"[^\x00-\x1f<>.,:;\"'\\ \x7f](?:[^\x00-\x1f<>\x7f]*[^\x00-\x1f<>.,:;\"'\\ \x7f])?")
"""A name or address that git takes as it is."""
_PLAIN = ("-c", "index.version=2", "-c", "index.skipHash=false", "-c", "feature.manyFiles=false")
_BY_GIT = (".gitattributes", ".gitmodules")
"""Where one of these differs, how the others are read may depend on what the index says of it."""


class Made(Struct, frozen=True):
    """A commit that was written here."""

    base: str
    objects: tuple[str, ...]
    """The commit and the trees, new ones only; they lie in the store of their own."""
    blobs: tuple[str, ...]
    """What the differing files hold now, wherever it lies."""
    entries: Mapping[str, Entry | None]
    """What differs from the base."""


class Handmade:
    """Of one checkout. `git` runs a command on it; new objects come into `own`."""

    def __init__(self, git: Callable[..., Completed], own: str, objects: Objects) -> None:
        self._git, self._objects = git, objects
        self._index = os.path.join(own, "few")
        self._own = os.path.join(own, "objects")
        self.made: dict[str, Made] = {}
        self._trees: dict[str, str] = {}

    def tree_of(self, commit: str) -> str | None:
        """The tree of a commit of the checkout; None when nobody answers."""
        if commit not in self._trees:
            try:
                found = self._objects.info(f"{commit}^{{tree}}".encode("ascii"))
            except Silent:
                return None
            if found is None or len(found[0]) != 40:
                return None
            self._trees[commit] = found[0]
        return self._trees[commit]

    def entry(self, base: str, path: str) -> Entry | None:
        """What a commit has at a path; None also for a folder. Raises Silent."""
        folder, _, name = path.rpartition("/")
        where = f"{base}:{folder}" if folder else f"{base}^{{tree}}"
        tree = self._objects.contents(to_bytes(where))
        found = entry_in(tree[2], to_bytes(name)) if tree is not None and tree[1] == "tree" else None
        return found[1] if found is not None and found[0] != "tree" else None

    def can(self, person: Person, paths: Sequence[str]) -> bool:
        """Whether this is something to be made here."""
        return (len(paths) <= MOST and all(map(_WHO.fullmatch, (person.name, person.email)))
                and not any(path.count("/") > DEEPEST or path.endswith(_BY_GIT) for path in paths))  # fmt: skip

    def read(self, before: Mapping[str, Entry | None],
             changed: Sequence[str]) -> dict[str, Entry | None] | Completed | None:  # fmt: skip
        """What git takes at these paths, where the index has `before`: what differs from it, or how git failed; None
        when its answer is not understood."""
        if not changed:
            return dict(before)
        write_few(self._index, {path: entry for path, entry in before.items() if entry is not None})
        done = self._git(*_PLAIN, "update-index", "-z", "--add", "--remove", "--replace", "--stdin",
                         ok=range(256), timeout=900.0, input=b"".join(to_bytes(path) + b"\0" for path in changed),
                         env={"GIT_INDEX_FILE": self._index})  # fmt: skip
        if done.code:
            return done
        found = read_few(self._index)
        if found is None or not found.keys() <= {*before, *changed}:
            return None
        return {path: found.get(path) for path in (*before, *changed)}

    def commit(self, tree: str, base: str, entries: Mapping[str, Entry | None], person: Person, message: str) -> str | None:
        """The commit of the base's tree with these entries in it; None when nobody answers."""
        try:
            root, trees = loose.changed_tree(self._tree, tree, entries)
        except (Silent, LookupError):
            return None
        now = time.time()
        who = f"{person.name} <{person.email}> {int(now)} {time.strftime('%z', time.localtime(now))}"
        text = f"tree {root}\nparent {base}\nauthor {who}\ncommitter {who}\n\n{message}"
        sha, raw = loose.encoded(b"commit", text.encode("utf-8", "surrogateescape"))
        for oid, file in (*trees.items(), (sha, raw)):
            loose.write(self._own, oid, file)
        blobs = dict.fromkeys(e.oid for e in entries.values() if e is not None and e.mode != "160000")
        self.made[sha] = Made(base, (*trees, sha), tuple(blobs), dict(entries))
        return sha

    def files_of(self, commit: str, elsewhere: str) -> dict[str, bytes] | None:
        """The bytes of the files of every object that the commit has and its base may lack; None when one of them lies in
        a pack, is too large, or is not what its name says. `elsewhere`: the object store of the checkout."""
        made, files = self.made[commit], dict[str, bytes]()
        for oid in (*made.blobs, *made.objects):
            for store in (self._own, elsewhere):
                try:
                    with open(loose.place(store, oid), "rb") as file:
                        raw = file.read(LARGEST + 1)
                except FileNotFoundError:
                    continue
                if len(raw) > LARGEST or loose.decoded(oid, raw) is None:
                    return None
                files[oid] = raw
                break
            else:
                return None
        return files

    def _tree(self, oid: str) -> bytes:
        found = self._objects.contents(oid.encode("ascii"))
        if found is None or found[1] != "tree":
            raise LookupError(oid)
        return found[2]
