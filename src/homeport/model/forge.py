"""What homeport knows of a forge (GitHub, Gitea, Forgejo, GitLab), in one vocabulary for all of them.

A *request* is a pull request or a merge request. A *check* is anything a forge holds against one commit: a workflow
run or pipeline, one of its jobs, another program's check run, or a commit status.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

from homeport.model.errors import InfrastructureFault

Kind = Literal["github", "gitea", "gitlab"]
Verdict = Literal["pending", "passed", "failed"]

DEPLOY_STATUS = "homeport/deploy"
"""Statuses that homeport writes about its deploys are called this, or this and `/ENVIRONMENT`; no gate waits for
them. Its own CI checks are called `homeport/check/NAME` and do count, unless this very environment runs them itself."""
CHECK_STATUS = "homeport/check/"


def is_deploy_status(name: str) -> bool:
    return name == DEPLOY_STATUS or name.startswith(DEPLOY_STATUS + "/")


_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}


def is_commit(text: str) -> bool:
    """A full commit id, and not the all-zero one that stands for none."""
    return _SHA.fullmatch(text) is not None and text.strip("0") != ""


def is_ref_name(name: str) -> bool:
    """Whether git allows it as the name of a branch or tag; never one that starts with `-` or holds a control
    character, and at most 244 bytes."""
    if not name or name[0] in "-/." or name[-1] in "/." or name == "@" or _NOT_IN_REFS.search(name):
        return False
    if any(unicodedata.category(letter) in _UNSEEN for letter in name):
        return False
    return len(name.encode()) <= 244


class ForgeFault(InfrastructureFault):
    """The forge does not answer, refuses for now, or may not be asked. It never blocks a commit.

    Codes: `rate-limited`, `forge-down` (silence, 5xx), `forge-denied` (401, 403), `forge-missing` (404),
    `forge-refused` (another 4xx), `forge-garbled` (an answer that is not what the forge documents).
    """

    def __init__(self, what: str, *, where: str, next: str, code: str, until: float | None = None,
                 status: int | None = None) -> None:  # fmt: skip
        super().__init__(what, where=where, next=next, code=code)
        self.until = until
        """Unix time at which asking again makes sense; None: not by waiting."""
        self.status = status
        """The HTTP status, when there was an answer."""


class BranchLeft(ForgeFault):
    """A request is merged, and its branch could not be deleted."""

    def __init__(self, request: PullRequest, fault: ForgeFault) -> None:
        super().__init__(fault.what, where=fault.where, next=fault.next, code=fault.code, until=fault.until,
                         status=fault.status)  # fmt: skip
        self.request = request


class CheckRun(Struct, frozen=True, kw_only=True):
    """One report on one commit."""

    source: Literal["workflow", "job", "check", "status"]
    """A workflow run or pipeline; a job of one; a check run of another program; a commit status."""
    name: str
    app: str
    """Who reports: an app's short name, or the login of who posted the status; `""` when the forge does not say."""
    verdict: Verdict
    word: str
    """The forge's own word for it: `action_required`, `running`."""
    id: int
    """Grows with time within one forge; tells the latest of two."""
    at: float = 0.0
    """Unix time of its last change, or 0."""
    workflow: str = ""
    """The name of the workflow it is, or is a job of."""
    file: str = ""
    """The workflow's file name, `ci.yml`, when the forge says."""
    event: str = ""
    """What started the workflow: `push`, `pull_request`."""
    run: str = ""
    """The id of the workflow run or pipeline it is, or is a job of."""
    url: str = ""


class Status(Struct, frozen=True, kw_only=True):
    """A commit status to write."""

    name: str
    verdict: Literal["pending", "passed", "failed", "error"]
    text: str = ""
    """One line; cut at 140 characters, which is what GitHub takes."""
    url: str = ""


class NewRequest(Struct, frozen=True, kw_only=True):
    """Branch `head` is to be merged into branch `base` of the same repository."""

    head: str
    base: str
    title: str
    body: str = ""


class PullRequest(Struct, frozen=True, kw_only=True):
    number: int
    """The number people use (`#12`, `!12`)."""
    state: Literal["open", "merged", "closed"]
    mergeable: bool | None
    """None: the forge has not worked it out yet, ask again."""
    url: str
    """The page."""
    head: str
    base: str
    head_sha: str
    merged_as: str | None = None
    """The commit on `base`, once merged."""
    same_repository: bool = True
    """False: the branch lies in a fork, and is not ours to delete."""


class Reviewed(Struct, frozen=True, kw_only=True):
    """A request that was merged, and who besides its author stood for it."""

    number: int
    url: str
    base: str
    author: str
    by: tuple[str, ...]
    """Who approved it as it was merged, or merged it; never its author, never a bot."""


GoOn = Callable[[], None]
"""Raises when whoever asked waits no longer."""


class Cache(Protocol):
    """Small texts that outlive the process. `Store` satisfies it. Losing it costs requests, nothing else."""

    def cached(self, key: str) -> str | None: ...
    def cache(self, key: str, value: str) -> None: ...


class Forge(Protocol):
    """One repository on a forge. Every call is bounded in time.

    Raises ForgeFault as described there, and UsageFault for a branch or commit that cannot be one.
    """

    kind: Kind

    def checks(self, sha: str) -> list[CheckRun]:
        """Everything reported on that commit, the latest of each; nothing that ran for a fork's branch."""
        ...

    def find_request(self, head: str, base: str) -> PullRequest | None:
        """The open request from `head` into `base`."""
        ...

    def open_requests(self, base: str) -> list[PullRequest]:
        """The open requests into `base`, those that changed last; of more than some dozens only these."""
        ...

    def open_request(self, asked: NewRequest) -> tuple[PullRequest, bool]:
        """The open request from head into base, and whether it was opened just now (else it was there).

        Raises Refused (code `nothing-to-merge`) when the branches do not differ.
        """
        ...

    def request(self, number: int) -> PullRequest: ...

    def reviews(self, sha: str) -> list[Reviewed]:
        """The merged requests that brought that commit; none for one that was pushed to its branch directly."""
        ...

    def merge(self, number: int, *, sha: str, title: str, body: str = "") -> PullRequest:
        """Squashes it onto its base while its head is still `sha`, and deletes the branch. Merged already: fine.

        Raises Refused: `head-moved`, `not-mergeable`, `request-closed`.
        """
        ...

    def set_status(self, sha: str, status: Status) -> None: ...

    def new_request_page(self, asked: NewRequest) -> str:
        """The page on which a person opens that request by hand; asks nobody."""
        ...

    def attend(self, go_on: GoOn) -> None:
        """From now on this is called several times a second while an answer is awaited, from the thread that asks; what
        it raises ends the call at once."""
        ...

    def close(self) -> None:
        """Lets go of the connection; the next call opens another."""
        ...
