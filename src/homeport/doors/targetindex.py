"""The git index file of one target: what homeport last put there, with git's own stat cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from homeport.doors.early import DIFF_FILES, EARLY, STRICT
from homeport.doors.gitcmd import GitCommand
from homeport.model.errors import InfrastructureFault
from homeport.model.live import Entry
from homeport.model.paths import from_bytes, to_bytes

_CHUNK = 256 * 1024
"""Bytes of an index read at once: to hold all of a large one takes as long as to check it."""
FEW = 500
"""Paths that are looked at one by one; for more git looks at everything."""


class TargetIndex:
    """Commands on one index file. The caller holds `hold` around everything that writes it."""

    def __init__(self, path: str, command: GitCommand) -> None:
        self.path = path
        self._command = command

    @contextmanager
    def hold(self, *, wait: bool = True, looks: bool = False) -> Iterator[bool]:
        """Our own lock on this target (git does not wait for another writer); False when not waiting and it is taken,
        and, for who only `looks`, when the disk takes no lock.

        A `.lock` that a killed git left behind is removed while holding it.
        """
        try:
            fd = os.open(f"{self.path}.held", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as fault:
            if looks and fault.errno in (errno.EROFS, errno.ENOSPC):
                yield False
                return
            raise InfrastructureFault(f"the target cannot be locked: {fault.strerror}", where=self.path,
                                      next="homeport doctor", code="lock") from fault  # fmt: skip
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}.lock")
            yield True
        finally:
            os.close(fd)

    def usable(self) -> bool:
        """Whether there is an index file that is whole: its last 20 bytes are the SHA-1 of all before.

        To git a missing file means "no drift", and it does not check the sum of one that was torn.
        """
        found, chunk = hashlib.sha1(usedforsecurity=False), memoryview(bytearray(_CHUNK))
        try:
            with open(self.path, "rb", buffering=0) as file:
                left = os.fstat(file.fileno()).st_size - 20
                if left < 12 or file.read(4) != b"DIRC":
                    return False
                file.seek(0)
                while left and (count := file.readinto(chunk[:left])):
                    found.update(chunk[:count])
                    left -= count
                return not left and file.read(20) == found.digest()
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Bytes; 0 without one."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def digest(self) -> bytes:
        """What git wrote at its end: another one for every other content of the index."""
        with open(self.path, "rb") as file:
            file.seek(-20, os.SEEK_END)
            return file.read()

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def read_tree(self, tree: str) -> None:
        """Makes the index say exactly this tree; what is known of unchanged files stays."""
        known = self.usable()
        if not known:
            self.remove()
        self._run("read-tree", *(("-i", "-m") if known else ()), tree)

    def holds(self, tree: str) -> bool:
        """Whether the index says exactly this tree. It is only read."""
        return self._command.code(*STRICT, "diff-index", "--cached", "--quiet", tree, index=self.path).code == 0

    def write_tree(self) -> str:
        return self._run("write-tree").decode().strip()

    def set(self, entries: Iterable[tuple[str, Entry | None]]) -> None:
        """Records entries (None removes the path) without looking at the disk."""
        lines = [
            (f"{e.mode} {e.oid}\t" if e else f"0 {'0' * 40}\t").encode() + to_bytes(path) for path, e in entries
        ]  # fmt: skip
        lines.sort(key=lambda line: not line.startswith(b"0 "))
        if lines:
            self._run("update-index", "-z", "--index-info", input=b"\0".join(lines) + b"\0")

    def refresh(self, work_tree: str, paths: Sequence[str] | None = None) -> None:
        """Lets git note size and times of every file, or of these few, that is as recorded."""
        if paths is not None and len(paths) <= FEW:
            fed = b"\0".join(to_bytes(path) for path in paths)
            if not paths or self._command.code(
                *STRICT, "add", "--refresh", "--pathspec-from-file=-", "--pathspec-file-nul", index=self.path,
                work_tree=work_tree, input=fed, ok=range(256),
            ).code == 0:  # fmt: skip
                return
        self._run("update-index", "-q", "--refresh", work_tree=work_tree, ok=(0, 1))

    def sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def touched(self, work_tree: str) -> list[tuple[str, Entry]]:
        """Paths that git's stat cache does not know to be as recorded, with what is recorded."""
        wanted = self._command.placed(*DIFF_FILES, index=self.path, work_tree=work_tree)
        EARLY.note(self._command.git_dir, os.path.abspath(self.path), os.path.abspath(work_tree), self.size())
        raw = EARLY.answer(wanted, os.path.abspath(self.path))
        if raw is None:
            raw = self._command.run(*DIFF_FILES, index=self.path, work_tree=work_tree)
        parts = raw.split(b"\0")
        found = []
        for head, path in zip(parts[::2], parts[1::2], strict=False):
            mode, _, oid, _, _ = head.decode().lstrip(":").split(" ")
            found.append((from_bytes(path), Entry(mode, oid)))
        return found

    def others(self, work_tree: str, patterns: Sequence[str]) -> list[str]:
        """Untracked paths that no pattern takes; a folder without any recorded file is one path with `/` at its end."""
        raw = self._list(work_tree, patterns)
        return [from_bytes(path) for path in raw.split(b"\0") if path]

    def listed(self, work_tree: str, patterns: Sequence[str]) -> bytes:
        """The same, each after `? `, then every recorded path after `H `, as git prints them with NUL after each."""
        return self._list(work_tree, patterns, "-t", "-c")

    def others_in(self, work_tree: str, patterns: Sequence[str], folders: Sequence[bytes]) -> bytes:
        """As `others`, of these folders only, and as git prints it."""
        return self._list(work_tree, patterns, below=list(map(from_bytes, folders)))

    def _list(self, work_tree: str, patterns: Sequence[str], *more: str, below: Sequence[str] = ()) -> bytes:
        with self._rules(b"\n".join(to_bytes(p) for p in patterns) + b"\n") as rules:
            return self._run("ls-files", "-z", "-o", *more, "-X", rules, "--directory", "--no-empty-directory", "--",
                             *below, work_tree=work_tree)  # fmt: skip

    @contextmanager
    def _rules(self, content: bytes) -> Iterator[str]:
        """The path of a file with this content: in memory where the disk is full or read-only."""
        path = os.path.join(os.path.dirname(self.path), f".ignore-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
        except OSError:
            with os.fdopen(os.memfd_create("ignored"), "wb", buffering=0) as memory:
                memory.write(content)
                yield f"/proc/{os.getpid()}/fd/{memory.fileno()}"
            return
        else:
            yield path
        finally:
            with suppress(OSError):
                os.unlink(path)

    def _run(self, *args: str, input: bytes | None = None, work_tree: str | None = None, ok: Iterable[int] = (0,)) -> bytes:
        return self._command.run(*STRICT, *args, index=self.path, work_tree=work_tree, input=input, ok=ok)
