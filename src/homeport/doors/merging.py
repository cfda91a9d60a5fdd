"""The way back: live paths as blobs, a three-way merge in the mirror, a commit, its proof, and the push."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from homeport.doors.caught import Uncaught, caught_at
from homeport.doors.git import Mirror
from homeport.doors.look import LARGE, open_root
from homeport.doors.permits import Permits
from homeport.doors.trees import is_hostile
from homeport.model.edits import Merged, Person
from homeport.model.errors import InfrastructureFault
from homeport.model.live import Entry, Target, TreeChange
from homeport.model.paths import from_bytes, printable, to_bytes

_NOBODY = Person(name="homeport", email="homeport@localhost")


class Branches:
    """Satisfies `Merging`, in the project's mirror."""

    def __init__(self, git: Mirror, permits: Permits) -> None:
        self._git, self._permits = git, permits

    def collect(self, target: Target, paths: Sequence[str]) -> tuple[dict[str, Entry | None], dict[str, str]]:
        """As `Merging.collect`; links are taken as links and never followed. Raises Refused, InfrastructureFault."""
        self._permits.folder(target.path)
        root = open_root(target.path)
        if root is None:
            return dict.fromkeys(paths), {}
        found: dict[str, Entry | None] = {}
        left: dict[str, str] = {}
        try:
            for path in paths:
                try:
                    found[path] = caught_at(self._git, root, path, LARGE, closed=True)
                except Uncaught as fault:
                    left[path] = fault.because
        finally:
            os.close(root)
        return found, left

    def with_changes(self, tree: str | None, changes: Mapping[str, Entry | None]) -> str:
        """A tree with some paths replaced or taken out; what goes goes first, so that a file may become a folder."""
        return self._git.edit_tree(tree, dict(sorted(changes.items(), key=lambda item: item[1] is not None)))

    def merge(self, recorded: str, live: str, fresh: str) -> Merged:
        """As `Merging.merge`, over three commits that nothing refers to. Raises InfrastructureFault (`old-git`).

        git 2.39 looks for renames whatever merge.renames says; where every path is on all three sides there are none.
        """
        base = self._made(recorded, [])
        sides = (self._made(live, [base]), self._made(fresh, [base]))
        done = self._git.cmd.code("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", *sides,
                                  ok=(0, 1, 129), timeout=600)  # fmt: skip
        tree, *rest = done.stdout.split(b"\0")
        if done.code == 129 or not tree:
            raise InfrastructureFault("this git cannot merge without a checkout; adopt needs git 2.38 or newer",
                                      where="PATH", next="install a newer git, then: homeport adopt",
                                      code="old-git")  # fmt: skip
        conflicts = tuple(dict.fromkeys(from_bytes(path) for path in rest if path)) if done.code else ()
        return Merged(tree=tree.decode("ascii"), conflicts=conflicts)

    def commit(self, tree: str, parents: Sequence[str], message: str, person: Person, at: str | None = None) -> str:
        """A commit whose author and committer are the person."""
        env = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")
               for key, value in (("NAME", person.name), ("EMAIL", person.email))}  # fmt: skip
        env |= {f"GIT_{role}_DATE": f"{at[:19]}+0000" for role in ("AUTHOR", "COMMITTER")} if at is not None else {}
        onto = [part for parent in parents for part in ("-p", parent)]
        raw = self._git.cmd.run("commit-tree", tree, *onto, "-F", "-", input=to_bytes(message), env=env)
        return raw.decode("ascii").strip()

    def message_of(self, commit: str) -> tuple[str, str]:
        raw = self._git.cmd.run("log", "-1", "--no-walk", "--encoding=UTF-8", "--format=%s%x00%b", commit)
        subject, _, body = raw.decode("utf-8", "replace").partition("\0")
        return subject.strip(), body.strip()

    def prove(self, base: str, commit: str, paths: Sequence[str]) -> None:
        """As `Merging.prove`."""
        counted = self._git.cmd.run("rev-list", "--left-right", "--count", f"{base}...{commit}", timeout=600).split()
        changed = {change.path for change in self._git.changes(base, commit)}
        wrong = sorted(changed ^ set(paths))
        if counted != [b"0", b"1"]:
            self._disproved(f"the commit is not exactly one ahead of {base[:12]}", commit)
        if wrong:
            self._disproved(f"the commit would touch other paths: {', '.join(map(printable, wrong[:5]))}", commit)

    def push(self, commit: str, branch: str) -> None:
        """As `Merging.push`. A push whose answer was lost counts as done when the branch is there."""
        self._git.push_new(commit, branch)

    def hostile(self, path: str) -> bool:
        return any(is_hostile(part) for part in to_bytes(path).split(b"/"))

    def changes(self, before: str | None, after: str) -> list[TreeChange]:
        return self._git.changes(before, after)

    def forget(self, ended: Collection[str], living: Collection[str]) -> int:
        """As `Merging.forget`; a conflict goes with both of its sides."""
        kept = self._git.kept("adopt")
        over = {ref for ref, commit in kept.items() if commit in ended and commit not in living}
        over |= {f"{ref.removesuffix('live')}branch" for ref in over if ref.endswith("/live")} & kept.keys()
        for ref in over:
            self._git.keep(ref, None)
        return len(over)

    def _made(self, tree: str, parents: Iterable[str]) -> str:
        return self.commit(tree, list(parents), "for a merge\n", _NOBODY)

    @staticmethod
    def _disproved(what: str, commit: str) -> None:
        raise InfrastructureFault(f"{what}; nothing was pushed", where=commit[:12], next="homeport doctor", code="proof")
