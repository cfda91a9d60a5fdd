"""What a caller is told of a deploy that has ended: its outcome, and the last lines that it printed."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from homeport.flow.site import Site
from homeport.model.deploys import Deploy

TAIL = 8 * 1024
"""Bytes of output in `logTail`."""
_READ = 512 * 1024


class Outcome(Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to whoever waited: the same for everybody who asked for the same."""

    deploy_id: str
    status: str
    ok: bool
    duration_ms: int
    exit_code: int
    sha: str | None = None
    previous_sha: str | None = None
    services: tuple[str, ...] = ()
    error_summary: str | None = None
    error_code: str | None = None
    next: str | None = None
    log_tail: str = ""


def outcome_of(site: Site, deploy: Deploy) -> Outcome:
    """Of a deploy that has ended."""
    code = deploy.exit_code if deploy.exit_code is not None else 1
    return Outcome(
        deploy_id=deploy.id, status=deploy.status or "failed", ok=code == 0, duration_ms=deploy.duration_ms or 0,
        exit_code=code, sha=deploy.sha, previous_sha=deploy.previous_sha, services=deploy.services,
        error_summary=deploy.error_summary, error_code=deploy.error_code, next=deploy.next,
        log_tail=log_tail(site.journal_path(deploy.id)),
    )  # fmt: skip


def ends_with_done(path: str) -> bool:
    """Whether a journal has its last event."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            return b'{"type":"deploy.done"' in file.read()
    except FileNotFoundError:
        return False


class _Line(Struct, tag_field="type", tag="deploy.log"):
    line: str


def log_tail(path: str) -> str:
    """The last output lines in a journal, about TAIL bytes of them; empty when there is no journal."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _READ))
            raw = file.read(_READ)
    except FileNotFoundError:
        return ""
    found: list[str] = []
    left = TAIL
    for line in reversed(raw.split(b"\n")):
        if not line.startswith(b'{"type":"deploy.log"'):
            continue
        try:
            text = msgspec.json.decode(line, type=_Line).line
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        cut = text.encode()[-left:].decode("utf-8", "ignore")
        found.append(cut)
        left -= len(cut.encode()) + 1
        if left <= 0:
            break
    return "\n".join(reversed(found))
