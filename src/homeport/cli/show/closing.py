"""The end of a deploy in words: one line that says the outcome, and for what did not succeed what to do next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from homeport.cli.show.again import again
from homeport.cli.show.words import Ink, output_line, several, short, text, took
from homeport.model.events import DeployDone, DeployStart, Event, LogLine, Notice, StageEvent

TAIL = 20
"""Lines of output shown of a deploy that failed."""
_LIVE_STAGES = ("sync", "act", "restart")
_SPEAKING = ("build", "migrate", "sync", "act", "restart")
"""Stages whose output is their own: what an earlier one printed does not explain their failure."""


@dataclass
class Story:
    """What the events told so far; the closing words need it."""

    kind: str = ""
    stages: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    tail: deque[LogLine] = field(default_factory=lambda: deque(maxlen=TAIL))
    frozen: bool = False
    """A stage failed: what comes later in the undo does not explain it."""
    untouched: bool = False
    """The sync said that it failed before its first change."""

    def hear(self, event: Event) -> None:
        if isinstance(event, DeployStart):
            self.kind = event.kind
        elif isinstance(event, StageEvent):
            if event.state == "start":
                self.stages.append(event.stage)
                if event.stage in _SPEAKING and not self.frozen:
                    self.tail.clear()
            elif event.state == "failed":
                self.failed.append(event.stage)
                self.frozen = True
        elif isinstance(event, LogLine) and not self.frozen:
            self.tail.append(event)
        elif isinstance(event, Notice) and event.code == "untouched":
            self.untouched = True

    @property
    def touched(self) -> bool:
        """Something live may have been changed."""
        return not self.untouched and any(stage in _LIVE_STAGES for stage in self.stages)


def labelled(event: LogLine) -> str:
    """A line of output with the service it belongs to."""
    return f"{text(event.service)} │ {output_line(event.line)}" if event.service else output_line(event.line)


def outcome(done: DeployDone, story: Story) -> str:
    """The outcome in one line. Only `deployed` and `nothing to do` sound like success."""
    sha, after = short(done.sha, "the commit"), took(done.duration_ms)
    services = ", ".join(text(s) for s in done.services)
    if done.status == "deployed" and done.ok:
        words = _deployed(done, story, after)
        return f"{words}: {services}" if services else words
    if done.status == "unchanged" and done.ok:
        return f"nothing to do: {short(done.sha)} is what runs" if done.sha else "nothing to do"
    if done.status == "rolled_back":
        old = short(done.previous_sha, "what was there before")
        return f"rolled back after {after}: {sha} failed{_in(story)}, {old} runs again"
    if done.status == "refused":
        return f"refused{_in(story)}: {_still(done)}"
    if done.status in ("cancelled", "superseded"):
        how = "cancelled" if done.status == "cancelled" else "superseded by a newer request"
        return f"{how} after {after}: {_still(done) if not story.touched else f'{sha} is not deployed'}"
    if not story.stages:
        return f"failed after {after}: {sha} is not deployed"
    return f"failed{_in(story)} after {after}: {_left(done, story)}"


def _deployed(done: DeployDone, story: Story, after: str) -> str:
    sha = f" {short(done.sha)}" if done.sha else ""
    if story.kind == "restart":
        return f"restarted{f' at{sha}' if sha else ''} in {after}"
    if story.kind == "rollback":
        return f"deployed{sha} in {after}, going back from {short(done.previous_sha, 'the newer one')}"
    what = {"try": " as a try", "live": ", built from what is live,"}.get(story.kind, "")
    return f"deployed{sha}{what} in {after}"


def _in(story: Story) -> str:
    first = next(iter(story.failed), "")
    return f" in {text(first)}" if first else ""


def _still(done: DeployDone) -> str:
    """What runs when nothing live was changed."""
    if done.previous_sha:
        return f"nothing live was changed, {short(done.previous_sha)} still runs"
    return "nothing live was changed"


def _left(done: DeployDone, story: Story) -> str:
    if not story.touched:
        return _still(done)
    if any(stage.startswith("rollback:") for stage in story.failed):
        return "and the rollback failed too"
    return "not rolled back" if story.kind == "restart" else "live files were changed and are not rolled back"


def advice(done: DeployDone, *, color: bool = False) -> str:
    """What failed and the command to run next; empty when all is well."""
    if done.ok:
        return ""
    ink = Ink(color)
    summary = done.error_summary or {
        "cancelled": "the deploy was cancelled",
        "superseded": "a newer request took its place",
        "refused": "the deploy was refused",
        "rolled_back": "the deploy failed and was rolled back",
    }.get(done.status, "the deploy failed")
    lines = [f"{ink('bad', 'homeport:')} {several(summary)}"]
    usual = {"cancelled": "homeport deploy", "superseded": "homeport history"}
    next = done.next or usual.get(done.status, f"homeport logs {done.deploy_id}")
    lines.append(f"  {ink('dim', 'next:')} {ink('next', text(again(next)))}")
    return "\n".join(lines) + "\n"
