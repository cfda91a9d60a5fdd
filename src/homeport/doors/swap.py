"""Writes below one folder so that each path has its complete old or its complete new content at every moment.

New content is staged beside the folder, then renamed or exchanged into place; what an exchange brings out is
hashed again, and saved when it is not what was expected.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from homeport.doors.beside import (
    EXCHANGE,
    NOREPLACE,
    Above,
    Owner,
    dress_alike,
    dress_new,
    rename,
    sync_file_system,
    unchangeable,
)
from homeport.doors.blobs import Content, Pour
from homeport.doors.look import Blocked, Seen, blob_id, entry_of, folder_at, kept_in, look_in, mounts_below, split
from homeport.doors.writing import write_file, write_through
from homeport.model.errors import HomeportError, InfrastructureFault, Refused
from homeport.model.live import Entry, SyncStep
from homeport.model.paths import folders_above, printable, to_bytes

Save = Callable[[str, str, bytes | str, str], str]
"""Rescues (path, git mode, bytes or the file that has them, because); returns the rescue's id when it is safe on disk."""
MEANWHILE = "changed while the sync ran"
_MANY = 16
"""Staged files from which one syncfs is cheaper than an fsync each."""


class Applied(Struct, frozen=True, kw_only=True):
    written: int = 0
    deleted: int = 0
    rescued: tuple[str, ...] = ()
    surprised: tuple[str, ...] = ()


def apply(root: int, root_path: str, stage: int, steps: Sequence[SyncStep], content: Content, save: Save,
          owner: Owner | None = None, begin: Callable[[], None] = lambda: None) -> Applied:  # fmt: skip
    """Carries steps out below an open folder. `stage` is an open private folder on the same file system.

    Everything that can be known to fail is tried before the first change, right before which `begin` is called.
    Raises InfrastructureFault, or Refused (code `conflict`) when something that is no file came into the way.
    """
    swap = _Swap(root, root_path, stage, save, owner)
    swap.precheck(steps)
    swap.stage_all(steps, content)
    begin()
    for step in in_order(steps):
        swap.carry_out(step)
    swap.make_durable()
    return Applied(written=swap.written, deleted=swap.deleted, rescued=tuple(swap.rescued),
                   surprised=tuple(dict.fromkeys(swap.surprised)))  # fmt: skip


def in_order(steps: Sequence[SyncStep]) -> list[SyncStep]:
    """Deletions that make room (a file becomes a folder or the other way round), then writes, then deletions."""
    written = {s.path for s in steps if s.after is not None}
    above_written = {above for path in written for above in folders_above(path)}

    def rank(step: SyncStep) -> int:
        if step.after is not None:
            return 1
        makes_room = step.path in above_written or any(above in written for above in folders_above(step.path))
        return 0 if makes_room else 2

    return sorted(steps, key=rank)


class _Swap:
    def __init__(self, root: int, root_path: str, stage: int, save: Save, owner: Owner | None) -> None:
        self.root, self.root_path, self.stage, self.save, self.owner = root, root_path, stage, save, owner
        self.written = self.deleted = 0
        self.rescued: list[str] = []
        self.surprised: list[str] = []
        self._names: dict[str, bytes] = {}
        self._folders: set[str] = set()

    def precheck(self, steps: Sequence[SyncStep]) -> None:
        """Raises InfrastructureFault for what would fail half-way: read-only, mounted, immutable, another file system."""
        if not steps:
            return
        if os.fstatvfs(self.root).f_flag & os.ST_RDONLY:
            raise self._fault("the live folder is mounted read-only", "", "read-only")
        if os.fstat(self.stage).st_dev != os.fstat(self.root).st_dev:
            raise self._fault("the live folder is a mount of its own: staged files cannot be moved into it", "", "mounted")
        mounts = mounts_below(self.root_path)
        checked: set[str] = set()
        for step in steps:
            if mounts and not (step.in_place and step.before and step.after):
                mounted = mounts.intersection((step.path, *folders_above(step.path)))
                if mounted:
                    raise self._fault("something is mounted there; `in_place` writes through it", step.path, "mounted")
            folder, name = split(step.path)
            for nearest in (folder, *reversed(folders_above(folder)), ""):
                with suppress(FileNotFoundError, Blocked), folder_at(self.root, nearest) as here:
                    if nearest not in checked:
                        checked.add(nearest)
                        self._check_folder(here, nearest)
                    if nearest == folder and step.before is not None:
                        self._check_file(here, name, step.path)
                    break

    def _check_folder(self, here: int, folder: str) -> None:
        with suppress(OSError):
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            fixed = unchangeable(fd)
            os.close(fd)
            if fixed:
                raise self._fault("the folder is immutable (chattr)", folder, "immutable")
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=here, effective_ids=True):
            raise self._fault("homeport may not write into this folder", folder, "unwritable")

    def _check_file(self, here: int, name: str, path: str) -> None:
        try:
            fd = os.open(to_bytes(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        except OSError:
            return
        fixed = unchangeable(fd)
        os.close(fd)
        if fixed:
            raise self._fault("the file is immutable (chattr)", path, "immutable")

    def stage_all(self, steps: Sequence[SyncStep], content: Content) -> None:
        """Brings all new content to the disk beside the folder; a failure here leaves everything live as it is."""
        self._names = {step.path: b"%d" % number for number, step in enumerate(steps)}
        writes = [step for step in steps if step.after is not None]
        try:
            for step in writes:
                assert step.after is not None
                self._stage_one(step, content(step.after.oid), each=len(writes) < _MANY)
            marker = {name.decode(): path for path, name in self._names.items()}
            write_file(self.stage, BEGUN, json.dumps(marker).encode())
            sync_file_system(self.stage) if len(writes) >= _MANY else os.fsync(self.stage)
        except OSError as fault:
            where = self._fault(f"new content cannot be staged: {fault.strerror}", "", "stage")
            raise where from fault

    def _stage_one(self, step: SyncStep, raw: bytes | Pour, *, each: bool) -> None:
        assert step.after is not None
        name, link = self._names[step.path], step.after.mode == "120000"
        if link and not isinstance(raw, bytes):
            raise self._fault("no link can be that long", step.path, "corrupt")
        if isinstance(raw, bytes) and blob_id(raw) != step.after.oid:
            raise self._rotten(step)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.stage)
        if isinstance(raw, bytes) and link:
            os.symlink(raw, name, dir_fd=self.stage)
            owner = self.owner or (self._nearest(split(step.path)[0]).owner if os.geteuid() == 0 else None)
            if owner is not None:
                os.chown(name, owner.uid, owner.gid, dir_fd=self.stage, follow_symlinks=False)
            return
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.stage)
        with os.fdopen(fd, "wb") as file:
            if isinstance(raw, bytes):
                file.write(raw)
                file.flush()
            else:
                raw(fd)
                found = entry_of(fd)
                if found is None or found.oid != step.after.oid:
                    raise self._rotten(step)
            self._dress(fd, step)
            if each:
                os.fsync(fd)

    def _dress(self, fd: int, step: SyncStep) -> None:
        assert step.after is not None
        executable = step.after.mode == "100755"
        folder, name = split(step.path)
        if step.before is not None and step.before.mode != "120000":
            try:
                with folder_at(self.root, folder) as here:
                    old = os.open(to_bytes(name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except (FileNotFoundError, Blocked):
                old = -1
            if old >= 0:
                try:
                    if stat.S_ISREG(os.fstat(old).st_mode):
                        dress_alike(fd, old, self.owner, executable)
                        return
                finally:
                    os.close(old)
        dress_new(fd, self._nearest(folder), self.owner, executable)

    def _nearest(self, folder: str) -> Above:
        """The folder itself, or the deepest one above it that is there."""
        for candidate in (folder, *reversed(folders_above(folder))):
            with suppress(FileNotFoundError, Blocked), folder_at(self.root, candidate) as here:
                return Above.of(here)
        return Above.of(self.root)

    def carry_out(self, step: SyncStep) -> None:
        """One path: its old content is safe (in git, or rescued) before its last name goes."""
        folder, name = split(step.path)
        try:
            if step.after is None:
                self._delete(step, folder, to_bytes(name))
                return
            self._make_room(step.path)
            self._make_folders(folder)
            with folder_at(self.root, folder) as here:
                self._folders.add(folder)
                if not (step.in_place and self._in_place(step, here, name)):
                    self._put(step, here, to_bytes(name))
            self.written += 1
        except Blocked as blocked:
            raise Refused(f"a {blocked.oddity} came between", where=self._where(blocked.path),
                          next="homeport drift", code="conflict") from blocked  # fmt: skip
        except OSError as fault:
            raise self._fault(f"cannot be changed: {fault.strerror}", step.path, "write") from fault

    def _put(self, step: SyncStep, here: int, name: bytes) -> None:
        staged = self._names[step.path]
        there = step.before is not None
        for _ in range(8):
            try:
                rename(self.stage, staged, here, name, EXCHANGE if there else NOREPLACE)
            except FileNotFoundError:
                there = False
                self.surprised.append(step.path)
                continue
            except FileExistsError:
                there = True
                continue
            except OSError as fault:
                if fault.errno not in (errno.EINVAL, errno.ENOSYS):
                    raise
                self._put_plainly(step, here, name, staged)
                return
            if there:
                self._came_out(step, here, name, staged)
            return
        raise self._fault("is made and removed again and again while homeport writes it", step.path, "busy")

    def _put_plainly(self, step: SyncStep, here: int, name: bytes, staged: bytes) -> None:
        """Where the file system cannot exchange: what is there is saved first, then replaced."""
        old = look_in(here, os.fsdecode(name))
        if old.oddity is not None:
            raise self._in_the_way(step.path, old.oddity)
        self._keep_bytes(step, old, here, name)
        os.rename(staged, name, src_dir_fd=self.stage, dst_dir_fd=here)

    def _came_out(self, step: SyncStep, here: int, name: bytes, staged: bytes) -> None:
        old = look_in(self.stage, os.fsdecode(staged))
        if old.oddity is not None:
            rename(self.stage, staged, here, name, EXCHANGE)
            raise self._in_the_way(step.path, old.oddity)
        self._keep_bytes(step, old, self.stage, staged)
        os.unlink(staged, dir_fd=self.stage)

    def _keep_bytes(self, step: SyncStep, old: Seen, folder: int, name: bytes) -> None:
        """Rescues what is about to go, when it was asked for or is not what was expected."""
        expected = old.entry == step.before
        if old.entry is None or (expected and step.rescue is None):
            return
        found = kept_in(folder, os.fsdecode(name))
        if found is None:
            raise self._fault("cannot be read to be saved", step.path, "unreadable")
        if not expected:
            self.surprised.append(step.path)
        because = step.rescue if expected and step.rescue else MEANWHILE
        self.rescued.append(self.save(step.path, found[0], found[1], because))

    def _in_place(self, step: SyncStep, here: int, name: str) -> bool:
        """Writes through the same inode; False when there is no regular file to write through."""
        assert step.after is not None
        raw = to_bytes(name)
        try:
            fd = os.open(raw, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        except FileNotFoundError:
            return False
        except OSError as fault:
            if fault.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                return False
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or step.after.mode == "120000":
                return False
            old = look_in(here, name)
            if old.entry is not None:
                found = kept_in(here, name)
                if found is None:
                    raise self._fault("cannot be read to be saved", step.path, "unreadable")
                because = step.rescue or ("written in place" if old.entry == step.before else MEANWHILE)
                if old.entry != step.before:
                    self.surprised.append(step.path)
                self.rescued.append(self.save(step.path, found[0], found[1], because))
                saved = blob_id(found[1]) if isinstance(found[1], bytes) else old.entry.oid
                self._journal_in_place(step.path, Entry(found[0], saved))
            write_through(fd, self._names[step.path], self.stage)
            self._end_in_place()
        finally:
            os.close(fd)
        os.unlink(self._names[step.path], dir_fd=self.stage)
        return True

    def _journal_in_place(self, path: str, old: Entry) -> None:
        write_file(self.stage, IN_PLACE, json.dumps({"path": path, "mode": old.mode, "oid": old.oid}).encode())
        os.fsync(self.stage)

    def _end_in_place(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(IN_PLACE, dir_fd=self.stage)

    def _delete(self, step: SyncStep, folder: str, name: bytes) -> None:
        aside = self._names[step.path]
        try:
            with folder_at(self.root, folder) as here:
                os.rename(name, aside, src_dir_fd=here, dst_dir_fd=self.stage)
                old = look_in(self.stage, os.fsdecode(aside))
                if old.oddity is not None:
                    rename(self.stage, aside, here, name, NOREPLACE)
                    raise self._in_the_way(step.path, old.oddity)
                self._keep_bytes(step, old, self.stage, aside)
        except FileNotFoundError:
            return
        os.unlink(aside, dir_fd=self.stage)
        self.deleted += 1
        self._folders.add(folder)
        for empty in (folder, *reversed(folders_above(folder))) if folder else ():
            if not self._remove_folder(empty):
                break

    def _remove_folder(self, folder: str) -> bool:
        above, name = split(folder)
        try:
            with folder_at(self.root, above) as here:
                os.rmdir(to_bytes(name), dir_fd=here)
        except OSError:
            return False
        self._folders.add(above)
        return True

    def _make_room(self, path: str) -> None:
        """An empty folder where git has a file now is no content."""
        folder, name = split(path)
        with suppress(OSError, Blocked):
            with folder_at(self.root, folder) as here:
                os.rmdir(to_bytes(name), dir_fd=here)

    def _make_folders(self, folder: str) -> None:
        for below in (*folders_above(folder), folder) if folder else ():
            above, name = split(below)
            with folder_at(self.root, above) as here:
                parent = Above.of(here)
                try:
                    os.mkdir(to_bytes(name), 0o755 if parent.acl is None else 0o777, dir_fd=here)
                except FileExistsError:
                    continue
                fd = os.open(to_bytes(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                try:
                    if os.geteuid() == 0:
                        owner = self.owner or parent.owner
                        os.fchown(fd, owner.uid, owner.gid)
                    if parent.acl is None:
                        os.fchmod(fd, 0o755 | (stat.S_ISGID if parent.shares_group else 0))
                finally:
                    os.close(fd)
                self._folders.update((above, below))

    def make_durable(self) -> None:
        """Each touched folder reaches the disk once."""
        try:
            if len(self._folders) >= _MANY:
                sync_file_system(self.root)
                return
            for folder in self._folders:
                with suppress(FileNotFoundError, Blocked):
                    with folder_at(self.root, folder) as here:
                        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                        try:
                            os.fsync(fd)
                        finally:
                            os.close(fd)
        except OSError as fault:
            raise self._fault(f"the folder does not reach the disk: {fault.strerror}", "", "write") from fault

    def _rotten(self, step: SyncStep) -> InfrastructureFault:
        return self._fault("the mirror gave other bytes than it recorded", step.path, "corrupt")

    def _where(self, path: str) -> str:
        return printable(os.path.join(self.root_path, path) if path else self.root_path)

    def _in_the_way(self, path: str, oddity: str) -> HomeportError:
        """What no file is is somebody's; what a disk does not give is nobody's conflict."""
        if oddity == "unreadable":
            return self._fault("cannot be read to be saved", path, oddity)
        return Refused(f"a {oddity} came into the way", where=self._where(path), next="homeport drift", code="conflict")

    def _fault(self, what: str, path: str, code: str) -> InfrastructureFault:
        return InfrastructureFault(what, where=self._where(path), next=f"df -h {printable(self.root_path)}"
                                   if code == "stage" else "homeport drift", code=code)  # fmt: skip


IN_PLACE = "in-place"
"""In the stage folder while a file is written through its inode: which one, and what it held."""


BEGUN = "begun"
"""In the stage folder once everything is staged: which staged name belongs to which path."""
