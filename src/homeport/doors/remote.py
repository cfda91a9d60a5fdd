"""Other machines, over OpenSSH: the person's own configuration, agent and known hosts; one connection is reused."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import socket
import stat
import tempfile
from collections.abc import Sequence

from homeport.doors.early import EARLY
from homeport.doors.shell import Conversation, LocalShell
from homeport.model.errors import HomeportError, InfrastructureFault, Refused, UsageFault
from homeport.model.paths import printable
from homeport.model.ports import Completed
from homeport.model.remote import split

LONGEST_COMMAND = 100_000
"""Bytes of one remote command; the kernel takes 128 KiB."""
KEEP = 60
"""Seconds that a connection stays open for the next command."""
LOST = 255
"""Exit status of ssh itself: no connection, or no more."""
_SETTINGS = (
    "StrictHostKeyChecking=yes", "LogLevel=ERROR", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4",
    "RequestTTY=no", "RemoteCommand=none", "ClearAllForwardings=yes", "ForwardX11=no",
)  # fmt: skip
_PLACES = ("homeport", ".local/bin/homeport")
"""Where the program is looked for there: on the PATH, then where `setup` puts it for a user."""


class SshHost:
    """One destination, `[user@]host[:port]`."""

    def __init__(self, destination: str, shell: LocalShell) -> None:
        self.destination = destination
        self._shell = shell
        self._attended = _has_terminal()
        self._socket = _socket_path(destination)

    def connect(self) -> None:
        """Makes the connection that the commands share, asking at the terminal when ssh has to.

        Raises Refused (codes `host-key`, `host-key-changed`), InfrastructureFault (codes `ssh-key`, `connect`).
        """
        if self._socket is None or _answers(self._socket):
            return
        with open(f"{self._socket}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _answers(self._socket):
                self._open(self._socket)

    def _open(self, path: str) -> None:
        """One at a time: a second master beside the first would stay for good, and serve nobody."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        argv = self._argv("-o", "ControlMaster=yes", "-o", f"ControlPersist={KEEP}", "-f", "-N")
        done = self._shell.run([*argv, *self._where()], env=dict(os.environ), timeout=300.0, ok=range(256),
                               at_terminal=self._attended)  # fmt: skip
        if done.code:
            raise self.refused(done.stderr.decode("utf-8", "replace"))

    def talk(self, words: Sequence[str], place: str = _PLACES[0]) -> Conversation:
        """Starts homeport there with these words. Raises UsageFault (code `too-long`)."""
        argv = self._calling(words, place)
        return Conversation(argv, os.environ, apart=self._socket is not None or not self._attended)

    def under_way(self, words: Sequence[str], place: str) -> Conversation | None:
        """What this command began with, if that was to start homeport there with these words."""
        argv = self._calling(words, place)
        begun = EARLY.called(tuple(argv)) if self._socket is not None else None
        return Conversation(argv, os.environ, apart=True, begun=begun) if begun is not None else None

    def next_time(self, words: Sequence[str], place: str) -> None:
        """The same command begins with these words there when it is given again."""
        if self._socket is not None:
            EARLY.note_call(tuple(self._calling(words, place)))

    def _calling(self, words: Sequence[str], place: str) -> list[str]:
        argv = [*self._argv(), *self._where(), shlex.join([place, *words])]
        self._check(argv[-1])
        return argv

    def at_terminal(self, words: Sequence[str]) -> list[str]:
        """The words that run homeport there with these words, at this terminal where there is one."""
        argv = self._argv()
        without = argv.index("RequestTTY=no")
        del argv[without - 1 : without + 1]
        tty = "-t" if self._attended else "-T"
        command = shlex.join(["/bin/sh", "-c", 'PATH="$PATH:$HOME/.local/bin" exec homeport "$@"', "homeport", *words])
        self._check(command)
        return [*argv, tty, *self._where(), command]

    def run(self, words: Sequence[str], input: bytes | None = None, timeout: float = 600.0) -> Completed:
        """Runs a command there and collects what it prints; its own exit status is not judged.

        Raises what `connect` raises when there is none, InfrastructureFault (code `connection`) when it is lost.
        """
        command = shlex.join(words)
        self._check(command)
        self.connect()
        done = self._shell.run([*self._argv(), *self._where(), command], env=dict(os.environ), input=input,
                               timeout=timeout, ok=range(256))  # fmt: skip
        if done.code == LOST:
            never = self.never_there(done.stderr.decode("utf-8", "replace"))
            then = f"{self._again()}   (once it answers: the same command again)"
            raise never or InfrastructureFault("the connection broke", where=self.destination, next=then, code="connection")
        return done

    def places(self) -> tuple[str, ...]:
        """Names under which homeport may be there."""
        return _PLACES

    def never_there(self, said: str) -> HomeportError | None:
        """Why ssh could not connect; None where a connection that was made before, and is shared, broke."""
        fault = self.refused(said)
        return None if fault.code == "connect" and self._socket is not None else fault

    def refused(self, said: str) -> HomeportError:
        """Why ssh could not connect, from its words."""
        last = printable(said.strip().splitlines()[-1]) if said.strip() else "ssh said nothing"
        host, again = split(self.destination)[0], self._again()
        if "IDENTIFICATION HAS CHANGED" in said:
            return Refused("the machine at that address has another host key than before", where=self.destination,
                           next=f"find out why; only when the machine was set up anew: ssh-keygen -R {host.split('@')[-1]}",
                           code="host-key-changed")  # fmt: skip
        if "ost key verification failed" in said or "host key is known" in said:
            return Refused("the machine's host key is not known", where=self.destination, code="host-key",
                           next=f"{again}   (once; compare the fingerprint with its owner's)")  # fmt: skip
        if "ermission denied" in said or "Too many authentication failures" in said:
            return InfrastructureFault(f"the machine does not let you in: {last}", where=self.destination, next=again,
                                       code="ssh-key")  # fmt: skip
        return InfrastructureFault(f"no connection: {last}", where=self.destination, next=again, code="connect")

    def _again(self) -> str:
        host, port = split(self.destination)
        return f"ssh {'-p ' + port + ' ' if port else ''}{host} true"

    def _argv(self, *options: str) -> list[str]:
        argv = ["ssh", "-T"]
        for setting in _SETTINGS:
            argv += ["-o", setting]
        if not self._attended:
            argv += ["-o", "BatchMode=yes"]
        if self._socket is not None:
            argv += ["-o", f"ControlPath={self._socket}"]
            if not options:
                argv += ["-o", "ControlMaster=no"]
        return [*argv, *options]

    def _where(self) -> list[str]:
        host, port = split(self.destination)
        return [*(["-p", port] if port else []), "--", host]

    def _check(self, command: str) -> None:
        if len(command.encode("utf-8", "surrogateescape")) > LONGEST_COMMAND or "\0" in command:
            raise UsageFault(f"the command is longer than {LONGEST_COMMAND} bytes, or holds a NUL", where=self.destination,
                             next="name fewer paths", code="too-long")  # fmt: skip


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _socket_path(destination: str) -> str | None:
    """Where the shared connection listens; None when no private folder with a short enough name can be had."""
    base = os.environ.get("XDG_RUNTIME_DIR") or ""
    for folder in (f"{base}/homeport" if os.path.isabs(base) else "", f"{tempfile.gettempdir()}/homeport-{os.geteuid()}"):
        if not folder or len(folder) > 50:
            continue
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            found = os.lstat(folder)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return f"{folder}/ssh-{hashlib.sha256(destination.encode()).hexdigest()[:16]}"
    return None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
