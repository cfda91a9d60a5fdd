"""A copy of this process that becomes another one of homeport's own: it need not load again what is loaded here."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import NoReturn

from homeport.doors.shell import copied, still_runs

Become = Callable[[list[str]], int]
Prepare = Callable[[list[str]], Callable[[], None] | None]
"""Gets ready for what a copy may expect; what it returns is called when that is not wanted after all."""
_LENGTH = struct.Struct(">I")
"""Before what a copy may expect."""
_WORD = 3
"""The descriptor on which a copy waits for its word."""


class Copy:
    """A copy that waits for its word; without one it ends together with this process."""

    def __init__(self, pid: int, poke: int) -> None:
        self.pid = pid
        self._poke = poke
        self._expects = False

    def expects(self, words: list[str]) -> None:
        """Says beforehand what it will be told, so that it can prepare; only the first time counts."""
        if self._expects or not words:
            return
        self._expects = True
        said = b"\0".join(map(os.fsencode, words))
        with contextlib.suppress(OSError):
            os.write(self._poke, _LENGTH.pack(len(said)) + said)

    def told(self, log: str, words: list[str]) -> bool:
        """Whether it goes on from here, with its output appended to `log` (0600). It can be told once."""
        try:
            if not still_runs(self.pid):
                return False
            nothing = b"" if self._expects else _LENGTH.pack(0)
            os.write(self._poke, nothing + b"\0".join(os.fsencode(word) for word in (log, *words)))
        except OSError:
            return False
        finally:
            os.close(self._poke)
        return True

    def dismiss(self) -> None:
        os.close(self._poke)


def branch_off(name: str, load: Callable[[], None], become: Become, prepare: Prepare = lambda _: None) -> Copy | None:
    """Makes a copy in a session of its own, which loads more, prepares for what it may expect, and then waits.

    None where that is not safe or not possible: beside another thread, an open database (SQLite: a connection must
    not be carried over) or a closed standard output, or without room for a process. Nothing was done then.
    """
    if not _alone():
        return None
    try:
        word, poke = os.pipe()
    except OSError:
        return None
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        pid = copied()
        if pid == 0:
            _live(word, mask, name, load, become, prepare)
    except OSError:
        os.close(poke)
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(word)
    return Copy(pid, poke)


def _alone() -> bool:
    try:
        if len(os.listdir("/proc/self/task")) > 1:
            return False
        for fd in (0, 1, 2):  # without one of them, what is opened next would lie in its place
            os.fstat(fd)
        for opened in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                if ".db" in os.path.basename(os.readlink(f"/proc/self/fd/{opened}")):
                    return False
    except OSError:
        return False
    return True


def _live(word: int, mask: set[int | signal.Signals], name: str, load: Callable[[], None], become: Become,
          prepare: Prepare) -> NoReturn:  # fmt: skip
    """From the first moment of a copy to its end: no handler, buffer or finalizer of the first process runs here."""
    code = 1
    try:
        os.setsid()
        if word != _WORD:
            os.dup2(word, _WORD, inheritable=False)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        _output(null)
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd > _WORD:
                with contextlib.suppress(OSError):
                    os.close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _call(name)
        load()
        with open(_WORD, "rb", closefd=False) as waiting:
            head = waiting.read(_LENGTH.size)
            expected = waiting.read(_LENGTH.unpack(head)[0]) if head else b""
            drop = prepare(list(map(os.fsdecode, expected.split(b"\0")))) if expected else None
            said = waiting.read()
        if said:
            log, *words = map(os.fsdecode, said.split(b"\0"))
            _output(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
            code = become(words)
        elif drop is not None:
            drop()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _output(fd: int) -> None:
    """Standard output and error go there; what was buffered for another place does not."""
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    if fd > 2:
        os.close(fd)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115


def _call(name: str) -> None:
    """Has lists of processes show this name, cut to the room there is, instead of the first process's command line."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start
        if room > 1:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(os.fsencode(name)[: room - 1].ljust(room, b"\0"))
