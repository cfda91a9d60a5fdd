"""Starts processes: the one place of the supervisor that forks.

The supervisor has a single thread, so a plain fork is sound; between fork and exec the child only arranges itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import signal
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from homeport.supervisor import groups

OUT_OF_THE_WAY = 700
"""Descriptors are moved up here first, so that none is overwritten before it is placed."""


class LaunchFault(Exception):
    """It could not be started; the text says at which step and why."""


class Account(Struct, frozen=True):
    name: str
    uid: int
    gid: int


class Launch(Struct, frozen=True, kw_only=True):
    """A process to start. `files` places our descriptors (values) in the child (keys)."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = "/"
    account: Account | None = None
    """None: stays who we are."""
    output: str | None = None
    """A FIFO for stdout and stderr; None: /dev/null."""
    files: Mapping[int, int] = field(default_factory=dict)
    group: str = ""
    """The folder of the control group it is to be in."""
    pid_name: str | None = None
    """A variable that gets the child's own process id (LISTEN_PID)."""


def account_of(user: str | None) -> Account | None:
    """Whom to become; None when that is ourselves. Raises LaunchFault."""
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LaunchFault(f"there is no user {user} on this host") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise LaunchFault(f"it runs as {user}, and only a supervisor that runs as root may start it so")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def launch(order: Launch) -> int:
    """The id of a new process that leads a session and group of its own. Raises LaunchFault."""
    try:
        read, write = os.pipe()
    except OSError as fault:
        raise LaunchFault(f"no descriptor is left: {fault.strerror}") from fault
    try:
        pid = os.fork()
    except OSError as fault:
        os.close(read)
        os.close(write)
        raise LaunchFault(f"no process can be started: {fault.strerror}") from fault
    if pid == 0:
        _child(order, write)
    os.close(write)
    try:
        said = os.read(read, 4096)
    finally:
        os.close(read)
    if said:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        raise LaunchFault(said.decode("utf-8", "replace"))
    return pid


def _child(order: Launch, report: int) -> None:
    """Never returns: becomes the program, or reports why it could not."""
    step = "prepare"
    try:
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)
        os.setsid()
        _forget_signals()
        os.umask(0o022)
        if order.group:
            groups.enter(order.group)
        step = "open its output"
        _place(order)
        if order.account is not None:
            step = f"become {order.account.name}"
            os.initgroups(order.account.name, order.account.gid)
            os.setgid(order.account.gid)
            os.setuid(order.account.uid)
        step = f"enter {order.cwd}"
        os.chdir(order.cwd)
        env = dict(order.env)
        if order.pid_name:
            env[order.pid_name] = str(os.getpid())
        step = f"run {order.argv[0]}"
        os.execvpe(order.argv[0], list(order.argv), env)  # noqa: S606
    except BaseException as fault:
        why = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        os.write(report, f"cannot {step}: {why}".encode("utf-8", "replace")[:4096])
    finally:
        os._exit(127)


def _forget_signals() -> None:
    """Every signal as a fresh process has it; Python itself ignores some, and exec would keep that."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _place(order: Launch) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    # Open in both directions: with a reader of its own the child never gets SIGPIPE, whoever is killed.
    output = os.open(order.output, os.O_RDWR) if order.output else nothing
    if order.account is not None and order.output:
        os.fchown(output, order.account.uid, order.account.gid)
    wanted = {0: nothing, 1: output, 2: output, **order.files}
    aside = {target: fcntl.fcntl(file, fcntl.F_DUPFD, OUT_OF_THE_WAY) for target, file in wanted.items()}
    for target, file in aside.items():
        os.dup2(file, target, inheritable=True)
    for file in aside.values():
        os.close(file)
    keep = set(wanted)
    for file in {nothing, output} - keep:
        os.close(file)
