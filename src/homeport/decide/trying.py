"""What runs as a try, who may not be overwritten, and what a try would take away. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from homeport.model.config import Config
from homeport.model.deploys import ServiceRecord, TryMark
from homeport.model.live import TreeChange
from homeport.model.paths import printable, within
from homeport.model.patterns import Matcher, effective_protect
from homeport.model.trying import Reverted

SHOWN = 8
"""Commits or paths that a message names."""


def mark(before: TryMark | None, deploy: str, by: str, author: str, base: str | None, now: str, lasting: float) -> TryMark:
    """The mark of a try that just went live; a row of tries by one person began with the first of them."""
    until = datetime.fromisoformat(now) + timedelta(seconds=lasting)
    same = before is not None and before.by == by and before.author == author
    return TryMark(deploy=deploy, by=by, author=author, base=base, since=before.since if before and same else now,
                   until=until.isoformat(timespec="milliseconds").replace("+00:00", "Z"))  # fmt: skip


def holds(tried: TryMark, now: str) -> bool:
    """Whether the pipeline still leaves it alone."""
    return datetime.fromisoformat(now) < datetime.fromisoformat(tried.until)


def live(records: Iterable[ServiceRecord], now: str, warning: float) -> list[dict[str, Any]]:
    """The tries that run, as `status` shows them: one row for each commit, its services in order."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        tried = record.tried
        if tried is None or record.sha is None:
            continue
        limit = datetime.fromisoformat(now) - timedelta(seconds=warning)
        row = rows.setdefault(record.sha, {
            "sha": record.sha, "deployId": tried.deploy, "who": tried.by, "author": tried.author, "since": tried.since,
            "until": tried.until, "services": [], "branch": tried.branch, "request": tried.request,
            "expired": not holds(tried, now), "old": datetime.fromisoformat(tried.since) <= limit,
        })  # fmt: skip
        row["services"].append(record.service)
    return list(rows.values())


def in_folder(changes: Iterable[TreeChange], folder: str) -> list[TreeChange]:
    """Those below a source folder; all of them for the whole checkout."""
    return [c for c in changes if within(c.path, folder)]


def contained(tried: Sequence[TreeChange], differing: Collection[str], brought: Mapping[str, frozenset[str]]) -> bool:
    """Whether a commit has what was tried: each path as in the try, or given that content on the way to the commit.

    `differing` are the paths at which the commit is not as the try, `brought` the contents it passed on its way.
    """
    return all(c.path not in differing or (c.after is not None and c.after.oid in brought.get(c.path, ())) for c in tried)


def whose(tried: TryMark) -> str:
    """For messages."""
    name = tried.author.partition("<")[0].strip()
    return f"{name} ({tried.by})" if name and name != tried.by else tried.by


def told(reverted: Sequence[Reverted], subjects: Mapping[str, str]) -> str:
    """What a try would take away, in words for a person who has to decide."""
    lines = []
    for one in reverted:
        lines.append(f"{one.service} runs {one.deployed[:12]}, which your checkout lacks; the try would take away:")
        lines += [f"  {sha[:12]} {printable(subjects.get(sha, ''))}" for sha in one.commits[:SHOWN]]
        lines += [f"  and {len(one.commits) - SHOWN} commits more"] if len(one.commits) > SHOWN else []
        lines += [f"  {printable(path)}" for path in one.paths[:SHOWN]]
        lines += [f"  and {len(one.paths) - SHOWN} paths more"] if len(one.paths) > SHOWN else []
    return "\n".join(lines)


class Hidden:
    """Whether an untracked path of the checkout is protected, wherever it lies."""

    def __init__(self, config: Config) -> None:
        project = config.project
        everywhere = effective_protect(project.protect, (), project.unprotect, ())
        self._everywhere = Matcher(everywhere, dir_only_matches_files=True)
        self._below = [
            ((service.source or "").strip("/"), Matcher(
                effective_protect(project.protect, service.protect, [*project.unprotect, *service.unprotect], ()),
                dir_only_matches_files=True))
            for service in config.services.values() if service.source not in (None, ".", "")
        ]  # fmt: skip

    def __call__(self, path: str) -> bool:
        inside = [(folder, matcher) for folder, matcher in self._below if path.startswith(folder + "/")]
        if not inside:
            return self._everywhere.match(path)
        return all(matcher.match(path[len(folder) + 1 :]) for folder, matcher in inside)
