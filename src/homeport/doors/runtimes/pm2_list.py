"""What pm2 says of its processes, read into the words of homeport. Pure."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from homeport.model.errors import Failed
from homeport.model.running import Unit, UnitState

State = Literal["running", "stopped", "failed", "restarting", "missing", "unknown"]
STATES: dict[str, State] = {
    "online": "running", "stopped": "stopped", "errored": "failed", "stopping": "restarting",
    "launching": "restarting", "waiting restart": "restarting", "one-launch-status": "restarting",
}  # fmt: skip


class App(Struct, frozen=True, kw_only=True):
    """One process of pm2's list; a cluster has several of one name."""

    id: int
    name: str
    pid: int
    status: str
    restarts: int
    started_at: float | None
    cwd: str
    program: str
    logs: tuple[str, ...]
    env: dict[str, str]
    settings: dict[str, Any]
    """All that pm2 keeps for it; every variable is in here a second time."""


def find_list(text: str) -> list[Any]:
    """The JSON list that `pm2 jlist` prints, whatever notices stand around it. Raises Failed."""
    decoder = json.JSONDecoder()
    at = text.find("[")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except ValueError:
            found, end = None, at
        if isinstance(found, list) and all(_is_app(row) for row in found) and (found or not text[end:].strip()):
            return found
        at = text.find("[", at + 1)
    raise Failed(
        "pm2 did not print its list of processes", where=text.strip()[-300:], next="pm2 jlist", code="pm2"
    )


def _is_app(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("pm2_env"), dict)


def named(rows: Iterable[Any], name: str) -> list[App]:
    """The processes of exactly that name, in pm2's order."""
    return [_app(row) for row in rows if _is_app(row) and str(row.get("name")) == name]


def _app(row: dict[str, Any]) -> App:
    kept = row["pm2_env"]
    uptime = kept.get("pm_uptime")
    variables = kept.get("env")
    return App(
        id=int(row.get("pm_id", kept.get("pm_id", -1))), name=str(row.get("name")),
        pid=int(row.get("pid") or 0),
        status=str(kept.get("status")), restarts=int(kept.get("restart_time") or 0),
        started_at=uptime / 1000 if isinstance(uptime, int | float) else None,
        cwd=str(kept.get("pm_cwd") or ""), program=str(kept.get("pm_exec_path") or ""),
        logs=tuple(str(kept[k]) for k in ("pm_out_log_path", "pm_err_log_path") if kept.get(k)),
        env={k: str(v) for k, v in (variables if isinstance(variables, dict) else {}).items()}, settings=kept,
    )  # fmt: skip


def state_of(apps: list[App]) -> UnitState:
    """One state for all processes of a name: running only when each of them is."""
    if not apps:
        return UnitState(state="missing", detail="pm2 does not know it")
    worst = next((app for app in apps if app.status != "online"), apps[0])
    detail = worst.status if len(apps) == 1 else f"{worst.status}, {len(apps)} processes"
    return UnitState(
        state=STATES.get(worst.status, "unknown"), pid=worst.pid or None,
        restarts=sum(app.restarts for app in apps), started_at=worst.started_at, detail=detail,
    )  # fmt: skip


def must_be_inside(unit: Unit, apps: list[App], path: str) -> None:
    """Raises Failed (code `outside-target`) when a process of that name is not the target's own.

    Its folder must lie in the target, and its program there too or be an interpreter found on `path`.
    """
    if unit.target is None:
        return
    for app in apps:
        inside = _within(app.cwd, unit.target)
        if inside and (_within(app.program, unit.target) or _interpreter(app.program, path)):
            continue
        wrong = app.program if inside else app.cwd
        raise Failed(
            f"the pm2 process {app.name} runs from {wrong or 'an unknown folder'}, not from {unit.target}: "
            "it is left alone", where=f"services.{unit.service}.unit",
            next=f"pm2 delete {app.id}, or name another unit", code="outside-target",
        )  # fmt: skip


def _within(path: str, folder: str) -> bool:
    if not os.path.isabs(path):
        return False
    real, base = os.path.realpath(path), os.path.realpath(folder)
    return real == base or real.startswith(base.rstrip("/") + "/")


def _interpreter(program: str, path: str) -> bool:
    found = shutil.which(os.path.basename(program), path=path) if os.path.isabs(program) else None
    return found is not None and os.path.realpath(found) == os.path.realpath(program)
