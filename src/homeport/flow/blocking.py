"""Blocks (a commit that nothing deploys, D16) and holds (triggers are paused, D15)."""

from __future__ import annotations

from datetime import datetime, timedelta

from homeport.flow.site import Site
from homeport.model.deploys import Block, Hold
from homeport.model.errors import Refused


def commit_named(site: Site, ref: str) -> str:
    """A branch, tag or id as a full commit id; the origin is asked when the mirror does not know it yet."""
    try:
        return site.git.resolve(ref)
    except Refused:
        site.git.fetch()
        return site.git.resolve(ref)


def block(site: Site, sha: str, because: str, by: str) -> str:
    """Blocks a commit; returns its full id."""
    full = commit_named(site, sha)
    site.store.block(Block(sha=full, because=because, by=by, at=site.clock.now()))
    site.store.audit(by, "block", f"{full} {because}")
    return full


def unblock(site: Site, sha: str, by: str) -> str:
    """Raises Refused when it is not blocked."""
    found = [b.sha for b in site.store.blocks() if b.sha.startswith(sha)]
    full = found[0] if len(found) == 1 else site.git.resolve(sha)
    if not site.store.unblock(full):
        raise Refused(f"{full[:12]} is not blocked", next="homeport status", code="not-blocked")
    site.store.audit(by, "unblock", full)
    return full


def a_hold(site: Site, because: str, by: str, deploy: str | None = None, seconds: float | None = None) -> Hold:
    """A hold from now on, for as long as the environment's `hold_ttl` unless told otherwise."""
    now = site.clock.now()
    lasting = float(site.env.hold_ttl) if seconds is None else seconds
    until = datetime.fromisoformat(now) + timedelta(seconds=lasting)
    written = until.strftime("%Y-%m-%dT%H:%M:%S.") + f"{until.microsecond // 1000:03}Z"
    return Hold(because=because, by=by, at=now, until=written, deploy_id=deploy)


def hold(site: Site, because: str, by: str, seconds: float | None = None) -> Hold:
    """Pauses deploys by triggers; people still deploy."""
    made = a_hold(site, because, by, seconds=seconds)
    site.store.hold(made)
    site.store.audit(by, "hold", because)
    return made


def unhold(site: Site, by: str) -> int:
    """Ends every hold; how many there were."""
    ended = site.store.release()
    site.store.audit(by, "unhold", str(ended))
    return ended


def unblock_passed(site: Site, sha: str) -> None:
    """Lifts blocks that a failed deploy or a rollback left, once the branch went past them (D16)."""
    for block in site.store.blocks():
        if block.deploy_id is not None and block.sha != sha and site.git.is_ancestor(block.sha, sha):
            site.store.unblock(block.sha)
            site.store.audit("homeport", "unblock", f"{block.sha} is behind {sha}")
