"""Gitea and Forgejo, API v1. Their Actions report each job as a commit status, so statuses are all there is to read."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from homeport.doors.forges import wire
from homeport.doors.forges.http import Client, Timing
from homeport.doors.forges.repository import Repository
from homeport.model.forge import (
    Cache,
    CheckRun,
    ForgeFault,
    Kind,
    NewRequest,
    PullRequest,
    Reviewed,
    Status,
    Verdict,
)

_VERDICTS: dict[str, Verdict] = {
    "pending": "pending", "success": "passed", "warning": "passed", "skipped": "passed",
}  # fmt: skip
_WRITTEN = {"passed": "success", "pending": "pending", "failed": "failure", "error": "error"}
_RUN = re.compile(r"/actions/runs/([0-9]+)(?:/|$)", re.ASCII)
_JOB = re.compile(r"(?P<workflow>(?:(?! / ).)+) / (?P<job>.+) \((?P<event>[a-z_]+)\)", re.ASCII | re.DOTALL)
"""How Actions names its statuses: `CI / build (push)`."""


class _Creator(Struct):
    login: str = ""


class _Status(Struct):
    id: int
    status: str
    context: str
    creator: _Creator | None = None
    updated_at: str | None = None
    target_url: str | None = None


class _Side(Struct):
    ref: str
    sha: str
    repo_id: int = 0


class _Pull(Struct):
    number: int
    state: str
    html_url: str
    head: _Side
    base: _Side
    merged: bool = False
    mergeable: bool | None = None
    merge_commit_sha: str | None = None
    user: _Creator | None = None
    merged_by: _Creator | None = None


class _Review(Struct):
    state: str = ""
    user: _Creator | None = None
    commit_id: str = ""
    dismissed: bool = False
    stale: bool = False


class Gitea(Repository):
    """Satisfies `Forge`. `web` is the address people use, without a slash at its end."""

    kind: Kind = "gitea"
    there_already = 409

    def __init__(self, repo: str, token: str, cache: Cache, *, web: str, timing: Timing | None = None) -> None:
        client = Client(f"{web}/api/v1", "Gitea", token, cache, scheme="token ", timing=timing)
        super().__init__(client, f"{web}/{repo}", "/repos/" + "/".join(wire.escaped(part) for part in repo.split("/")))

    def checks(self, sha: str) -> list[CheckRun]:
        path = f"{self._at}/commits/{wire.commit(sha)}/statuses"
        return [_check(status) for status in self._listed(path, {"limit": 50}, _Status, keep="statuses")]

    def find_request(self, head: str, base: str) -> PullRequest | None:
        wire.branch(head), wire.branch(base)
        for page in self._client.pages(f"{self._at}/pulls", {"state": "open", "sort": "recentupdate", "limit": 50}):
            for request in map(_request, self._client.read(page, list[_Pull])):
                if request.head == head and request.base == base and request.same_repository:
                    return request
        return None

    def open_requests(self, base: str) -> list[PullRequest]:
        params: dict[str, str | int] = {"state": "open", "sort": "recentupdate", "limit": wire.LISTED}
        wire.branch(base)
        pulls = self._listed(f"{self._at}/pulls", params, _Pull, keep="requests", most=wire.LISTED_PAGES)
        return [_request(one) for one in pulls if one.base.ref == base]

    def request(self, number: int) -> PullRequest:
        return _request(self._client.read(self._client.get(f"{self._at}/pulls/{number:d}"), _Pull))

    def reviews(self, sha: str) -> list[Reviewed]:
        try:
            reply = self._client.get(f"{self._at}/commits/{wire.commit(sha)}/pull")
        except ForgeFault as fault:
            if fault.status == 404:
                return []
            raise
        pull = self._client.read(reply, _Pull)
        if not pull.merged:
            return []
        said: dict[str, bool] = {}
        for review in self._listed(f"{self._at}/pulls/{pull.number:d}/reviews", {"limit": 50}, _Review):
            if review.user is not None and review.state in ("APPROVED", "REQUEST_CHANGES"):
                fresh = not review.dismissed and not review.stale and review.commit_id == pull.head.sha
                said[review.user.login] = review.state == "APPROVED" and fresh
        author, merger = pull.user.login if pull.user else "", pull.merged_by.login if pull.merged_by else ""
        return [wire.reviewed(pull.number, pull.html_url, pull.base.ref, author, said, merger)]

    def set_status(self, sha: str, status: Status) -> None:
        body = {"state": _WRITTEN[status.verdict], "context": status.name, "description": wire.one_line(status.text)}
        if status.url:
            body["target_url"] = status.url
        self._client.send("POST", f"{self._at}/statuses/{wire.commit(sha)}", body, (201,))

    def new_request_page(self, asked: NewRequest) -> str:
        wire.asked(asked)
        return f"{self._page}/compare/{quote(asked.base)}...{quote(asked.head)}"

    def _open(self, asked: NewRequest) -> PullRequest:
        body = {"title": asked.title, "head": asked.head, "base": asked.base, "body": asked.body}
        try:
            reply = self._client.send("POST", f"{self._at}/pulls", body, (201,))
        except ForgeFault as fault:
            if fault.status == 422 and "no changes" in fault.what.lower():
                raise wire.nothing_to_merge(asked) from fault
            raise
        return _request(self._client.read(reply, _Pull))

    def _squash(self, there: PullRequest, title: str, body: str) -> PullRequest:
        asked = {"Do": "squash", "head_commit_id": there.head_sha, "MergeTitleField": title, "MergeMessageField": body,
                 "delete_branch_after_merge": False}  # fmt: skip
        try:
            self._client.send("POST", f"{self._at}/pulls/{there.number:d}/merge", asked, (200,))
        except ForgeFault as fault:
            if fault.status == 409 and "head out of date" in fault.what:
                raise wire.head_moved(there.number, there.url) from fault
            if fault.status in (405, 409):  # 409 also for conflicts
                raise wire.not_mergeable(there.number, there.url, fault.what) from fault
            raise
        with suppress(ForgeFault):  # it is merged, whatever is said of it now
            return self.request(there.number)
        return replace(there, state="merged")

    def _delete_branch(self, name: str) -> None:
        try:
            self._client.send("DELETE", f"{self._at}/branches/{wire.escaped(name)}", None, (204,))
        except ForgeFault as fault:
            if fault.status != 404:
                raise


def _check(status: _Status) -> CheckRun:
    verdict = _VERDICTS.get(status.status, "failed")
    at, url = wire.moment(status.updated_at), status.target_url or ""
    app = status.creator.login if status.creator else ""
    run, job = _RUN.search(url), _JOB.fullmatch(status.context)
    if run and job:
        return CheckRun(source="job", name=job["job"], app=app, verdict=verdict, word=status.status, id=status.id,
                        at=at, workflow=job["workflow"], event=job["event"], run=run[1], url=url)  # fmt: skip
    return CheckRun(source="status", name=status.context, app=app, verdict=verdict, word=status.status,
                    id=status.id, at=at, url=url)  # fmt: skip


def _request(pull: _Pull) -> PullRequest:
    return PullRequest(
        number=pull.number, state="merged" if pull.merged else "open" if pull.state == "open" else "closed",
        mergeable=pull.mergeable, url=pull.html_url, head=pull.head.ref, base=pull.base.ref, head_sha=pull.head.sha,
        merged_as=pull.merge_commit_sha if pull.merged else None,
        same_repository=pull.head.repo_id == pull.base.repo_id,
    )  # fmt: skip
