"""Per-path actions that belong to no service (`[[actions]]`), after the files are in place, before restarts."""

from __future__ import annotations

from dataclasses import replace

from homeport.flow.stages.building import run_command
from homeport.flow.stages.due import due_actions
from homeport.flow.stages.restarting import restart, validate
from homeport.flow.stages.syncing import mark_changed
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.config import Action, Command
from homeport.model.live import PROJECT


def run_actions(work: Work, tools: Tools) -> Work:
    """Runs each action whose paths changed since its last success, in the order of the file.

    Raises Failed when one fails; the deploy is then undone like any other failure after the first change.
    """
    if not _runs_actions(work):
        return work
    due = due_actions(work, tools)
    if due:
        work = mark_changed(work, tools)
    for action in due:
        service = work.services.get(action.service or "")
        if action.validate is not None and service is not None and service.service.runtime is not None:
            validate(service, action.validate, work, tools)
        elif action.validate is not None:
            _run(action, action.validate, "validation", work, tools)
        if action.run is not None:
            _run(action, action.run, "action", work, tools)
        if service is not None and action.on_change != "none":
            work = _restart(service, action, work, tools)
        if action.wait is not None:
            _run(action, action.wait, "wait", work, tools)
    return work


def _restart(service: ServiceWork, action: Action, work: Work, tools: Tools) -> Work:
    """Restarts the service here, in the action's turn, so that what follows (its `wait`, the next action) finds it new;
    one without a runtime only counts as touched."""
    asked = replace(service, forced=True, affected=True, on_change=action.on_change)
    if service.service.runtime is None or service.service.on_change == "none":
        return work.with_service(replace(asked, forced=False))
    return work.with_service(restart(asked, work, tools) or replace(asked, forced=False))


def _run(action: Action, command: Command, what: str, work: Work, tools: Tools) -> None:
    whole = work.targets.get(PROJECT)
    live = whole.target if whole is not None else None
    run_command(action, command, live.path if live is not None else "/", float(action.timeout),
                f"{what} for {action.paths[0]}", work, tools, extra={}, name=None, live=live)  # fmt: skip


def asks_for(work: Work, tools: Tools) -> set[str]:
    """The services that the actions of this deploy will restart."""
    if not _runs_actions(work):
        return set()
    return {action.service for action in due_actions(work, tools) if action.service and action.on_change != "none"}


def commands(work: Work, tools: Tools) -> list[Action]:
    """The actions of this deploy that run a command of their own; what only looks (`validate`, `wait`) left out."""
    return [action for action in due_actions(work, tools) if action.run is not None]


def _runs_actions(work: Work) -> bool:
    return work.deploy.request.kind in ("commit", "rollback") and not work.deploy.request.services and bool(work.sha)
