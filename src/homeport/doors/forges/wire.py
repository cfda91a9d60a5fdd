"""What the three forges' answers have in common: moments, names in paths, and what may be asked at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from urllib.parse import quote

from homeport.model.errors import Refused, UsageFault
from homeport.model.forge import NewRequest, Reviewed, is_commit, is_ref_name

STATUS_TEXT = 140
"""Characters of a status description; GitHub refuses more."""
LISTED, LISTED_PAGES = 20, 3
"""Open requests of one page, so that the page can be kept for its ETag, and pages that are read."""


def moment(*texts: str | None) -> float:
    """The latest of some ISO 8601 times, as Unix time; 0 when there is none."""
    found = [0.0]
    for text in texts:
        try:
            found.append(datetime.fromisoformat(text).timestamp() if text else 0.0)
        except (ValueError, OverflowError):
            continue
    return max(found)


def commit(sha: str) -> str:
    if not is_commit(sha):
        raise UsageFault("that is no full commit id", where=sha[:80], next="give all 40 digits", code="no-commit")
    return sha


def branch(name: str) -> str:
    if not is_ref_name(name):
        raise UsageFault("that cannot be the name of a branch", where=repr(name[:80]), code="no-branch",
                         next="homeport adopt --branch NAME")  # fmt: skip
    return name


def escaped(name: str) -> str:
    """One segment of a path, or several: slashes are escaped too."""
    return quote(name, safe="")


def asked(request: NewRequest) -> NewRequest:
    """Raises UsageFault for what cannot become a request."""
    branch(request.head), branch(request.base)
    if request.head == request.base or not request.title.strip():
        raise UsageFault("a request needs a title and two different branches",
                         where=f"{request.head} into {request.base}", code="no-request",
                         next="homeport adopt --branch NAME --message TEXT")  # fmt: skip
    return request


def others(author: str, names: Iterable[str]) -> tuple[str, ...]:
    """Who is not the author, each once; names of forges are the same in capitals."""
    found = {name.lower(): name for name in names if name and name.lower() != author.lower()}
    return tuple(found.values())


def reviewed(number: int, url: str, base: str, author: str, said: Mapping[str, bool], merger: str) -> Reviewed:
    """Who stood for a request besides its author: whose last word was an approval of what was merged, and who merged it.
    Nobody where the author is not known."""
    names = [*(name for name, approved in said.items() if approved), merger]
    return Reviewed(number=number, url=url, base=base, author=author, by=others(author, names) if author else ())


def one_line(text: str) -> str:
    return " ".join(text.split())[:STATUS_TEXT]


def head_moved(number: int, url: str) -> Refused:
    return Refused(f"request {number} got new commits since it was looked at", where=url,
                   next="look at it again, then merge", code="head-moved")  # fmt: skip


def not_mergeable(number: int, url: str, said: str) -> Refused:
    return Refused(f"request {number} cannot be merged now: {said}", where=url,
                   next="see what its page says is missing", code="not-mergeable")  # fmt: skip


def request_closed(number: int, url: str) -> Refused:
    return Refused(f"request {number} was closed without being merged", where=url,
                   next="open it again on its page, or make a new one", code="request-closed")  # fmt: skip


def nothing_to_merge(request: NewRequest) -> Refused:
    return Refused("there is nothing to merge", where=f"{request.head} into {request.base}",
                   next="push a commit to the branch first", code="nothing-to-merge")  # fmt: skip
