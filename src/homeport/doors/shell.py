"""The only door that starts processes: homeport's own tools (`run`) and the project's commands (`job`)."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, cast

from homeport.doors import namespaces
from homeport.doors.accounts import owner_of
from homeport.doors.jobwatch import GRACE, LINGER, TICK, Watch, signal_group
from homeport.doors.lacking import MemoryKills, full
from homeport.doors.leftovers import MARK, kill_marked
from homeport.doors.lines import LONGEST_LINE, printable
from homeport.doors.permits import Permits
from homeport.model.errors import Cancelled, Failed, InfrastructureFault
from homeport.model.ports import Completed, Job, OnLine

if TYPE_CHECKING:
    from homeport.doors.early import Called

_TOOL = "tool:"
"""Before the deploy in the mark of its tools. Only a crash leaves one: else nobody looks for them, since an ssh that a
fetch started may be kept for others (`ControlPersist`)."""
OF_THE_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EIO})
"""Why no command can be started just now, whatever it is."""
_had_jobs: set[str | None] = set()
"""Deploys for which this process has run commands of the project."""


class LocalShell:
    """Satisfies `Shell` on this machine.

    `deploy` marks the jobs, so that a later process can find and kill what a crashed one left behind;
    `cancelled` is asked about every 100 ms while a job runs. `hidden` folders cannot be seen by jobs that stand at
    another path.
    """

    def __init__(self, deploy: str | None = None, cancelled: Callable[[], bool] = lambda: False,
                 permits: Permits | None = None, hidden: Sequence[str] = ()) -> None:  # fmt: skip
        self._hidden = tuple(hidden)
        self._permits = permits
        self._deploy = deploy
        self._cancelled = cancelled

    def run(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None,
        input: bytes | int | None = None, timeout: float | None = 60.0, ok: Iterable[int] = (0,),
        interruptible: bool = False, at_terminal: bool = False, output: int | None = None,
    ) -> Completed:  # fmt: skip
        """As `Shell.run`; at the deadline the whole process group is killed. With `at_terminal` it stays in the
        terminal's own group, so that it can ask there and Ctrl-C ends it."""
        name = os.path.basename(argv[0])
        whole = dict(env) if env is not None else scrubbed()
        if interruptible and self._deploy is not None:
            whole[MARK] = f"{_TOOL}{self._deploy}:"
        try:
            child = subprocess.Popen(
                list(argv), cwd=cwd, env=whole, stdin=_source(input), start_new_session=not at_terminal,
                stdout=subprocess.PIPE if output is None else output, stderr=subprocess.PIPE,
            )  # fmt: skip
        except (OSError, ValueError) as fault:
            raise _not_started(name, fault, whole) from fault
        with child:
            try:
                stdout, stderr = (self._patiently(child, timeout, _shown(argv)) if interruptible and input is None
                                  else child.communicate(input if isinstance(input, bytes) else None, timeout))  # fmt: skip
            except BaseException as fault:
                if interruptible:
                    _end_politely(child.pid)
                child.kill() if at_terminal else signal_group(child.pid, signal.SIGKILL)
                child.wait()
                if not isinstance(fault, subprocess.TimeoutExpired):
                    raise
                raise InfrastructureFault(
                    f"{name} took longer than {timeout:g} s", where=_shown(argv), next="homeport doctor", code="timeout"
                ) from fault
        if child.returncode not in tuple(ok):
            said = printable(stderr or stdout or b"").strip()[-2000:] or "it said nothing"
            raise InfrastructureFault(
                f"{name} ended with status {child.returncode}: {said}", where=_shown(argv), next="homeport doctor",
                code="tool",
            )  # fmt: skip
        return Completed(argv=tuple(argv), code=child.returncode, stdout=stdout or b"", stderr=stderr)

    def _patiently(self, child: subprocess.Popen[bytes], timeout: float | None, where: str) -> tuple[bytes, bytes]:
        """What it printed, once it has ended. Raises TimeoutExpired, and Cancelled soon after the deploy is cancelled."""
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=TICK)
            self.go_on(where)
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(child.args, timeout or 0.0)

    def go_on(self, where: str) -> None:
        if self._cancelled():
            raise Cancelled("the deploy is being cancelled", where=where)

    def job(self, job: Job, on_line: OnLine) -> Completed:
        """As `Shell.job`. Whatever the command started is dead when this returns after a timeout or a cancel,
        except with an empty `HOMEPORT_JOB` in `job.env`: then only the process group is.

        A command that cannot be started ends with 127 and a line that says why. Raises InfrastructureFault when it is the
        machine that starts nothing just now, Failed (code `user`) when it cannot run as the user it names.
        """
        self.go_on(job.label)
        if job.user is not None and self._permits is not None:
            self._permits.user(job.user)
        mark = f"{self._deploy or '-'}:{os.urandom(8).hex()}"
        _had_jobs.add(self._deploy)
        env = {MARK: mark, **job.env}
        argv = ["/bin/sh", "-c", job.command] if isinstance(job.command, str) else list(job.command)
        words, here = self._placed(job, _as_user(job, argv))
        kills = MemoryKills()
        try:
            child = subprocess.Popen(
                words, cwd=here, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True, bufsize=0,
            )  # fmt: skip
        except (OSError, ValueError) as fault:
            if isinstance(fault, OSError) and fault.errno in OF_THE_MACHINE:
                raise InfrastructureFault(f"{job.label} cannot be started: {fault.strerror}", where=job.cwd,
                                          next="homeport doctor", code="no-start") from fault  # fmt: skip
            said = f"{job.label} cannot be started: {fault}".replace(here, job.cwd)
            on_line("stderr", printable(said.encode("utf-8", "replace")))
            return Completed(argv=tuple(argv), code=127)
        watch = Watch(child, job.timeout, self._cancelled, on_line)
        try:
            why = watch.until_end()
        finally:
            if watch.leftovers and (watch.why or env[MARK]):
                signal_group(child.pid, signal.SIGKILL)
            if watch.leftovers:
                kill_marked(env[MARK], exact=True)
            watch.close()
        if why == "cancelled":
            raise Cancelled("the deploy is being cancelled", where=job.label)
        return Completed(argv=tuple(argv), code=child.returncode, timed_out=why == "timeout",
                         no_room=full(_written(job, here)) if child.returncode else "",
                         no_memory=kills.were(child.returncode))  # fmt: skip

    def _placed(self, job: Job, argv: list[str]) -> tuple[list[str], str]:
        """The words to start, and where: by a descriptor where the job has one."""
        here = job.reached or job.cwd
        if job.stands_at is None or self.cannot_stand():
            return argv, here
        folder, path = job.stands_at
        below = os.path.relpath(job.cwd, folder)
        whole = here if below == "." else here.removesuffix(f"/{below}")
        return namespaces.standing_at(argv, path, below, self._hidden), whole

    def cannot_stand(self) -> str:
        return namespaces.why_not(self)

    def end_jobs_of(self, deploy: str, *, crashed: bool = False) -> int:
        """As `Shell.end_jobs_of`; never this very process. A deploy of this shell that had no job has left none."""
        if not crashed and deploy == self._deploy and deploy not in _had_jobs:
            return 0
        return kill_marked(f"{deploy}:", exact=False) + (kill_marked(f"{_TOOL}{deploy}:", exact=True) if crashed else 0)


class _Begun:
    """A child that was started before this module was loaded, as `subprocess.Popen` has it."""

    def __init__(self, begun: Called) -> None:
        self._pid = begun.pid
        self._code: int | None = None
        self.stdin, self.stdout = os.fdopen(begun.stdin, "wb"), os.fdopen(begun.stdout, "rb")
        self.stderr = os.fdopen(begun.stderr, "rb")

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            if timeout is not None and not _ends(self._pid, timeout):
                raise subprocess.TimeoutExpired(["ssh"], timeout)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code

    def send_signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Conversation:
    """A program that is talked with, line by line, while it runs; its standard error is collected aside.

    Raises InfrastructureFault (code `no-start`). Lines may be of any length. Use it in a `with` block: at its end the
    program is told to stop (end of input), and killed when it does not within `GRACE`.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], *, apart: bool, begun: Called | None = None) -> None:
        """`apart`: a Ctrl-C at the terminal does not reach it; it cannot ask there either. `begun`: it runs already."""
        self._errors: deque[bytes] = deque(maxlen=200)
        try:
            self._child = _Begun(begun) if begun is not None else subprocess.Popen(
                list(argv), env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=apart,
            )  # fmt: skip
        except (OSError, ValueError) as fault:
            raise _not_started(os.path.basename(argv[0]), fault, env) from fault
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in cast("IO[bytes]", self._child.stderr):
            self._errors.append(line[:LONGEST_LINE])

    def __enter__(self) -> Conversation:
        return self

    def lines(self) -> Iterator[bytes]:
        """What it prints, each line with its end."""
        yield from cast("IO[bytes]", self._child.stdout)

    def say(self, line: bytes) -> None:
        """Sends a line; one that nobody hears any more is lost."""
        with contextlib.suppress(OSError, ValueError):
            cast("IO[bytes]", self._child.stdin).write(line + b"\n")
            cast("IO[bytes]", self._child.stdin).flush()

    def interrupt(self) -> None:
        """Ctrl-C, for it alone."""
        self._child.send_signal(signal.SIGINT)

    def ended(self) -> tuple[int, str]:
        """(exit status, the end of its standard error), once it ended by itself."""
        code = self._child.wait()
        self._listener.join(LINGER)
        return code, printable(b"".join(self._errors)).strip()

    def __exit__(self, *_: object) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()
        try:
            self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._listener.join(LINGER)
        if not self._listener.is_alive():
            cast("IO[bytes]", self._child.stderr).close()


def _source(input: bytes | int | None) -> int:
    if input is None:
        return subprocess.DEVNULL
    return input if isinstance(input, int) else subprocess.PIPE


def attached(argv: Sequence[str], cwd: str | None = None, env: Mapping[str, str] | None = None) -> int:
    """Runs a program with our own terminal and (unless `env` is given) environment; its exit status, as a shell counts
    it, 127 when it cannot be started. Ctrl-C is the program's own."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(list(argv), cwd=cwd, env=env, preexec_fn=lambda: signal.signal(signal.SIGINT, before))  # noqa: PLW1509
        code = child.wait()
    except OSError:
        return 127
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def scrubbed() -> dict[str, str]:
    """The environment of a tool that was given none: PATH, HOME and LANG."""
    home = os.environ.get("HOME") or "/"
    return {"PATH": os.environ.get("PATH") or os.defpath, "HOME": home, "LANG": "C.UTF-8"}


def _as_user(job: Job, argv: list[str]) -> list[str]:
    """The command behind setpriv: it dies with us, and runs as the user that it names, else as the owner of its folder.

    Raises Failed (code `user`) when there is no such user, or when we may not become it.
    """
    from shutil import which

    setpriv = which("setpriv")
    account = owner_of(job.reached or job.cwd) if job.user is None else None
    if job.user is not None:
        try:
            account = pwd.getpwnam(job.user)
        except KeyError as fault:
            raise Failed(f"there is no user {job.user} on this host", where=job.label, next="homeport check",
                         code="user") from fault  # fmt: skip
    change = account is not None and account.pw_uid != os.geteuid()
    if change and (os.geteuid() != 0 or setpriv is None):
        because = "setpriv (util-linux) is not installed" if os.geteuid() == 0 else "homeport does not run as root"
        whom = account.pw_name if account is not None else job.user
        raise Failed(f"cannot run as {whom}: {because}", where=job.label, next="homeport doctor", code="user")
    if setpriv is None:
        return argv
    become = []
    if change and account is not None:
        become = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--init-groups"]
    return [setpriv, "--pdeathsig", "KILL", *become, "--", *argv]


def _written(job: Job, here: str) -> list[tuple[str, str]]:
    """Where a command writes: its folder, and what it has for temporary files."""
    temporary = job.env.get("TMPDIR") or "/tmp"  # noqa: S108  (nothing is written there)
    return [(here, job.cwd), (temporary, temporary)]


def _end_politely(pid: int) -> None:
    """SIGTERM to the group of a child, and up to `GRACE` for it to take its files away; it is not reaped yet."""
    with contextlib.suppress(OSError):
        signal_group(pid, signal.SIGTERM)
        _ends(pid, GRACE)


def _ends(pid: int, within: float) -> bool:
    """Whether a child that is not reaped yet ends within so many seconds."""
    with contextlib.closing(selectors.DefaultSelector()) as selector:
        ended = os.pidfd_open(pid)
        try:
            selector.register(ended, selectors.EVENT_READ)
            return bool(selector.select(within))
        finally:
            os.close(ended)


def _not_started(name: str, fault: Exception, env: Mapping[str, str]) -> InfrastructureFault:
    path = env.get("PATH", os.defpath)
    if isinstance(fault, FileNotFoundError) and fault.filename == name:
        return InfrastructureFault(f"{name} is not installed, or not on the PATH", where=f"PATH={path}", code="no-start",
                                   next=f"apt install {name}, or set PATH; then: homeport doctor")  # fmt: skip
    return InfrastructureFault(f"{name} cannot be started: {fault}", where=f"PATH={path}", next="homeport doctor",
                               code="no-start")  # fmt: skip


def _shown(argv: Sequence[str]) -> str:
    return printable(" ".join(argv).encode("utf-8", "surrogateescape"))[:300]


def still_runs(child: int) -> bool:
    """Whether a process that `detach` started here has not ended yet."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def detach(argv: Sequence[str], env: Mapping[str, str], log: str, stdin: int | None = None) -> int:
    """Starts a process of homeport's own in its own session, so that it outlives the terminal; returns its pid.

    Its output is appended to `log` (0600). Raises InfrastructureFault when it cannot be started.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        return os.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsid=True)
    except OSError as fault:
        raise InfrastructureFault(f"the runner could not be started: {fault.strerror}", where=argv[0],
                                  next="homeport doctor", code="spawn") from fault


class Standing:
    """A tool that is asked again and again over its pipes, apart from the terminal; it ends with this process at the
    latest. Raises OSError."""

    def __init__(self, argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(list(argv), cwd=cwd, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0)  # fmt: skip
        self.answers = cast("IO[bytes]", self._child.stdout).fileno()

    def say(self, line: bytes) -> None:
        pipe = cast("IO[bytes]", self._child.stdin).fileno()
        while line:
            line = line[os.write(pipe, line) :]

    def ended(self) -> int:
        """Its exit status; one that still runs is killed."""
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(0.1)
        self._child.kill()
        return self._child.wait()


def copied() -> int:
    """As os.fork."""
    return os.fork()
