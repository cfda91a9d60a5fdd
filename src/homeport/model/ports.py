"""What the flow may ask of the doors. Every Protocol here has one real implementation under `doors/`
and is named in `wiring.py`; tests of pure flow logic may pass doubles.

Errors: doors raise `InfrastructureFault` for disk, network, git and memory, `Failed` when the project's own
command or service failed, `Refused` and `StateFault` as named in the methods. They never print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.config import Command
from homeport.model.deploys import Block, Deploy, Hold, Request, ServiceRecord, Stamp, TargetRecord
from homeport.model.events import Event
from homeport.model.live import (
    Difference,
    Entry,
    Recorded,
    Rescue,
    Scan,
    SyncPlan,
    SyncResult,
    Target,
    TreeChange,
)  # fmt: skip
from homeport.model.rules import Audited

OnLine = Callable[[Literal["stdout", "stderr"], str], None]
"""Is told each line of output. One that also has `many(stream, lines)` is told those that come at once in one call."""


class Completed(Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    code: int  # exit status; negative is the signal that ended it
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    no_room: str = ""  # it failed, and the disk that it worked on is full: that folder
    no_memory: bool = False  # it failed, and the kernel ended processes for want of memory meanwhile


class Job(Struct, frozen=True, kw_only=True):
    """A command of the project: its process group is killed at its deadline, at a cancel, when the runner dies."""

    command: Command
    cwd: str
    reached: str = ""
    """`cwd` by a descriptor, whatever is swapped above it: it is started there."""
    env: Mapping[str, str]
    """The whole environment: nothing is inherited from the caller."""
    label: str
    """Who it is for, for messages: `build of api`."""
    timeout: float
    """Seconds."""
    user: str | None = None
    """Run as this user; None: as the user homeport runs as, and where that is root, as the owner of `cwd`."""
    stands_at: tuple[str, str] | None = None
    """(folder, path): the command sees that folder, in which `cwd` lies, at that path, in a mount namespace of its own,
    where the machine can do that (`Shell.cannot_stand`)."""


class Shell(Protocol):
    """The only door that starts processes."""

    def run(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None,
        input: bytes | int | None = None, timeout: float | None = 60.0, ok: Iterable[int] = (0,),
        interruptible: bool = False, output: int | None = None,
    ) -> Completed:
        """Runs a tool of homeport's own (git, pm2 ...) and collects what it prints, or has it write into the open file
        `output`. An `input` that is no bytes is an open file too. `env` is the whole environment; None means a scrubbed
        one (PATH, HOME, LANG=C.UTF-8). An `interruptible` one ends when the deploy is cancelled, and is ended by who
        recovers the deploy after a crash.
        Raises InfrastructureFault when it cannot be started, times out, or ends with a status not in `ok`; Cancelled.
        """
        ...

    def go_on(self, where: str) -> None:
        """Raises Cancelled when the deploy is being cancelled."""

    def job(self, job: Job, on_line: OnLine) -> Completed:
        """Runs a command of the project, each output line handed on at once.

        Never raises for its exit status. Raises Cancelled when the deploy is being cancelled.
        """
        ...

    def cannot_stand(self) -> str:
        """Why jobs cannot have their folder at another path on this machine; empty when they can."""

    def end_jobs_of(self, deploy: str, *, crashed: bool = False) -> int:
        """Kills every process that a job of this deploy left behind; returns how many. After a crash also the tools
        that were at work."""
        ...


class Git(Protocol):
    """The bare mirror (GIT.md). Commits and trees are full object ids."""

    path: str

    def fetch(self, shell: Shell | None = None) -> None:
        """Brings heads and tags from the origin. Raises InfrastructureFault; with the shell of a deploy Cancelled, as
        soon as that deploy is cancelled."""
        ...

    def fetched_at(self) -> str | None:
        """When the last fetch ended well, in UTC; None where that is not known."""

    def twin(self) -> AbstractContextManager[Git]:
        """The same mirror for a look: what is written to it, or fetched, lies elsewhere and is gone afterwards."""

    def use_ssh(self, command: str) -> None:
        """The ssh that fetches and pushes from now on, as git's `core.sshCommand`."""
        ...

    def tip(self, branch: str) -> str:
        """Raises Refused (code `no-branch`) when the branch does not exist."""
        ...

    def resolve(self, ref: str) -> str:
        """A branch, tag, full or abbreviated id to a commit. Raises UsageFault for what cannot be a ref,
        Refused (code `no-commit`) for one that is not there."""
        ...

    def reaches(self, branch: str, sha: str) -> bool: ...
    def is_ancestor(self, older: str, newer: str) -> bool: ...
    def has(self, oid: str) -> bool: ...
    def tree_of(self, sha: str, folder: str) -> str | None:
        """The tree of a folder at a commit (`""` for the root); None when it is absent or not a folder."""
        ...

    def entry_at(self, sha: str, path: str) -> Entry | None: ...
    def changes(self, before: str | None, after: str) -> list[TreeChange]:
        """Between two trees or commits, without rename detection; None is the empty tree."""

    def lines(self, before: str | None, after: str) -> dict[str, tuple[int, int]]: ...
    def listing(self, tree: str) -> dict[str, Entry]: ...
    def write_tree(self, entries: Mapping[str, Entry]) -> str: ...
    def read(self, oid: str) -> bytes: ...
    def pour(self, oid: str, into: int) -> None: ...
    def file_at(self, sha: str, path: str) -> bytes | None: ...
    def subject(self, sha: str) -> str: ...
    def author(self, sha: str) -> str:
        """The name of who wrote the commit."""

    def log(self, sha: str, limit: int, path: str = "") -> list[str]: ...
    def arrivals(self, since: str | None, sha: str, limit: int) -> list[tuple[str, str | None]]:
        """(commit, its first parent) of what came upon a line of commits after `since`, newest first. A merge is one."""
        ...

    def write_blob(self, content: bytes) -> str: ...
    def tidy(self) -> None: ...
    def keep(self, ref: str, oid: str | None) -> None:
        """Sets (or with None removes) `refs/homeport/<ref>` so that a gc cannot take the object."""
        ...

    def diff_text(self, before: Entry | None, after: Entry | None, path: str) -> str:
        """A unified diff of two blobs under one name, for a person; `Binary files differ` for binaries."""
        ...


class Targets(Protocol):
    """Live folders. The one place that reads and writes them; links are never followed below a target."""

    def meet(self, target: Target, branch: str, *, observe: bool = False) -> Recorded:
        """Checks claim and identity of the folder and returns the record; at first contact makes one.

        With `observe` nothing is written into the live folder (no claim).
        Raises Refused (codes `claimed`, `not-the-folder`, `unowned`, `no-index`), InfrastructureFault.
        """
        ...

    def wanted(self, target: Target, sha: str) -> str:
        """The filtered tree this target would have at that commit.

        Raises Refused: `submodule`, `lfs`, `hostile-name`, `no-source`.
        """
        ...

    def scan(self, target: Target, branch: str) -> Scan:
        """Every path that is not as recorded."""
        ...

    def obstacles(self, target: Target, scan: Scan, to_tree: str) -> dict[str, Difference]:
        """What lies in the way of paths that `to_tree` wants and the record has not (`added` with its actual
        entry, or an oddity), file↔folder changes over protected or untracked content included."""
        ...

    def sync(self, target: Target, plan: SyncPlan, deploy: str, commit: str | None, *, later: bool = False) -> SyncResult:
        """Carries a plan out, journaled; on return the record says `to_tree`, with `later` only the files do (`noted`)."""
        ...

    def noted(self) -> None:
        """Until the records say what was synced with `later`. Raises what went wrong with that."""
        ...

    def take(self, target: Target, to_tree: str, commit: str | None, paths: Sequence[str] | None = None) -> None:
        """Records what is there as put there by homeport (`homeport record`); writes nothing live."""
        ...

    def make(self, target: Target) -> None:
        """Makes the live folder, empty, where there is none. Raises Refused, InfrastructureFault."""
        ...

    def settle(self, target: Target) -> tuple[str, ...]:
        """After a crash: rescues and clears what an interrupted sync left beside the folder; rescue ids."""
        ...

    def mend(self, target: Target, below: str = "", apart: Sequence[str] = ()) -> tuple[str, ...]:
        """Gives what git tracks there (in the folder `below`, not in those `apart`) to its `owner`; what was another's."""
        ...

    def discard(self, target: Target, differences: Sequence[Difference], deploy: str | None) -> SyncResult:
        """Puts chosen paths back to the recorded content (added ones are deleted), rescued first."""
        ...

    def restore(self, target: Target, rescue: Rescue) -> SyncResult:
        """Puts rescued bytes back at their path, what lies there rescued first; the record does not change."""
        ...

    def meet_anew(self, target: Target, branch: str) -> Recorded:
        """Forgets the record and meets the folder as for the first time; writes nothing live."""
        ...

    def read_live(self, target: Target, path: str, *, link: bool = False) -> bytes | None:
        """A regular live file's bytes, or with `link` where a link points; None when absent or of another kind."""
        ...

    def is_large(self, target: Target, path: str) -> bool:
        """Whether a regular file lies there that may be larger than the memory."""

    def read_host_file(self, path: str) -> bytes | None:
        """The bytes of an env file outside every live folder; None when there is none.

        Raises Refused (code `roots`) where the host's lists do not hold it, InfrastructureFault when unreadable.
        """
        ...

    def snapshot(self, target: Target, scan: Scan, base: str) -> str:
        """Makes what is live a commit of its own on top of commit `base` (for `rebuild`), writes nothing live."""
        ...


class Store(Protocol):
    """SQLite, one database per environment (DESIGN section 7)."""

    @property
    def looks_only(self) -> bool:
        """The state disk takes no writes: what was written can be read, and every write raises InfrastructureFault."""
        ...

    def meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def untold(self) -> str:
        """The deploy that has its final row, but whose last event and messages may be missing; empty when there is none."""
        ...

    def told(self) -> None: ...

    def enqueue(self, request: Request) -> tuple[str, bool]:
        """(deploy id, joined): joins an equal request that runs or waits; otherwise replaces the waiting one,
        which ends as superseded. The id is that of the deploy that will answer.

        A caller's own request id stands for one deploy for good. Raises Refused (code `request-id`) when the same
        caller used it for something else.
        """
        ...

    def callers(self, deploy: str) -> list[str]:
        """Everybody who asked for it, those who joined it too."""
        ...

    def asked_as(self, request_id: str) -> list[Deploy]:
        """The deploys that somebody's own request id stands for, newest first."""
        ...

    def outcomes(self) -> dict[str, int]:
        """How many deploys ended with each status."""
        ...

    def remember_delivery(self, id: str, event: str, said: str) -> bool:
        """Keeps a forge's delivery in mind; False when it was seen before."""
        ...

    def waiting(self) -> Deploy | None: ...
    def asked_at(self, deploy: str) -> str | None:
        """When it was asked for first."""
        ...

    def begin(self, deploy: str, pid: int) -> Deploy:
        """Waiting (or, after a crash, running) becomes running; counts the attempt."""
        ...

    def running(self) -> Deploy | None: ...
    def update(self, deploy: Deploy, *, lasting: bool = True) -> None:
        """Saves the row; when not `lasting` a power cut may bring the row before it back."""
        ...

    def finish(self, deploy: Deploy, stamp: Stamp | None = None, block: Block | None = None,
               hold: Hold | None = None) -> None:
        """The final row, with the stamp, block or hold it brings, in one transaction."""
        ...

    def stage(self, deploy: str, stage: str, state: str, detail: str = "") -> None: ...
    def stages(self, deploy: str) -> list[tuple[str, str, str]]:
        """(stage, state, at) in order."""
        ...

    def deploy(self, id: str) -> Deploy | None:
        """By full id or unambiguous beginning."""
        ...

    def history(self, limit: int = 20) -> list[Deploy]: ...
    def ask_cancel(self, deploy: str, by: str) -> bool: ...
    def cancel_asked(self, deploy: str) -> str | None: ...

    def services(self) -> dict[str, ServiceRecord]: ...
    def save_service(self, record: ServiceRecord) -> None: ...

    def target(self, name: str) -> TargetRecord | None: ...
    def targets(self) -> list[TargetRecord]: ...
    def save_target(self, record: TargetRecord) -> None: ...
    def begin_sync(self, target: str, deploy: str, from_tree: str, to_tree: str) -> None: ...
    def end_sync(self, record: TargetRecord) -> None:
        """Records the new tree and removes the syncing row in one transaction."""
        ...

    def add_rescue(self, rescue: Rescue) -> None: ...
    def rescues(self) -> list[Rescue]: ...

    def blocks(self) -> list[Block]: ...
    def block(self, block: Block) -> None: ...
    def unblock(self, sha: str) -> bool: ...
    def holds(self) -> list[Hold]: ...
    def hold(self, hold: Hold) -> None: ...
    def release(self, *, by_hand: bool = True) -> int:
        """Ends every hold, without `by_hand` only those that a failed deploy left; how many there were."""
        ...


    def cached(self, key: str) -> str | None: ...
    def cache(self, key: str, value: str) -> None: ...

    def audit(self, who: str, action: str, detail: str, *, outcome: str = "done", actor: str | None = None,
              origin: str | None = None) -> None:
        """One row; `actor` and `origin` are those of this process unless told otherwise."""
        ...

    def audited(self, limit: int = 100) -> list[Audited]:
        """Newest first."""
        ...

    def check(self) -> list[str]:
        """Looks through the whole database; what is wrong with it."""
        ...

    def backup(self, path: str) -> None:
        """Copies the database to a new file while others use it."""
        ...

    def close(self) -> None: ...


class Journal(Protocol):
    """The append-only file of one deploy; every event and line is in it before the call returns."""

    def write(self, event: Event) -> None: ...
    def line(self, stream: Literal["stdout", "stderr", "homeport"], line: str, service: str | None = None) -> None: ...
    def lines(self, stream: Literal["stdout", "stderr"], lines: Sequence[str], service: str | None = None) -> None:
        """As `line`, for lines that came at once."""
        ...

    def sync(self) -> None:
        """fsync: for events that must survive a power cut."""
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    def hold(self, *, wait: bool) -> AbstractContextManager[None]:
        """The environment's lock (flock). Raises Busy when `wait` is false and another holds it."""
        ...

    def free(self) -> bool: ...


class Clock(Protocol):
    def now(self) -> str:
        """UTC, ISO 8601 with milliseconds and `Z`."""
        ...

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Secrets(Protocol):
    def redact(self, text: str) -> str: ...
    def learn(self, told: object, variables: Mapping[str, str] = {}) -> None: ...
