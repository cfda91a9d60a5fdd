"""Whether a trigger (the timer, a webhook, cron) asks for a deploy now, or why it does not. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from homeport.decide.durations import minute
from homeport.model.deploys import Block, Deploy, Hold


class Look(Struct, frozen=True, kw_only=True):
    """What a tick has seen, after its one fetch."""

    tip: str
    """The newest commit of the environment's branch."""
    services: Collection[str | None]
    """The commit of each service's last success; None for one that was never deployed."""
    last: Sequence[Deploy]
    """Deploys that have ended, newest first."""
    blocks: Sequence[Block] = ()
    holds: Sequence[Hold] = ()
    running: Deploy | None = None
    observe: bool = False
    pushed: bool = False
    """A push is the reason: it waits behind a deploy that runs, where the timer would leave it to the next tick."""


class Decision(Struct, frozen=True, kw_only=True):
    """`due` with nothing else, or why nothing is asked for."""

    due: bool
    because: str
    code: str
    """due, observes, runs, held, blocked, equal, refused, gate, cancelled or failed."""
    replan: bool = False
    """The last try of this commit was refused: it is asked for again only when a plan says that it would go now."""
    regate: bool = False
    """The last try of this commit found its gate closed: it is asked for again only when the gate is open now."""


def decide(look: Look) -> Decision:
    """Observation, a running deploy, holds and blocks come first; then what became of this very commit."""
    if look.observe:
        return _no("observes", "observe = true: it only looks and reports")
    if look.running is not None and not look.pushed:
        return _no("runs", f"deploy {look.running.id} runs")
    if holds := [hold for hold in look.holds if not (look.pushed and passes(hold))]:
        hold = holds[0]
        return _no("held", f"on hold until {minute(hold.until)}: {hold.because} (by {hold.by})")
    block = next((block for block in look.blocks if block.sha == look.tip), None)
    if block is not None:
        return _no("blocked", f"commit {look.tip[:12]} is blocked: {block.because}")
    if look.running is not None and look.running.sha == look.tip:
        return _no("runs", f"deploy {look.running.id} brings this commit already")
    return _of_commit(look)


def passes(hold: Hold) -> bool:
    """Whether a push goes on in spite of it: a failed deploy's hold keeps the timer from trying by itself, and a new
    commit is how people mend what failed. What a person holds stays."""
    return hold.deploy_id is not None


def _of_commit(look: Look) -> Decision:
    last = next((d for d in look.last if d.sha == look.tip and _whole(d)), None)
    at_tip = bool(look.services) and all(sha == look.tip for sha in look.services)
    moved_on = look.last and look.last[0].kind == "rollback" and look.last[0].sha != look.tip
    if at_tip or (last is not None and last.status in ("deployed", "unchanged") and not moved_on):
        return _no("equal", f"commit {look.tip[:12]} is what was deployed")
    if last is None or last.status == "superseded":
        return Decision(due=True, because=f"commit {look.tip[:12]} is new", code="due")
    if last.status == "cancelled":
        return _no("cancelled", f"deploy {last.id} of this commit was cancelled; homeport deploy asks again")
    if last.status == "refused":
        because = f"deploy {last.id} was refused: {last.error_summary}"
        return Decision(due=True, because=because, code="refused", replan=True)
    if (last.error_code or "").startswith("gate-"):
        return Decision(due=True, because=f"the gate was closed: {last.error_summary}", code="gate", regate=True)
    if last.blamed or last.error_code == "check-failed":  # which only a person has run again: the answer is known
        return _no("failed", f"deploy {last.id} of this commit failed: {last.error_summary}")
    return Decision(due=True, because=f"deploy {last.id} did not end well, and the commit is not to blame", code="due")


def _whole(deploy: Deploy) -> bool:
    """A deploy of the branch's commit to every service; others say nothing about the whole environment."""
    return deploy.kind == "commit" and not deploy.request.services


def _no(code: str, because: str) -> Decision:
    return Decision(due=False, because=because, code=code)
