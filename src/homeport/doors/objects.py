"""One long-lived `git cat-file` that is asked about commits, trees and blobs: a tenth of a millisecond an answer, where
a git of its own takes four."""

from __future__ import annotations

import os
import re
import select
import threading
from typing import Protocol

from homeport.doors.shell import Standing
from homeport.model.live import Entry, TreeChange
from homeport.model.paths import from_bytes

PATIENCE = 120.0
"""Seconds without a byte after which it is given up."""
LARGEST = 1 << 20
"""Bytes; anything larger is read by a git of its own."""
_CHUNK = 1 << 16
_STEPS = 20
"""Commits that are looked at one by one for an ancestor before git is asked."""
_TREES = 64
"""Pairs of folders that are compared one by one before git is asked."""


class Command(Protocol):
    """How a git is started on the repository."""

    @property
    def git_dir(self) -> str: ...

    def placed(self, *args: str) -> tuple[tuple[str, ...], str, dict[str, str]]:
        """The whole command line, the folder to run it in, and the whole environment."""
        ...


class Silent(Exception):
    """It cannot be asked, or not this: whoever asked takes a git of their own, and tells what that says."""


class Objects:
    """Of one repository. It sees what others write to it meanwhile, as any git does. May be asked by several threads."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._guard = threading.Lock()
        self._git: Standing | None = None
        self._of: tuple[int, ...] | None = None
        self._unheard = b""
        self._able = True

    def info(self, name: bytes) -> tuple[str, str, int] | None:
        """(id, type, bytes) of what a name stands for; None when it is not here. Raises Silent."""
        with self._guard:
            return self._asked(b"info", name)

    def contents(self, name: bytes) -> tuple[str, str, bytes] | None:
        """(id, type, content), as `info`."""
        with self._guard:
            head = self._asked(b"info", name)
            if head is None or head[2] > LARGEST:
                if head is None:
                    return None
                raise Silent
            head = self._asked(b"contents", head[0].encode("ascii"))
            if head is None:
                raise Silent
            raw = self._bytes(head[2] + 1)
            return head[0], head[1], raw[:-1]

    def close(self) -> None:
        with self._guard:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _asked(self, what: bytes, name: bytes) -> tuple[str, str, int] | None:
        if not self._able or b"\n" in name or b"\r" in name or b"\0" in name:
            raise Silent
        try:
            git = self._standing()
            git.say(b"%s %s\n" % (what, name))
            line = self._line()
        except Silent:
            self._end()
            raise
        except OSError as fault:
            self._end()
            raise Silent from fault
        except BaseException:
            self._end()
            raise
        head = line.rsplit(b" ", 2)
        if len(head) == 3 and head[2].isdigit():
            return head[0].decode("ascii"), head[1].decode("ascii"), int(head[2])
        if line.endswith((b" missing", b" ambiguous")):
            return None
        self._end()
        raise Silent

    def _standing(self) -> Standing:
        # a git that stands keeps packs open that a gc has taken away, and would go on answering from them
        found = os.stat(self._command.git_dir + "/objects/pack")
        there = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if self._git is not None and self._of != there:
            self._end()
        if self._git is None:
            argv, cwd, env = self._command.placed("cat-file", "--batch-command")
            self._git, self._of = Standing(argv, cwd, env), there
        return self._git

    def _line(self) -> bytes:
        while b"\n" not in self._unheard:
            self._hear()
        line, _, self._unheard = self._unheard.partition(b"\n")
        return line

    def _bytes(self, count: int) -> bytes:
        try:
            while len(self._unheard) < count:
                self._hear()
        except BaseException:
            self._end()
            raise
        raw, self._unheard = self._unheard[:count], self._unheard[count:]
        return raw

    def _hear(self) -> None:
        assert self._git is not None
        poll = select.poll()
        poll.register(self._git.answers, select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            raise Silent
        chunk = os.read(self._git.answers, _CHUNK)
        if not chunk:
            raise Silent
        self._unheard += chunk

    def _end(self) -> None:
        git, self._git, self._unheard = self._git, None, b""
        # a git before 2.36 does not know the option and says how it is used: it is not tried again
        if git is not None and git.ended() == 129:
            self._able = False


def entries_of(tree: bytes) -> dict[bytes, tuple[bytes, str]]:
    """Name to (mode, id), from the content of a tree."""
    found, at = {}, 0
    while at < len(tree):
        middle = tree.index(b"\0", at)
        mode, _, name = tree[at:middle].partition(b" ")
        at = middle + 21
        found[name] = (mode, tree[middle + 1 : at].hex())
    return found


def entry_in(tree: bytes, name: bytes) -> tuple[str, Entry] | None:
    """(type, entry) of a name in the content of a tree object."""
    at = 0
    while at < len(tree):
        middle = tree.index(b"\0", at)
        mode, _, found = tree[at:middle].partition(b" ")
        at = middle + 21
        if found == name:
            kind = {b"40000": "tree", b"160000": "commit"}.get(mode, "blob")
            return kind, Entry(mode.decode("ascii").zfill(6), tree[middle + 1 : at].hex())
    return None


def parents_of(commit: bytes) -> list[str]:
    """Ids of the parents, from the content of a commit object."""
    head = commit.partition(b"\n\n")[0]
    return [line[7:].decode("ascii") for line in head.split(b"\n") if line.startswith(b"parent ")]


def author_of(commit: bytes) -> tuple[str, str] | None:
    """(name, address), from the content of a commit object; None where git itself has to make it out."""
    head = commit.partition(b"\n\n")[0]
    found = re.search(rb"(?m)^author ([^<>\n]*[^<> \n]) <([^<>\n]*)> \d+ [+-]\d+$", head)
    if found is None or b"\nencoding " in head:
        return None
    try:
        return found[1].decode("utf-8"), found[2].decode("utf-8")
    except UnicodeDecodeError:
        return None


def shortly_before(objects: Objects, older: str, newer: str, most: int = _STEPS) -> bool:
    """Whether the first few steps back from a commit, to so many commits at most, lead to the other; False says nothing."""
    ahead, met = [newer], {newer}
    try:
        while ahead and len(met) < most:
            found = objects.contents(ahead.pop(0).encode("ascii"))
            before = parents_of(found[2]) if found is not None and found[1] == "commit" else []
            if older in before:
                return True
            ahead += [parent for parent in before if parent not in met]
            met.update(before)
    except (Silent, UnicodeEncodeError):
        pass
    return False


def compared(objects: Objects, before: str, after: str) -> list[TreeChange] | None:
    """What differs between two trees, folder by folder and as git lists it; None where git is to be asked: more folders
    differ than a few, or nobody answers."""
    found: list[TreeChange] = []
    try:
        if _compare(objects, before, after, b"", found, [_TREES]):
            return found
    except (Silent, ValueError):
        pass
    return None


def _compare(objects: Objects, before: str | None, after: str | None, at: bytes, found: list[TreeChange],
             left: list[int]) -> bool:  # fmt: skip
    left[0] -= 1
    if left[0] < 0:
        return False
    old, new = _entries(objects, before), _entries(objects, after)
    names = {(name + b"/" if folder else name, name, folder) for (name, folder), _ in old.items() ^ new.items()}
    for _, name, folder in sorted(names):
        one, two = old.get((name, folder)), new.get((name, folder))
        if folder:
            pair = (one.oid if one is not None else None, two.oid if two is not None else None)
            if not _compare(objects, *pair, at + name + b"/", found, left):
                return False
        else:
            found.append(TreeChange(from_bytes(at + name), one, two))
    return True


def _entries(objects: Objects, tree: str | None) -> dict[tuple[bytes, bool], Entry]:
    """By name and whether it is a folder."""
    if tree is None:
        return {}
    content = objects.contents(tree.encode("ascii") + b"^{tree}")
    if content is None:
        raise Silent
    return {(name, mode == b"40000"): Entry(mode.decode("ascii").zfill(6), oid)
            for name, (mode, oid) in entries_of(content[2]).items()}  # fmt: skip
