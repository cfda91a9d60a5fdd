"""Typed errors. Each says what failed, where, and which command to run next, and knows its exit code.

Exit codes are those of the command line: 0 done, 1 failed, 2 usage or configuration, 3 refused,
4 gate, 5 busy, 6 cancelled or superseded.
"""

from __future__ import annotations


class HomeportError(Exception):
    """Something a person is told in three parts: what, where, next command.

    `infrastructure` marks faults of disk, network, memory or forge: they never block a commit.
    """

    exit_code = 1
    infrastructure = False

    def __init__(self, what: str, *, where: str = "", next: str = "", code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next
        self.code = code
        """A short stable word for scripts and tests, for example `drift`, `identity`, `blocked`."""

    def __str__(self) -> str:
        return f"{self.what} ({self.where})" if self.where else self.what


class Failed(HomeportError):
    """The project's own command, check or service failed."""


class InfrastructureFault(Failed):
    """Disk, network, memory, git or the forge failed; the commit is not to blame and is not blocked."""

    infrastructure = True


class UsageFault(HomeportError):
    """The command line or the request is wrong."""

    exit_code = 2


class ConfigFault(HomeportError):
    """homeport.toml or host.toml is wrong; `where` is `file:line: key`."""

    exit_code = 2


class StateFault(HomeportError):
    """The state folder cannot be trusted (corrupt, newer, someone else's); it is never guessed around."""

    exit_code = 2


class Refused(HomeportError):
    """A rule, drift, conflict, identity, block or hold forbids it; nothing was changed."""

    exit_code = 3


class Unconfirmed(Refused):
    """Rules want a person's word first; `asked` is (id, what is wanted) of each."""

    def __init__(self, what: str, *, where: str = "", next: str = "", code: str = "",
                 asked: tuple[tuple[str, str], ...] = ()) -> None:  # fmt: skip
        super().__init__(what, where=where, next=next, code=code)
        self.asked = asked


class GateClosed(HomeportError):
    """The commit has not passed its gate, or the gate timed out."""

    exit_code = 4


class Busy(HomeportError):
    """Another deploy holds the environment; `holder` is its process, where that is known and still there."""

    exit_code = 5

    def __init__(self, what: str, *, where: str = "", next: str = "", code: str = "", holder: int | None = None) -> None:
        super().__init__(what, where=where, next=next, code=code)
        self.holder = holder


class Cancelled(HomeportError):
    """The deploy was cancelled or superseded by a newer one."""

    exit_code = 6
