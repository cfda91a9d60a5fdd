"""Events as rows of styled words: what the plain and the live view both print."""

from __future__ import annotations

from homeport.cli.show.words import count, short, text, took
from homeport.model.events import (
    CheckEvent,
    DeployStart,
    Event,
    Notice,
    PlanEvent,
    RestartDone,
    RestartStart,
)

Row = tuple[tuple[str, str], ...]
"""Pairs of style (of words.Ink; empty for none) and words."""
GOOD, BAD, NONE = "✓", "✗", "·"
NAMES = 16
"""Columns of a stage's name."""


def words_of(row: Row) -> str:
    return "".join(words for _, words in row).rstrip()


def heading(event: DeployStart) -> Row:
    """`deploy 01J8… commit abc1234: api, web · staging on web-1 · by wk`."""
    what = f"{event.kind} {short(event.sha)}" if event.sha else event.kind
    scope = ", ".join(event.targets)
    rest = [f"{event.environment} on {event.host}" if event.host else event.environment]
    rest += [f"by {event.requested_by}"] if event.requested_by else []
    tail = " · ".join(text(part) for part in rest if part)
    return (
        ("strong", f"deploy {text(event.deploy_id)}"),
        ("", f"  {text(what)}" + (f": {text(scope)}" if scope else "")),
        ("dim", f"  {tail}" if tail else ""),
    )


def stage(mark: str, name: str, ms: int | None, detail: str = "") -> Row:
    """One stage that ended, `✓ build            1.8 s`."""
    style = {GOOD: "good", BAD: "bad"}.get(mark, "dim")
    # a folded group of names may be wider than its column
    return (
        (style, f"{mark} "),
        ("bad" if mark == BAD else "", text(name).ljust(NAMES)),
        ("dim", f"{took(ms):>10}"),
        ("bad" if mark == BAD else "dim", f"  {text(detail)}" if detail else ""),
    )


def note(event: Event) -> Row | None:
    """What happened within a stage, to be indented below it; None for events that are not of this kind."""
    match event:
        case PlanEvent():
            return _plan(event)
        case Notice():
            return _notice(event)
        case RestartStart():
            return None
        case RestartDone():
            pid = f"pid {event.pid}" if event.pid is not None else ""
            said = "  ".join(part for part in (pid, took(event.duration_ms)) if part)
            return ("good", f"{GOOD} "), ("", text(event.service)), ("dim", f"  restarted  {said}")
        case CheckEvent():
            return _check(event)
    return None


def _plan(event: PlanEvent) -> Row:
    sides = (("added", event.added), ("modified", event.modified), ("deleted", event.deleted))
    changed = ", ".join(f"{number} {word}" for word, number in sides if number)
    total = sum(number for _, number in sides)
    paths = f"{count(total, 'path')} ({changed})" if total else "no path"
    services = ", ".join(text(s) for s in event.services)
    begin = f"{short(event.from_sha)} → " if event.from_sha else ""
    return (
        ("dim", f"{NONE} "), ("sha", f"{begin}{short(event.to_sha)}"),
        ("", f"  {paths}, " + (f"concerns {services}" if services else "concerns no service")),
    )  # fmt: skip


def _notice(event: Notice) -> Row:
    whose = f"{text(event.service)}: " if event.service and not event.service.startswith("_") else ""
    if event.level == "warning":
        return ("warn", "! "), ("warn", f"{whose}{text(event.message)}")
    return ("dim", f"{NONE} "), ("", f"{whose}{text(event.message)}")


def _check(event: CheckEvent) -> Row:
    whose = f"{text(event.service)}  " if event.service else ""
    mark, style = (GOOD, "good") if event.ok else (BAD, "bad") if event.required else ("!", "warn")
    said = text(event.detail) if event.detail and not event.ok else ""
    return (
        (style, f"{mark} "), ("", f"{whose}{text(event.check)}"), ("dim", f"  {took(event.duration_ms)}"),
        (style, f"  {said}" if said else ""), ("dim", "  (not required)" if not event.ok and not event.required else ""),
    )  # fmt: skip
