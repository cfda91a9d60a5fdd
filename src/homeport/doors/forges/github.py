"""GitHub, REST v3 of 2022-11-28; GitHub Enterprise Server under `/api/v3`."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

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

_PASSED = {"success", "neutral", "skipped"}
_STATES: dict[str, Verdict] = {"success": "passed", "pending": "pending"}
_WRITTEN = {"passed": "success", "pending": "pending", "failed": "failure", "error": "error"}
_RUN = re.compile(r"/actions/runs/([0-9]+)(?:/|$)", re.ASCII)
_ACTIONS = "github-actions"


class _App(Struct):
    slug: str = ""


class _CheckRun(Struct):
    id: int
    name: str
    status: str
    conclusion: str | None
    head_sha: str
    started_at: str | None
    completed_at: str | None
    details_url: str | None = None
    html_url: str | None = None
    app: _App | None = None


class _CheckRuns(Struct):
    check_runs: list[_CheckRun]


class _Owner(Struct):
    login: str


class _Repository(Struct):
    id: int


class _WorkflowRun(Struct):
    id: int
    head_sha: str
    path: str
    event: str
    status: str | None
    conclusion: str | None
    updated_at: str
    html_url: str
    repository: _Repository
    head_repository: _Repository | None
    name: str | None = None


class _WorkflowRuns(Struct):
    workflow_runs: list[_WorkflowRun]


class _Status(Struct):
    id: int
    state: str
    context: str
    updated_at: str
    creator: _Owner | None = None
    target_url: str | None = None


class _Side(Struct):
    ref: str
    sha: str
    repo: _Repository | None


class _Pull(Struct):
    number: int
    state: str
    html_url: str
    head: _Side
    base: _Side
    merged_at: str | None
    merge_commit_sha: str | None
    mergeable: bool | None = None


class _Merged(Struct):
    sha: str


class _User(Struct):
    login: str
    type: str = "User"


class _Brought(Struct):
    number: int
    merged_at: str | None


class _Looked(Struct):
    number: int
    html_url: str
    head: _Side
    base: _Side
    user: _User | None
    merged_by: _User | None = None


class _Review(Struct):
    state: str
    user: _User | None
    commit_id: str | None = None


class GitHub(Repository):
    """Satisfies `Forge`. `repo` is `owner/name`, `web` the address people use, without a slash at its end."""

    kind: Kind = "github"
    there_already = 422

    def __init__(self, repo: str, token: str, cache: Cache, *, web: str = "https://github.com", api: str = "",
                 write_gap: float = 1.0, timing: Timing | None = None) -> None:  # fmt: skip
        api = api or ("https://api.github.com" if web == "https://github.com" else f"{web}/api/v3")
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        client = Client(api, "GitHub", token, cache, headers=headers, write_gap=write_gap, timing=timing)
        super().__init__(client, f"{web}/{repo}", "/repos/" + "/".join(wire.escaped(part) for part in repo.split("/")))
        self._owner = repo.split("/", maxsplit=1)[0]

    def checks(self, sha: str) -> list[CheckRun]:
        wire.commit(sha)
        runs = self._workflow_runs(sha)
        # A run for a fork's branch is not about this repository, even when the commit is the same.
        foreign = {run.id for run in runs if run.head_repository is None or run.head_repository.id != run.repository.id}
        ours = {run.id: run for run in runs if run.id not in foreign}
        found = [_of_workflow(run) for run in ours.values()]
        for check in self._check_runs(sha):
            run = _RUN.search(check.details_url or "")
            number = int(run[1]) if run and check.app and check.app.slug == _ACTIONS else 0
            if number not in foreign:
                found.append(_of_check(check, ours.get(number), str(number or "")))
        return found + [_of_status(status) for status in self._statuses(sha)]

    def find_request(self, head: str, base: str) -> PullRequest | None:
        params = {"state": "open", "head": f"{self._owner}:{wire.branch(head)}", "base": wire.branch(base)}
        pulls = self._client.read(self._client.get(f"{self._at}/pulls", params), list[_Pull])
        fitting = [pull for pull in pulls if pull.head.ref == head and pull.base.ref == base]
        return _request(fitting[0]) if fitting else None

    def open_requests(self, base: str) -> list[PullRequest]:
        params: dict[str, str | int] = {"state": "open", "base": wire.branch(base), "sort": "updated", "direction": "desc",
                                        "per_page": wire.LISTED}  # fmt: skip
        pulls = self._listed(f"{self._at}/pulls", params, _Pull, keep="requests", most=wire.LISTED_PAGES)
        return [_request(one) for one in pulls if one.base.ref == base]

    def request(self, number: int) -> PullRequest:
        return _request(self._client.read(self._client.get(f"{self._at}/pulls/{number:d}"), _Pull))

    def reviews(self, sha: str) -> list[Reviewed]:
        path = f"{self._at}/commits/{wire.commit(sha)}/pulls"
        brought = self._listed(path, {"per_page": 100}, _Brought)
        return [self._reviewed(one.number) for one in brought if one.merged_at is not None]

    def _reviewed(self, number: int) -> Reviewed:
        pull = self._client.read(self._client.get(f"{self._at}/pulls/{number:d}"), _Looked)
        said: dict[str, bool] = {}
        for review in self._listed(f"{self._at}/pulls/{number:d}/reviews", {"per_page": 100}, _Review):
            # the last word of each counts, and an approval only of what was merged
            if _person(review.user) and review.state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED"):
                said[_person(review.user)] = review.state == "APPROVED" and review.commit_id == pull.head.sha
        author = pull.user.login if pull.user else ""
        return wire.reviewed(pull.number, pull.html_url, pull.base.ref, author, said, _person(pull.merged_by))

    def set_status(self, sha: str, status: Status) -> None:
        body = {"state": _WRITTEN[status.verdict], "context": status.name, "description": wire.one_line(status.text)}
        if status.url:
            body["target_url"] = status.url
        self._client.send("POST", f"{self._at}/statuses/{wire.commit(sha)}", body, (201,))

    def new_request_page(self, asked: NewRequest) -> str:
        wire.asked(asked)
        query = urlencode({"quick_pull": "1", "title": asked.title[:200], "body": asked.body[:2000]}, quote_via=quote)
        return f"{self._page}/compare/{quote(asked.base)}...{quote(asked.head)}?{query}"

    def _workflow_runs(self, sha: str) -> list[_WorkflowRun]:
        params: dict[str, str | int] = {"head_sha": sha, "per_page": 100}
        pages = self._client.pages(f"{self._at}/actions/runs", params, keep="runs")
        runs = [run for page in pages for run in self._client.read(page, _WorkflowRuns).workflow_runs]
        return [run for run in runs if run.head_sha == sha]

    def _check_runs(self, sha: str) -> list[_CheckRun]:
        """All of them: with `latest`, GitHub goes by when they ended, and a rerun under way has not."""
        params: dict[str, str | int] = {"filter": "all", "per_page": 100}
        pages = self._client.pages(f"{self._at}/commits/{sha}/check-runs", params, keep="check-runs")
        runs = [run for page in pages for run in self._client.read(page, _CheckRuns).check_runs]
        return [run for run in runs if run.head_sha == sha]

    def _statuses(self, sha: str) -> list[_Status]:
        return self._listed(f"{self._at}/commits/{sha}/statuses", {"per_page": 100}, _Status, keep="statuses")

    def _open(self, asked: NewRequest) -> PullRequest:
        body = {"title": asked.title, "head": asked.head, "base": asked.base, "body": asked.body}
        try:
            reply = self._client.send("POST", f"{self._at}/pulls", body, (201,))
        except ForgeFault as fault:
            if fault.status == 422 and "No commits between" in fault.what:
                raise wire.nothing_to_merge(asked) from fault
            raise
        return _request(self._client.read(reply, _Pull))

    def _squash(self, there: PullRequest, title: str, body: str) -> PullRequest:
        asked = {"merge_method": "squash", "sha": there.head_sha, "commit_title": title, "commit_message": body}
        try:
            reply = self._client.send("PUT", f"{self._at}/pulls/{there.number:d}/merge", asked, (200,))
        except ForgeFault as fault:
            if fault.status == 409:
                raise wire.head_moved(there.number, there.url) from fault
            if fault.status == 405:
                raise wire.not_mergeable(there.number, there.url, fault.what) from fault
            raise
        return replace(there, state="merged", merged_as=self._client.read(reply, _Merged).sha)

    def _delete_branch(self, name: str) -> None:
        try:
            self._client.send("DELETE", f"{self._at}/git/refs/heads/{quote(name)}", None, (204,))
        except ForgeFault as fault:
            if fault.status not in (404, 422):
                raise


def _person(user: _User | None) -> str:
    return user.login if user is not None and user.type == "User" else ""


def _verdict(status: str | None, conclusion: str | None) -> tuple[Verdict, str]:
    """Whatever has ended and is not known to be good has failed."""
    if status != "completed":
        return "pending", status or "queued"
    return ("passed" if conclusion in _PASSED else "failed"), conclusion or "without a conclusion"


def _of_workflow(run: _WorkflowRun) -> CheckRun:
    verdict, word = _verdict(run.status, run.conclusion)
    file = run.path.partition("@")[0].rpartition("/")[2]
    name = run.name or file
    return CheckRun(source="workflow", name=name, app=_ACTIONS, verdict=verdict, word=word, id=run.id,
                    at=wire.moment(run.updated_at), workflow=name, file=file, event=run.event, run=str(run.id),
                    url=run.html_url)  # fmt: skip


def _of_check(check: _CheckRun, run: _WorkflowRun | None, number: str) -> CheckRun:
    verdict, word = _verdict(check.status, check.conclusion)
    parent = _of_workflow(run) if run else None
    return CheckRun(
        source="job" if number else "check", name=check.name, app=check.app.slug if check.app else "", verdict=verdict,
        word=word, id=check.id, at=wire.moment(check.started_at, check.completed_at),
        workflow=parent.workflow if parent else "", file=parent.file if parent else "",
        event=parent.event if parent else "", run=number, url=check.html_url or "",
    )  # fmt: skip


def _of_status(status: _Status) -> CheckRun:
    return CheckRun(source="status", name=status.context, app=status.creator.login if status.creator else "",
                    verdict=_STATES.get(status.state, "failed"), word=status.state, id=status.id,
                    at=wire.moment(status.updated_at), url=status.target_url or "")  # fmt: skip


def _request(pull: _Pull) -> PullRequest:
    merged = pull.merged_at is not None
    same = pull.head.repo is not None and pull.base.repo is not None and pull.head.repo.id == pull.base.repo.id
    return PullRequest(
        number=pull.number, state="merged" if merged else "open" if pull.state == "open" else "closed",
        mergeable=pull.mergeable, url=pull.html_url, head=pull.head.ref, base=pull.base.ref, head_sha=pull.head.sha,
        merged_as=pull.merge_commit_sha if merged else None, same_repository=same,
    )  # fmt: skip
