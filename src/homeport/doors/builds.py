"""Build folders and kept outputs, beside each live folder so that every exchange stays on one file system.

`<parent>/.homeport-<name>/build` holds the sources of the build and its caches, `outputs/<key>/` each kept set
(one numbered entry per declared output), `live.json` says which set the live folder serves.

All of it is reached from a descriptor of the live folder that was recorded: whoever swaps a folder above it for a link
has nothing made, moved or removed where that link leads.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from homeport.doors.accounts import name_of
from homeport.doors.beside import EXCHANGE, NOREPLACE, folder_beside, held, inside, open_beside, rename, sync_file_system
from homeport.doors.buildtree import bring
from homeport.doors.durable import sync_folder
from homeport.doors.git import Mirror
from homeport.doors.look import Blocked, folder_at, open_root, read_at, split
from homeport.doors.targetbook import not_the_folder
from homeport.model.errors import Failed, InfrastructureFault, Refused
from homeport.model.live import Outputs, Target
from homeport.model.paths import printable, to_bytes, within
from homeport.model.ports import Clock, Shell

MARK = "live.json"
INTENT = "swap.json"
ABOUT = "about.json"


class BuildFolders:
    """Satisfies `Builds`."""

    def __init__(self, git: Mirror, *, shell: Shell, clock: Clock, known: Callable[[str], tuple[int, int] | None]) -> None:
        """`known`: device and inode of the live folder with that path, as recorded; None when there is no record."""
        self._git, self._shell, self._clock, self._known = git, shell, clock, known
        self._prepared: dict[str, tuple[int, int]] = {}
        """Path of each build folder that was made -> its device and inode."""

    def prepare(self, target: Target, tree: str, inherit: Sequence[str], user: str | None) -> str:
        """As `Builds.prepare`. Without a `user` the build folder belongs to whoever owns the live one."""
        folder = os.path.join(_folder(target), "build")
        with self._live(target) as root, self._beside(target) as beside:
            user = user or (name_of(held(root)) if root is not None else None)
            bring(self._git, os.path.join(beside, "build"), tree, user, folder)
            self._prepared[folder] = _inode(os.path.join(beside, "build"))
        self.bring_in(target, inherit, folder, user)
        return folder

    def bring_in(self, target: Target, inherit: Sequence[str], folder: str, user: str | None) -> None:
        """As `Builds.bring_in`."""
        if not inherit:
            return
        with self._live(target) as root, self._made(folder) as build:
            user = user or (name_of(held(root)) if root is not None else None)
            for path in inherit:
                _inherit(root, build, path, user)

    def lend_history(self, folder: str, commit: str, source: str, branch: str, user: str | None) -> None:
        """As `Builds.lend_history`."""
        from homeport.doors.history import lend

        with self._made(folder) as build:
            owner = user or pwd.getpwuid(os.stat(build).st_uid).pw_name
            lend(self._git, build, folder, commit, source, branch, owner)

    def lay_out(self, target: Target, tree: str, inside: str, user: str | None) -> str:
        """As `Builds.lay_out`."""
        folder = os.path.join(_folder(target), "brought", "files")
        with self._live(target) as root, self._beside(target) as beside:
            user = user or (name_of(held(root)) if root is not None else None)
            brought = os.path.join(beside, "brought")
            shutil.rmtree(brought, ignore_errors=True)
            os.mkdir(brought, 0o711)
            bring(self._git, os.path.join(brought, "files", inside), tree, user, folder)
            self._prepared[folder] = _inode(os.path.join(brought, "files"))
        return folder

    def collect(self, target: Target, key: str, outputs: Sequence[str], made_in: str | None = None) -> Outputs:
        """As `Builds.collect`: a set is complete, or not there."""
        shown = made_in or os.path.join(_folder(target), "build")
        with self._beside(target) as beside, self._made(shown) as build:
            return self._collect(target, key, outputs, os.path.join(beside, "outputs"), build, shown)

    def _collect(self, target: Target, key: str, outputs: Sequence[str], sets: str, build: str, shown: str) -> Outputs:
        os.makedirs(sets, mode=0o711, exist_ok=True)
        making = os.path.join(sets, f".new-{key}")
        shutil.rmtree(making, ignore_errors=True)
        os.mkdir(making, 0o711)
        names = [o.rstrip("/") for o in outputs]
        for number, name in enumerate(names):
            made = os.path.join(build, name)
            if not os.path.lexists(made) or _goes_through_link(build, name):
                shutil.rmtree(making, ignore_errors=True)
                raise Failed(f"the build did not make its output {printable(name)}", where=shown,
                             next="homeport check (build.outputs)", code="no-output")  # fmt: skip
            _copy(made, os.path.join(making, str(number)))
        size = _size(making)
        about = {"outputs": names, "bytes": size, "at": self._clock.now()}
        _write_json(os.path.join(making, ABOUT), about)
        _sync(making)
        shutil.rmtree(os.path.join(sets, key), ignore_errors=True)
        os.rename(making, os.path.join(sets, key))
        sync_folder(sets)
        return Outputs(service=target.name, key=key, bytes=size, at=str(about["at"]))

    def kept(self, target: Target) -> list[Outputs]:
        """The complete sets that can be exchanged in, newest first; the one that is live is not among them."""
        found = []
        with self._beside(target) as beside:
            sets = os.path.join(beside, "outputs")
            for name in _listed(sets):
                about = _read_json(os.path.join(sets, name, ABOUT))
                if about is not None and not name.startswith("."):
                    found.append(Outputs(service=target.name, key=name, bytes=int(about["bytes"]), at=str(about["at"])))
        return sorted(found, key=lambda o: o.at, reverse=True)

    def live_key(self, target: Target) -> str | None:
        """As `Builds.live_key`; None too while an exchange is half done."""
        with self._beside(target) as beside:
            return _live_key(beside)

    def swap_in(self, target: Target, key: str, previous: str | None) -> None:
        """As `Builds.swap_in`. An intent on disk lets an interrupted exchange be ended: each output is looked at
        by the inode it had, so doing it again does nothing twice."""
        with self._beside(target) as beside:
            self._swap_in(target, beside, key, previous)

    def _swap_in(self, target: Target, beside: str, key: str, previous: str | None) -> None:
        if _live_key(beside) == key:
            return
        intent = _read_json(os.path.join(beside, INTENT))
        if intent is not None:
            self._carry_out(target, beside, intent)
            if intent["key"] == key:
                return
        old = _live_key(beside) or previous or "found-unknown"
        incoming = os.path.join(beside, "outputs", key)
        about = _read_json(os.path.join(incoming, ABOUT))
        if about is None:
            raise Failed(f"the kept outputs {key[:12]} are not there any more", where=_folder(target),
                         next="homeport rebuild, or deploy the commit again", code="outputs-gone")  # fmt: skip
        inodes = [_inode(os.path.join(incoming, str(n))) for n, _ in enumerate(about["outputs"])]
        intent = {"key": key, "old": old, "outputs": about["outputs"], "inodes": inodes, "at": self._clock.now()}
        _write_json(os.path.join(beside, INTENT), intent)
        self._carry_out(target, beside, intent)

    def prune(self, target: Target, keep: int, budget: int | None = None) -> int:
        """As `Builds.prune`."""
        gone = size = 0
        with self._beside(target) as beside:
            sets = os.path.join(beside, "outputs")
            for number, outputs in enumerate(self.kept(target), 1):
                size += outputs.bytes
                if number < keep and (budget is None or size <= budget):
                    continue
                shutil.rmtree(os.path.join(sets, outputs.key), ignore_errors=True)
                gone += 1
            shutil.rmtree(os.path.join(beside, "brought"), ignore_errors=True)
            for name in _listed(sets):
                if name.startswith(".new-"):
                    shutil.rmtree(os.path.join(sets, name), ignore_errors=True)
        return gone

    @contextmanager
    def _live(self, target: Target) -> Iterator[int | None]:
        """A descriptor of the live folder, None while there never was one. Raises Refused (code `not-the-folder`) when
        another one stands at its path than the one that was recorded."""
        known, root = self._known(target.path), open_root(target.path)
        try:
            found = os.fstat(root) if root is not None else None
            there = (found.st_dev, found.st_ino) if found is not None else None
            if known not in (None, (0, 0), there):
                raise not_the_folder(target, "this is not the folder that homeport wrote to")
            yield root
        finally:
            if root is not None:
                os.close(root)

    @contextmanager
    def _beside(self, target: Target) -> Iterator[str]:
        """The folder beside the live one, made when missing, by a path that leads there whatever is swapped above it."""
        beside = _folder(target)
        try:
            with self._live(target) as root:
                fd = open_beside(root, target.path, f"service-{target.shared_by}" if target.shared_by else "")
        except OSError as fault:
            raise InfrastructureFault(f"no room for builds: {fault.strerror}", where=beside, next=f"df -h {target.path}",
                                      code="build-folder") from fault  # fmt: skip
        try:
            yield held(fd)
        finally:
            os.close(fd)

    @contextmanager
    def reached(self, folder: str, live: Target | None) -> Iterator[str]:
        """As `Builds.reached`."""
        if live is None:
            with self._made(folder) as there:
                yield there
            return
        with self._live(live) as root, inside(root, folder, live.path) as there:
            yield there

    @contextmanager
    def _made(self, folder: str) -> Iterator[str]:
        """A build folder that `prepare` told of, or one below it, by a path that leads there whatever is swapped."""
        build = next((b for b in self._prepared if within(folder, b)), None)
        if build is None:
            yield folder
            return
        fd = os.open(build, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != self._prepared[build]:
                raise Refused("this is not the build folder that was made", where=build, next=f"ls -ld {build}",
                              code="not-the-folder")  # fmt: skip
            yield held(fd) + folder[len(build) :]
        finally:
            os.close(fd)

    def _carry_out(self, target: Target, beside: str, intent: dict[str, Any]) -> None:
        sets = os.path.join(beside, "outputs")
        incoming = os.path.join(sets, intent["key"])
        old = os.path.join(sets, intent["old"] if intent["old"] != intent["key"] else f"found-{intent['key']}")
        if (_read_json(os.path.join(old, ABOUT)) or {}).get("at") != intent["at"]:
            self._exchange_all(target, intent, incoming, os.path.join(sets, f".out-{intent['key']}"), old)
        _write_json(os.path.join(beside, MARK), {"key": intent["key"], "outputs": intent["outputs"]})
        shutil.rmtree(incoming, ignore_errors=True)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(beside, INTENT))

    def _exchange_all(self, target: Target, intent: dict[str, Any], incoming: str, outgoing: str, old: str) -> None:
        """What was live becomes a kept set of its own, an empty one when there was nothing."""
        os.makedirs(outgoing, mode=0o711, exist_ok=True)
        with self._live(target) as root:
            if root is None:
                raise InfrastructureFault("the live folder is gone", where=target.path, next="homeport doctor",
                                          code="write")  # fmt: skip
            try:
                for number, name in enumerate(intent["outputs"]):
                    _exchange(root, name, os.path.join(incoming, str(number)), os.path.join(outgoing, str(number)),
                              tuple(intent["inodes"][number]))  # fmt: skip
                sync_file_system(root)
            except OSError as fault:
                raise InfrastructureFault(f"outputs cannot be exchanged: {fault.strerror}", where=target.path,
                                          next="homeport doctor", code="write") from fault  # fmt: skip
        about = {"outputs": intent["outputs"], "bytes": _size(outgoing), "at": intent["at"]}
        _write_json(os.path.join(outgoing, ABOUT), about)
        shutil.rmtree(old, ignore_errors=True)
        os.rename(outgoing, old)
        sync_folder(os.path.dirname(old))


def _folder(target: Target) -> str:
    """Where builds and kept outputs of the target lie, for people and for commands."""
    beside = folder_beside(target.path)
    return os.path.join(beside, f"service-{target.shared_by}") if target.shared_by else beside


def _live_key(beside: str) -> str | None:
    said = _read_json(os.path.join(beside, MARK))
    return None if said is None or os.path.lexists(os.path.join(beside, INTENT)) else said["key"]


def _exchange(root: int, name: str, incoming: str, outgoing: str, inode: tuple[int, int]) -> None:
    """Puts one output in place of the live one; the live one goes to `outgoing`. An `incoming` that is absent
    (inode 0) means that there is to be no such output."""
    folder, last = split(name)
    if inode != (0, 0):
        _make_folders(root, folder)
    try:
        with folder_at(root, folder) as here:
            raw = to_bytes(last)
            there = _inode_at(here, raw)
            if there == inode:
                if inode != (0, 0) and os.path.lexists(incoming):
                    os.rename(incoming, outgoing)
                return
            if inode == (0, 0):
                rename(here, raw, -100, os.fsencode(outgoing), NOREPLACE)
                return
            if there == (0, 0):
                rename(-100, os.fsencode(incoming), here, raw, NOREPLACE)
                return
            rename(-100, os.fsencode(incoming), here, raw, EXCHANGE)
            os.rename(incoming, outgoing)
    except FileNotFoundError:
        if inode != (0, 0):
            raise
    except Blocked as blocked:
        raise Refused(f"a {blocked.oddity} stands where an output goes", where=printable(blocked.path),
                      next="homeport drift", code="conflict") from blocked  # fmt: skip


def _inode_at(folder: int, raw: bytes) -> tuple[int, int]:
    try:
        found = os.stat(raw, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _inode(path: str) -> tuple[int, int]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _make_folders(root: int, folder: str) -> None:
    walked = ""
    for part in folder.split("/") if folder else ():
        with folder_at(root, walked) as here:
            with suppress(FileExistsError):
                os.mkdir(to_bytes(part), 0o755, dir_fd=here)
        walked = f"{walked}/{part}" if walked else part


def _inherit(root: int | None, folder: str, path: str, user: str | None) -> None:
    found = None if root is None else read_at(root, path)
    if found is None or found[0] == "120000":
        return
    build = open_root(folder)
    if build is None:
        return
    try:
        above, name = split(path)
        _make_folders(build, above)
        with folder_at(build, above) as here:
            with suppress(FileNotFoundError):
                os.unlink(to_bytes(name), dir_fd=here)
            fd = os.open(to_bytes(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=here)
            with os.fdopen(fd, "wb") as file:
                file.write(found[1])
                if user is not None and os.geteuid() == 0:
                    account = pwd.getpwnam(user)
                    os.fchown(fd, account.pw_uid, account.pw_gid)
    finally:
        os.close(build)


def _goes_through_link(base: str, name: str) -> bool:
    here = base
    for part in name.split("/")[:-1]:
        here = os.path.join(here, part)
        if os.path.islink(here):
            return True
    return False


def _copy(made: str, to: str) -> None:
    """A copy with owners, modes, times and links kept; blocks are shared where the file system can."""
    if os.path.isdir(made) and not os.path.islink(made):
        shutil.copytree(made, to, symlinks=True, copy_function=_copy_file)
        shutil.copystat(made, to)
        _own_like(made, to)
    else:
        _copy_file(made, to)


def _copy_file(made: str, to: str) -> str:
    shutil.copy2(made, to, follow_symlinks=False)
    _own_like(made, to)
    return to


def _own_like(made: str, to: str) -> None:
    if os.geteuid() == 0:
        found = os.lstat(made)
        os.lchown(to, found.st_uid, found.st_gid)


def _size(folder: str) -> int:
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            total += os.lstat(os.path.join(where, name)).st_size
    return total


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _write_json(path: str, said: dict[str, Any]) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    sync_folder(os.path.dirname(path))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)
