"""GitHub, Gitea and GitLab as far as homeport talks to them: requests, merging, branches, statuses, checks."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from .schema import filled, stored
from .server import Answer, Fake, Seen

TOKEN = "t0ken-that-nobody-may-see"
SHA = "a" * 40
OTHER = "b" * 40
MERGED = "c" * 40
_USER = {"id": 7, "name": "", "username": "", "state": "active", "avatar_url": "", "web_url": ""}


class Pulls(Fake):
    """What the three have in common: requests in one plain form, and branches."""

    def __init__(self) -> None:
        super().__init__()
        self.pulls: list[dict[str, Any]] = []
        self.branches: set[str] = set()
        self.statuses: list[dict[str, Any]] = []
        self.refuse_merge: int = 0
        """A status to answer merges with."""
        self.merge_message = ""
        self.mergeable: bool | None = True
        self.reviews: dict[int, list[dict[str, Any]]] = {}
        """What was said of a request, the oldest first: by, says, of (a commit)."""

    def looked_at(self, number: int, by: str, says: str = "approved", of: str = SHA, **more: Any) -> None:
        self.reviews.setdefault(number, []).append({"by": by, "says": says, "of": of, **more})

    def brought(self, sha: str) -> list[dict[str, Any]]:
        """The requests that a commit belongs to."""
        return [one for one in self.pulls if sha in (one["sha"], MERGED if one["state"] == "merged" else "")]

    def add_pull(self, head: str = "homeport/adopt-1", base: str = "main", sha: str = SHA, *, state: str = "open",
                 fork: bool = False, author: str = "ann", merger: str = "ann") -> int:  # fmt: skip
        number = len(self.pulls) + 1
        self.pulls.append({"number": number, "head": head, "base": base, "sha": sha, "state": state, "fork": fork,
                           "author": author, "merger": merger})  # fmt: skip
        if not fork:
            self.branches.add(head)
        return number

    def opened(self) -> list[dict[str, Any]]:
        """The open ones, the newest first."""
        return [one for one in reversed(self.pulls) if one["state"] == "open"]

    def pull(self, number: str) -> dict[str, Any]:
        return self.pulls[int(number) - 1]

    def open_between(self, head: str, base: str) -> bool:
        return any((one["head"], one["base"], one["state"]) == (head, base, "open") for one in self.pulls)

    def merge_now(self, number: str, sha: str | None) -> int:
        """The status of an attempt to merge."""
        pull = self.pull(number)
        if self.refuse_merge:
            return self.refuse_merge
        if pull["sha"] != sha:
            return 409
        pull["state"] = "merged"
        return 200


class GitHubFake(Pulls):
    kind = "github"
    auth = ("Authorization", f"Bearer {TOKEN}")

    def __init__(self) -> None:
        super().__init__()
        self.book = stored("schemas/github")
        self.runs: list[dict[str, Any]] = []
        self.check_runs: list[dict[str, Any]] = []
        at = "/api/v3/repos/octo/shop"
        self.routes = [
            ("GET", f"{at}/pulls", self.list_pulls),
            ("POST", f"{at}/pulls", self.new_pull),
            ("GET", rf"{at}/pulls/(\d+)", self.one_pull),
            ("PUT", rf"{at}/pulls/(\d+)/merge", self.merge),
            ("DELETE", f"{at}/git/refs/heads/(.+)", self.delete_branch),
            ("GET", f"{at}/commits/([0-9a-f]+)/pulls", self.list_brought),
            ("GET", rf"{at}/pulls/(\d+)/reviews", self.list_reviews),
            ("GET", f"{at}/commits/([0-9a-f]+)/check-runs", self.list_checks),
            ("GET", f"{at}/commits/([0-9a-f]+)/statuses", self.list_statuses),
            ("POST", f"{at}/statuses/([0-9a-f]+)", self.new_status),
            ("GET", f"{at}/actions/runs", self.list_runs),
        ]

    def operation(self, name: str) -> dict[str, Any]:
        return dict(self.book["operations"][name])

    def example(self, name: str) -> Any:
        return deepcopy(self.book["examples"][name])

    def full(self, pull: dict[str, Any], *, listed: bool = False) -> dict[str, Any]:
        base = self.example("GET /repos/{owner}/{repo}/pulls/{pull_number}")
        base = self.example("GET /repos/{owner}/{repo}/pulls")[0] if listed else base
        base.update(number=pull["number"], state="open" if pull["state"] == "open" else "closed",
                    merged_at="2026-01-02T03:04:05Z" if pull["state"] == "merged" else None,
                    merge_commit_sha=MERGED, html_url=f"https://github.com/octo/shop/pull/{pull['number']}")  # fmt: skip
        base["head"].update(ref=pull["head"], sha=pull["sha"])
        base["base"].update(ref=pull["base"])
        if pull["fork"]:
            base["head"]["repo"]["id"] = 99
        base["user"].update(login=pull["author"])
        if not listed:
            base.update(merged=pull["state"] == "merged", mergeable=self.mergeable)
            kind = "Bot" if pull["merger"].endswith("[bot]") else "User"
            base["merged_by"] = {**base["user"], "login": pull["merger"], "type": kind}
        return dict(base)

    def list_brought(self, seen: Seen, sha: str) -> Answer:
        schema = self.operation("GET /repos/{owner}/{repo}/commits/{commit_sha}/pulls")["response"]
        return self.paged(seen, [self.full(one, listed=True) for one in self.brought(sha)],
                          lambda page: self.answered(schema, page))  # fmt: skip

    def list_reviews(self, seen: Seen, number: str) -> Answer:
        name = "GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews"
        found = []
        for said in self.reviews.get(int(number), []):
            review = self.example(name)[0]
            word = {"refused": "CHANGES_REQUESTED"}.get(said["says"], said["says"].upper())
            review.update(state=word, commit_id=said["of"])
            review["user"].update(login=said["by"], type="Bot" if said["by"].endswith("[bot]") else "User")
            found.append(review)
        return self.paged(seen, found, lambda page: self.answered(self.operation(name)["response"], page))

    def list_pulls(self, seen: Seen) -> Answer:
        operation = self.operation("GET /repos/{owner}/{repo}/pulls")
        for name, value in seen.query.items():
            fitting = int(value) if operation["query"][name].get("type") == "integer" else value
            self.asked({"properties": {name: operation["query"][name]}}, {name: fitting})
        head = seen.query.get("head", "")
        assert head.startswith("octo:") or not head
        found = [one for one in self.opened() if one["base"] == seen.query["base"]
                 and head.removeprefix("octo:") in (one["head"], "")]  # fmt: skip
        wrap = lambda page: self.answered(operation["response"], page)  # noqa: E731
        return self.paged(seen, [self.full(one, listed=True) for one in found], wrap)

    def new_pull(self, seen: Seen) -> Answer:
        operation = self.operation("POST /repos/{owner}/{repo}/pulls")
        self.asked(operation["request"], seen.body)
        head, base = seen.body["head"], seen.body["base"]
        if self.open_between(head, base):
            error = {"message": f"A pull request already exists for octo:{head}."}
            return Answer(422, {"message": "Validation Failed", "errors": [error]})
        if head not in self.branches:
            error = {"message": f"No commits between {base} and {head}"}
            return Answer(422, {"message": "Validation Failed", "errors": [error]})
        return Answer(201, self.answered(operation["response"], self.full(self.pull(str(self.add_pull(head, base))))))

    def one_pull(self, seen: Seen, number: str) -> Answer:
        schema = self.operation("GET /repos/{owner}/{repo}/pulls/{pull_number}")["response"]
        return Answer(200, self.answered(schema, self.full(self.pull(number))))

    def merge(self, seen: Seen, number: str) -> Answer:
        operation = self.operation("PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge")
        self.asked(operation["request"], seen.body)
        assert seen.body["merge_method"] == "squash"
        status = self.merge_now(number, seen.body["sha"])
        if status != 200:
            return Answer(status, {"message": "Pull Request is not mergeable"})
        done = {"sha": MERGED, "merged": True, "message": "Pull Request successfully merged"}
        return Answer(200, self.answered(operation["response"], done))

    def delete_branch(self, seen: Seen, name: str) -> Answer:
        if name not in self.branches:
            return Answer(422, {"message": "Reference does not exist"})
        self.branches.discard(name)
        return Answer(204)

    def add_run(self, name: str, conclusion: str | None, *, sha: str = SHA, id: int = 0, event: str = "push",
                fork: bool = False) -> int:  # fmt: skip
        run = self.example("GET /repos/{owner}/{repo}/actions/runs")["workflow_runs"][0]
        status = "completed" if conclusion else "in_progress"
        run.update(id=id or 1000 + len(self.runs), name=name, head_sha=sha, event=event, conclusion=conclusion,
                   status=status, path=f".github/workflows/{name.lower()}.yml")  # fmt: skip
        run["head_repository"] = {**run["head_repository"], "id": 77 if fork else run["repository"]["id"]}
        self.runs.append(run)
        return int(run["id"])

    def add_check(self, name: str, conclusion: str | None, *, run: int = 0, app: str = "github-actions",
                  sha: str = SHA) -> None:  # fmt: skip
        check = self.example("GET /repos/{owner}/{repo}/commits/{ref}/check-runs")["check_runs"][0]
        url = f"https://github.com/octo/shop/actions/runs/{run}/job/1" if run else "https://example.com"
        check.update(id=5000 + len(self.check_runs), name=name, head_sha=sha, conclusion=conclusion,
                     status="completed" if conclusion else "queued", details_url=url)  # fmt: skip
        check["app"]["slug"] = app
        self.check_runs.append(check)

    def add_status(self, name: str, state: str, *, by: str = "octocat", **_: object) -> None:
        status = self.example("GET /repos/{owner}/{repo}/commits/{ref}/statuses")[0]
        status.update(id=9000 + len(self.statuses), context=name, state=state)
        status["creator"]["login"] = by
        self.statuses.insert(0, status)

    def list_runs(self, seen: Seen) -> Answer:
        schema = self.operation("GET /repos/{owner}/{repo}/actions/runs")["response"]
        runs = [run for run in self.runs if run["head_sha"] == seen.query["head_sha"]]
        wrap = lambda page: self.answered(schema, {"total_count": len(runs), "workflow_runs": page})  # noqa: E731
        return self.paged(seen, runs, wrap)

    def list_checks(self, seen: Seen, sha: str) -> Answer:
        operation = self.operation("GET /repos/{owner}/{repo}/commits/{ref}/check-runs")
        assert set(seen.query) <= {*operation["query"], "page"}
        runs = [run for run in self.check_runs if run["head_sha"] == sha]
        wrap = lambda page: self.answered(operation["response"], {"total_count": len(runs), "check_runs": page})  # noqa: E731
        return self.paged(seen, runs, wrap)

    def list_statuses(self, seen: Seen, sha: str) -> Answer:
        schema = self.operation("GET /repos/{owner}/{repo}/commits/{ref}/statuses")["response"]
        return self.paged(seen, self.statuses, lambda page: self.answered(schema, page))

    def new_status(self, seen: Seen, sha: str) -> Answer:
        operation = self.operation("POST /repos/{owner}/{repo}/statuses/{sha}")
        self.asked(operation["request"], seen.body)
        self.add_status(seen.body["context"], seen.body["state"])
        return Answer(201, self.answered(operation["response"], self.statuses[0]))


class GiteaFake(Pulls):
    kind = "gitea"
    auth = ("Authorization", f"token {TOKEN}")

    def __init__(self) -> None:
        super().__init__()
        self.book = stored("schemas/gitea")["wanted"]
        at = "/api/v1/repos/octo/shop"
        self.routes = [
            ("GET", f"{at}/pulls", self.list_pulls),
            ("POST", f"{at}/pulls", self.new_pull),
            ("GET", rf"{at}/pulls/(\d+)", self.one_pull),
            ("POST", rf"{at}/pulls/(\d+)/merge", self.merge),
            ("GET", f"{at}/commits/([0-9a-f]+)/pull", self.one_brought),
            ("GET", rf"{at}/pulls/(\d+)/reviews", self.list_reviews),
            ("DELETE", f"{at}/branches/(.+)", self.delete_branch),
            ("GET", f"{at}/commits/([0-9a-f]+)/statuses", self.list_statuses),
            ("POST", f"{at}/statuses/([0-9a-f]+)", self.new_status),
        ]

    def full(self, pull: dict[str, Any]) -> dict[str, Any]:
        merged = pull["state"] == "merged"
        given = {
            "number": pull["number"], "state": "open" if pull["state"] == "open" else "closed", "merged": merged,
            "mergeable": bool(self.mergeable), "html_url": f"https://git.example.com/octo/shop/pulls/{pull['number']}",
            "head": {"ref": pull["head"], "sha": pull["sha"], "repo_id": 9 if pull["fork"] else 1},
            "base": {"ref": pull["base"], "sha": OTHER, "repo_id": 1},
            "user": {"login": pull["author"]},
            **({"merge_commit_sha": MERGED, "merged_by": {"login": pull["merger"]}} if merged else {}),
        }  # fmt: skip
        return filled("gitea", self.book["pull"], given)

    def one_brought(self, seen: Seen, sha: str) -> Answer:
        found = [one for one in self.brought(sha) if one["state"] == "merged"]
        return Answer(200, self.full(found[0])) if found else Answer(404, {"message": "pull request does not exist"})

    def list_reviews(self, seen: Seen, number: str) -> Answer:
        words = {"approved": "APPROVED", "refused": "REQUEST_CHANGES", "commented": "COMMENT", "dismissed": "APPROVED"}
        return self.paged(seen, [filled("gitea", self.book["review"], {
            "state": words[said["says"]], "user": {"login": said["by"]}, "commit_id": said["of"],
            "dismissed": said["says"] == "dismissed", "stale": said["of"] != self.pull(number)["sha"],
        }) for said in self.reviews.get(int(number), [])])  # fmt: skip

    def list_pulls(self, seen: Seen) -> Answer:
        assert seen.query["state"] == "open" and seen.query["sort"] == "recentupdate"
        assert set(seen.query) <= {"state", "sort", "limit", "page"}
        return self.paged(seen, [self.full(one) for one in self.opened()])

    def new_pull(self, seen: Seen) -> Answer:
        self.asked(self.book["new_pull"], seen.body)
        head, base = seen.body["head"], seen.body["base"]
        if self.open_between(head, base):
            return Answer(409, {"message": "pull request already exists for these targets"})
        if head not in self.branches:
            return Answer(422, {"message": "There are no changes between the head and the base"})
        return Answer(201, self.full(self.pull(str(self.add_pull(head, base)))))

    def one_pull(self, seen: Seen, number: str) -> Answer:
        return Answer(200, self.full(self.pull(number)))

    def merge(self, seen: Seen, number: str) -> Answer:
        self.asked(self.book["merge"], seen.body)
        assert seen.body["Do"] == "squash"
        status = self.merge_now(number, seen.body["head_commit_id"])
        if status == 200:
            return Answer(200, b"")
        said = "head out of date" if status == 409 else "Please try again later"
        return Answer(status, {"message": self.merge_message or said})

    def delete_branch(self, seen: Seen, name: str) -> Answer:
        if name not in self.branches:
            return Answer(404, {"message": "branch does not exist"})
        self.branches.discard(name)
        return Answer(204)

    def add_status(self, name: str, state: str, *, by: str = "octocat", url: str = "https://example.com") -> None:
        given = {"id": 1 + len(self.statuses), "context": name, "status": state, "target_url": url,
                 "creator": {"login": by}, "updated_at": "2026-01-02T03:04:05+01:00"}  # fmt: skip
        self.statuses.insert(0, filled("gitea", self.book["status"], given))

    def list_statuses(self, seen: Seen, sha: str) -> Answer:
        return self.paged(seen, self.statuses)

    def new_status(self, seen: Seen, sha: str) -> Answer:
        self.asked(self.book["new_status"], seen.body)
        self.add_status(seen.body["context"], seen.body["state"])
        return Answer(201, self.statuses[0])


class GitLabFake(Pulls):
    kind = "gitlab"
    auth = ("PRIVATE-TOKEN", TOKEN)

    def __init__(self) -> None:
        super().__init__()
        self.book = stored("schemas/gitlab")["wanted"]
        self.pipelines: list[dict[str, Any]] = []
        at = "/api/v4/projects/octo/shop"
        self.routes = [
            ("GET", f"{at}/merge_requests", self.list_requests),
            ("POST", f"{at}/merge_requests", self.new_request),
            ("GET", rf"{at}/merge_requests/(\d+)", self.one_request),
            ("PUT", rf"{at}/merge_requests/(\d+)/merge", self.merge),
            ("GET", rf"{at}/merge_requests/(\d+)/approvals", self.approvals),
            ("GET", f"{at}/repository/commits/([0-9a-f]+)/merge_requests", self.list_brought),
            ("GET", f"{at}/pipelines", self.list_pipelines),
            ("GET", f"{at}/repository/commits/([0-9a-f]+)/statuses", self.list_statuses),
            ("POST", f"{at}/statuses/([0-9a-f]+)", self.new_status),
        ]

    def answer(self, seen: Seen) -> Answer:
        assert "/projects/octo%2Fshop/" in seen.path, seen.path
        return super().answer(seen)

    def full(self, pull: dict[str, Any], kind: str = "merge_request") -> dict[str, Any]:
        merged = pull["state"] == "merged"
        word = {True: "mergeable", False: "ci_must_pass", None: "checking"}[self.mergeable]
        given = {
            "iid": pull["number"], "state": {"open": "opened"}.get(pull["state"], pull["state"]), "sha": pull["sha"],
            "source_branch": pull["head"], "target_branch": pull["base"], "detailed_merge_status": word,
            "source_project_id": 9 if pull["fork"] else 1, "target_project_id": 1,
            "web_url": f"https://gitlab.com/octo/shop/-/merge_requests/{pull['number']}",
            "merge_commit_sha": None, "squash_commit_sha": MERGED if merged else None,
            "author": {"username": pull["author"]},
            "merged_by": _USER | {"username": pull["merger"]} if merged else None,
        }  # fmt: skip
        return filled("gitlab", self.book[kind], given)

    def list_brought(self, seen: Seen, sha: str) -> Answer:
        return self.paged(seen, [self.full(one, "listed_merge_request") for one in self.brought(sha)])

    def approvals(self, seen: Seen, number: str) -> Answer:
        """GitLab takes an approval back where the project says so; what it lists stands."""
        said = {one["by"]: one for one in self.reviews.get(int(number), [])}
        standing = [{"user": _USER | {"username": by}} for by, one in said.items()
                    if one["says"] == "approved" and one["of"] == self.pull(number)["sha"]]  # fmt: skip
        return Answer(200, filled("gitlab", self.book["approvals"], {"iid": int(number), "approved_by": standing}))

    def list_requests(self, seen: Seen) -> Answer:
        documented = {"state", "source_branch", "target_branch", "order_by", "sort", "per_page", "page"}
        assert seen.query["state"] == "opened" and set(seen.query) <= documented
        assert seen.query.get("order_by", "updated_at") in ("created_at", "title", "updated_at")
        found = [one for one in self.opened() if one["base"] == seen.query["target_branch"]
                 and one["head"] == seen.query.get("source_branch", one["head"])]  # fmt: skip
        return self.paged(seen, [self.full(one, "listed_merge_request") for one in found])

    def new_request(self, seen: Seen) -> Answer:
        documented = {"source_branch", "target_branch", "title", "description", "squash", "remove_source_branch"}
        assert set(seen.body) <= documented
        head, base = seen.body["source_branch"], seen.body["target_branch"]
        if self.open_between(head, base):
            return Answer(409, {"message": ["Another open merge request already exists for this source branch: !1"]})
        return Answer(201, self.full(self.pull(str(self.add_pull(head, base)))))

    def one_request(self, seen: Seen, number: str) -> Answer:
        return Answer(200, self.full(self.pull(number)))

    def merge(self, seen: Seen, number: str) -> Answer:
        assert set(seen.body) <= {"sha", "squash", "squash_commit_message", "should_remove_source_branch"}
        assert seen.body["squash"] is True
        status = self.merge_now(number, seen.body["sha"])
        if status != 200:
            return Answer(status, {"message": "405 Method Not Allowed"})
        if seen.body["should_remove_source_branch"]:
            self.branches.discard(self.pull(number)["head"])
        return Answer(200, self.full(self.pull(number)))

    def add_pipeline(self, status: str, *, id: int = 0, source: str = "push", sha: str = SHA, name: str = "") -> int:
        given = {"id": id or 100 + len(self.pipelines), "sha": sha, "ref": "main", "status": status, "source": source,
                 "updated_at": "2026-01-02T03:04:05.678Z", **({"name": name} if name else {})}  # fmt: skip
        self.pipelines.insert(0, filled("gitlab", self.book["pipeline"], given))
        return int(given["id"])

    def add_status(self, name: str, state: str, *, by: str = "octocat", pipeline: int = 0, allow: bool = False) -> None:
        given = {"id": 1 + len(self.statuses), "sha": SHA, "name": name, "status": "pending", "allow_failure": allow,
                 "author": {"username": by}, **({"pipeline_id": pipeline} if pipeline else {})}  # fmt: skip
        # The published type lists only the states that can be written; reading shows jobs in other ones too.
        self.statuses.insert(0, {**filled("gitlab", self.book["status"], given), "status": state, "target_url": None})

    def list_pipelines(self, seen: Seen) -> Answer:
        return self.paged(seen, [one for one in self.pipelines if one["sha"] == seen.query["sha"]])

    def list_statuses(self, seen: Seen, sha: str) -> Answer:
        return self.paged(seen, self.statuses)

    def new_status(self, seen: Seen, sha: str) -> Answer:
        assert set(seen.body) <= {"state", "name", "description", "target_url"}
        if any(one["name"] == seen.body["name"] and one["status"] == seen.body["state"] for one in self.statuses):
            return Answer(400, {"message": "Cannot transition status via :run from :running (Reason(s): ...)"})
        self.add_status(seen.body["name"], seen.body["state"])
        return Answer(201, self.statuses[0])
