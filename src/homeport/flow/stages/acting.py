"""Per-path actions that belong to no service (`[[actions]]`), after the files are in place, before restarts."""

from __future__ import annotations

from dataclasses import replace

from homeport.flow.stages.building import run_command
from homeport.flow.stages.syncing import mark_changed
from homeport.flow.work import Tools, Work
from homeport.model.config import Action
from homeport.model.deploys import ServiceRecord
from homeport.model.patterns import Matcher

SEEN = "_actions"
"""Record under which the last commit is kept whose actions were all carried out."""


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
        for command, what in ((action.validate, "validation"), (action.run, "action"), (action.wait, "wait")):
            if command is not None:
                run_command(action, command, _folder(work), float(action.timeout), f"{what} for {action.paths[0]}",
                            work, tools, extra={}, name=None)  # fmt: skip
        if action.service in work.services and action.on_change != "none":
            service = work.services[action.service]
            work = work.with_service(replace(service, forced=True, affected=True))
    return work


def asks_for(work: Work, tools: Tools) -> set[str]:
    """The services that the actions of this deploy will restart."""
    if not _runs_actions(work):
        return set()
    return {action.service for action in due_actions(work, tools) if action.service and action.on_change != "none"}


def _runs_actions(work: Work) -> bool:
    return work.deploy.request.kind in ("commit", "rollback") and not work.deploy.request.services and bool(work.sha)


def due_actions(work: Work, tools: Tools) -> list[Action]:
    """The actions that the paths changed since the last success ask for."""
    if not work.config.actions or work.sha is None:
        return []
    since = tools.site.store.services().get(SEEN, ServiceRecord(service=SEEN)).sha
    if since is not None and not tools.site.git.has(since):
        since = None
    if since == work.sha:
        return []
    changed = [c.path for c in tools.site.git.changes(since, work.sha)]
    due = []
    for action in work.config.actions:
        matcher = Matcher(action.paths)
        if any(matcher.match(path) for path in changed):
            due.append(action)
    return due


def _folder(work: Work) -> str:
    whole = work.targets.get("_project")
    return whole.target.path if whole is not None else "/"
