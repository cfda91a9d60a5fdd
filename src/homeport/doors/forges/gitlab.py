"""GitLab, API v4. Its pipelines are the workflows; jobs and other programs' statuses come in one list."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from msgspec import Struct

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
    is_deploy_status,
)

_PASSED = {"success", "skipped"}
_FAILED = {"failed", "canceled"}
_WRITTEN = {"passed": "success", "pending": "pending", "failed": "failed", "error": "failed"}
_UNSURE = {"unchecked", "checking", "preparing", "approvals_syncing"}
CI = "gitlab-ci"
_BOT = re.compile(r"(project|group)_[0-9]+_bot|service_account|ghost$", re.ASCII)
"""Users that GitLab makes for tokens of projects and groups."""


class _Pipeline(Struct):
    id: int
    sha: str
    status: str
    source: str
    updated_at: str | None = None
    web_url: str = ""
    name: str | None = None


class _Author(Struct):
    username: str = ""


class _Status(Struct):
    id: int
    sha: str
    name: str
    status: str
    allow_failure: bool = False
    pipeline_id: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    target_url: str | None = None
    author: _Author | None = None


class _MergeRequest(Struct):
    iid: int
    state: str
    web_url: str
    source_branch: str
    target_branch: str
    source_project_id: int | None
    target_project_id: int
    sha: str | None
    detailed_merge_status: str = "unchecked"
    merge_commit_sha: str | None = None
    squash_commit_sha: str | None = None


class _Brought(Struct):
    iid: int
    state: str


class _Looked(Struct):
    iid: int
    web_url: str
    target_branch: str
    author: _Author | None = None
    merge_user: _Author | None = None
    merged_by: _Author | None = None
    """What `merge_user` was called before GitLab 14.7."""


class _Approval(Struct):
    user: _Author


class _Approvals(Struct):
    approved_by: list[_Approval] = []


class GitLab(Repository):
    """Satisfies `Forge`. `repo` is `group/…/name`, `web` the address people use, without a slash at its end."""

    kind: Kind = "gitlab"
    there_already = 409

    def __init__(self, repo: str, token: str, cache: Cache, *, web: str = "https://gitlab.com",
                 timing: Timing | None = None) -> None:  # fmt: skip
        client = Client(f"{web}/api/v4", "GitLab", token, cache, auth="PRIVATE-TOKEN", scheme="", timing=timing)
        super().__init__(client, f"{web}/{repo}", f"/projects/{wire.escaped(repo)}")

    def checks(self, sha: str) -> list[CheckRun]:
        wire.commit(sha)
        about: dict[str, str | int] = {"sha": sha, "per_page": 100}
        pipelines = self._listed(f"{self._at}/pipelines", about, _Pipeline, keep="pipelines")
        # An external pipeline is only the shelf on which GitLab puts other programs' statuses.
        held = {one.id: one for one in pipelines if one.sha == sha and one.source != "external"}
        everything = self._listed(f"{self._at}/repository/commits/{sha}/statuses", {"all": "true", "per_page": 100},
                                  _Status, keep="statuses")  # fmt: skip
        statuses = [one for one in everything if one.sha == sha]
        # Statuses join the commit's pipeline: one that waits for, or failed by, our own deploy says nothing. Its jobs do.
        ours = {one.pipeline_id for one in statuses if is_deploy_status(one.name)}
        found = [_of_pipeline(one) for one in held.values() if one.id not in ours]
        return found + [_of_status(one, held.get(one.pipeline_id or 0)) for one in statuses]

    def find_request(self, head: str, base: str) -> PullRequest | None:
        params = {"state": "opened", "source_branch": wire.branch(head), "target_branch": wire.branch(base)}
        reply = self._client.get(f"{self._at}/merge_requests", params)
        requests = map(_request, self._client.read(reply, list[_MergeRequest]))
        return next((one for one in requests if one.same_repository and (one.head, one.base) == (head, base)), None)

    def open_requests(self, base: str) -> list[PullRequest]:
        params: dict[str, str | int] = {"state": "opened", "target_branch": wire.branch(base), "order_by": "updated_at",
                                        "sort": "desc", "per_page": wire.LISTED}  # fmt: skip
        path, most = f"{self._at}/merge_requests", wire.LISTED_PAGES
        found = map(_request, self._listed(path, params, _MergeRequest, keep="requests", most=most))
        return [one for one in found if one.base == base]

    def request(self, number: int) -> PullRequest:
        reply = self._client.get(f"{self._at}/merge_requests/{number:d}")
        return _request(self._client.read(reply, _MergeRequest))

    def reviews(self, sha: str) -> list[Reviewed]:
        path = f"{self._at}/repository/commits/{wire.commit(sha)}/merge_requests"
        brought = self._listed(path, {"per_page": 100}, _Brought)
        return [self._reviewed(one.iid) for one in brought if one.state == "merged"]

    def _reviewed(self, number: int) -> Reviewed:
        one = self._client.read(self._client.get(f"{self._at}/merge_requests/{number:d}"), _Looked)
        reply = self._client.get(f"{self._at}/merge_requests/{number:d}/approvals")
        approved = [said.user for said in self._client.read(reply, _Approvals).approved_by]
        author = one.author.username if one.author else ""
        names = [user.username for user in (*approved, one.merge_user or one.merged_by) if user is not None]
        return Reviewed(number=one.iid, url=one.web_url, base=one.target_branch, author=author,
                        by=wire.others(author, [n for n in names if not _BOT.match(n)]) if author else ())  # fmt: skip

    def set_status(self, sha: str, status: Status) -> None:
        body = {"state": _WRITTEN[status.verdict], "name": status.name, "description": wire.one_line(status.text)}
        if status.url:
            body["target_url"] = status.url
        try:
            self._client.send("POST", f"{self._at}/statuses/{wire.commit(sha)}", body, (201,))
        except ForgeFault as fault:
            # GitLab refuses to write the state that is there already.
            if fault.status != 400 or "Cannot transition status" not in fault.what:
                raise

    def new_request_page(self, asked: NewRequest) -> str:
        wire.asked(asked)
        fields = {"source_branch": asked.head, "target_branch": asked.base, "title": asked.title[:200],
                  "description": asked.body[:2000]}  # fmt: skip
        query = urlencode({f"merge_request[{name}]": value for name, value in fields.items()}, quote_via=quote)
        return f"{self._page}/-/merge_requests/new?{query}"

    def _open(self, asked: NewRequest) -> PullRequest:
        body = {"source_branch": asked.head, "target_branch": asked.base, "title": asked.title,
                "description": asked.body, "squash": True, "remove_source_branch": True}  # fmt: skip
        reply = self._client.send("POST", f"{self._at}/merge_requests", body, (201,))
        return _request(self._client.read(reply, _MergeRequest))

    def _squash(self, there: PullRequest, title: str, body: str) -> PullRequest:
        message = f"{title}\n\n{body}".strip()
        asked = {"squash": True, "sha": there.head_sha, "should_remove_source_branch": there.same_repository,
                 "squash_commit_message": message}  # fmt: skip
        try:
            reply = self._client.send("PUT", f"{self._at}/merge_requests/{there.number:d}/merge", asked, (200,))
        except ForgeFault as fault:
            if fault.status == 409:
                raise wire.head_moved(there.number, there.url) from fault
            if fault.status in (405, 422):
                raise wire.not_mergeable(there.number, there.url, fault.what) from fault
            raise
        return _request(self._client.read(reply, _MergeRequest))

    def _delete_branch(self, name: str) -> None:
        """GitLab does that itself, as the merge asked it to."""


def _verdict(word: str, *, allowed: bool = False) -> Verdict:
    """Jobs that may fail, and manual ones that nobody has to start, hold nothing up."""
    if word in _PASSED or (allowed and word in (*_FAILED, "manual")):
        return "passed"
    return "failed" if word in _FAILED else "pending"


def _of_pipeline(one: _Pipeline) -> CheckRun:
    name = one.name or "pipeline"
    return CheckRun(source="workflow", name=name, app=CI, verdict=_verdict(one.status), word=one.status, id=one.id,
                    at=wire.moment(one.updated_at), workflow=name, event=one.source, run=str(one.id),
                    url=one.web_url)  # fmt: skip


def _of_status(one: _Status, pipeline: _Pipeline | None) -> CheckRun:
    parent = _of_pipeline(pipeline) if pipeline else None
    return CheckRun(
        source="job" if parent else "status", name=one.name,
        app=CI if parent else one.author.username if one.author else "",
        verdict=_verdict(one.status, allowed=one.allow_failure), word=one.status, id=one.id,
        at=wire.moment(one.created_at, one.started_at, one.finished_at), workflow=parent.workflow if parent else "",
        event=parent.event if parent else "", run=parent.run if parent else "", url=one.target_url or "",
    )  # fmt: skip


def _request(one: _MergeRequest) -> PullRequest:
    merged = one.state == "merged"
    unsure = one.detailed_merge_status in _UNSURE
    return PullRequest(
        number=one.iid, state="merged" if merged else "closed" if one.state == "closed" else "open",
        mergeable=None if unsure else one.detailed_merge_status == "mergeable", url=one.web_url,
        head=one.source_branch, base=one.target_branch, head_sha=one.sha or "",
        merged_as=(one.merge_commit_sha or one.squash_commit_sha) if merged else None,
        same_repository=one.source_project_id == one.target_project_id,
    )  # fmt: skip
