"""Events as rows of styled words: what the plain and the live view both print."""

from __future__ import annotations

from collections.abc import Sequence

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
TIMES = 9
"""Columns of a duration."""


def words_of(row: Row) -> str:
    return "".join(words for _, words in row).rstrip()


def heading(event: DeployStart) -> Row:
    """`deploy abc1234 to staging on web-1: api, web  01J8… by wk`."""
    verb = {"commit": "deploy", "live": "rebuild", "rollback": "roll back to"}.get(event.kind, event.kind)
    what = " ".join([verb, short(event.sha)] if event.sha else [verb.removesuffix(" to")])
    place = " on ".join(text(part) for part in (event.environment, event.host) if part)
    scope = ", ".join(text(target) for target in event.targets)
    by = f" by {text(event.requested_by)}" if event.requested_by else ""
    where = ("to" if event.sha and event.kind == "commit" else "on") if event.environment else ""
    return (
        ("strong", text(what)),
        ("", (f" {where} {place}".replace("  ", " ") if place else "") + (f": {scope}" if scope else "")),
        ("dim", f"  {text(event.deploy_id)}{by}"),
    )


def stage(mark: str, names: Sequence[str], ms: int | None, detail: str = "") -> Row:
    """Stages that ended, `✓   1.8 s  build`; several that took no time to speak of share one line."""
    style = {GOOD: "good", BAD: "bad"}.get(mark, "dim")
    return (
        (style, f"{mark} "),
        ("dim", f"{took(ms):>{TIMES}}  "),
        ("bad" if mark == BAD else "", joined(names)),
        ("bad" if mark == BAD else "dim", f"  {text(detail)}" if detail else ""),
    )


def joined(names: Sequence[str]) -> str:
    """`build`; `rollback: sync, restart` for stages of an undo, whose own names begin with `rollback:`."""
    back = "rollback:"
    if names and all(name.startswith(back) for name in names):
        return f"{back} {', '.join(text(name.removeprefix(back)) for name in names)}"
    return ", ".join(text(name) for name in names)


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
