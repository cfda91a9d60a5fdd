"""The history of host files: a branch of its own in the mirror, `refs/homeport/hostfiles/<environment>`.

Its tree holds `files/<path>` (content; not of secret ones) and `facts/<path>` (digest, mode, owner, who, why). It is
never pushed: `refs/homeport/` stays on the host.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from homeport.doors.git import Mirror
from homeport.model.errors import StateFault
from homeport.model.hostfiles import Version
from homeport.model.live import Entry


class MirrorHistory:
    """Satisfies `HostHistory`."""

    def __init__(self, git: Mirror, environment: str) -> None:
        self._git, self._ref = git, f"hostfiles/{environment}"

    def add(self, path: str, version: Version, content: bytes | None) -> None:
        head = self._head()
        changes: dict[str, Entry | None] = {
            _facts(path): Entry("100644", self._git.write_blob(msgspec.json.encode(replace(version, id="")))),
            _file(path): None,
        }
        if content is not None and not version.secret:
            changes[_file(path)] = Entry("100644", self._git.write_blob(content))
        if head is None or self._git.entry_at(head, _file(path)) is None:
            changes = {name: entry for name, entry in changes.items() if entry is not None}
        tree = self._git.edit_tree(self._git.tree_of(head, "") if head else None, changes)
        message = f"{version.how} {path}\n\n{version.because}\n"
        commit = self._git.commit(tree, [head] if head else [], message, version.by or "homeport")
        self._git.keep(self._ref, commit)

    def latest(self) -> dict[str, Version]:
        head = self._head()
        tree = self._git.tree_of(head, "facts") if head else None
        if tree is None:
            return {}
        return {f"/{name}": self._version(self._git.read(entry.oid), head or "") for name, entry in
                self._git.listing(tree).items()}  # fmt: skip

    def of(self, path: str, limit: int = 50) -> list[Version]:
        head = self._head()
        found = []
        for commit in self._git.log(head, limit, _facts(path)) if head else []:
            raw = self._git.file_at(commit, _facts(path))
            if raw is not None:
                found.append(self._version(raw, commit))
        return found

    def content(self, path: str, version: Version) -> bytes | None:
        return self._git.file_at(version.id, _file(path)) if version.id and version.digest else None

    def diff(self, path: str, before: bytes | None, after: bytes | None) -> str:
        sides = [None if raw is None else Entry("100644", self._git.write_blob(raw)) for raw in (before, after)]
        return "" if sides[0] == sides[1] else self._git.diff_text(sides[0], sides[1], path.strip("/"))

    def _head(self) -> str | None:
        return self._git.kept(self._ref).get(self._ref)

    def _version(self, raw: bytes, commit: str) -> Version:
        try:
            return replace(msgspec.json.decode(raw, type=Version), id=commit)
        except msgspec.MsgspecError as fault:
            raise StateFault(f"the history of host files cannot be read: {fault}", code="corrupt",
                             where=f"{self._git.path}: {commit[:12]}",
                             next=f"git -C {self._git.path} log refs/homeport/{self._ref}") from fault  # fmt: skip


def _facts(path: str) -> str:
    return f"facts/{path.strip('/')}"


def _file(path: str) -> str:
    return f"files/{path.strip('/')}"
