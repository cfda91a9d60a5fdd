"""C1 C2 C8 E5: the real daemon: callers that wait, one that fails, kill -9 of daemon and runner at every stage."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon.rig import Daemon, Waiting
from tests.world import eventually


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.hold.unlink(missing_ok=True)
        made.close()


@pytest.fixture
def daemon(world: Waiting) -> Iterator[Daemon]:
    made = Daemon(world).start()
    yield made
    made.close()


def lines_of(world: Waiting, deploy: str) -> list[str]:
    """Every output line in the journal, in order."""
    raw = (world.state / f"shop/production/journal/{deploy}.jsonl").read_text().splitlines()
    return [event["line"] for event in map(json.loads, raw) if event["type"] == "deploy.log"]


def rows(daemon: Daemon, request_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ask("GET", f"/api/v1/deploys?requestId={request_id}").json()["deploys"]
    return found


def test_twenty_callers_get_the_same_answer_and_one_that_hangs_up_cancels_nothing(daemon: Daemon, world: Waiting) -> None:
    world.hold.touch()
    first = daemon.deploying(scope="platform", requestId="mine")
    eventually(world.building, "the build runs")
    callers = [daemon.deploying(scope="platform", requestId=f"r{n}") for n in range(19)]
    with socket.socket(socket.AF_UNIX) as gone:
        gone.connect(str(daemon.socket))
        body = b'{"scope":"platform","requestId":"gone"}'
        gone.sendall(b"POST /api/v1/self/deploy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
        eventually(lambda: rows(daemon, "gone"), "it is heard")
    eventually(lambda: all(rows(daemon, f"r{n}") for n in range(19)), "all have joined")
    world.hold.unlink()
    answers = [one.result(60) for one in (first, *callers)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1, "everybody gets the same body"
    said = answers[0].json()
    assert (said["status"], said["ok"], said["exitCode"], said["services"]) == ("deployed", True, 0, ["web"])
    assert said["logTail"].endswith("built after " + said["logTail"].rsplit(" ", 1)[1]) and said["durationMs"] > 0
    assert len(daemon.ask("GET", "/api/v1/deploys").json()["deploys"]) == 1, "one build for all of them"
    assert rows(daemon, "gone")[0]["status"] == "deployed"
    again = daemon.deploy(scope="platform", requestId="mine")
    assert again.json() == said, "the same request id is the same deploy, afterwards too"
    other = daemon.deploy(scope="all", requestId="mine")
    assert (other.status_code, other.json()["code"]) == (409, "request-id")


def test_a_failing_build_is_500_with_summary_and_tail_and_what_waits_is_replaced(daemon: Daemon, world: Waiting) -> None:
    world.publish({"web/page.txt": "broken\n"})
    said = daemon.deploy(scope="platform", sessionId="s-1")
    body = said.json()
    assert (said.status_code, body["status"], body["ok"], body["exitCode"]) == (500, "failed", False, 1)
    assert "it does not compile" in body["logTail"] and body["errorSummary"] and body["errorCode"] == "command"
    world.publish({"web/page.txt": "two\n"})
    world.hold.touch()
    runs = daemon.deploying(scope="platform")
    eventually(world.building, "the build runs")
    waits = daemon.deploying(scope="all", requestId="replaced")
    eventually(lambda: rows(daemon, "replaced"), "it waits")
    newest = daemon.ask("POST", "/api/v1/deploys", json={"services": ["api"]})
    assert newest.status_code == 202
    replaced = waits.result(20)
    assert (replaced.status_code, replaced.json()["status"], replaced.json()["exitCode"]) == (500, "superseded", 6)
    world.hold.unlink()
    assert runs.result(30).json()["status"] == "deployed"
    place = newest.headers["location"]
    eventually(lambda: daemon.ask("GET", place).json()["state"] == "done", "the newest one ran too")
    assert daemon.ask("GET", place).json()["status"] in ("deployed", "unchanged")


def test_a_cancel_keeps_the_slot_until_the_undo_has_run(daemon: Daemon, world: Waiting) -> None:
    world.hold.touch()
    runs = daemon.deploying(scope="platform")
    eventually(world.building, "the build runs")
    deploy = daemon.ask("GET", "/api/v1/deploys").json()["deploys"][0]["id"]
    assert daemon.ask("POST", f"/api/v1/deploys/{deploy}/cancel").status_code == 202
    fresh = daemon.deploying(scope="platform")
    ended = runs.result(30).json()
    assert (ended["deployId"], ended["status"], ended["exitCode"]) == (deploy, "cancelled", 6)
    world.hold.unlink()
    assert fresh.result(30).json()["status"] == "deployed", "it did not join the one that was being cancelled"
    twice = daemon.ask("POST", f"/api/v1/deploys/{deploy}/cancel")
    assert (twice.status_code, twice.json()["code"]) == (409, "ended")


def test_a_mode_live_deploy_builds_what_an_agent_edited_in_place(daemon: Daemon, world: Waiting) -> None:
    assert daemon.deploy(scope="platform").status_code == 200
    (world.live / "web/page.txt").write_text("by an agent\n")
    said = daemon.deploy(scope="platform", mode="live", requestedBy="__self__")
    assert (said.status_code, said.json()["status"]) == (200, "deployed"), said.text
    assert world.text("web/dist/page.txt") == "by an agent\n"
    refused = daemon.deploy(scope="platform")
    assert (refused.status_code, refused.json()["status"], refused.json()["exitCode"]) == (500, "refused", 3)


@pytest.mark.parametrize("who", ["daemon", "runner", "both", "stopped"])
def test_whoever_is_killed_in_the_middle_there_is_one_outcome_and_no_line_is_lost(daemon: Daemon, world: Waiting,
                                                                                  who: str) -> None:  # fmt: skip
    """Killed while it builds; the caller asks again with its request id and gets the true outcome."""
    world.hold.touch()
    caller = daemon.deploying(scope="platform", requestId="mine")
    eventually(world.building, "the build runs")
    if who == "stopped":
        assert daemon.stop() == 0
        stopped = caller.result(20)
        assert (stopped.status_code, stopped.json()["code"]) == (503, "stopping")
    if who in ("daemon", "both"):
        daemon.kill()
        with pytest.raises(httpx.HTTPError):
            caller.result(20)
    if who in ("runner", "both"):
        daemon.kill_runner()
    if who != "runner":
        daemon.start()
    world.hold.unlink()
    said = daemon.deploy(scope="platform", requestId="mine").json()
    interrupted = who in ("runner", "both")
    assert said["status"] == ("failed" if interrupted else "deployed"), said
    assert said["errorCode"] == ("interrupted" if interrupted else None)
    if who == "runner":
        assert caller.result(20).json() == said
    numbers = [line for line in lines_of(world, said["deployId"]) if line.startswith("line ")]
    assert numbers == [f"line {n + 1}" for n in range(len(numbers))] and len(numbers) > 0, "no line lost or doubled"
    assert [row["id"] for row in rows(daemon, "mine")] == [said["deployId"]]
    assert not world.hold.exists() and "state" in rows(daemon, "mine")[0]
    assert daemon.deploy(scope="platform").json()["status"] in ("deployed", "unchanged")
    eventually(lambda: not daemon.runners(), "no process is left behind")


@pytest.mark.parametrize("who", ["runner", "both"])
def test_killed_after_the_first_change_it_is_run_forward_once_more(daemon: Daemon, world: Waiting, who: str) -> None:
    """Killed while it verifies: the new files are live, so it goes on, and its callers hear how it ended."""
    verifying = world.root / "hold-verify"
    verifying.touch()
    caller = daemon.deploying(scope="platform", requestId="mine")
    eventually(lambda: (rows(daemon, "mine") or [{}])[0].get("stage") == "verify", "it verifies")
    if who == "both":
        daemon.kill()
    daemon.kill_runner()
    verifying.unlink()
    if who == "both":
        with pytest.raises(httpx.HTTPError):
            caller.result(20)
        daemon.start()
    said = daemon.deploy(scope="platform", requestId="mine").json()
    assert (said["status"], said["ok"], said["services"]) == ("deployed", True, ["web"]), said
    assert rows(daemon, "mine")[0]["attempts"] == 2 and len(rows(daemon, "mine")) == 1
    if who == "runner":
        assert caller.result(20).json() == said


def test_what_waited_while_nobody_listened_is_carried_out_when_the_daemon_starts(world: Waiting) -> None:
    """Daemon and runner killed between the queue and the start: the next daemon finds it."""
    daemon = Daemon(world).start()
    world.hold.touch()
    daemon.ask("POST", "/api/v1/deploys", json={"scope": "platform"})
    eventually(world.building, "the build runs")
    daemon.ask("POST", "/api/v1/deploys", json={"services": ["api"], "requestId": "later"})
    daemon.kill()
    daemon.kill_runner()
    world.hold.unlink()
    daemon.start()
    try:
        eventually(lambda: (rows(daemon, "later") or [{}])[0].get("status") == "deployed", "the queue is emptied")
        statuses = [row["status"] for row in daemon.ask("GET", "/api/v1/deploys").json()["deploys"]]
        assert statuses == ["deployed", "failed"]
    finally:
        daemon.close()


def test_the_log_is_read_from_any_byte_and_says_where_to_go_on(daemon: Daemon, world: Waiting) -> None:
    deploy = daemon.deploy(scope="platform").json()["deployId"]
    whole = daemon.ask("GET", f"/api/v1/deploys/{deploy}/log")
    raw = (world.state / f"shop/production/journal/{deploy}.jsonl").read_bytes()
    assert whole.content == raw and whole.headers["homeport-next"] == str(len(raw))
    for start in (1, len(raw) // 2, len(raw) - 2, len(raw), len(raw) + 10):
        part = daemon.ask("GET", f"/api/v1/deploys/{deploy}/log?from={start}")
        assert raw.endswith(part.content) and all(json.loads(line) for line in part.content.splitlines())
