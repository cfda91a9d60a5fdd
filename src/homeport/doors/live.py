"""Live folders: the one place that compares them with what was put there, and that changes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from msgspec.structs import replace

from homeport.doors import scanning
from homeport.doors.caught import Uncaught, caught_at
from homeport.doors.claims import refuse_foreign_claim, write_claim
from homeport.doors.early import identity
from homeport.doors.git import Mirror
from homeport.doors.look import large_at, look_at, open_root, read_at, shown
from homeport.doors.lookahead import LooksAhead
from homeport.doors.noting import Noting
from homeport.doors.permits import Permits
from homeport.doors.targetbook import TargetBook, never_there, not_the_folder, refuse_unowned
from homeport.doors.targetindex import TargetIndex
from homeport.doors.untracked import rewritten
from homeport.model.abreast import together
from homeport.model.deploys import TargetRecord
from homeport.model.errors import InfrastructureFault, Refused
from homeport.model.folders import Rescues
from homeport.model.live import (
    Difference,
    Entry,
    Recorded,
    Rescue,
    Scan,
    SyncPlan,
    SyncResult,
    SyncStep,
    Target,
)
from homeport.model.paths import printable
from homeport.model.patterns import Matcher
from homeport.model.ports import Clock, Store

if TYPE_CHECKING:
    from homeport.doors.swap import Applied, Save


class LiveTargets:
    """Satisfies `Targets`. One index file per target below `<state_dir>/targets/`."""

    def __init__(self, state_dir: str, project: str, environment: str, git: Mirror, store: Store, rescues: Rescues,
                 clock: Clock, permits: Permits) -> None:  # fmt: skip
        self._book = TargetBook(state_dir, project, environment, git, store)
        self._git, self._store, self._rescues, self._clock = git, store, rescues, clock
        self._permits = permits
        self._noting, self._ahead = Noting(), LooksAhead()

    def meet(self, target: Target, branch: str, *, observe: bool = False) -> Recorded:
        """As `Targets.meet`. A lost index is made anew from the recorded tree, so that everything is compared again."""
        (self._permits.folder if observe else self._permits.changing)(target.path)
        self._noting.wait()
        record = self._store.target(target.name)
        if record is not None and record.syncing is not None and not observe:
            self._settle(target, wait=False)
        with self._root(target.path) as root, self._book.index(target).hold(looks=observe):
            record = self._store.target(target.name)
            claimed = root is not None and refuse_foreign_claim(root, target.path, self._book.claim(target))
            first = None
            if record is None or record.path != target.path or never_there(record, root):
                record, first = self._book.first_contact(target, branch, root)
            else:
                record = self._book.same_folder(target, record, root)
            if not observe:
                refuse_unowned(target, root)
            if root is not None and not claimed and not observe:
                write_claim(root, target.path, self._book.claim(target))
        return Recorded(target=target.name, tree=record.tree, commit=record.commit, first_contact=first)

    def meet_anew(self, target: Target, branch: str) -> Recorded:
        """Forgets what was recorded and meets the folder as for the first time (`homeport record --anew`)."""
        self._permits.folder(target.path)
        with self._root(target.path) as root, self._book.index(target).hold():
            if root is not None:
                refuse_foreign_claim(root, target.path, self._book.claim(target))
            record, first = self._book.first_contact(target, branch, root)
        return Recorded(target=target.name, tree=record.tree, commit=record.commit, first_contact=first)

    def wanted(self, target: Target, sha: str) -> str:
        return self._book.filtered(target, sha, target.source).tree

    def scan(self, target: Target, branch: str) -> Scan:
        self._noting.wait()
        return self._ahead.taken(target.name, lambda: self._ground(target, branch)) or self._scan(target, branch)

    def look_ahead(self, targets: Sequence[Target], branch: str) -> Callable[[], None]:
        """Begins what `scan` will be asked for in a moment; the answer ends it when nobody asks after all."""
        self._ahead.begin({it.name: (partial(self._ground, it, branch), partial(self._scan, it, branch)) for it in targets})
        return self._ahead.drop

    def _ground(self, target: Target, branch: str) -> Hashable:
        """What a look stands on, besides the folder itself. Every deploy ends with another index."""
        found = identity(self._book.index(target).path)
        return target, self._book.record(target), self._git.at(f"refs/heads/{branch}"), found

    def _scan(self, target: Target, branch: str) -> Scan:
        record = self._book.record(target)
        index = self._book.index(target)
        with self._root(target.path) as root:
            self._book.refuse_other(target, record, root)
            if root is None:
                return Scan(target=target.name, recorded_tree=record.tree)
            usable = index.usable()
            with index.hold(wait=not usable, looks=usable) as held:
                if held and (record.syncing is not None or not usable):
                    index.read_tree(record.tree)
                found, stale = scanning.differences(target, root, index, self._book.ignored(target, record, branch),
                                                    self._book.hidden(target), held=held)  # fmt: skip
                if held and stale:
                    with suppress(InfrastructureFault):  # a full disk: the next look reads these files again
                        index.refresh(target.path)
        mutable = Matcher(target.mutable, dir_only_matches_files=True)
        mutated = [d for d in found if mutable.match(d.path) and d.state != "added"]
        drift = [d for d in found if not mutable.match(d.path)]
        return Scan(
            target=target.name, recorded_tree=record.tree, mutated=tuple(mutated),
            differences=tuple(scanning.with_foreign(self._git, target.source, branch, drift)),
            protected_tracked=self._book.protected_tracked(target, record),
            syncing=record.syncing[0] if record.syncing else None,
        )  # fmt: skip

    def obstacles(self, target: Target, scan: Scan, to_tree: str) -> dict[str, Difference]:
        changes = self._git.changes(scan.recorded_tree, to_tree)
        with self._root(target.path) as root:
            from homeport.doors.obstacles import Obstacles

            return {} if root is None else Obstacles(root, changes).find()

    def sync(self, target: Target, plan: SyncPlan, deploy: str, commit: str | None, *, later: bool = False) -> SyncResult:
        """As `Targets.sync`. A failure before the first change leaves everything as it was; one in the middle leaves
        the row `syncing`, and the next start ends it."""
        self._noting.wait()
        index = self._book.index(target)
        with ExitStack() as held:
            held.enter_context(index.hold())
            root = held.enter_context(self._made_root(target))
            record = self._book.record(target)
            if not refuse_foreign_claim(root, target.path, self._book.claim(target)):
                write_claim(root, target.path, self._book.claim(target))
            self._book.coming(target, plan.to_tree, commit)

            def begin() -> None:
                if record.syncing is None or plan.from_tree != plan.to_tree:
                    self._store.begin_sync(target.name, deploy, plan.from_tree, plan.to_tree)

            applied = self._apply(target, root, plan.steps, deploy, begin)
            found = os.fstat(root)
            now = replace(record, path=target.path, source=target.source, tree=plan.to_tree, commit=commit,
                          device=found.st_dev, inode=found.st_ino, patterns=self._book.digest(target),
                          syncing=None)  # fmt: skip
            if later:
                self._noting.begin(lambda: self._note(target, index, record.tree, now), held.pop_all())
            else:
                self._note(target, index, record.tree, now)
        return _result(target, applied)

    def _note(self, target: Target, index: TargetIndex, before: str, record: TargetRecord) -> None:
        """Index and record say what lies there now."""
        changes, known = self._git.changes(before, record.tree), index.digest() if index.size() else b""
        index.set((c.path, c.after) for c in changes)
        there = [c.path for c in changes if c.after is not None]
        _, right = together(lambda: index.refresh(target.path, there), lambda: index.holds(record.tree))
        if not right:
            index.read_tree(record.tree)
            index.refresh(target.path)
        elif all(c.before is not None and c.after is not None for c in changes):
            rewritten(index, known)
        index.sync()
        self._book.end(target, record, came=True)

    def noted(self) -> None:
        self._noting.ended()

    def take(self, target: Target, to_tree: str, commit: str | None, paths: Sequence[str] | None = None) -> None:
        index = self._book.index(target)
        with index.hold(), self._root(target.path) as root:
            record = self._book.record(target)
            entries: dict[str, Entry | None] = {}
            for path in paths or ():
                entries[path] = None if root is None else self._caught(target, root, path)
            tree = self._git.edit_tree(to_tree, entries)
            there = (record.device, record.inode)
            if root is not None:
                there = (os.fstat(root).st_dev, os.fstat(root).st_ino)
            index.remove()  # until the record says the new tree: whoever dies in between, the next look makes it anew
            self._book.end(target, replace(record, path=target.path, source=target.source, tree=tree, commit=commit,
                                      device=there[0], inode=there[1], patterns=self._book.digest(target)))  # fmt: skip
            index.read_tree(tree)
            index.refresh(target.path)

    def make(self, target: Target) -> None:
        with self._made_root(target):
            pass

    def settle(self, target: Target) -> tuple[str, ...]:
        return self._settle(target, wait=True)

    def mend(self, target: Target, below: str = "", apart: Sequence[str] = ()) -> tuple[str, ...]:
        from homeport.doors.beside import owner_named
        from homeport.doors.mending import mend

        owner, root = owner_named(target.owner), open_root(target.path)
        if owner is None or root is None or os.geteuid() != 0:
            return ()
        index = self._book.index(target)
        try:
            self._permits.changing(target.path)
            with index.hold():
                self._refuse_another(target, root)
                head, others = f"{below}/" if below else "", tuple(f"{folder}/" for folder in apart)
                mended = mend(root, [path for path in self._git.listing(self._book.record(target).tree)
                                     if path.startswith(head) and not path.startswith(others)], owner)  # fmt: skip
                if mended:
                    index.refresh(target.path)
        finally:
            os.close(root)
        return tuple(sorted(mended))

    def discard(self, target: Target, differences: Sequence[Difference], deploy: str | None) -> SyncResult:
        odd = [d for d in differences if d.oddity is not None]
        if odd:
            kinds = shown([f"{d.path} ({d.oddity})" for d in odd])
            raise Refused(f"homeport cannot save what lies there, so it does not put back: {kinds}", where=target.path,
                          next=_move_away(target, odd[0].path, f"homeport discard {quote(printable(odd[0].path))}"),
                          code="oddity")  # fmt: skip
        steps = [SyncStep(path=d.path, before=d.actual, after=d.recorded, rescue="discarded") for d in differences]
        index = self._book.index(target)
        with index.hold(), self._made_root(target) as root:
            applied = self._apply(target, root, steps, deploy, lambda: None)
            index.refresh(target.path)
        return _result(target, applied)

    def restore(self, target: Target, rescue: Rescue) -> SyncResult:
        index = self._book.index(target)
        with index.hold(), self._made_root(target) as root:
            before = look_at(root, rescue.place)
            if before.oddity is not None:
                raise Refused(f"a {before.oddity} is where the bytes were", where=f"{target.path}/{printable(rescue.path)}",
                              next=f"homeport rescue restore {rescue.id} --to FILE", code="oddity")  # fmt: skip
            step = SyncStep(path=rescue.place, before=before.entry, after=Entry(rescue.mode, rescue.oid), rescue="replaced")
            applied = self._apply(target, root, [step], None, lambda: None)
        return _result(target, applied)

    def read_live(self, target: Target, path: str, *, link: bool = False) -> bytes | None:
        with self._root(target.path) as root:
            found = None if root is None else read_at(root, path)
        return None if found is None or (found[0] == "120000") != link else found[1]

    def is_large(self, target: Target, path: str) -> bool:
        with self._root(target.path) as root:
            return root is not None and large_at(root, path)

    def read_host_file(self, path: str) -> bytes | None:
        self._permits.folder(path)
        folder, name = os.path.split(path)
        try:
            root = open_root(folder)
        except Refused:
            return None
        if root is None:
            return None
        try:
            found = read_at(root, name)
        finally:
            os.close(root)
        return None if found is None or found[0] == "120000" else found[1]

    def snapshot(self, target: Target, scan: Scan, base: str) -> str:
        whole = self._git.tree_of(base, "")
        if whole is None:
            raise Refused("there is no such commit", where=base, next="homeport history", code="no-commit")
        prefix = f"{target.source}/" if target.source else ""
        entries: dict[str, Entry | None] = {
            prefix + c.path: c.after for c in self._git.changes(self.wanted(target, base), scan.recorded_tree)
        }  # fmt: skip
        with self._root(target.path) as root:
            for difference in scan.differences:
                if difference.oddity is not None:
                    raise Refused(f"{printable(difference.path)} is a {difference.oddity} and cannot be built from",
                                  where=target.path, next=_move_away(target, difference.path, "the same again"),
                                  code="oddity")  # fmt: skip
                entries[prefix + difference.path] = None if root is None else self._caught(target, root, difference.path)
        index = TargetIndex(os.path.join(self._book.folder, f".snapshot-{target.name}-{os.getpid()}"), self._book.command)
        try:
            index.remove()
            index.read_tree(whole)
            index.set(entries.items())
            tree = index.write_tree()
        finally:
            index.remove()
        message = f"What is live in {target.name} on top of {base[:12]}\n"
        sha = self._git.commit(tree, [base], message, "homeport <homeport@localhost>")
        self._git.keep(f"live/{sha}", sha)
        return sha

    def _caught(self, target: Target, root: int, path: str) -> Entry | None:
        try:
            return caught_at(self._git, root, path)
        except Uncaught as fault:
            raise Refused(f"{printable(path)}: {fault.because}", where=target.path, next="homeport drift",
                          code="unsteady") from fault  # fmt: skip

    # Changing

    def _apply(self, target: Target, root: int, steps: Sequence[SyncStep], deploy: str | None,
               begin: Callable[[], None]) -> Applied:  # fmt: skip
        from homeport.doors import leftbehind
        from homeport.doors.beside import open_stage, owner_named
        from homeport.doors.blobs import Blobs
        from homeport.doors.swap import apply

        name = deploy or f"by-hand-{os.getpid()}"
        leftbehind.settle(self._git, self._rescues, target, root, self._known(target), deploy)
        stage = open_stage(root, target.path, name)
        try:
            content = Blobs(self._git, [s.after.oid for s in steps if s.after is not None])
            applied = apply(root, target.path, stage, steps, content, self._save(target, deploy),
                            owner_named(target.owner), begin)  # fmt: skip
            leftbehind.clear(root, target.path, name)
        finally:
            os.close(stage)
        return applied

    def _save(self, target: Target, deploy: str | None) -> Save:
        def save(path: str, mode: str, content: bytes | str, because: str) -> str:
            return self._rescues.save(target.name, path, mode, content, because, deploy).id

        return save

    def _settle(self, target: Target, *, wait: bool) -> tuple[str, ...]:
        self._permits.changing(target.path)
        from homeport.doors import leftbehind

        with self._book.index(target).hold(wait=wait) as held, self._root(target.path) as root:
            if not held:
                return ()
            if root is not None:
                self._refuse_another(target, root)
            return leftbehind.settle(self._git, self._rescues, target, root, self._known(target), None)

    def _known(self, target: Target) -> Callable[[], set[str]]:
        """Object ids of everything in the trees that the record names: bytes that need no rescue."""

        def known() -> set[str]:
            record = self._store.target(target.name)
            named = {record.tree, *(record.syncing[1:] if record.syncing else ())} if record is not None else set()
            return {e.oid for tree in named if self._git.has(tree) for e in self._git.listing(tree).values()}

        return known

    # Small

    @contextmanager
    def _root(self, path: str) -> Iterator[int | None]:
        root = open_root(path)
        try:
            yield root
        finally:
            if root is not None:
                os.close(root)

    @contextmanager
    def _made_root(self, target: Target) -> Iterator[int]:
        self._permits.changing(target.path)
        if not os.path.lexists(target.path):
            self._refuse_another(target, None)
            from homeport.doors.beside import make_live, owner_named

            owner = owner_named(target.owner)
            try:
                make_live(target.path, lambda above, below: self._permits.opened(above, target.path, below), owner)
            except OSError as fault:
                raise InfrastructureFault(f"the live folder cannot be made: {fault.strerror}", where=target.path,
                                          next="homeport doctor", code="unwritable") from fault  # fmt: skip
        with self._root(target.path) as root:
            if root is None:
                raise not_the_folder(target, "the live folder went away")
            self._refuse_another(target, root)
            yield root

    def _refuse_another(self, target: Target, root: int | None) -> None:
        """Before anything is written: the open folder is the one that was recorded, and lies where this host allows it.
        A link may have come into its path since it was looked at. Raises Refused (code `not-the-folder`, `roots`)."""
        if root is not None:
            self._permits.opened(root, target.path)
        record = self._store.target(target.name)
        if record is not None and record.path == target.path:
            self._book.refuse_other(target, record, root)


def _move_away(target: Target, path: str, then: str) -> str:
    return f"mv {quote(printable(f'{target.path}/{path}'))} ELSEWHERE, then: {then}"


def _result(target: Target, applied: Applied) -> SyncResult:
    return SyncResult(target=target.name, written=applied.written, deleted=applied.deleted, rescued=applied.rescued,
                      surprised=applied.surprised)  # fmt: skip
