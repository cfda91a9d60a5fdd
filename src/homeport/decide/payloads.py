"""What the payloads of each forge mean: a push, something finished on a commit, a request, or nothing for us.

Every value read from a payload passes a check here first: commits are full hashes, branch and tag names are such as
git allows and cannot be taken for an option, numbers are numbers. Bad is raised for what is not; nothing else is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from homeport.model.forge import Kind, is_commit, is_ref_name

Payload = dict[str, Any]


class Bad(ValueError):
    """A payload that is not what the forge documents; the text is fit for a log."""


class Push(Struct, frozen=True, kw_only=True):
    """A branch or a tag was created, moved or deleted: exactly one of `branch` and `tag` is set."""

    branch: str | None = None
    tag: str | None = None
    before: str | None = None
    """None: it did not exist."""
    after: str | None = None
    """None: it does not exist any more."""

    @property
    def deleted(self) -> bool:
        return self.after is None


class Finished(Struct, frozen=True, kw_only=True):
    """A workflow, job, check or status of this commit ended: time to look at its gate."""

    sha: str
    what: Literal["workflow", "job", "check", "status"]
    name: str = ""


class Requested(Struct, frozen=True, kw_only=True):
    """A pull or merge request was opened, moved, merged or closed."""

    number: int
    action: str
    head: str
    head_sha: str
    base: str
    merged: bool
    fork: bool
    """Its branch lies in another repository (or the payload does not show that it does not)."""


class Ping(Struct, frozen=True, kw_only=True):
    """The hook was set up."""


Subject = Push | Finished | Requested | Ping

_REPOSITORY = re.compile(r"(?:(?:^|/)(?!\.\.?(?:/|$))[A-Za-z0-9_.][A-Za-z0-9_.-]*){2,}", re.ASCII)
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_LAST = {"success", "failed", "canceled", "skipped"}
"""GitLab's words for a pipeline or job that has ended."""


def subject(kind: Kind, event: str, payload: Payload) -> Subject | str:
    """What it says, or why there is nothing to do."""
    read = _READERS[kind].get(event)
    return read(payload) if read is not None else "homeport does not use this event"


def repository(kind: Kind, payload: Payload) -> str:
    """`owner/name`; a ping of a whole organisation has none."""
    if kind == "gitlab":
        project = _table(payload, "project") if "project" in payload else {}
        name = project.get("path_with_namespace", "")
    else:
        name = _table(payload, "repository").get("full_name", "") if "repository" in payload else ""
    if name and not (isinstance(name, str) and len(name) <= 255 and _REPOSITORY.fullmatch(name)):
        raise Bad("the repository's name cannot be one")
    return str(name)


def _push(payload: Payload) -> Subject | str:
    ref = _text(payload, "ref")
    before, after = _moved(payload, "before"), _moved(payload, "after")
    if payload.get("deleted") is True and after is not None:
        raise Bad("it says deleted, and also a new commit")
    if before is None and after is None:
        raise Bad("neither an old nor a new commit")
    for prefix, field in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if ref.startswith(prefix):
            name = _ref_name(ref.removeprefix(prefix))
            return Push(before=before, after=after, **{field: name})
    return "it moves neither a branch nor a tag"


def _gitea_delete(payload: Payload) -> Subject | str:
    """Gitea tells of a deletion in an event of its own, without the commits."""
    name = _ref_name(_text(payload, "ref"))
    if payload.get("ref_type") == "branch":
        return Push(branch=name)
    return Push(tag=name) if payload.get("ref_type") == "tag" else "neither a branch nor a tag was deleted"


def _completed(field: str, what: Literal["workflow", "job", "check"]) -> Callable[[Payload], Subject | str]:
    """For the events of GitHub's shape: `{"action": "completed", FIELD: {"head_sha": ...}}`."""

    def read(payload: Payload) -> Subject | str:
        if _text(payload, "action") != "completed":
            return "it has not ended"
        table = _table(payload, field)
        return Finished(sha=_sha(table, "head_sha"), what=what, name=_label(table.get("name")))

    return read


def _status(payload: Payload) -> Subject | str:
    if _text(payload, "state") == "pending":
        return "it has not ended"
    return Finished(sha=_sha(payload, "sha"), what="status", name=_label(payload.get("context")))


def _pull_request(payload: Payload) -> Subject | str:
    request = _table(payload, "pull_request")
    head, base = _table(request, "head"), _table(request, "base")
    sides = [(side.get("repo") or {}) for side in (head, base)]
    ids = [side.get("id") if isinstance(side, dict) else None for side in sides]
    return Requested(
        number=_number(request, "number"), action=_text(payload, "action"), head=_ref_name(_text(head, "ref")),
        head_sha=_sha(head, "sha"), base=_ref_name(_text(base, "ref")), merged=request.get("merged") is True,
        fork=ids[0] is None or ids[0] != ids[1],
    )  # fmt: skip


def _ping(payload: Payload) -> Subject | str:
    return Ping()


def _pipeline(payload: Payload) -> Subject | str:
    about = _table(payload, "object_attributes")
    if _text(about, "status") not in _LAST:
        return "it has not ended"
    return Finished(sha=_sha(about, "sha"), what="workflow", name=_label(about.get("name")))


def _job(payload: Payload) -> Subject | str:
    if _text(payload, "build_status") not in _LAST:
        return "it has not ended"
    return Finished(sha=_sha(payload, "sha"), what="job", name=_label(payload.get("build_name")))


def _merge_request(payload: Payload) -> Subject | str:
    about = _table(payload, "object_attributes")
    source, target = about.get("source_project_id"), about.get("target_project_id")
    action = about.get("action") or "changed"
    return Requested(
        number=_number(about, "iid"), action=_label(action), head=_ref_name(_text(about, "source_branch")),
        head_sha=_sha(_table(about, "last_commit"), "id"), base=_ref_name(_text(about, "target_branch")),
        merged=about.get("state") == "merged", fork=source is None or source != target,
    )  # fmt: skip


_GITHUB: dict[str, Callable[[Payload], Subject | str]] = {
    "push": _push, "status": _status, "pull_request": _pull_request, "ping": _ping,
    "check_run": _completed("check_run", "check"), "check_suite": _completed("check_suite", "check"),
    "workflow_run": _completed("workflow_run", "workflow"), "workflow_job": _completed("workflow_job", "job"),
}  # fmt: skip
_READERS: dict[Kind, dict[str, Callable[[Payload], Subject | str]]] = {
    "github": _GITHUB,
    "gitea": {**_GITHUB, "delete": _gitea_delete},
    "gitlab": {"Push Hook": _push, "Tag Push Hook": _push, "Pipeline Hook": _pipeline, "Job Hook": _job,
               "Merge Request Hook": _merge_request},
}  # fmt: skip


def _table(payload: Payload, key: str) -> Payload:
    value = payload.get(key)
    if not isinstance(value, dict):
        raise Bad(f"`{key}` is no object")
    return value


def _text(payload: Payload, key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str):
        raise Bad(f"`{key}` is no text")
    return value


def _number(payload: Payload, key: str) -> int:
    value = payload.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**53:
        raise Bad(f"`{key}` is no number of a request")
    return value


def _sha(payload: Payload, key: str) -> str:
    value = _text(payload, key)
    if not is_commit(value):
        raise Bad(f"`{key}` is no commit")
    return value


def _moved(payload: Payload, key: str) -> str | None:
    """A commit, or None for all zeros: no commit on this side."""
    value = _text(payload, key)
    return None if len(value) in (40, 64) and not value.strip("0") else _sha(payload, key)


def _ref_name(name: str) -> str:
    if not is_ref_name(name):
        raise Bad("the name of a branch or tag is one that git does not allow, or could be taken for an option")
    return name


def _label(value: object) -> str:
    """A name for people only, without control characters; `""` for what is none."""
    text = value if isinstance(value, str) else ""
    return "".join(letter for letter in text[:200] if unicodedata.category(letter) not in _UNSEEN)
