"""One repository on a forge: the order in which a request is opened and merged, the same for GitHub, Gitea and GitLab.

What is asked, and what its answers mean, says the file of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import islice
from typing import ClassVar, TypeVar

from homeport.doors.forges import wire
from homeport.doors.forges.http import Client
from homeport.model.forge import BranchLeft, ForgeFault, GoOn, NewRequest, PullRequest

_T = TypeVar("_T")


class Repository(ABC):
    """What `GitHub`, `Gitea` and `GitLab` have in common of `Forge`. `page` is where people see it, `at` its API path."""

    there_already: ClassVar[int]
    """The status of a refusal to open a request that there is already."""

    def __init__(self, client: Client, page: str, at: str) -> None:
        self._client, self._page, self._at = client, page, at

    def attend(self, go_on: GoOn) -> None:
        self._client.attend(go_on)

    def close(self) -> None:
        self._client.close()

    @abstractmethod
    def find_request(self, head: str, base: str) -> PullRequest | None: ...

    @abstractmethod
    def request(self, number: int) -> PullRequest: ...

    def open_request(self, asked: NewRequest) -> tuple[PullRequest, bool]:
        wire.asked(asked)
        there = self.find_request(asked.head, asked.base)
        if there:
            return there, False
        try:
            return self._open(asked), True
        except ForgeFault as fault:
            there = self.find_request(asked.head, asked.base) if fault.status == self.there_already else None
            if there is None:
                raise
            return there, False

    def merge(self, number: int, *, sha: str, title: str, body: str = "") -> PullRequest:
        wire.commit(sha)
        there = self.request(number)
        if there.state == "closed":
            raise wire.request_closed(number, there.url)
        if there.state == "open":
            if there.head_sha != sha:
                raise wire.head_moved(number, there.url)
            there = self._squash(there, title, body)
        if there.same_repository and there.head_sha == sha:
            try:
                self._delete_branch(there.head)
            except ForgeFault as fault:
                raise BranchLeft(there, fault) from fault
        return there

    @abstractmethod
    def _open(self, asked: NewRequest) -> PullRequest:
        """Raises Refused (`nothing-to-merge`), and ForgeFault: with `there_already` when there is one by now."""

    @abstractmethod
    def _squash(self, there: PullRequest, title: str, body: str) -> PullRequest:
        """The request as it is afterwards. Raises Refused: `head-moved`, `not-mergeable`."""

    @abstractmethod
    def _delete_branch(self, name: str) -> None:
        """Of a request that is merged. Deleted already, by the repository's own setting: fine."""

    def _listed(self, path: str, params: Mapping[str, str | int], shape: type[_T], *, keep: str = "",
                most: int | None = None) -> list[_T]:  # fmt: skip
        """The entries of every page, or of so many pages."""
        pages = islice(self._client.pages(path, params, keep=keep), most)
        return [one for page in pages for one in self._client.read(page, list[shape])]  # type: ignore[valid-type]
