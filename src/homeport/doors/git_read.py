"""What the mirror is asked: commits, trees, blobs, differences. Nothing here writes a ref or an object."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from homeport.doors.gitcmd import GitCommand
from homeport.doors.objects import Objects, Silent, author_of, compared, entry_in, shortly_before
from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.live import Entry, TreeChange
from homeport.model.paths import from_bytes, printable, to_bytes

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""Known to every git, also where it was never written."""
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LASTING = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\^\{(?:tree|commit)\}")
"""Names that stand for the same object for good. Whether an id is here is asked each time: a gc may have taken it."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATHS_AT_ONCE = 500
_NEVER_SUBMODULES = (".gitignore", ".gitattributes")
"""`cat-file` calls a submodule missing too; only for these names that makes no difference to anybody."""
_UNKNOWN: tuple[str, Entry] = ("unknown", Entry("", ""))
_KEPT_DIFFERENCES = 8
_KEPT_CHANGES = 1000
"""Paths of a difference that is kept; longer ones are read again, so that memory stays small."""
_FEW = 16
"""Blobs that are asked for one by one."""
_REMEMBERED = 4096
"""Answers about commits and trees that one reader keeps; what an id names never changes."""


class MirrorReader:
    """The reading half of `Mirror`."""

    def __init__(self, path: str, cmd: GitCommand) -> None:
        self.path = path
        self.cmd = cmd
        self._objects = Objects(cmd)
        self._differences: dict[tuple[str, str], list[TreeChange]] = {}
        self._seen: dict[tuple[str, str], tuple[str, Entry] | None] = {}
        self._names: dict[str, str] = {}
        self._related: dict[tuple[str, str], bool] = {}

    def close(self) -> None:
        """Ends what waits to be asked; the next question starts it again."""
        self._objects.close()

    def at(self, ref: str) -> str | None:
        """What a full reference name stands for."""
        return self._first(ref) if ref.startswith("refs/") and not _CONTROL.search(ref) else None

    def tip(self, branch: str) -> str:
        """As `Git.tip`."""
        found = self._first(f"refs/heads/{_spoken(branch, 'branch')}^{{commit}}")
        if found is None:
            raise Refused(
                f"the origin has no branch {printable(branch)}",
                where=self.path,
                next=f"git push origin HEAD:{shlex.quote(branch)}, or correct the environment's `branch` in homeport.toml",
                code="no-branch",
            )
        return found

    def resolve(self, ref: str) -> str:
        """As `Git.resolve`: a branch is preferred to a tag, a tag to an id."""
        name = _spoken(ref, "reference")
        found = self._first(*(f"{kind}{name}^{{commit}}" for kind in ("refs/heads/", "refs/tags/", "")))
        if found is None:
            raise Refused(
                f"no branch, tag or commit is named {printable(ref)}",
                where=self.path,
                next="homeport history",
                code="no-commit",
            )
        return found

    def reaches(self, branch: str, sha: str) -> bool:
        """Whether the commit is the branch's tip or behind it; False when either is not here."""
        tip = self._first(f"refs/heads/{_spoken(branch, 'branch')}^{{commit}}")
        return tip is not None and self.is_ancestor(sha, tip)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether a commit is the other or behind it; False when either is not here."""
        pair = (older, newer)
        if pair in self._related:
            return self._related[pair]
        if not self.has(older) or not self.has(newer):
            return False
        whole = (self._object(older), self._object(newer))
        found = older == newer or shortly_before(self._objects, *whole) or (
            # a commit that has the other behind it is not itself behind that one, as a try and its base
            not shortly_before(self._objects, whole[1], whole[0], most=2)
            and self.cmd.code("merge-base", "--is-ancestor", *whole, ok=(0, 1)).code == 0)  # fmt: skip
        if all(map(_OID.fullmatch, pair)):
            if len(self._related) >= _REMEMBERED:
                self._related.clear()
            self._related[pair] = found
        return found

    def has(self, oid: str) -> bool:
        """Whether an object of that id (or a full reference name) is here."""
        return not _CONTROL.search(oid) and not oid.startswith("-") and self._first(oid) is not None

    def tree_of(self, sha: str, folder: str) -> str | None:
        """As `Git.tree_of`."""
        folder = _folder(folder)
        if not folder:
            return self._first(f"{self._object(sha)}^{{tree}}")
        found = self._listed(sha, folder)
        return found[1].oid if found and found[0] == "tree" else None

    def entry_at(self, sha: str, path: str) -> Entry | None:
        found = self._listed(sha, _folder(path))
        return found[1] if found and found[0] != "tree" else None

    def ask_ahead(self, sha: str, paths: Sequence[str]) -> None:
        """Looks at several paths with one git. Afterwards `tree_of`, and `entry_at` of an absent path, need none.

        A name that `cat-file` cannot be asked for (a line end in it), or a commit without its full id, is left out.
        """
        asked = [p for p in dict.fromkeys(map(_folder, paths)) if p and (sha, p) not in self._seen and "\n" not in p]
        if not asked or not _OID.fullmatch(sha):
            return
        whole, *lines = self._infos([f"{sha}^{{tree}}", *(f"{sha}:{path}" for path in asked)])
        if whole.split(b" ")[1:2] != [b"tree"]:
            return
        for path, line in zip(asked, lines, strict=False):
            head = line.split(b" ")
            if len(head) == 3 and head[1] == b"tree":
                self._remember(sha, path, ("tree", Entry("040000", head[0].decode("ascii"))))
            elif line == to_bytes(f"{sha}:{path} missing") and path.endswith(_NEVER_SUBMODULES):
                self._remember(sha, path, None)

    def changes(self, before: str | None, after: str) -> list[TreeChange]:
        """As `Git.changes`. A deploy asks for the same few differences again and again: the last ones are kept."""
        pair = (self._object(before or EMPTY_TREE), self._object(after))
        found = self._differences.get(pair)
        if found is None:
            found = self._compared(*pair)
            self._keep_changes(pair, found)
        return list(found)

    def _keep_changes(self, pair: tuple[str, str], found: list[TreeChange]) -> None:
        if len(found) <= _KEPT_CHANGES and all(map(_OID.fullmatch, pair)):
            while len(self._differences) >= _KEPT_DIFFERENCES:
                self._differences.pop(next(iter(self._differences), pair), None)
            self._differences[pair] = found

    def _compared(self, before: str, after: str) -> list[TreeChange]:
        found = None if EMPTY_TREE in (before, after) else compared(self._objects, before, after)
        if found is not None:
            return found
        raw = self.cmd.run(
            "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff",
            before, after, timeout=600,
        )  # fmt: skip
        return [TreeChange(path, old, new) for path, old, new in _raw_lines(raw.split(b"\0"))]

    def lines(self, before: str | None, after: str) -> dict[str, tuple[int, int]]:
        """As `Git.lines`: how many lines came and went at each path that differs; none for binary files."""
        raw = self.cmd.run("diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv",
                           self._object(before or EMPTY_TREE), self._object(after), timeout=600)  # fmt: skip
        rows = (line.split(b"\t", 2) for line in raw.split(b"\0")[:-1])
        return {from_bytes(path): (int(came), int(went)) for came, went, path in rows if came != b"-"}

    def listing(self, tree: str, *below: str) -> dict[str, Entry]:
        """Every file, link and submodule of a tree or commit by its path; with `below` of these paths and what is below."""
        return {from_bytes(path): entry for path, entry in self.entries(tree, *below)}

    def named(self, tree: str, name: str) -> list[tuple[str, Entry]]:
        """(path, entry) of every file of that name below a tree, without looking at the others one by one."""
        raw = self.cmd.run("ls-tree", "-r", "-z", "--full-tree", self._object(tree), timeout=600)
        wanted, found, at = to_bytes(name) + b"\0", [], 0
        while (at := raw.find(wanted, at)) >= 0:
            end, at = at + len(wanted) - 1, at + len(wanted)
            head, path = raw[raw.rfind(b"\0", 0, end) + 1 : end].split(b"\t", 1)
            if path.rpartition(b"/")[2] == wanted[:-1]:
                mode, _, oid = head.decode("ascii").split(" ")
                found.append((from_bytes(path), Entry(mode, oid)))
        return found

    def entries(self, tree: str, *below: str) -> Iterator[tuple[bytes, Entry]]:
        """As `listing`, one by one with the paths as git has them."""
        raw = self.cmd.run("ls-tree", "-r", "-z", "--full-tree", self._object(tree), "--", *below, timeout=600)
        for line in raw.split(b"\0")[:-1]:
            head, path = line.split(b"\t", 1)
            mode, _, oid = head.decode("ascii").split(" ")
            yield path, Entry(mode, oid)

    def read(self, oid: str) -> bytes:
        """A blob's bytes. Raises InfrastructureFault when it is not here."""
        with suppress(Silent):
            found = self._objects.contents(to_bytes(self._object(oid)))
            if found is not None and found[1] == "blob":
                return found[2]
        return self.cmd.run("cat-file", "blob", self._object(oid), timeout=600)

    def pour(self, oid: str, into: int) -> None:
        """Brings a blob, however large, into an open file, from where that stands. Raises InfrastructureFault."""
        self.cmd.run("cat-file", "blob", self._object(oid), output=into, timeout=3600)

    def read_many(self, oids: Iterable[str]) -> dict[str, bytes]:
        """Many blobs with one git; those that are not here are left out."""
        wanted = [self._object(oid) for oid in dict.fromkeys(oids)]
        if not wanted:
            return {}
        if len(wanted) <= _FEW:
            with suppress(Silent):
                answers = {oid: self._objects.contents(to_bytes(oid)) for oid in wanted}
                return {oid: found[2] for oid, found in answers.items() if found is not None and found[1] == "blob"}
        asked = "".join(f"{oid}\n" for oid in wanted).encode("ascii")
        raw = self.cmd.run("cat-file", "--batch", "--buffer", input=asked, timeout=600)
        found: dict[str, bytes] = {}
        at = 0
        for oid in wanted:
            end = raw.index(b"\n", at)
            head = raw[at:end].split(b" ")
            at = end + 1
            if len(head) == 3:
                size = int(head[2])
                if head[1] == b"blob":
                    found[oid] = raw[at : at + size]
                at += size + 1
        return found

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """Bytes of each object, without reading it; those that are not here are left out."""
        wanted = [self._object(oid) for oid in dict.fromkeys(oids)]
        if not wanted:
            return {}
        if len(wanted) <= _FEW:
            with suppress(Silent):
                told = {oid: self._objects.info(to_bytes(oid)) for oid in wanted}
                return {oid: found[2] for oid, found in told.items() if found is not None}
        asked = "".join(f"{oid}\n" for oid in wanted).encode("ascii")
        raw = self.cmd.run("cat-file", "--batch-check", "--buffer", input=asked, timeout=600)
        lines = (line.split(" ") for line in raw.decode("ascii").splitlines())
        return {line[0]: int(line[2]) for line in lines if len(line) == 3}

    def file_at(self, sha: str, path: str) -> bytes | None:
        """A regular file's bytes at a commit; None when it is absent, a link or a folder."""
        entry = self.entry_at(sha, path)
        return self.read(entry.oid) if entry is not None and entry.mode.startswith("100") else None

    def subject(self, sha: str) -> str:
        raw = self.cmd.run("log", "-1", "--no-walk", "--encoding=UTF-8", "--format=%s", self._object(sha))
        return raw.decode("utf-8", "replace").rstrip("\n")

    def author(self, sha: str, *, mail: bool = False) -> str:
        """As `Git.author`; with the address as `Name <address>`."""
        with suppress(Silent):
            found = self._objects.contents(to_bytes(self._object(sha)))
            told = author_of(found[2]) if found is not None and found[1] == "commit" else None
            if told is not None:
                return f"{told[0]} <{told[1]}>" if mail else told[0]
        what = "%an <%ae>" if mail else "%an"
        raw = self.cmd.run("log", "-1", "--no-walk", "--encoding=UTF-8", f"--format={what}", self._object(sha))
        return raw.decode("utf-8", "replace").strip()

    def log(self, sha: str, limit: int, path: str = "") -> list[str]:
        """Newest first; `sha` may be a branch; with `path` only the commits that touched it."""
        below = ("--", _folder(path)) if _folder(path) else ()
        raw = self.cmd.run("rev-list", f"--max-count={int(limit)}", self._object(sha), *below, timeout=600)
        return raw.decode("ascii").split()

    def arrivals(self, since: str | None, sha: str, limit: int) -> list[tuple[str, str | None]]:
        """(commit, its first parent) of what came upon a line of commits after `since`, newest first. A merge is one."""
        known = (f"^{self._object(since)}",) if since else ()
        raw = self.cmd.run("rev-list", "--first-parent", "--parents", f"--max-count={int(limit)}", self._object(sha),
                           *known, timeout=600)  # fmt: skip
        rows = [line.split() for line in raw.decode("ascii").splitlines()]
        return [(row[0], row[1] if len(row) > 1 else None) for row in rows]

    def history_blobs(self, branch: str, paths: Sequence[str], limit: int = 500) -> dict[str, dict[str, str]]:
        """Which contents each path had in the newest `limit` commits that touched any of them.

        By path, by blob: the newest commit of the branch that brought it. Paths are those of the repository.
        """
        tip = self.tip(branch)
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(paths), _PATHS_AT_ONCE):
            raw = self.cmd.run(
                "log", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--full-history",
                "--diff-merges=first-parent", f"--max-count={int(limit)}", "--format=commit %H", tip,
                "--", *paths[start : start + _PATHS_AT_ONCE], timeout=600,
            )  # fmt: skip
            for commit, path, after in _log_lines(raw.split(b"\0")):
                found.setdefault(path, {}).setdefault(after.oid, commit)
        return found

    def blobs_between(self, base: str | None, commit: str, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(path, blob) of everything that commits from `base` (None: the first) to `commit` gave these paths."""
        known = (f"^{self._object(base)}",) if base else ()
        for start in range(0, len(paths), _PATHS_AT_ONCE):
            raw = self.cmd.run(
                "log", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--full-history",
                "--diff-merges=first-parent", "--format=commit %H", self._object(commit), *known,
                "--", *paths[start : start + _PATHS_AT_ONCE], timeout=600,
            )  # fmt: skip
            for _, path, after in _log_lines(raw.split(b"\0")):
                yield path, after.oid

    def _infos(self, names: Sequence[str]) -> list[bytes]:
        """For each name a line as of `cat-file --batch-check`."""
        with suppress(Silent):
            found = ((name, self._objects.info(to_bytes(name))) for name in names)
            return [to_bytes(f"{name} missing") if it is None else f"{it[0]} {it[1]} {it[2]}".encode("ascii")
                    for name, it in found]  # fmt: skip
        asked = "".join(f"{name}\n" for name in names)
        return self.cmd.run("cat-file", "--batch-check", input=to_bytes(asked)).split(b"\n")

    def _remember(self, sha: str, path: str, found: tuple[str, Entry] | None) -> None:
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[sha, path] = found

    def _listed(self, sha: str, path: str) -> tuple[str, Entry] | None:
        known = self._seen.get((sha, path), _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        found = self._list(sha, path)
        if _OID.fullmatch(sha):
            self._remember(sha, path, found)
        return found

    def _list(self, sha: str, path: str) -> tuple[str, Entry] | None:
        folder, _, name_there = path.rpartition("/")
        with suppress(Silent):
            commit = self._object(sha)
            tree = self._objects.contents(to_bytes(f"{commit}:{folder}" if folder else f"{commit}^{{tree}}"))
            if tree is not None and tree[1] == "tree":
                return entry_in(tree[2], to_bytes(name_there))
        raw = self.cmd.run("ls-tree", "-z", "--full-tree", self._object(sha), "--", path)
        for line in raw.split(b"\0")[:-1]:
            head, name = line.split(b"\t", 1)
            mode, kind, oid = head.decode("ascii").split(" ")
            if name == to_bytes(path):
                return kind, Entry(mode, oid)
        return None

    def _object(self, name: str) -> str:
        """A full id or full reference name as it is; anything shorter through `resolve`."""
        return name if _OID.fullmatch(name) or name.startswith("refs/") else self.resolve(name)

    def _first(self, *names: str) -> str | None:
        """The id of the first of these that exists, with one git."""
        known = self._names.get(names[0]) if len(names) == 1 else None
        if known is not None:
            return known
        for line in self._infos(names):
            head = line.split(b" ")
            if len(head) == 3 and head[2].isdigit() and _OID.fullmatch(from_bytes(head[0])):
                found = head[0].decode("ascii")
                if len(names) == 1 and _LASTING.fullmatch(names[0]):
                    if len(self._names) >= _REMEMBERED:
                        self._names.clear()
                    self._names[names[0]] = found
                return found
        return None


def _spoken(ref: str, kind: str) -> str:
    """A name as a person or a request gave it, if it can be one at all."""
    if not ref or ref.startswith("-") or _CONTROL.search(ref) or len(ref) > 1024:
        raise UsageFault(
            f"{printable(ref[:80])!r} cannot be a {kind}",
            next="name a branch, a tag or a commit",
            code="bad-ref",
        )
    return ref


def _folder(path: str) -> str:
    return "" if path in ("", ".") else path.strip("/")


def _pairs(fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(head, path) of each raw difference; (`commit ID`, empty) where a log names one."""
    at = 0
    while at < len(fields):
        head = fields[at].lstrip(b"\n")
        at += 1
        if head.startswith(b":"):
            yield head, fields[at]
            at += 1
        elif head.startswith(b"commit "):
            yield head, b""


def _raw_lines(fields: Sequence[bytes]) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    for head, path in _pairs(fields):
        modes = head[1:].decode("ascii").split(" ")
        if len(modes) != 5:
            raise InfrastructureFault("git printed a difference that cannot be read", next="homeport doctor")
        before = None if modes[0] == "000000" else Entry(modes[0], modes[2])
        after = None if modes[1] == "000000" else Entry(modes[1], modes[3])
        yield from_bytes(path), before, after


def _log_lines(fields: Sequence[bytes]) -> Iterator[tuple[str, str, Entry]]:
    commit = ""
    for head, path in _pairs(fields):
        if head.startswith(b"commit "):
            commit = head[7:].split(b"\n")[0].decode("ascii")
            continue
        for name, _, after in _raw_lines([head, path]):
            if after is not None:
                yield commit, name, after
