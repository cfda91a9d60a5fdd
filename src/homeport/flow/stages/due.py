"""Which `[[actions]]` the paths changed since their last success ask for."""

from __future__ import annotations

from dataclasses import replace

from homeport.flow.goals import with_own_key
from homeport.flow.work import Tools, Work
from homeport.model.config import Action
from homeport.model.deploys import ServiceRecord
from homeport.model.patterns import Matcher

SEEN = "_actions"
"""Record under which the last commit is kept whose actions were all carried out."""


def due_actions(work: Work, tools: Tools) -> list[Action]:
    """In the order of the file; none for deploys of only some services, or of what is live."""
    if work.deploy.request.kind not in ("commit", "rollback") or work.deploy.request.services:
        return []
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


def with_rebuilds(work: Work, tools: Tools) -> Work:
    """Services that are to be built without the engine's cache: their own `on_change`, or an action's, says so."""
    asked = {a.service for a in due_actions(work, tools) if a.on_change == "rebuild"}
    for name, service in work.services.items():
        wanted = name in asked or (service.build_needed and service.service.on_change == "rebuild")
        if wanted and service.service.runtime is not None and service.target is not None:
            asked_for = replace(service, build_needed=True, fresh=True, forced=True, affected=True)
            work = work.with_service(with_own_key(asked_for, work.deploy.id))
    return work
