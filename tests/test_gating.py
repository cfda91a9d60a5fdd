"""The gate: open, waiting or closed, from what is reported, the configuration and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.gating import POLL, Closed, Decision, Open, Waiting, decide, latest
from homeport.flow.stages.gating import pass_checks
from homeport.model.config import Gate, Seconds
from homeport.model.deploys import Request
from homeport.model.errors import GateClosed
from homeport.model.forge import CheckRun

if TYPE_CHECKING:
    from homeport.flow.work import Tools, Work

SEEN = 1_800_000_000.0
LATER = SEEN + 60
"""Past the settle time."""
_ids = iter(range(1, 10**9))


def run(name: str, verdict: str, **more: Any) -> CheckRun:
    """A workflow run; each has a higher id than the one before."""
    id = next(_ids)
    given = {"source": "workflow", "app": "github-actions", "word": verdict, "id": id, "workflow": name, "event": "push",
             "file": f"{name.lower()}.yml", "run": str(id), **more}  # fmt: skip
    return CheckRun(name=name, verdict=verdict, **given)  # type: ignore[arg-type]


def job(name: str, verdict: str, of: CheckRun, **more: Any) -> CheckRun:
    return run(name, verdict, source="job", workflow=of.name, run=of.run, file=of.file, event=of.event, **more)


def status(name: str, verdict: str, app: str = "ci-bot", **more: Any) -> CheckRun:
    return run(name, verdict, source="status", app=app, workflow="", event="", file="", run="", **more)


def at(now: float, *checks: CheckRun, own: str | None = None, **gate: Any) -> Decision:
    return decide(Gate(**gate), checks, now, SEEN, own)


def after(seconds: float, *checks: CheckRun, **gate: Any) -> str:
    return type(at(SEEN + seconds, *checks, **gate)).__name__


CI, LINT = run("CI", "passed"), run("Lint", "passed")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([], "Open"),
        ([CI], "Open"),
        ([CI, LINT], "Open"),
        ([CI, run("Lint", "pending")], "Waiting"),
        ([CI, run("Lint", "failed")], "Closed"),
        ([run("CI", "pending"), run("Lint", "failed")], "Closed"),
        ([CI, status("codecov", "failed")], "Closed"),
        ([CI, status("codecov", "pending")], "Waiting"),
        ([CI, status("homeport/check/lint", "failed")], "Closed"),
        ([CI, status("homeport/deploy", "pending")], "Open"),
        ([CI, status("homeport/deploy/production", "failed")], "Open"),
        ([CI, status("homeport/deployed", "failed")], "Closed"),
    ],
)
def test_every_report_of_the_commit(checks: list[CheckRun], expected: str) -> None:
    assert after(60, *checks) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [(["passed", "failed"], "Closed"), (["failed", "pending"], "Waiting"), (["failed", "passed"], "Open"),
     (["passed", "failed", "pending", "passed"], "Open"), (["passed", "pending", "failed"], "Closed")],
)  # fmt: skip
def test_the_latest_of_one_name_counts(verdicts: list[str], expected: str) -> None:
    reports = [run("CI", verdict) for verdict in verdicts]
    assert after(60, *reports) == after(60, *reversed(reports)) == expected


@pytest.mark.parametrize("what", ["app", "event", "source"])
def test_a_green_of_another_kind_hides_no_red(what: str) -> None:
    other = {"app": "mallory", "event": "pull_request", "source": "check"}[what]
    assert after(60, run("CI", "failed"), run("CI", "passed", **{what: other})) == "Closed"


def test_statuses_are_one_whatever_their_case() -> None:
    assert after(60, status("CI/x", "failed"), status("ci/X", "passed")) == "Open"


def test_jobs_of_one_name_in_two_workflows() -> None:
    first, second = run("A", "passed"), run("B", "passed")
    checks = (first, second, job("build", "failed", first), job("build", "passed", second))
    assert after(60, *checks, checks=["build"]) == "Closed"
    assert after(60, *checks, checks=["B / build"]) == "Open"
    assert after(60, *checks, checks=["A / build"]) == "Closed"
    assert after(60, *checks) == "Open", "their workflows allowed it"


def test_a_job_counts_by_itself_when_its_workflow_is_not_seen() -> None:
    unseen = run("A", "passed")
    assert after(60, job("build", "failed", unseen)) == "Closed"


# Not triggered, or not started yet


def test_nothing_reported_is_waited_for_and_then_passes() -> None:
    first = at(SEEN)
    assert isinstance(first, Waiting) and first.until == SEEN + POLL and first.why
    assert at(SEEN + 20) == Waiting(until=SEEN + 30, why=first.why)
    assert after(29.9) == "Waiting" and after(30) == "Open"


def test_an_early_green_does_not_open_before_the_others_could_start() -> None:
    assert after(1, CI) == "Waiting" and after(30, CI) == "Open"
    assert after(1, CI, workflows=["CI"]) == "Waiting", "a second run of it may still start"
    assert after(1, CI, settle=Seconds(0)) == "Open"


def test_an_early_red_closes_at_once() -> None:
    assert after(0, run("CI", "failed")) == "Closed"


def test_only_named_checks_need_no_settling() -> None:
    assert after(0, CI, workflows=[], checks=["CI"]) == "Open"
    assert after(0, CI, workflows=[]) == "Waiting"


# Names


def test_named_workflows_only() -> None:
    other = run("Nightly", "failed")
    assert after(60, CI, other, workflows=["CI"]) == "Open"
    assert after(60, run("CI", "failed"), workflows=["ci.yml"]) == "Closed"
    assert after(60, workflows=["CI"]) == "Open", "not triggered counts as passed"
    assert after(60, status("CI", "failed"), workflows=["CI"]) == "Open", "a status is no workflow"
    assert after(60, CI, job("build", "failed", CI), workflows=["CI"]) == "Open"


def test_required_checks_must_come() -> None:
    missing = at(LATER, CI, checks=["e2e"])
    assert isinstance(missing, Waiting) and "e2e" in missing.why and missing.until == LATER + POLL
    assert after(60, CI, run("e2e", "passed"), checks=["e2e"]) == "Open"
    assert after(60, CI, status("e2e", "pending"), checks=["e2e"]) == "Waiting"
    ended = at(SEEN + 3600, CI, checks=["e2e"])
    assert isinstance(ended, Closed) and ended.timed_out and not ended.failed and "e2e" in ended.why


def test_required_checks_pinned_to_who_reports_them() -> None:
    forged = status("e2e", "passed", app="mallory")
    assert after(60, forged, checks=["e2e"]) == "Open"
    assert after(60, forged, checks=["e2e@ci-bot"]) == "Waiting"
    assert after(60, forged, status("e2e", "passed"), checks=["e2e@ci-bot"]) == "Open"


@pytest.mark.parametrize("name", ["CI", "ci.yml", "CI@github-actions"])
def test_excepted_ones_are_not_looked_at(name: str) -> None:
    gate = {"except_": [name]}
    assert after(60, run("CI", "failed"), LINT, **gate) == "Open"
    assert after(60, run("CI", "pending"), LINT, **gate) == "Open"
    assert after(60, CI, run("Lint", "failed"), **gate) == "Closed"


def test_required_beats_excepted() -> None:
    assert after(60, run("CI", "failed"), except_=["CI"], checks=["CI"]) == "Closed"


# Timeout


def test_what_never_ends_times_out() -> None:
    slow = run("CI", "pending")
    assert at(SEEN + 3590, slow) == Waiting(until=SEEN + 3600, why="running: CI")
    assert at(SEEN + 3600, slow) == Closed(why="timed out: running: CI", timed_out=True)
    assert after(3600, CI) == "Open" and after(9999) == "Open"


def test_failed_is_said_rather_than_timed_out() -> None:
    found = at(SEEN + 9999, run("CI", "pending"), run("Lint", "failed", word="timed_out"))
    assert found == Closed(why="failed: Lint (timed_out)", failed=("Lint",))


# Ourselves


def test_the_run_that_calls_homeport_is_not_waited_for() -> None:
    own = run("Deploy", "pending")
    checks = (own, job("deploy", "pending", own), CI)
    assert type(at(LATER, *checks, own=own.run)) is Open
    assert type(at(LATER, *checks)) is Waiting
    assert type(at(LATER, own, run("CI", "failed"), own=own.run)) is Closed
    assert type(at(LATER, *checks, own=own.run, checks=["deploy"])) is Open
    assert type(at(LATER, own, job("test", "failed", own), own=own.run, checks=["test"])) is Closed


@pytest.mark.parametrize("own", [None, ""])
def test_no_own_run_excuses_nothing(own: str | None) -> None:
    assert type(at(LATER, status("ci", "pending"), own=own)) is Waiting


def test_names_from_the_network_are_harmless_to_print() -> None:
    found = at(LATER, run("\x1b[2J" + "x" * 500, "failed", word="failure"), *[run(f"n{i}", "failed") for i in range(9)])
    assert isinstance(found, Closed) and found.why.isprintable() and "and 5 more" in found.why
    assert all(name.isprintable() and len(name) <= 120 for name in found.failed)


VERDICTS = st.sampled_from(["pending", "passed", "failed"])
CHECKS = st.lists(
    st.builds(CheckRun, source=st.sampled_from(["workflow", "job", "check", "status"]), name=st.sampled_from("abc"),
              app=st.sampled_from(["x", "y"]), verdict=VERDICTS, word=st.just("w"), id=st.integers(1, 50),
              at=st.just(0.0), workflow=st.sampled_from(["", "a", "b"]), event=st.sampled_from(["", "push"]),
              run=st.sampled_from(["", "1", "2"])), max_size=8)  # fmt: skip
GATES = st.builds(Gate, workflows=st.one_of(st.just("all"), st.lists(st.sampled_from("abc"), max_size=2)),
                  except_=st.lists(st.sampled_from("abc"), max_size=2), checks=st.lists(st.sampled_from("abc"), max_size=2),
                  settle=st.sampled_from([Seconds(0), Seconds(30)]),
                  timeout=st.sampled_from([Seconds(0), Seconds(3600)]))  # fmt: skip


@given(GATES, CHECKS, st.floats(0, 10_000), st.sampled_from([None, "1"]))
def test_every_decision_keeps_its_word(gate: Gate, checks: list[CheckRun], waited: float, own: str | None) -> None:
    now = SEEN + waited
    found = decide(gate, checks, now, SEEN, own)
    if isinstance(found, Waiting):
        assert now <= found.until <= now + POLL and found.until > SEEN and found.why
        end = SEEN + gate.timeout + gate.settle + 1
        assert not isinstance(decide(gate, checks, end, SEEN, own), Waiting), "every wait ends"
    elif isinstance(found, Open):
        named = [check for check in latest(checks) if check.name in gate.checks]
        assert all(check.verdict == "passed" or check.run == own for check in named)
        assert {check.name for check in named} == set(gate.checks)
        if gate.workflows == "all" and not gate.except_ and own is None:
            assert all(one.verdict == "passed" for one in latest(checks) if one.source != "job")
    else:
        assert found.timed_out or found.failed
        assert not found.timed_out or now >= SEEN + gate.timeout


@given(GATES, CHECKS, st.floats(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_reports_does_not_matter(gate: Gate, checks: list[CheckRun], waited: float, random: Any) -> None:
    distinct = list({check.id: check for check in checks}.values())
    shuffled = list(distinct)
    random.shuffle(shuffled)
    assert decide(gate, distinct, SEEN + waited, SEEN) == decide(gate, shuffled, SEEN + waited, SEEN)


@given(GATES, CHECKS, st.floats(0, 10_000))
def test_one_more_red_never_opens_a_gate(gate: Gate, checks: list[CheckRun], waited: float) -> None:
    if isinstance(decide(gate, checks, SEEN + waited, SEEN), Open):
        return
    red = CheckRun(source="status", name="d", app="z", verdict="failed", word="w", id=99)
    assert not isinstance(decide(gate, [*checks, red], SEEN + waited, SEEN), Open)


class Jumping:
    """A clock that is set to another day while something sleeps; the monotonic one goes on."""

    def __init__(self, days: int) -> None:
        self.days, self.slept = days, 0.0

    def now(self) -> str:
        moment = datetime.fromtimestamp(SEEN + self.slept, UTC) + timedelta(days=self.days if self.slept > 1 else 0)
        return moment.isoformat(timespec="milliseconds")

    def monotonic(self) -> float:
        return 1000 + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize("days", [400, -400])
@pytest.mark.parametrize("green_after", [20, 10_000])
def test_a_clock_that_is_set_while_a_gate_waits_opens_it_no_later_and_closes_it_no_sooner(
    days: int, green_after: float
) -> None:
    clock, held = Jumping(days), dict[str, str]()
    checks = SimpleNamespace(checks=lambda _: [run("CI", "passed" if clock.slept >= green_after else "pending")],
                             attend=lambda _: None, close=lambda: None)  # fmt: skip
    store = SimpleNamespace(cached=held.get, cache=held.__setitem__, cancel_asked=lambda _: None, waiting=lambda: None)
    site = SimpleNamespace(store=store, clock=clock, environment="production", forge=lambda _: checks)
    gate = Gate(timeout=Seconds(60), settle=Seconds(1))
    work = SimpleNamespace(config=SimpleNamespace(gate=gate, checks={}), sha="a" * 40,
                           deploy=SimpleNamespace(id="d-1", kind="commit", request=Request(kind="commit")))  # fmt: skip
    tools = SimpleNamespace(site=site, notice=lambda *words, **more: None)
    if green_after < 60:
        pass_checks(cast("Work", work), cast("Tools", tools))
    else:
        with pytest.raises(GateClosed) as caught:
            pass_checks(cast("Work", work), cast("Tools", tools))
        assert caught.value.code == "gate-timeout"
    assert min(green_after, 60) <= clock.slept < min(green_after, 60) + POLL + 1
