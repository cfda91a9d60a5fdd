"""The commits of tries in the mirror: brought here, kept, compared with the branch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from homeport.doors.git import Mirror
from homeport.model.live import TreeChange
from homeport.model.trying import Snapshot, WorkingTree

KEPT = 60
"""Tries that keep a reference of their own; older ones share one."""
ARCHIVE = "tried"


class TryBox:
    """Satisfies `Tries`, for one environment."""

    def __init__(self, git: Mirror, environment: str) -> None:
        self._git = git
        self._prefix = f"tries/{environment}"
        self._archive = f"{ARCHIVE}/{environment}"

    def bring(self, tree: WorkingTree, snapshot: Snapshot) -> None:
        """As `Tries.bring`."""
        if not self._git.has(snapshot.sha):
            tree.pack(snapshot.sha, self._have(snapshot.base), self._git.path)
        self._git.keep(f"{self._prefix}/{snapshot.sha[:16]}", snapshot.sha)

    def _have(self, base: str) -> list[str]:
        if self._git.has(base):
            return [base]
        raw = self._git.cmd.run("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/homeport/tries")
        return list(dict.fromkeys(raw.decode("ascii").split()))

    def knows(self, sha: str) -> bool:
        """As `Tries.knows`."""
        return self._git.at(f"refs/homeport/{self._prefix}/{sha[:16]}") == sha

    def fork(self, sha: str, branch: str) -> str | None:
        done = self._git.cmd.code("merge-base", sha, f"refs/heads/{branch}", ok=(0, 1, 128))
        return done.stdout.decode("ascii").strip() or None

    def missing(self, sha: str, deployed: str, limit: int) -> tuple[str, ...]:
        raw = self._git.cmd.run("rev-list", f"--max-count={int(limit)}", deployed, f"^{sha}", timeout=600)
        return tuple(raw.decode("ascii").split())

    def brought(self, base: str | None, commit: str, paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """As `Tries.brought`."""
        found: dict[str, set[str]] = {}
        for path, oid in self._git.blobs_between(base, commit, paths):
            found.setdefault(path, set()).add(oid)
        return {path: frozenset(oids) for path, oids in found.items()}

    def author(self, sha: str) -> str:
        return self._git.author(sha, mail=True)

    def prune(self, needed: Sequence[str]) -> int:
        """As `Tries.prune`: the newest `KEPT` and those that are needed stay as they are."""
        with suppress(FileNotFoundError):
            if len(os.listdir(os.path.join(self._git.path, "refs", "homeport", self._prefix))) < KEPT * 2:
                return 0
        raw = self._git.cmd.run("for-each-ref", "--sort=-creatordate", "--format=%(refname) %(objectname)",
                                f"refs/homeport/{self._prefix}")  # fmt: skip
        rows = [line.split(" ") for line in raw.decode("ascii").splitlines()]
        old = [(ref.removeprefix("refs/homeport/"), sha) for ref, sha in rows[KEPT:] if sha not in needed]
        if len(old) < KEPT // 2:
            return 0
        archive = self._git.kept(self._archive).get(self._archive)
        parents = [*([archive] if archive else []), *(sha for _, sha in old)]
        tree = self._git.tree_of(old[0][1], "") or ""
        self._git.keep(self._archive, self._git.commit(tree, parents, "What was tried before\n"))
        for ref, _ in old:
            self._git.keep(ref, None)
        return len(old)

    def changes(self, base: str | None, sha: str) -> list[TreeChange]:
        return self._git.changes(base, sha)
