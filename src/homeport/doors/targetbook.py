"""What is known of each target beside its live folder: record, index, claim, and whether the folder is still the one."""

from __future__ import annotations

import hashlib
import json
import os

from msgspec.structs import replace

from homeport.doors import trees
from homeport.doors.claims import Claim, refuse_foreign_claim
from homeport.doors.contact import most_alike
from homeport.doors.git import Mirror
from homeport.doors.git_read import EMPTY_TREE
from homeport.doors.gitcmd import GitCommand
from homeport.doors.shell import LocalShell
from homeport.doors.targetindex import TargetIndex
from homeport.model import globs
from homeport.model.deploys import TargetRecord
from homeport.model.errors import InfrastructureFault, Refused, StateFault
from homeport.model.live import PROJECT, FirstContact, Target
from homeport.model.paths import from_bytes, to_bytes
from homeport.model.patterns import Matcher
from homeport.model.ports import Store

CLAIM_BEING_WRITTEN = ".homeport.*.new"


class TargetBook:
    """One index file per target below `<state_dir>/targets/`, one record in the store, one ref in the mirror."""

    def __init__(self, state_dir: str, project: str, environment: str, git: Mirror, store: Store) -> None:
        self._state = os.path.abspath(state_dir)
        self._project, self._environment = project, environment
        self._git, self._store = git, store
        self.command = GitCommand(git.path, LocalShell())
        self.folder = os.path.join(self._state, "targets")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def index(self, target: Target) -> TargetIndex:
        return TargetIndex(os.path.join(self.folder, f"{target.name}.index"), self.command)

    def claim(self, target: Target) -> Claim:
        return Claim(project=self._project, environment=self._environment, service=target.name, state=self._state)

    def record(self, target: Target) -> TargetRecord:
        """Raises StateFault (code `no-record`) when this folder was never met."""
        found = self._store.target(target.name)
        if found is None:
            raise StateFault("nothing is recorded for this target", where=target.name, next="homeport drift",
                             code="no-record")  # fmt: skip
        return found

    def coming(self, target: Target, tree: str, commit: str | None) -> None:
        """Keeps what is about to be recorded safe from a gc, beside what is recorded."""
        self._git.keep_all({self.ref(target, "next"): tree, self.ref(target, "next-commit"): commit})

    def end(self, target: Target, record: TargetRecord, *, came: bool = False) -> None:
        """Records what is there now and drops the row `syncing`; both sides stay safe from a gc all the time.

        `came`: `coming` was told of exactly this tree and commit.
        """
        if not came:
            self.coming(target, record.tree, record.commit)
        self._store.end_sync(record)
        kept = {"tree": record.tree, "commit": record.commit, "next": None, "next-commit": None}
        if record.commit is None:
            del kept["commit"]
        self._git.keep_all({self.ref(target, what): oid for what, oid in kept.items()})

    def ref(self, target: Target, what: str) -> str:
        return f"state/{self._environment}/{target.name}/{what}"

    def hidden(self, target: Target) -> tuple[str, ...]:
        """Patterns of everything that is never compared: what is protected, build outputs, a claim being written."""
        outputs = (f"/{from_bytes(globs.escaped(to_bytes(o.strip('/'))))}" for o in target.outputs)
        return (*target.protect, *outputs, CLAIM_BEING_WRITTEN)

    def digest(self, target: Target) -> str:
        return hashlib.sha256(json.dumps([target.source, self.hidden(target)]).encode()).hexdigest()

    def filtered(self, target: Target, commit_or_tree: str, folder: str) -> trees.Filtered:
        """As `trees.filtered_tree` with the target's own patterns."""
        return trees.filtered_tree(self._git, commit_or_tree, folder, self.hidden(target), self._store)

    def ignored(self, target: Target, record: TargetRecord, branch: str) -> list[str]:
        """The ignore rules of the recorded commit; of the branch's tip while nothing is recorded."""
        at = record.commit or (f"refs/heads/{branch}" if self._git.has(f"refs/heads/{branch}") else None)
        return trees.ignore_patterns(self._git, at, target.source, self._store) if at else []

    def protected_tracked(self, target: Target, record: TargetRecord) -> tuple[str, ...]:
        if record.commit is None or self._git.tree_of(record.commit, target.source) is None:
            return ()
        return self.filtered(target, record.commit, target.source).protected_tracked

    # the folder and the record

    def first_contact(self, target: Target, branch: str, root: int | None) -> tuple[TargetRecord, FirstContact]:
        """Chooses the commit that what lies there is most like, and records it; an absent folder is recorded as empty."""
        tree, commit, differing, considered = EMPTY_TREE, None, 0, 0
        if root is not None:
            choice = most_alike(self._git, root, target.source, self._git.tip(branch),
                                Matcher(self.hidden(target), dir_only_matches_files=True))  # fmt: skip
            commit, differing, considered = choice.commit, choice.differing, choice.considered
            if commit is not None:
                tree = self.filtered(target, commit, target.source).tree
        if tree == EMPTY_TREE:
            tree = self._git.write_tree({})
        found = os.fstat(root) if root is not None else None
        record = TargetRecord(name=target.name, path=target.path, source=target.source, tree=tree, commit=commit,
                              device=found.st_dev if found else 0, inode=found.st_ino if found else 0,
                              patterns=self.digest(target))  # fmt: skip
        index = self.index(target)
        index.remove()
        self.end(target, record)
        index.read_tree(tree)
        return record, FirstContact(target=target.name, commit=commit, differing=differing, considered=considered)

    def same_folder(self, target: Target, record: TargetRecord, root: int | None) -> TargetRecord:
        """The record brought up to the folder's identity and today's patterns.

        Raises Refused (code `not-the-folder`) when the folder is gone, or another one without our claim.
        """
        self.refuse_other(target, record, root)
        changed = record
        if root is not None:
            found = os.fstat(root)
            changed = replace(changed, device=found.st_dev, inode=found.st_ino)
        if record.patterns != self.digest(target) and record.syncing is None:
            changed = replace(changed, tree=self.filtered(target, record.tree, "").tree, patterns=self.digest(target))
            self.index(target).read_tree(changed.tree)
        if changed != record:
            if changed.tree != record.tree:
                self.end(target, changed)
            else:
                self._store.save_target(changed)
        return changed

    def refuse_other(self, target: Target, record: TargetRecord, root: int | None) -> None:
        """Raises Refused (code `not-the-folder`) unless this is the folder that was recorded, or bears our claim."""
        if root is None:
            if record.tree != EMPTY_TREE:
                raise not_the_folder(target, "the live folder is gone; is something not mounted?")
            return
        found = os.fstat(root)
        same = (record.device, record.inode) in ((found.st_dev, found.st_ino), (0, 0))
        if not same and not refuse_foreign_claim(root, target.path, self.claim(target)):
            raise not_the_folder(target, "this is not the folder that homeport wrote to; is something not mounted?")


def not_the_folder(target: Target, what: str) -> Refused:
    whose = "" if target.name == PROJECT else f"{target.name} "
    back = f"findmnt -T {target.path}, and put it back; if it is to stay like this: homeport record {whose}--anew"
    return Refused(what, where=target.path, next=back, code="not-the-folder")


def never_there(record: TargetRecord, root: int | None) -> bool:
    """The record was made when there was no folder, and now there is one."""
    return root is not None and record.device == 0 and record.inode == 0


def refuse_unowned(target: Target, root: int | None) -> None:
    """Raises Refused (code `unowned`) when homeport may not write into the folder."""
    if root is not None and not os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
        if os.fstatvfs(root).f_flag & os.ST_RDONLY:
            raise InfrastructureFault("the live folder lies on a read-only file system", where=target.path,
                                      next=f"findmnt -T {target.path}", code="read-only")  # fmt: skip
        owner = os.fstat(root).st_uid
        raise Refused(f"the live folder belongs to user {owner}; homeport may not write into it", where=target.path,
                      next=f"ls -ld {target.path}", code="unowned")  # fmt: skip
