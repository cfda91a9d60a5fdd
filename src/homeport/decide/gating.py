"""Whether a commit has passed its gate. Pure: checks, the time and the configuration in, a decision out.

Times are Unix seconds; `first_seen` is when homeport first looked at this commit for this environment.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from homeport.model.config import Gate
from homeport.model.forge import CheckRun, is_deploy_status

POLL = 15.0
"""Seconds between two looks when no webhook comes."""


class Open(Struct, frozen=True, tag=True, kw_only=True):
    passed: tuple[str, ...] = ()
    """What was found to have passed, for the record."""


class Waiting(Struct, frozen=True, tag=True, kw_only=True):
    until: float
    """Unix time of the next look, at the latest; a webhook may bring it forward."""
    why: str


class Closed(Struct, frozen=True, tag=True, kw_only=True):
    why: str
    timed_out: bool = False
    """Nothing failed, something did not come: the commit is not to blame."""
    failed: tuple[str, ...] = ()


Decision = Open | Waiting | Closed


def decide(gate: Gate, checks: Iterable[CheckRun], now: float, first_seen: float, own_run: str | None = None) -> Decision:
    """Failed beats everything; then what is pending or missing is waited for until the timeout; then the settle
    time must have passed, so that a workflow that was not triggered is told from one that has not started yet."""
    reports = latest(checks)
    ours = [report for report in reports if _counts(gate, report, reports) and not _is_own(report, own_run)]
    ours += [report for report in reports if _own_but_required(gate, report, own_run)]
    failed = [report for report in ours if report.verdict == "failed"]
    if failed:
        names = tuple(sorted({_title(report) for report in failed}))
        return Closed(why=f"failed: {_list(f'{_title(report)} ({report.word})' for report in failed)}", failed=names)
    pending = [_title(report) for report in ours if report.verdict == "pending"]
    missing = [name for name in gate.checks if not any(_named(report, name) for report in reports)]
    deadline = first_seen + gate.timeout
    if pending or missing:
        why = "; ".join(_unfinished(pending, missing))
        if now >= deadline:
            return Closed(why=f"timed out: {why}", timed_out=True)
        return Waiting(until=min(now + POLL, deadline), why=why)
    settled = first_seen + gate.settle
    if now < settled and not _nothing_can_follow(gate):
        return Waiting(until=min(now + POLL, settled), why="waiting for workflows that may still start")
    return Open(passed=tuple(sorted({_title(report) for report in ours})))


def latest(checks: Iterable[CheckRun]) -> list[CheckRun]:
    """The newest report of each name and app. Jobs are told apart by their workflow, and runs of one workflow by
    what started them, so that a green run for a pull request never hides a red one for the push."""
    newest: dict[tuple[str, ...], CheckRun] = {}
    for check in checks:
        name = check.name.casefold() if check.source == "status" else check.name
        key = (check.source, name, check.app, check.workflow, check.event)
        held = newest.get(key)
        if held is None or (check.id, check.at) >= (held.id, held.at):
            newest[key] = check
    return sorted(newest.values(), key=lambda check: (check.source, check.name, check.app, check.event, check.id))


def _counts(gate: Gate, report: CheckRun, reports: list[CheckRun]) -> bool:
    """Whether the gate looks at this report at all."""
    if is_deploy_status(report.name):
        return False
    if any(_named(report, name) for name in gate.checks):
        return True
    if any(_named(report, name) or _of_workflow(report, name) for name in gate.except_):
        return False
    if report.source == "job" and any(other.source == "workflow" and other.run == report.run for other in reports):
        return False  # its workflow speaks for it: a job may fail and be allowed to
    return gate.workflows == "all" or any(_of_workflow(report, name) for name in gate.workflows)


def _is_own(report: CheckRun, own_run: str | None) -> bool:
    return bool(own_run) and report.run == own_run


def _own_but_required(gate: Gate, report: CheckRun, own_run: str | None) -> bool:
    """A required job of the very run that calls homeport counts once it has ended; it is never waited for."""
    required = any(_named(report, name) for name in gate.checks)
    return _is_own(report, own_run) and required and report.verdict != "pending" and report.source != "workflow"


def _nothing_can_follow(gate: Gate) -> bool:
    """The gate looks at named checks only, and those have all reported: nothing it waits for could still start."""
    return not gate.workflows and bool(gate.checks)


def _named(report: CheckRun, name: str) -> bool:
    """`name`, or pinned to who reports it: `name@app`; a job also with its workflow, as forges show it:
    `CI / build`, `CI / build (push)`."""
    full = f"{report.workflow} / {report.name}" if report.source == "job" and report.workflow else report.name
    return name in (report.name, f"{report.name}@{report.app}", full, f"{full}@{report.app}", f"{full} ({report.event})")


def _of_workflow(report: CheckRun, name: str) -> bool:
    return bool(name) and name in (report.workflow, report.file)


def _title(report: CheckRun) -> str:
    """Its name for people, control characters made visible: names come from the network."""
    within = f"{report.workflow} / " if report.source == "job" and report.workflow else ""
    return "".join(c if c.isprintable() else "\ufffd" for c in within + report.name)[:120]


def _unfinished(pending: list[str], missing: list[str]) -> list[str]:
    said = [f"running: {_list(pending)}"] if pending else []
    return said + ([f"not reported yet: {_list(missing)}"] if missing else [])


def _list(names: Iterable[str]) -> str:
    """At most five, sorted."""
    known = sorted(set(names))
    return ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
