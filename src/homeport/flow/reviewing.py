"""Whether a second person stood for what a deploy brings (`effect = "review"`): on the forge, or by a word at the host.

What came by the environment's branch is looked at commit by commit, as it came there: the forge is asked which merged
request brought it, and who besides its author approved or merged that. Without an answer it does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import get_args

from msgspec.structs import replace

from homeport.decide.policy import NAMED, Judge
from homeport.flow.guarding import GOES_BY_BRANCH, newest_commit
from homeport.flow.site import Site
from homeport.flow.work import Tools, Work
from homeport.model.config import Deeds
from homeport.model.errors import Cancelled, HomeportError
from homeport.model.forge import Forge, GoOn
from homeport.model.paths import printable
from homeport.model.rules import Deed

MOST = 200
"""Commits that are looked at for one deed; more are too many to be vouched for."""
HISTORY = 200
"""Deploys among which the one is searched that another person asked for."""


def seconded(work: Work, tools: Tools) -> frozenset[str]:
    """The rules whose review is lifted by the word of a second person: somebody else asked for this very commit before,
    and was stopped for the lack of a review. Never one's own word, an agent's or a trigger's."""
    request, sha = work.deploy.request, work.sha
    if request.actor != "person" or request.kind not in GOES_BY_BRANCH or not request.confirmed or sha is None:
        return frozenset()
    asked = {row.request.asker.lower() for row in tools.site.store.history(HISTORY)
             if row.sha == sha and row.error_code == "review" and row.request.actor != "trigger" and row.request.asker
             and row.id != work.deploy.id}  # fmt: skip
    return frozenset(one.rule for one in request.confirmed if asked - {one.by.lower(), request.asker.lower()})


def looked_at(work: Work, tools: Tools, judge: Judge, deeds: Iterable[Deed]) -> list[Deed]:
    """The deeds; of what came by the branch, and a rule wants reviewed, only what a second person stood for counts so."""
    deeds = list(deeds)
    if work.deploy.request.kind not in GOES_BY_BRANCH or work.sha is None:
        return deeds
    wanted = {action for action in get_args(Deeds) if judge.asks(action, "review")}
    doubtful = {deed for deed in deeds if deed.reviewed and deed.action in wanted
                and judge.says(replace(deed, reviewed=False)).effect == "review"}  # fmt: skip
    if not doubtful:
        return deeds
    looking = _Looking(tools.site, work.sha, partial(tools.shell.go_on, "who reviewed it"))
    try:
        lacking = {deed: looking.lacking(deed) for deed in doubtful}
    finally:
        looking.close()
    idle = {one.rule: one.by for one in work.deploy.request.confirmed} if work.deploy.request.actor == "person" else {}
    if idle:
        counting = seconded(work, tools)
        for deed, why in lacking.items():
            rule = judge.says(replace(deed, reviewed=False)).rule
            if why and rule is not None and rule.id in idle and rule.id not in counting:
                lacking[deed] = f"{why}; the word of {printable(idle[rule.id])} counts once somebody else asked for it"
    return [replace(deed, reviewed=False, lacking=lacking[deed]) if lacking.get(deed) else deed for deed in deeds]


_known: set[tuple[str, str, str]] = set()
"""(mirror, branch, commit) of what somebody stood for: that does not change any more."""


class _Looking:
    """One look at the commits of a deploy; each is asked about once."""

    def __init__(self, site: Site, sha: str, go_on: GoOn) -> None:
        self._site, self._sha, self._go_on = site, sha, go_on
        self._opened: list[Forge] = []
        self._forge = cache(self._connected)
        self._why = cache(self._asked)
        self._paths = cache(self._changed)

    def close(self) -> None:
        for forge in self._opened:
            forge.close()

    def lacking(self, deed: Deed) -> str:
        """Why nobody stood for it; empty when somebody did, or nothing about it came."""
        since = deed.since if deed.since is not None and self._site.git.has(deed.since) else None
        came = self._site.git.arrivals(since, self._sha, MOST + 1)
        if len(came) > MOST:
            return f"more than {MOST} commits came since, too many to look at"
        for commit, parent in came:
            if deed.action in NAMED or deed.subject in self._paths(commit, parent):
                why = self._why(commit)
                if why:
                    return why
        return ""

    def _changed(self, commit: str, parent: str | None) -> frozenset[str]:
        return frozenset(printable(change.path) for change in self._site.git.changes(parent, commit))

    def _asked(self, commit: str) -> str:
        key = (self._site.git.path, self._site.env.branch, commit)
        if key in _known:
            return ""
        try:
            forge = self._forge()
            if forge is None:
                return f"no forge can be asked who looked at {commit[:12]}"
            found = [one for one in forge.reviews(commit) if one.base == self._site.env.branch]
        except Cancelled:
            raise
        except HomeportError as fault:
            return f"who looked at {commit[:12]} cannot be asked: {fault.what}"
        if any(one.by for one in found):
            _known.add(key)
            return ""
        if found:
            one, author = found[0], printable(found[0].author) or "its author"
            return f"nobody but {author} stood for request {one.number}: {printable(one.url)}"
        return f"{commit[:12]} came to branch {self._site.env.branch} without a request"

    def _connected(self) -> Forge | None:
        """The forge of the deployed configuration: a commit does not say who vouches for it."""
        site, sha = self._site, newest_commit(self._site)
        raw = site.git.file_at(sha, "homeport.toml") if sha is not None and site.git.has(sha) else None
        forge = site.forge(site.load_config(raw, f"{(sha or '')[:12]}:homeport.toml")) if raw is not None else None
        if forge is not None:
            forge.attend(self._go_on)
            self._opened.append(forge)
        return forge
