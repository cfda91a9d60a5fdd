"""The longest question of a look, asked of git before the rest of the program is loaded.

`homeport drift` of a large target waits for one `git diff-files`, and needs nearly as long until it knows what to ask.
So the program begins with the question that the same words in the same folder led to last time. That is a guess: its
answer counts only when it was asked with exactly the arguments, folder and environment worked out properly afterwards,
and the index file is still the very one that was there before. Else git is asked as ever (docs/decisions/0015).

This module is loaded before any other; it imports nothing that takes time.
"""

from __future__ import annotations

import os
import select
import time

from homeport.doors.gitcmd import Placed, placed
from homeport.doors.stateroot import state_root

STRICT = (
    "-c", "core.fileMode=true", "-c", "core.symlinks=true", "-c", "core.ignoreCase=false", "-c", "core.trustctime=true",
    "-c", "core.checkStat=default", "-c", "core.untrackedCache=false", "-c", "core.splitIndex=false",
    "-c", "core.fsync=all,-index",
)  # fmt: skip
"""For every git on a target's index. It is brought to the disk once, by `TargetIndex.sync`; one that a power cut tore
is not `usable` and made anew."""
DIFF_FILES = (*STRICT, "diff-files", "-z", "--raw", "--no-renames", "--no-ext-diff", "--abbrev=40")
"""Which recorded files git's stat cache does not know to be as recorded."""
VERBS = ("drift", "status", "diff")
"""What a person waits for, and what looks once: nothing between the start and the look changes a live folder."""
NEVER = ("--watch", "--caller")
_WITH_A_VALUE = ("-C", "-p", "--project", "-e", "--environment", "--host")
WORTH = 1 << 20
"""Bytes of an index (about 10,000 files) below which git answers at once anyway."""
NOTES = ".early"
MOST = 20
"""Command lines whose question is known."""
_SIGKILL = 9
_SIGNALS = (13, 25)
"""SIGPIPE and SIGXFSZ, ignored by Python and not to be by git; the module `signal` takes as long to load as all this."""
Identity = tuple[int, int, int, int, int]


class Asked:
    """A git that works on a question."""

    def __init__(self, git_dir: str, index: str, work_tree: str) -> None:
        """Raises OSError."""
        self.placed = placed(git_dir, *DIFF_FILES, index=index, work_tree=work_tree)
        self.index, self.before, self.by = index, identity(index), os.getpid()
        argv, cwd, env = self.placed
        self.answer, theirs = os.pipe()
        try:
            actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, theirs, 1),
                       (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]  # fmt: skip
            self.pid = os.posix_spawnp(argv[0], (argv[0], "-C", cwd, *argv[1:]), env, file_actions=actions, setsid=True,
                                       setsigdef=_SIGNALS)  # fmt: skip
        except BaseException:
            os.close(self.answer)
            raise
        finally:
            os.close(theirs)

    def told(self, timeout: float) -> bytes | None:
        """The answer; None without one in time."""
        said: list[bytes] = []
        deadline, ready = time.monotonic() + timeout, select.poll()
        ready.register(self.answer, select.POLLIN)
        while ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            chunk = os.read(self.answer, 1 << 16)
            if not chunk:
                os.close(self.answer)
                return b"".join(said) if os.waitpid(self.pid, 0)[1] == 0 else None
            said.append(chunk)
        self.stop()
        return None

    def stop(self) -> None:
        os.close(self.answer)
        os.kill(self.pid, _SIGKILL)  # not reaped yet, so it is there
        os.waitpid(self.pid, 0)


class Early:
    """One run of the program: what it asked early, and what it should have."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] | None = None
        """The folder and the words of this run; None in any other process than the program itself."""
        self.noted: tuple[str, ...] | None = None
        self.asked: Asked | None = None
        self._largest = (0, ("", "", ""))

    def begin(self, words: list[str]) -> None:
        """Asks what these words led to last time. Never raises."""
        if _verb(words) not in VERBS or any(word.startswith(NEVER) for word in words):
            return
        try:
            self.key = (os.getcwd(), *words)
            self.noted = dict(_notes()).get(self.key)
            if self.noted is not None:
                self.asked = Asked(*self.noted)
        except (OSError, ValueError, NotImplementedError):
            return

    def answer(self, wanted: Placed, index: str) -> bytes | None:
        """What git answered to exactly this question about exactly this index; None when it was not asked."""
        asked = self.asked
        if asked is None or asked.index != index or asked.by != os.getpid():
            return None  # a copy of this process, which a runner is, has no part in it
        try:
            right = asked.placed == wanted and asked.before == identity(index)
        except OSError:
            right = False
        if not right:
            self.forget()
            return None
        self.asked = None
        return asked.told(120)

    def note(self, git_dir: str, index: str, work_tree: str, size: int) -> None:
        """A look asked this; the one about the largest index is asked early next time."""
        if self.key is not None and size >= max(WORTH, self._largest[0] + 1):
            self._largest = size, (git_dir, index, work_tree)

    def forget(self) -> None:
        """What was asked counts no more: something is about to change what lies live."""
        if self.asked is not None and self.asked.by == os.getpid():
            self.asked.stop()
        self.asked = None

    def end(self) -> None:
        """Of the program: ends what nobody wanted, and writes down what to ask next time."""
        self.forget()
        size, largest = self._largest
        if self.key is None or not size or largest == self.noted or any(_ODD & set(part) for part in (*self.key, *largest)):
            return
        try:
            rest = [(key, note) for key, note in _notes() if key != self.key]
        except OSError:
            rest = []
        try:
            _write([(self.key, largest), *rest[: MOST - 1]])
        except OSError:
            return


EARLY = Early()
"""Of this process."""

def _verb(words: list[str]) -> str:
    """The first word that is no option of homeport itself, and no value of one."""
    left = iter(words)
    for word in left:
        if word in _WITH_A_VALUE:
            next(left, None)
        elif not word.startswith("-"):
            return word
    return ""


# One line for each command line that is known: folder and words, and the three paths of its question; NUL after each
# word, 0x01 between the two, 0x02 at the end.
_ODD = {"\0", "\1", "\2"}


def _notes() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Raises OSError."""
    fd = os.open(os.path.join(state_root(), NOTES), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            return []
        raw = os.fsdecode(file.read())
    found = []
    for line in raw.split("\2")[:-1]:
        key, _, note = line.partition("\1")
        if note.count("\0") == 2:
            found.append((tuple(key.split("\0")), tuple(note.split("\0"))))
    return found


def _write(notes: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    path = os.path.join(state_root(), NOTES)
    raw = "".join("\0".join(key) + "\1" + "\0".join(note) + "\2" for key, note in notes)
    fd = os.open(f"{path}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(os.fsencode(raw))
    os.rename(f"{path}.{os.getpid()}", path)


def identity(path: str) -> Identity:
    """Another one for every other file, and for every time that git wrote it. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
