"""What a command will wait for longest, begun before the rest of the program is loaded.

`homeport drift` of a large target waits for one `git diff-files`, and needs nearly as long until it knows what to ask.
So the program begins with the question that the same words in the same folder led to last time. That is a guess: its
answer counts only when it was asked with exactly the arguments, folder and environment worked out properly afterwards,
and the index file is still the very one that was there before. Else git is asked as ever (docs/decisions/0015).

In the same way `homeport try` begins with its two questions about the checkout, and, where the last one led to another
machine, with the connection to homeport there, which waits for its word (docs/decisions/0019).

This module is loaded before any other; it imports nothing that takes time.
"""

from __future__ import annotations

import os
import select
import time

from homeport.doors.checkoutgit import BESIDES, DIFFERING, looking
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
VERBS = ("drift", "status", "diff", "try")
"""What a person waits for, and what looks once: nothing between the start and the look changes what is looked at."""
TREE = "tree"
"""First in a note that is about a checkout: its top, its repository, its index, and the words that call homeport on
another machine, where the command went there."""
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


def _spawned(argv: tuple[str, ...], env: dict[str, str], *, cwd: str | None, said: int, heard: int,
             errors: int | None) -> int:  # fmt: skip
    """A process of its own session with these descriptors as its input, output and errors (None: nowhere)."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, said, 0), (os.POSIX_SPAWN_DUP2, heard, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2) if errors is not None
        else (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]  # fmt: skip
    whole = argv if cwd is None else (argv[0], "-C", cwd, *argv[1:])
    return os.posix_spawnp(argv[0], whole, env, file_actions=actions, setsid=True, setsigdef=_SIGNALS)


class Asked:
    """A git that works on a question about what an index says."""

    def __init__(self, asked: Placed, index: str) -> None:
        """Raises OSError."""
        self.placed = asked
        self.index, self.before, self.by = index, identity(index), os.getpid()
        argv, cwd, env = asked
        self.answer, theirs = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.pid = _spawned(argv, env, cwd=cwd, said=nothing, heard=theirs, errors=None)
        except BaseException:
            os.close(self.answer)
            raise
        finally:
            os.close(theirs)
            os.close(nothing)

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


class Called:
    """A program that talks with us over its input and output; nobody has listened to it yet."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        """Raises OSError."""
        self.argv, self.environment, self.by = argv, dict(os.environ), os.getpid()
        pairs = [os.pipe(), os.pipe(), os.pipe()]
        (said, self.stdin), (self.stdout, heard), (self.stderr, errors) = pairs
        try:
            self.pid = _spawned(argv, self.environment, cwd=None, said=said, heard=heard, errors=errors)
        except BaseException:
            for fd in (self.stdin, self.stdout, self.stderr):
                os.close(fd)
            raise
        finally:
            for fd in (said, heard, errors):
                os.close(fd)

    def stop(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)
        os.kill(self.pid, _SIGKILL)  # not reaped yet, so it is there
        os.waitpid(self.pid, 0)


class Early:
    """One run of the program: what it asked early, and what it should have."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] | None = None
        """The folder and the words of this run; None in any other process than the program itself."""
        self.noted: tuple[str, ...] | None = None
        self.asked: list[Asked] = []
        self.call: Called | None = None
        self._largest = (0, ("", "", ""))
        self._tree: tuple[str, ...] = ()
        self._away: tuple[str, ...] = ()

    def begin(self, words: list[str]) -> None:
        """Asks what these words led to last time. Never raises."""
        if _verb(words) not in VERBS or any(word.startswith(NEVER) for word in words):
            return
        try:
            self.key = (os.getcwd(), *words)
            self.noted = dict(_notes()).get(self.key)
            if self.noted is not None:
                self._begin(self.noted)
        except (OSError, ValueError, NotImplementedError):
            return

    def _begin(self, noted: tuple[str, ...]) -> None:
        if noted[0] != TREE:
            git_dir, index, work_tree = noted
            self.asked.append(Asked(placed(git_dir, *DIFF_FILES, index=index, work_tree=work_tree), index))
            return
        top, git_dir, index, *argv = noted[1:]
        if argv:
            self.call = Called(tuple(argv))
        for question in (DIFFERING, BESIDES):
            self.asked.append(Asked(looking(top, git_dir, question), index))

    def answer(self, wanted: Placed, index: str) -> bytes | None:
        """What git answered to exactly this question about exactly this index; None when it was not asked."""
        # a copy of this process, which a runner is, has no part in it
        asked = next((one for one in tuple(self.asked) if one.placed == wanted and one.by == os.getpid()), None)
        if asked is None:
            return None
        self.asked.remove(asked)
        try:
            right = asked.index == index and asked.before == identity(index)
        except OSError:
            right = False
        if not right:
            asked.stop()
            return None
        return asked.told(120)

    def called(self, argv: tuple[str, ...]) -> Called | None:
        """The program that these words start, if it was started with them; once."""
        call = self.call
        if call is None or call.by != os.getpid() or call.argv != argv or call.environment != dict(os.environ):
            return None
        self.call = None
        return call

    def note(self, git_dir: str, index: str, work_tree: str, size: int) -> None:
        """A look asked this; the one about the largest index is asked early next time."""
        if self.key is not None and size >= max(WORTH, self._largest[0] + 1):
            self._largest = size, (git_dir, index, work_tree)

    def note_tree(self, top: str, git_dir: str, index: str) -> None:
        """A checkout was looked at."""
        self._tree = self._tree or (TREE, top, git_dir, index)

    def note_call(self, argv: tuple[str, ...]) -> None:
        """Another machine carries the command out; it would have waited if it had been called with these words."""
        self._away = self._away or argv

    def forget(self) -> None:
        """What was asked counts no more: something is about to change what is looked at."""
        for asked in self.asked:
            if asked.by == os.getpid():
                asked.stop()
        self.asked.clear()

    def end(self) -> None:
        """Of the program: ends what nobody wanted, and writes down what to ask next time."""
        self.forget()
        call, self.call = self.call, None
        if call is not None and call.by == os.getpid():
            call.stop()
        size, largest = self._largest
        new = (*self._tree, *self._away) if self._tree else largest
        if self.key is None or not (size or self._tree) or new == self.noted:
            return
        if any(_ODD & set(part) for part in (*self.key, *new)):
            return
        try:
            rest = [(key, note) for key, note in _notes() if key != self.key]
        except OSError:
            rest = []
        try:
            _write([(self.key, new), *rest[: MOST - 1]])
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


# One line for each command line that is known: folder and words, and the paths of its question; NUL after each
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
        noted = tuple(note.split("\0"))
        if len(noted) == 3 or (len(noted) > 3 and noted[0] == TREE):
            found.append((tuple(key.split("\0")), noted))
    return found


def _write(notes: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    path = os.path.join(state_root(), NOTES)
    os.makedirs(state_root(), mode=0o700, exist_ok=True)  # a laptop that only asks other machines has none yet
    raw = "".join("\0".join(key) + "\1" + "\0".join(note) + "\2" for key, note in notes)
    fd = os.open(f"{path}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(os.fsencode(raw))
    os.rename(f"{path}.{os.getpid()}", path)


def identity(path: str) -> Identity:
    """Another one for every other file, and for every time that git wrote it. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
