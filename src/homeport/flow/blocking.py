"""Blocks: a commit that no trigger deploys (D16)."""

from __future__ import annotations

from homeport.flow.site import Site
from homeport.model.deploys import Block
from homeport.model.errors import Refused


def block(site: Site, sha: str, because: str, by: str) -> str:
    """Blocks a commit; returns its full id."""
    full = site.git.resolve(sha)
    site.store.block(Block(sha=full, because=because, by=by, at=site.clock.now()))
    site.store.audit(by, "block", f"{full} {because}")
    return full


def unblock(site: Site, sha: str, by: str = "") -> str:
    """Raises Refused when it is not blocked."""
    found = [b.sha for b in site.store.blocks() if b.sha.startswith(sha)]
    full = found[0] if len(found) == 1 else site.git.resolve(sha)
    if not site.store.unblock(full):
        raise Refused(f"{full[:12]} is not blocked", next="homeport status", code="not-blocked")
    site.store.audit(by, "unblock", full)
    return full
