"""Outputs of a build, taken from a checkout on a laptop or a CI machine and brought to the host as git objects.

They are taken byte by byte: no filter and no line end of the checkout's settings has a say. What git has no place for
(modes but the x bit, times, owners, empty folders) stays behind.
"""

from __future__ import annotations

import binascii
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from homeport.doors import loose
from homeport.doors.git import Mirror
from homeport.doors.senttree import unpack
from homeport.doors.shell import scrubbed
from homeport.model.bringing import BuiltElsewhere, Wanted
from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.live import Entry
from homeport.model.paths import from_bytes, printable, to_bytes, within
from homeport.model.ports import Shell
from homeport.model.remote import MOST_SENT

_WHO = "homeport <homeport@localhost>"
_HEX = "0123456789abcdef"


class CheckoutOutputs:
    """Satisfies `BuiltElsewhere`, for the checkout around a folder. Nothing of it is changed.

    Raises UsageFault (code `no-checkout`).
    """

    def __init__(self, folder: str, shell: Shell) -> None:
        self._shell = shell
        done = self._git("rev-parse", "--show-toplevel", cwd=folder, ok=(0, 128))
        if done[0]:
            raise UsageFault("built outputs come from a git checkout", where=os.path.abspath(folder), code="no-checkout",
                             next="homeport -C CHECKOUT deploy --built SERVICE")  # fmt: skip
        self.top = from_bytes(done[1].rstrip(b"\n"))
        self._objects: dict[str, tuple[bytes, bytes]] = {}

    def head(self) -> str:
        code, said = self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", cwd=self.top, ok=(0, 1, 128))
        if code:
            raise Refused("nothing was committed in this checkout yet", where=self.top, next="git commit", code="no-commit")
        return said.decode("ascii").strip()

    def take(self, sha: str, wanted: Mapping[str, Wanted]) -> str:
        """As `BuiltElsewhere.take`."""
        self._built_from(sha, wanted)
        left, changes = MOST_SENT, dict[str, Entry | None]()
        for service, it in wanted.items():
            for output in it.outputs:
                here = f"{it.folder}/{output}" if it.folder else output
                for path, seen in self._below(here):
                    left -= seen.st_size
                    if left < 0:
                        raise Refused(f"the outputs are more than {MOST_SENT >> 20} MiB", where=self.top, code="too-long",
                                      next="homeport deploy, which builds on the host")  # fmt: skip
                    name = f"{service}/{output}{path[len(here) :]}"
                    changes[name] = self._blob(path, seen)
        empty = loose.id_of(b"tree", b"")
        tree, trees = loose.changed_tree(lambda _: b"", empty, changes)
        for oid, raw in trees.items():
            self._objects[oid] = (b"tree", (loose.decoded(oid, raw) or (b"", b""))[1])
        when = f"{int(time.time())} +0000"
        text = f"tree {tree}\nauthor {_WHO} {when}\ncommitter {_WHO} {when}\n\nOutputs of {', '.join(wanted)} at {sha}\n"
        return self._kept(b"commit", to_bytes(text))

    def bring(self, commit: str, into: str) -> None:
        """As `BuiltElsewhere.bring`, to a repository of this machine. Raises InfrastructureFault (code `pack`)."""
        try:
            files = {oid: loose.encoded(kind, content)[1] for oid, (kind, content) in self._objects.items()}
            loose.write_lasting(os.path.join(into, "objects"), files)
        except OSError as fault:
            raise InfrastructureFault(f"the outputs of {commit[:12]} cannot be brought to the mirror: {fault.strerror}",
                                      where=into, next=f"df -h {into}", code="pack") from fault  # fmt: skip

    def packed(self) -> bytes:
        """All that was taken, as one pack."""
        return loose.pack_of(self._objects.values())

    def close(self) -> None:
        self._objects.clear()

    def _built_from(self, sha: str, wanted: Mapping[str, Wanted]) -> None:
        """Raises Refused (code `not-built-from`): what was built from something else must not pass for that commit."""
        head = self.head()
        if head != sha:
            raise Refused(f"{head[:12]} is checked out here, and {sha[:12]} is to be deployed", where=self.top,
                          next=f"git checkout {sha[:12]}, and build", code="not-built-from")  # fmt: skip
        outputs = [f"{it.folder}/{output}".lstrip("/") for it in wanted.values() for output in it.outputs]
        _, said = self._git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", cwd=self.top)
        folders = [it.folder for it in wanted.values()]
        for row in said.split(b"\0"):
            path, new = from_bytes(row[3:]), row.startswith(b"??")
            if not row or any(within(path, output) for output in outputs):
                continue
            if not new or any(within(path, folder) for folder in folders):
                raise Refused(f"{printable(path)} is not as in {sha[:12]}, so what was built here is not that commit's",
                              where=self.top, next="git status   (commit and push, or git stash, and build again)",
                              code="not-built-from")  # fmt: skip

    def _below(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """The files and links at or below a path. Raises Refused (codes `no-output`, `oddity`)."""
        try:
            seen = os.lstat(self._real(path))
        except (FileNotFoundError, NotADirectoryError) as fault:
            raise Refused(f"{printable(path)} was not built here", where=self.top, next="build it, then deploy again",
                          code="no-output") from fault  # fmt: skip
        if stat.S_ISDIR(seen.st_mode):
            for name in sorted(os.listdir(self._real(path))):
                if name == b".git":
                    raise self._odd(f"{path}/.git", "a repository of its own")
                yield from self._below(f"{path}/{from_bytes(name)}")
        elif stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode):
            yield path, seen
        else:
            raise self._odd(path, "neither a file nor a link")

    def _blob(self, path: str, seen: os.stat_result) -> Entry:
        link = stat.S_ISLNK(seen.st_mode)
        if link:
            content = os.readlink(self._real(path))
        else:
            with open(os.open(self._real(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                content = file.read(MOST_SENT + 1)
        mode = "120000" if link else "100755" if seen.st_mode & 0o100 else "100644"
        return Entry(mode, self._kept(b"blob", content))

    def _kept(self, kind: bytes, content: bytes) -> str:
        """The id of an object that is to be brought; it is compressed once, when it is known where to."""
        oid = loose.id_of(kind, content)
        self._objects[oid] = (kind, content)
        return oid

    def _real(self, path: str) -> bytes:
        return os.path.join(to_bytes(self.top), to_bytes(path))

    def _odd(self, path: str, what: str) -> Refused:
        return Refused(f"{printable(path)} is {what}, and cannot be brought", where=self.top, code="oddity",
                       next=f"ls -ld {printable(path)}   (take it out of the outputs)")  # fmt: skip

    def _git(self, *args: str, cwd: str, ok: Sequence[int] = (0,)) -> tuple[int, bytes]:
        env = {**scrubbed(), "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        done = self._shell.run(["git", "--no-pager", "-c", "core.fsmonitor=false", *args], cwd=cwd, env=env, ok=ok,
                               timeout=600.0)  # fmt: skip
        return done.code, done.stdout


class SentOutputs:
    """Satisfies `BuiltElsewhere`, for a checkout on the machine of whoever asks."""

    def __init__(self, ask: Callable[[str, Any], Any], shell: Shell) -> None:
        self._ask, self._shell, self._pack = ask, shell, ""

    def head(self) -> str:
        said = self._ask("built-head", {})
        if not isinstance(said, str) or len(said) != 40 or set(said) - set(_HEX):
            raise _garbled("no commit was named")
        return said

    def take(self, sha: str, wanted: Mapping[str, Wanted]) -> str:
        said = self._ask("built", {"sha": sha, "wanted": msgspec.to_builtins(dict(wanted))})
        try:
            commit, self._pack = str(said["commit"]), said["pack"]
        except (KeyError, TypeError) as fault:
            raise _garbled(str(fault)) from fault
        return commit

    def bring(self, commit: str, into: str) -> None:
        del commit
        try:
            unpack(self._pack, into, self._shell)
        except (binascii.Error, TypeError, ValueError) as fault:
            raise _garbled(str(fault)) from fault

    def close(self) -> None:
        self._pack = ""


class OutputBox:
    """Satisfies `BroughtOutputs`, for one environment."""

    def __init__(self, git: Mirror, environment: str) -> None:
        self._git, self._prefix = git, f"built/{environment}"

    def keep(self, source: BuiltElsewhere, commit: str, needed: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """As `BroughtOutputs.keep`."""
        source.bring(commit, self._git.path)
        if len(commit) != 40 or set(commit) - set(_HEX) or not self._git.has(commit):
            raise _garbled(f"{commit[:40]!r} is not among what came")
        old = {ref: None for ref, oid in self._git.kept(self._prefix).items() if oid not in needed and oid != commit}
        self._git.keep_all({**old, f"{self._prefix}/{commit[:16]}": commit})
        found: dict[str, set[str]] = {}
        for path in self._git.listing(commit):
            service, _, rest = path.partition("/")
            found.setdefault(service, set()).add(rest)
        return {service: frozenset(paths) for service, paths in found.items()}


def _garbled(said: str) -> InfrastructureFault:
    return InfrastructureFault(f"the outputs did not arrive as they should: {printable(said[:200])}", where="over ssh",
                               next="the same command again", code="no-answer")  # fmt: skip
