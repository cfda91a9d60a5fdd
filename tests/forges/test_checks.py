"""What is reported on a commit: every page, the latest of each, by whom, nothing from forks, and cheap to ask again."""

from __future__ import annotations

import json

import pytest

from homeport.decide.gating import Closed, Open, Waiting, decide
from homeport.model.config import Gate, Seconds
from homeport.model.forge import CheckRun

from .conftest import World
from .fakes import OTHER, SHA
from .server import Answer

GATE = Gate(settle=Seconds(0))


def found(world: World) -> dict[tuple[str, str], CheckRun]:
    return {(check.source, check.name): check for check in world.client().checks(SHA)}


def judged(world: World, gate: Gate = GATE, own_run: str | None = None) -> str:
    decision = decide(gate, world.client().checks(SHA), world.clock.time, world.clock.time, own_run)
    return type(decision).__name__


@pytest.mark.parametrize(
    ("conclusion", "verdict"),
    [("success", "passed"), ("neutral", "passed"), ("skipped", "passed"), ("failure", "failed"), ("cancelled", "failed"),
     ("timed_out", "failed"), ("action_required", "failed"), (None, "pending")],
)  # fmt: skip
def test_github_conclusions(github: World, conclusion: str | None, verdict: str) -> None:
    github.fake.add_run("CI", conclusion)
    github.fake.add_check("deploy-preview", conclusion, app="vercel")
    checks = found(github)
    assert checks["workflow", "CI"].verdict == checks["check", "deploy-preview"].verdict == verdict
    assert checks["workflow", "CI"].file == "ci.yml" and checks["workflow", "CI"].event == "push"
    assert checks["check", "deploy-preview"].app == "vercel"
    assert checks["workflow", "CI"].at > 0


def test_a_conclusion_that_is_new_to_us_has_not_passed(github: World) -> None:
    number = github.fake.add_run("CI", "success")
    github.fake.add_check("build", None, run=number)
    github.fake.queued = [
        Answer(200, {"total_count": 1, "workflow_runs": [{**github.fake.runs[0], "conclusion": "sideways"}]})
    ]
    assert found(github)["workflow", "CI"].verdict == "failed"


def test_github_jobs_know_their_workflow(github: World) -> None:
    number = github.fake.add_run("CI", "success")
    github.fake.add_check("build", "failure", run=number)
    job = found(github)["job", "build"]
    assert (job.workflow, job.run, job.event, job.verdict) == ("CI", str(number), "push", "failed")
    assert judged(github) == "Open", "the workflow speaks for a job that was allowed to fail"
    assert judged(github, Gate(settle=Seconds(0), checks=["build"])) == "Closed"


def test_no_statuses_at_all_is_not_pending(github: World) -> None:
    github.fake.add_run("CI", "success")
    assert judged(github) == "Open"


def test_green_then_red_then_rerun(github: World) -> None:
    github.fake.add_status("ci/external", "success")
    assert judged(github) == "Open"
    github.fake.add_status("ci/external", "failure")
    assert judged(github) == "Closed"
    github.fake.add_status("ci/external", "pending")
    assert judged(github) == "Waiting"
    github.fake.add_status("ci/external", "success")
    assert judged(github) == "Open"


def test_somebody_elses_green_does_not_hide_a_red(github: World) -> None:
    github.fake.add_status("ci/external", "failure", by="ci-bot")
    github.fake.add_status("ci/external", "success", by="mallory")
    assert judged(github) == "Closed"


def test_runs_for_a_forks_branch_count_neither_way(github: World) -> None:
    github.fake.add_run("CI", "success")
    number = github.fake.add_run("CI", "failure", event="pull_request", fork=True)
    github.fake.add_check("build", "failure", run=number)
    assert set(found(github)) == {("workflow", "CI")}
    assert judged(github, Gate(settle=Seconds(0), checks=["build"])) == "Waiting"


def test_other_commits_count_neither_way(github: World, gitlab: World) -> None:
    github.fake.add_run("CI", "failure", sha=OTHER)
    gitlab.fake.add_pipeline("failed", sha=OTHER)
    assert github.client().checks(SHA) == gitlab.client().checks(SHA) == []


def test_a_forge_that_answers_for_another_commit_is_not_believed(github: World, gitlab: World) -> None:
    github.fake.add_run("CI", "success", sha=OTHER)
    github.fake.add_check("lint", "success", app="x", sha=OTHER)
    github.fake.queued = [Answer(200, {"total_count": 1, "workflow_runs": github.fake.runs}),
                          Answer(200, {"total_count": 1, "check_runs": github.fake.check_runs})]  # fmt: skip
    gitlab.fake.add_pipeline("success", sha=OTHER)
    gitlab.fake.queued = [Answer(200, gitlab.fake.pipelines)]
    assert github.client().checks(SHA) == gitlab.client().checks(SHA) == []


def test_a_deploy_job_does_not_wait_for_its_own_run(github: World) -> None:
    number = github.fake.add_run("Deploy", None)
    github.fake.add_check("deploy", None, run=number)
    github.fake.add_run("CI", "success")
    assert judged(github) == "Waiting"
    assert judged(github, own_run=str(number)) == "Open"


def test_every_page_is_read(world: World) -> None:
    world.fake.page_size = 2
    for number in range(7):
        world.fake.add_status(f"check {number}", "success")
    assert len([name for _, name in found(world) if name.startswith("check ")]) == 7
    pages = [seen.query["page"] for seen in world.fake.seen if seen.path.endswith("/statuses")]
    assert pages == ["1", "2", "3", "4"]


def test_pages_without_end_are_a_fault(gitea: World) -> None:
    from homeport.model.forge import ForgeFault

    gitea.fake.queued = [Answer(200, [], {"Link": '<x>; rel="next"'})] * 60
    with pytest.raises(ForgeFault, match="more than 50 pages"):
        gitea.client().checks(SHA)
    gitea.fake.queued.clear()


def test_unchanged_answers_are_asked_for_by_their_etag(world: World) -> None:
    world.fake.page_size = 2
    for number in range(3):
        world.fake.add_status(f"check {number}", "success")
    first = world.client().checks(SHA)
    asked = len(world.fake.seen)
    assert world.client().checks(SHA) == first
    assert all("if-none-match" in seen.headers for seen in world.fake.seen[asked:])
    assert len(world.fake.seen) == 2 * asked, "the kept Link leads to the next page"
    world.fake.add_status("check 3", "failed" if world.fake.kind == "gitlab" else "failure")
    assert any(check.verdict == "failed" for check in world.client().checks(SHA))


def test_the_cache_does_not_grow_with_commits(world: World) -> None:
    for number in range(5):
        world.client().checks(f"{number + 1:040x}")
        if number == 0:
            size = len(world.memory.held)
    assert len(world.memory.held) == size


def test_another_commits_answer_is_never_taken(world: World) -> None:
    world.fake.add_status("check", "success")
    world.client().checks(SHA)
    asked = len(world.fake.seen)
    world.client().checks(OTHER)
    assert not any("if-none-match" in seen.headers for seen in world.fake.seen[asked:])


@pytest.mark.parametrize("damage", ["", "null", "{", '{"url":1}', "\udcff", "[" * 5000])
def test_a_damaged_cache_costs_a_request_and_nothing_else(world: World, damage: str) -> None:
    world.fake.add_status("check", "success")
    first = world.client().checks(SHA)
    world.memory.held = dict.fromkeys(world.memory.held, damage)
    assert world.client().checks(SHA) == first


def test_an_etag_out_of_the_cache_cannot_add_a_header(world: World) -> None:
    world.fake.add_status("check", "success")
    first = world.client().checks(SHA)
    for key, value in world.memory.held.items():
        world.memory.held[key] = json.dumps({**json.loads(value), "etag": "x\r\nX-Evil: 1"})
    assert world.client().checks(SHA) == first
    assert not any("x-evil" in seen.headers for seen in world.fake.seen)


def test_gitea_actions_jobs_are_told_from_statuses(gitea: World) -> None:
    run = "/octo/shop/actions/runs/12/jobs/0"
    gitea.fake.add_status("CI / build (push)", "pending", by="gitea-actions", url=run)
    gitea.fake.add_status("Deploy / go (push)", "pending", by="gitea-actions", url="/octo/shop/actions/runs/13/jobs/0")
    job = found(gitea)["job", "build"]
    assert (job.workflow, job.event, job.run, job.app) == ("CI", "push", "12", "gitea-actions")
    assert judged(gitea, own_run="13") == "Waiting"
    gitea.fake.add_status("CI / build (push)", "success", by="gitea-actions", url=run)
    assert judged(gitea) == "Waiting" and judged(gitea, own_run="13") == "Open"
    assert judged(gitea, Gate(settle=Seconds(0), workflows=["CI"])) == "Open"
    assert judged(gitea, Gate(settle=Seconds(0), workflows=[], checks=["CI / build (push)"])) == "Open"


@pytest.mark.parametrize(
    ("state", "decision"),
    [("success", "Open"), ("warning", "Open"), ("skipped", "Open"), ("pending", "Waiting"), ("error", "Closed"),
     ("failure", "Closed")],
)  # fmt: skip
def test_gitea_states(gitea: World, state: str, decision: str) -> None:
    gitea.fake.add_status("ci", state)
    assert judged(gitea) == decision


@pytest.mark.parametrize(
    ("status", "decision"),
    [("created", "Waiting"), ("waiting_for_resource", "Waiting"), ("preparing", "Waiting"), ("pending", "Waiting"),
     ("running", "Waiting"), ("canceling", "Waiting"), ("manual", "Waiting"), ("scheduled", "Waiting"),
     ("success", "Open"), ("skipped", "Open"), ("failed", "Closed"), ("canceled", "Closed")],
)  # fmt: skip
def test_gitlab_pipelines(gitlab: World, status: str, decision: str) -> None:
    number = gitlab.fake.add_pipeline(status, name="build and test")
    gitlab.fake.add_status("rspec", "failed", pipeline=number, allow=True)
    assert judged(gitlab) == decision
    assert found(gitlab)["workflow", "build and test"].run == str(number)
    assert found(gitlab)["job", "rspec"].verdict == "passed"


def test_gitlab_shelf_for_foreign_statuses_is_no_pipeline(gitlab: World) -> None:
    number = gitlab.fake.add_pipeline("running", source="external")
    gitlab.fake.add_status("ci/external", "success", pipeline=number)
    assert set(found(gitlab)) == {("status", "ci/external")}
    assert judged(gitlab) == "Open"


@pytest.mark.parametrize(("pipeline", "own"), [("running", "pending"), ("failed", "failed"), ("success", "success")])
def test_our_own_deploy_in_gitlabs_pipeline_is_not_waited_for(gitlab: World, pipeline: str, own: str) -> None:
    """GitLab puts a status into the commit's pipeline, which then runs, or fails, because of it."""
    number = gitlab.fake.add_pipeline(pipeline)
    gitlab.fake.add_status("homeport/deploy/production", own, pipeline=number)
    gitlab.fake.add_status("rspec", "success", pipeline=number)
    assert judged(gitlab) == "Open"
    gitlab.fake.add_status("later stage", "created", pipeline=number)
    assert judged(gitlab) == "Waiting"
    gitlab.fake.add_status("later stage", "failed", pipeline=number)
    assert judged(gitlab) == "Closed"


def test_gitlab_manual_jobs(gitlab: World) -> None:
    number = gitlab.fake.add_pipeline("success")
    gitlab.fake.add_status("optional", "manual", pipeline=number, allow=True)
    gitlab.fake.add_status("approve", "manual", pipeline=number)
    assert judged(gitlab, Gate(settle=Seconds(0), checks=["optional"])) == "Open"
    assert judged(gitlab, Gate(settle=Seconds(0), checks=["approve"])) == "Waiting"


def test_gate_decisions_are_the_three_kinds(github: World) -> None:
    checks = github.client().checks(SHA)
    assert isinstance(decide(Gate(), checks, 0, 0), Waiting)
    assert isinstance(decide(Gate(), checks, 30, 0), Open)
    assert isinstance(decide(Gate(checks=["x"]), checks, 3600, 0), Closed)
