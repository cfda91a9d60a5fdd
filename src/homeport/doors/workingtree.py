"""A person's checkout, read: the working tree becomes a commit, and nothing of the checkout changes.

git writes the new objects into a folder of our own, with the checkout's store as an alternate; the index it works on
is a copy. The person's own attributes, filters and ignore rules hold here: what a commit would hold, a try holds.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from homeport.doors import loose
from homeport.doors.checkoutgit import PREFIX, environment, looking
from homeport.doors.early import EARLY
from homeport.doors.fewentries import same_place
from homeport.doors.handmade import Handmade
from homeport.doors.objects import Objects, Silent
from homeport.doors.unlike import Ahead, Unlike, staged, unlike_index
from homeport.model.edits import Person
from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.live import Entry
from homeport.model.paths import folders_above, from_bytes, printable, to_bytes
from homeport.model.ports import Completed, Shell
from homeport.model.trying import Snapshot
from homeport.model.watching import FolderWatch, Stir

TRIES = 3
"""Readings of files that somebody writes to meanwhile."""
PUSH_TIMEOUT = 900.0
"""Seconds."""


_RULES = (".gitignore", ".gitattributes")
"""Files that say how others are taken: where one of them is saved, everything is looked at again."""


_MOVED = (b"No such file", b"unstable object", b"short read", b"changed", b"does not exist")


class _Moved(Exception):
    """Something changed so that git could not read it."""


class _Asked:
    """The checkout's repository, for a git that stands and answers about objects."""

    def __init__(self, git_dir: str, environment: Mapping[str, str]) -> None:
        self.git_dir, self._environment = git_dir, environment

    def placed(self, *args: str) -> tuple[tuple[str, ...], str, dict[str, str]]:
        return (*PREFIX, *args), self.git_dir, dict(self._environment)


class _Noting:
    """A watch whose owner hears of everything that it tells."""

    def __init__(self, watch: FolderWatch, note: Callable[[Stir], None]) -> None:
        self._watch, self._note = watch, note

    @property
    def folders(self) -> int:
        return self._watch.folders

    def wait(self, timeout: float) -> Stir:
        stir = self._watch.wait(timeout)
        self._note(stir)
        return stir

    def close(self) -> None:
        self._watch.close()


class Checkout:
    """Satisfies `WorkingTree`, for the checkout around a folder.

    Raises UsageFault (code `no-checkout`) when the folder lies in none.
    """

    def __init__(self, folder: str, shell: Shell) -> None:
        self._shell = shell
        asked = ("rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-path", "index", "--git-path", "objects")
        done = self._git(*asked, cwd=folder, ok=(0, 128))
        lines = done.stdout.decode("utf-8", "surrogateescape").split("\n")
        if done.code or len(lines) != 5:
            said = [*done.stderr.decode("utf-8", "replace").strip().splitlines(), "none is here"][0]
            raise UsageFault(f"a try needs a git checkout with a working tree: {printable(said)}", code="no-checkout",
                             where=os.path.abspath(folder), next="homeport -C CHECKOUT try")  # fmt: skip
        self.top, self._dir = lines[0], lines[1]
        self._index, self._objects = (os.path.abspath(os.path.join(folder, line)) for line in lines[2:4])
        self._own = tempfile.mkdtemp(prefix="homeport-try-")
        common = os.path.dirname(self._objects)
        self._asked = Objects(_Asked(common, {**environment(), "GIT_DIR": self._dir}))
        self._few = Handmade(self._git, self._own, self._asked)
        self._watched = False
        self._bases: set[str] = set()
        """Commits of the checkout that tries were made on."""
        self._stirred: set[str] | None = None
        """What moved since the last commit; None: not known."""
        self._based: tuple[object, ...] | None = None
        """What the index of the last commit was made from; None: there is none to go on with."""
        self._entries: dict[str, Entry | None] | None = None
        """What the last commit has that its base has not; None: its index is kept instead."""

        self._ahead = Ahead()

    def begin(self) -> None:
        """Looks at everything meanwhile, for the next `take`."""
        self._ahead.begin(lambda: self._ground(self._head()), self._look)

    def _look(self) -> Unlike:
        EARLY.note_tree(self.top, self._dir, self._index)
        return unlike_index(self._looked, lambda: self._few.tree_of(self._head()))

    def _looked(self, *question: str, timeout: float) -> Completed:
        """What git answers to a question about everything; this command may have begun with it."""
        raw = EARLY.answer(looking(self.top, self._dir, question), self._index)
        return Completed(argv=question, code=0, stdout=raw) if raw is not None else self._git(*question, timeout=timeout)

    def close(self) -> None:
        self._ahead.drop()
        self._asked.close()
        shutil.rmtree(self._own, ignore_errors=True)

    def take(self, person: Person, message: str, hidden: Callable[[str], bool]) -> Snapshot:
        """As `WorkingTree.take`."""
        base = self._head()
        self._bases.add(base)
        stirred, self._stirred = self._stirred, None
        for _ in range(TRIES):
            if stirred is not None and self._based == self._ground(base) and self._plain(stirred, hidden):
                if (found := self._made(self._of_those(stirred), base, person, message)) is not None:
                    return found
                continue
            self._based = self._entries = None
            look = self._ahead.taken(self._ground(base)) or self._look()
            if look.unmerged:
                some = ", ".join(map(printable, look.unmerged[:5]))
                raise Refused(f"there are conflicts that nobody has settled: {some}", where=self.top, code="unmerged",
                              next="git status   (settle them, git add, then: homeport try)")  # fmt: skip
            nested = tuple(path.rstrip("/") for path in look.untracked if path.endswith("/"))
            new = [path for path in look.untracked if not path.endswith("/") and not hidden(path)]
            if (found := self._made({**look.tracked, **dict.fromkeys(new)}, base, person, message)) is not None:
                return replace(found, nested=nested)
        raise Refused("files change again and again while they are read", where=self.top, code="changing",
                      next="homeport try, once whatever writes there is done")  # fmt: skip

    def pack(self, commit: str, have: Sequence[str], into: str) -> None:
        """As `WorkingTree.pack`. Raises InfrastructureFault (code `pack`)."""
        files = self._files(commit, have)
        if files is not None:
            try:
                loose.write_lasting(os.path.join(into, "objects"), files)
            except OSError as fault:
                why = fault.strerror or str(fault)
                raise InfrastructureFault(f"the try cannot be brought to the mirror: {why}", where=into, code="pack",
                                          next=f"df -h {into}") from fault  # fmt: skip
            return
        self._packed_by_git(commit, have, into)

    def packed(self, commit: str, have: Sequence[str]) -> str:
        """As `WorkingTree.packed`. Raises InfrastructureFault (code `pack`)."""
        folder = tempfile.mkdtemp(prefix="pack-", dir=self._own)
        files = self._files(commit, have)
        if files is not None:
            path = os.path.join(folder, "pack")
            plain = [found for oid, raw in files.items() if (found := loose.decoded(oid, raw)) is not None]
            with open(path, "wb") as file:
                file.write(loose.pack_of(plain))
            return path
        os.makedirs(os.path.join(folder, "objects", "pack"))
        self._packed_by_git(commit, have, folder)
        (path,) = glob.glob(os.path.join(glob.escape(folder), "objects", "pack", "*.pack"))
        return path

    def _files(self, commit: str, have: Sequence[str]) -> dict[str, bytes] | None:
        made = self._few.made.get(commit)
        return self._few.files_of(commit, self._objects) if made is not None and made.base in have else None

    def _packed_by_git(self, commit: str, have: Sequence[str], into: str) -> None:
        asked = "".join(f"{line}\n" for line in (commit, *(f"^{sha}" for sha in self._here(have))))
        done = self._git("-c", "core.fsync=all", "pack-objects", "--revs", "--quiet", "--delta-base-offset",
                         os.path.join(into, "objects", "pack", "pack"), input=asked.encode(), ok=range(256),
                         timeout=PUSH_TIMEOUT)  # fmt: skip
        if done.code:
            raise _fault("the try cannot be brought to the mirror", done, into, "pack")

    def watch(self) -> FolderWatch:
        """As `WorkingTree.watch`."""
        from homeport.doors.inotify import Inotify

        self._ahead.drop()  # what is saved between that look and the watch would be missed
        raw = self._git("ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory", timeout=600).stdout
        ignored = {from_bytes(path[:-1]) for path in raw.split(b"\0") if path.endswith(b"/")}
        begun = False

        def skip(folder: str) -> bool:
            if folder.rpartition("/")[2] == ".git" or folder in ignored:
                return True
            return begun and not self.concerns([f"{folder}/x"])

        watch = Inotify(self.top, skip)
        begun = True
        self._watched = True
        return _Noting(watch, self._note)

    def _note(self, stir: Stir) -> None:
        """What moved since the last commit was made, while that is known path by path."""
        if stir.lost or stir.folders or self._stirred is None:
            self._stirred = None
        else:
            self._stirred |= {path for path in stir.paths if path.split("/")[0] != ".git"}

    def concerns(self, paths: Iterable[str]) -> bool:
        """As `WorkingTree.concerns`."""
        asked = {path for path in paths if path.split("/")[0] != ".git"}
        tracked = self._known(asked)
        return bool(tracked) or bool(asked - self._ignored(asked))

    def _ignored(self, paths: Collection[str]) -> set[str]:
        """Those that are untracked and ignored."""
        if not paths:
            return set()
        lines = b"".join(to_bytes(path) + b"\0" for path in paths)
        done = self._git("check-ignore", "-z", "--stdin", input=lines, ok=(0, 1, 128))
        return {from_bytes(path) for path in done.stdout.split(b"\0") if path} if done.code == 0 else set()

    def _known(self, paths: Collection[str]) -> dict[str, Entry]:
        """Those that the last commit has, as long as it was written path by path."""
        if self._entries is None or self._based is None:
            return {}
        base, found = str(self._based[0]), dict[str, Entry]()
        with contextlib.suppress(Silent):
            for path in paths:
                entry = self._entries[path] if path in self._entries else self._few.entry(base, path)
                if entry is not None:
                    found[path] = entry
        return found

    def _of_those(self, stirred: Collection[str]) -> dict[str, Entry | None]:
        """What git would take of paths at which something moved, with what the last commit has there."""
        if self._entries is None:
            return dict.fromkeys(sorted(set(stirred) - self._ignored(stirred)))
        known = self._known(stirred)
        new = {path for path in stirred if path not in known and os.path.lexists(os.path.join(self.top, path))}
        return {path: known.get(path) for path in sorted(known.keys() | (new - self._ignored(new)))}

    def _plain(self, stirred: Collection[str], hidden: Callable[[str], bool]) -> bool:
        """Whether these are files and links that git takes one by one, or nothing any more."""
        folders = {folder for path in stirred for folder in folders_above(path)}
        return not any(os.path.lexists(os.path.join(self.top, folder, ".git")) for folder in folders) and not any(
            hidden(path) or path.rpartition("/")[2] in _RULES or os.path.isdir(os.path.join(self.top, path))
            for path in stirred)  # fmt: skip

    def _ground(self, base: str) -> tuple[object, ...]:
        """What a kept index is made from."""
        return (base, same_place(self._index))

    def written(self, paths: Iterable[str]) -> float | None:
        """As `WorkingTree.written`."""
        found = []
        for path in paths:
            with contextlib.suppress(OSError):
                found.append(os.lstat(os.path.join(to_bytes(self.top), to_bytes(path))).st_mtime)
        return max(found, default=None)

    # What lies there

    def _head(self) -> str:
        if (known := self._plain_head()) is not None:
            return known
        done = self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1, 128))
        if done.code:
            raise Refused("nothing was committed in this checkout yet", where=self.top, next="git commit", code="no-commit")
        return done.stdout.decode("ascii").strip()

    def _plain_head(self) -> str | None:
        """The tip of the branch that is checked out, where that is a file of its own."""
        try:
            with open(os.path.join(self._dir, "HEAD"), "rb") as file:
                branch = re.fullmatch(rb"ref: (refs/heads/[^\0-\x1f]+)\n", file.read(4096))
            if branch is None or b".." in branch[1]:
                return None
            with open(os.path.join(to_bytes(self._dir), branch[1]), "rb") as file:
                tip = re.fullmatch(rb"([0-9a-f]{40})\n", file.read(100))
        except OSError:
            return None
        return tip[1].decode("ascii") if tip is not None else None

    def _stats(self, paths: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Raises Refused (code `oddity`) for what is neither file nor link."""
        found: list[tuple[int, ...] | None] = []
        for path in paths:
            try:
                seen = os.lstat(os.path.join(to_bytes(self.top), to_bytes(path)))
            except OSError:
                found.append(None)
                continue
            if not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
                raise Refused(f"{printable(path)} is neither a file nor a link, and git has no place for it", code="oddity",
                              where=self.top, next=f"ls -l {printable(path)}   (move it away)")  # fmt: skip
            found.append((seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino))
        return found

    # The commit

    def _made(self, changed: Mapping[str, Entry | None], base: str, person: Person, message: str) -> Snapshot | None:
        """The commit; None when something changed while it was made. `changed`: with what git knows of each."""
        paths, ground = tuple(changed), self._ground(base)
        before, kept, known = self._stats(paths), self._based == ground, self._entries
        self._based = self._entries = None
        try:
            sha, entries = (None, None) if kept and known is None else self._by_hand(changed, known, base, person, message)
            if sha is None and known is not None:
                return None
            if sha is None:
                sha = self._commit(self._tree(paths, kept=kept), base, person, message)
        except _Moved:
            return None
        if self._stats(paths) != before:
            return None
        if self._watched:
            self._based, self._stirred, self._entries = ground, set(), entries
        return Snapshot(sha=sha, base=base, changed=paths)

    def _by_hand(self, changed: Mapping[str, Entry | None], known: Mapping[str, Entry | None] | None, base: str,
                 person: Person, message: str) -> tuple[str | None, dict[str, Entry | None] | None]:  # fmt: skip
        """(commit, what it has that its base has not) without an index of everything; (None, None): not this time."""
        tree = self._few.tree_of(base)
        known = staged(self._git, self._dir, self._index, base, tree) if known is None else known
        if tree is None or known is None or not self._few.can(person, [*known, *changed]):
            return None, None
        entries = self._few.read({**known, **changed}, tuple(changed))
        if isinstance(entries, Completed):
            raise self._unread(entries)
        sha = self._few.commit(tree, base, entries, person, message) if entries is not None else None
        return (sha, entries) if sha is not None else (None, None)

    def _tree(self, changed: Sequence[str], *, kept: bool) -> str:
        """By an index of everything. `kept`: that of the last commit serves on. Raises _Moved."""
        index = os.path.join(self._own, "index")
        if kept:
            pass
        elif os.path.exists(self._index):
            shutil.copy2(self._index, index)
        elif os.path.exists(index):
            os.unlink(index)
        env = {"GIT_INDEX_FILE": index}
        if changed:
            done = self._git("update-index", "-z", "--add", "--remove", "--replace", "--stdin", ok=range(256),
                             input=b"".join(to_bytes(path) + b"\0" for path in changed), timeout=PUSH_TIMEOUT,
                             env=env)  # fmt: skip
            if done.code:
                raise self._unread(done)
        done = self._git("write-tree", env=env, ok=range(256), timeout=600)
        if done.code:
            raise _fault("the working tree cannot be written as a tree", done, self.top, "unreadable")
        return done.stdout.decode("ascii").strip()

    def _unread(self, done: Completed) -> Exception:
        """Why git could not take the files: they changed meanwhile, or cannot be read."""
        moved = any(words in done.stderr for words in _MOVED)
        return _Moved() if moved else _fault("the working tree cannot be read", done, self.top, "unreadable")

    def _commit(self, tree: str, base: str, person: Person, message: str) -> str:
        env = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")
               for key, value in (("NAME", person.name), ("EMAIL", person.email))}  # fmt: skip
        done = self._git("commit-tree", tree, "-p", base, "-F", "-", input=to_bytes(message), env=env)
        return done.stdout.decode("ascii").strip()

    def _here(self, have: Sequence[str]) -> list[str]:
        """Those of the commits that this checkout knows too."""
        if set(have) <= self._bases:
            return list(have)
        asked = "".join(f"{sha}\n" for sha in have).encode()
        raw = self._git("cat-file", "--batch-check=%(objecttype)", input=asked).stdout
        return [sha for sha, kind in zip(have, raw.split(b"\n"), strict=False) if kind == b"commit"]

    # git

    def _store(self) -> dict[str, str]:
        """New objects go into a folder of our own; those of the checkout are only read."""
        objects = os.path.join(self._own, "objects")
        os.makedirs(os.path.join(objects, "pack"), exist_ok=True)
        quoted = '"' + self._objects.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return {"GIT_OBJECT_DIRECTORY": objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted}

    def _git(self, *args: str, cwd: str | None = None, env: Mapping[str, str] | None = None, input: bytes | None = None,
             timeout: float = 60.0, ok: Sequence[int] = (0,)) -> Completed:  # fmt: skip
        whole = environment()
        if hasattr(self, "_own"):
            whole |= {**self._store(), "GIT_DIR": self._dir, "GIT_WORK_TREE": self.top}
        whole.update(env or {})
        return self._shell.run((*PREFIX, *args), cwd=cwd or self.top, env=whole, input=input, timeout=timeout, ok=ok)


def _fault(what: str, done: Completed, where: str, code: str) -> InfrastructureFault:
    said = printable(done.stderr.decode("utf-8", "replace").strip()[-1000:]) or "git said nothing"
    return InfrastructureFault(f"{what}: {said}", where=where, next="homeport doctor", code=code)
