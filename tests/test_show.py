"""What a person sees: closings, escaped text, JSON passed on, and the live display on a real terminal."""

from __future__ import annotations

import io
import json as stdjson
import os
import re
import subprocess
import sys
import termios
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.cli.show import results, words
from homeport.cli.show.events import Shown
from homeport.cli.show.json import encode
from homeport.model.deploys import Deploy, Request
from homeport.model.errors import Failed, Refused
from homeport.model.events import (
    CheckEvent,
    DeployDone,
    DeployStart,
    Event,
    LogLine,
    Notice,
    PlanEvent,
    RestartDone,
    RestartStart,
    StageEvent,
)
from homeport.model.live import Rescue
from homeport.model.plan import PathCounts, Plan, Refusal, ServicePlan

ID = "20260301-140500-ab12"
NEW, OLD = "abc1234def5678", "9876543210fedc"


def done(status: str, *, ok: bool = False, code: int = 1, **more: Any) -> DeployDone:
    fields: dict[str, Any] = {"sha": NEW, "previous_sha": OLD, "services": ("api", "web"), "duration_ms": 2100} | more
    return DeployDone(deploy_id=ID, ok=ok, status=status, exit_code=code, **fields)


def start(kind: str = "commit") -> DeployStart:
    return DeployStart(deploy_id=ID, kind=kind, sha=NEW, environment="staging", host="web-1", requested_by="wk")


def stage(name: str, state: Any, ms: int | None = None, **more: Any) -> StageEvent:
    return StageEvent(deploy_id=ID, stage=name, state=state, duration_ms=ms, **more)


def log(line: str, service: str | None = "web", stream: Any = "stdout") -> LogLine:
    return LogLine(deploy_id=ID, stream=stream, line=line, service=service)


def shown(*events: Event, json: bool = False, quiet: bool = False, verbose: bool = False) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    view = Shown(json, quiet, verbose, out, err)
    for event in events:
        view.feed(msgspec.json.encode(event) + b"\n")
    view.close()
    view.close()
    return out.getvalue(), err.getvalue()


BROKEN = "web: connection refused (verify)"
LOGS = f"homeport logs {ID}"
SAID = f"homeport: {BROKEN}\n  next: {LOGS}\n"
CLOSINGS: list[tuple[str, list[Event], str, str]] = [
    ("deployed", [done("deployed", ok=True, code=0)], "deployed abc1234 in 2.1 s: api, web", ""),
    ("unchanged", [done("unchanged", ok=True, code=0, services=())], "nothing to do: abc1234 is what runs", ""),
    ("restart", [start("restart"), done("deployed", ok=True, code=0)], "restarted at abc1234 in 2.1 s: api, web", ""),
    ("try", [start("try"), done("deployed", ok=True, code=0)], "deployed abc1234 as a try in 2.1 s: api, web", ""),
    ("asked rollback", [start("rollback"), done("deployed", ok=True, code=0)],
     "deployed abc1234 in 2.1 s, going back from 9876543: api, web", ""),
    ("rolled back", [stage("sync", "start"), stage("verify", "failed"),
                     done("rolled_back", error_summary=BROKEN, next=LOGS)],
     "rolled back after 2.1 s: abc1234 failed in verify, 9876543 runs again", SAID),
    ("failed in build", [stage("build", "start"), stage("build", "failed"),
                         done("failed", error_summary=BROKEN, next=LOGS)],
     "failed in build after 2.1 s: nothing live was changed, 9876543 still runs", SAID),
    ("rollback failed", [stage("sync", "start"), stage("sync", "failed"), stage("rollback:sync", "failed"),
                         done("failed", error_summary=BROKEN)],
     "failed in sync after 2.1 s: and the rollback failed too", f"homeport: {BROKEN}\n  next: {LOGS}\n"),
    ("first deploy failed", [stage("sync", "start"), stage("verify", "failed"), done("failed", previous_sha=None)],
     "failed in verify after 2.1 s: live files were changed and are not rolled back",
     f"homeport: the deploy failed\n  next: {LOGS}\n"),
    ("restart failed", [start("restart"), stage("restart", "start"), stage("restart", "failed"), done("failed")],
     "failed in restart after 2.1 s: not rolled back", f"homeport: the deploy failed\n  next: {LOGS}\n"),
    ("refused", [stage("decide", "start"), stage("decide", "failed"),
                 done("refused", code=3, error_summary="drift", next="homeport drift")],
     "refused in decide: nothing live was changed, 9876543 still runs", "homeport: drift\n  next: homeport drift\n"),
    ("refused, first", [done("refused", code=3, previous_sha=None, error_summary="no")],
     "refused: nothing live was changed", f"homeport: no\n  next: {LOGS}\n"),
    ("cancelled", [stage("build", "start"), done("cancelled", code=6, error_summary="cancelled by wk")],
     "cancelled after 2.1 s: nothing live was changed, 9876543 still runs",
     "homeport: cancelled by wk\n  next: homeport deploy\n"),
    ("cancelled late", [stage("sync", "start"), done("cancelled", code=6)],
     "cancelled after 2.1 s: abc1234 is not deployed", "homeport: the deploy was cancelled\n  next: homeport deploy\n"),
    ("superseded", [done("superseded", code=6)],
     "superseded by a newer request after 2.1 s: nothing live was changed, 9876543 still runs",
     "homeport: a newer request took its place\n  next: homeport history\n"),
    ("unknown word", [done("exploded", sha=None)],
     "failed after 2.1 s: the commit is not deployed", f"homeport: the deploy failed\n  next: {LOGS}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("events", "closing", "said"), [row[1:] for row in CLOSINGS], ids=[row[0] for row in CLOSINGS])
def test_closings(events: list[Event], closing: str, said: str) -> None:
    assert shown(*events, quiet=True) == (closing + "\n", said)
    out, err = shown(*events)
    assert out.splitlines()[-1] == closing
    assert err == said


@pytest.mark.parametrize(("seconds", "said"), [
    (-7200, "2 h ago"), (-7199, "1 h ago"), (-1, "now"), (4 * 3600, "in 4 h"), (3600, "in 1 h"), (2400, "in 40 min"),
    (7 * 86400, "in 7 d"), (100, "in 2 min"),
])  # fmt: skip
def test_what_comes_is_told_to_the_nearest_unit_and_what_was_in_units_that_passed(seconds: int, said: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=seconds, milliseconds=-100 if seconds > 0 else 0)
    assert words.ago(at.isoformat()) == said


@pytest.mark.parametrize("status", ["rolled_back", "failed", "refused", "cancelled", "superseded", "deployed"])
def test_only_success_sounds_like_success(status: str) -> None:
    """Even a `deployed` that is not ok."""
    out, err = shown(done(status), quiet=True)
    assert not out.startswith(("deployed", "nothing to do", "restarted"))
    assert err.startswith("homeport: ")


def test_plain_lines_have_stages_notices_restarts_checks_and_the_plan() -> None:
    out, err = shown(
        start(), stage("fetch", "start"), stage("fetch", "done", 1234),
        PlanEvent(deploy_id=ID, from_sha=OLD, to_sha=NEW, services=("api",), added=1, modified=2),
        Notice(deploy_id=ID, level="warning", message="not registered", service="api"),
        RestartStart(deploy_id=ID, service="api"), RestartDone(deploy_id=ID, service="api", pid=42, duration_ms=812),
        CheckEvent(deploy_id=ID, check="tcp :80", ok=False, service="api", detail="refused", required=False),
        log("noise"), stage("stamp", "skipped"), done("deployed", ok=True, code=0),
    )  # fmt: skip
    assert [line.strip() for line in out.splitlines()] == [
        f"deploy abc1234 to staging on web-1  {ID} by wk",
        "✓     1.2 s  fetch",
        "· 9876543 → abc1234  3 paths (1 added, 2 modified), concerns api",
        "! api: not registered",
        "✓ api  restarted  pid 42  812 ms",
        "! api  tcp :80  0 ms  refused  (not required)",
        "·            stamp",
        "deployed abc1234 in 2.1 s: api, web",
    ]
    assert err == ""


def test_output_is_shown_with_verbose_and_only_the_end_of_it_when_the_deploy_fails() -> None:
    lines = [log(f"line {n}") for n in range(30)]
    failing = [stage("build", "start"), *lines, stage("build", "failed"), log("of the undo"), done("failed")]
    quiet_success = shown(stage("build", "start"), *lines, stage("build", "done", 1), done("deployed", ok=True, code=0))
    assert "line" not in quiet_success[0]
    tail = re.findall(r"web │ (.*)", shown(*failing)[0])
    assert tail == [f"line {n}" for n in range(10, 30)]
    verbose = re.findall(r"web │ (.*)", shown(*failing, verbose=True)[0])
    assert verbose == [f"line {n}" for n in range(30)] + ["of the undo"]
    assert "line" not in shown(*failing, quiet=True)[0]
    without_stages = shown(log("last words"), done("failed"))[0]
    assert "last words" in without_stages


def test_output_of_a_build_that_succeeded_is_not_the_reason() -> None:
    out, _ = shown(stage("build", "start"), log("built well"), stage("build", "done", 1), stage("restart", "start"),
                   log("cannot bind"), stage("restart", "done", 1), stage("verify", "start"), stage("verify", "failed"),
                   done("rolled_back"))  # fmt: skip
    assert "cannot bind" in out
    assert "built well" not in out


EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc [bold]x[/bold] \r\n\x00"


def evil_events() -> list[Event]:
    return [
        DeployStart(deploy_id=EVIL, kind=EVIL, sha=EVIL, environment=EVIL, host=EVIL, requested_by=EVIL, targets=(EVIL,)),
        stage(EVIL, "start"), stage(EVIL, "done", 400), stage("build", "start"), log(EVIL, EVIL), log(EVIL, None),
        Notice(deploy_id=ID, level="info", message=EVIL, service=EVIL), log(EVIL, EVIL, "homeport"),
        PlanEvent(deploy_id=ID, from_sha=EVIL, to_sha=EVIL, services=(EVIL,)),
        RestartStart(deploy_id=ID, service=EVIL), RestartDone(deploy_id=ID, service=EVIL, pid=1, duration_ms=1),
        CheckEvent(deploy_id=ID, check=EVIL, ok=False, service=EVIL, detail=EVIL),
        stage("build", "failed", 300, detail=EVIL),
        done("failed", error_summary=EVIL, next=EVIL, services=(EVIL,), sha=EVIL, previous_sha=EVIL),
    ]  # fmt: skip


def assert_harmless(said: str) -> None:
    bad = [c for c in said if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    assert not bad, said


@pytest.mark.parametrize("verbose", [True, False])
def test_no_control_character_gets_through(verbose: bool) -> None:
    out, err = shown(*evil_events(), verbose=verbose)
    assert_harmless(out)
    assert_harmless(err)
    assert "[bold]x[/bold]" in out
    assert "\\x1b]0;owned\\x07" in out


def test_colours_of_a_build_are_dropped_and_progress_bars_end_at_their_last_state() -> None:
    assert words.output_line("\x1b[1;32mok\x1b[0m\tdone\x1b[K\r\n") == "ok  done"
    assert words.output_line("10%\r50%\r100% ready") == "100% ready"
    assert words.output_line("\x1b[2Jx") == "\\x1b[2Jx"


def test_json_passes_lines_on_untouched_and_flushed() -> None:
    class Counting(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    lines = [msgspec.json.encode(event) for event in (start(), log("é [bold]"), done("failed", next="x"))]
    lines.insert(1, b'{"type":"of.the.future","n":1}')
    out, err = Counting(), io.StringIO()
    view = Shown(True, False, True, out, err)
    for number, line in enumerate(lines, 1):
        view.feed(line + b"\n")
        assert out.flushed >= number
    assert out.getvalue().encode() == b"\n".join(lines) + b"\n"
    assert err.getvalue() == ""
    assert view.done is not None
    assert view.done.status == "failed"


def test_json_on_a_stream_that_knows_only_ascii_is_still_that_json() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Shown(True, False, False, out, io.StringIO()).feed(msgspec.json.encode(log("é \U0001f600 ✓")))
    assert stdjson.loads(raw.getvalue())["line"] == "é \U0001f600 ✓"


def test_plain_lines_on_a_stream_that_knows_only_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    view = Shown(False, False, False, out, io.StringIO())
    for event in (stage("fetch", "done", 5), done("failed", error_summary="é")):
        view.feed(msgspec.json.encode(event))
    assert raw.getvalue().decode("ascii").startswith("+      5 ms  fetch\n")


@pytest.mark.parametrize("line", [b"", b"\n", b"not json", b"[]", b'{"type":"of.the.future"}', b'{"type":"deploy.log"}',
                                  b"\xff\xfe", b'{"type":"deploy.done"'])  # fmt: skip
def test_lines_that_are_no_event_are_passed_over(line: bytes) -> None:
    out = io.StringIO()
    view = Shown(False, False, True, out, out)
    view.feed(line)
    assert out.getvalue() == ""
    assert view.done is None


def test_nothing_is_closed_twice_and_words_between_go_where_they_belong() -> None:
    out, err = io.StringIO(), io.StringIO()
    view = Shown(True, False, False, out, err)
    view.say("asked to cancel")
    assert (out.getvalue(), err.getvalue()) == ("", "asked to cancel\n")
    assert shown(done("deployed", ok=True, code=0), done("failed"))[0] == "deployed abc1234 in 2.1 s: api, web\n"


def test_rich_is_not_loaded_for_lines() -> None:
    code = (
        "import sys, homeport.cli.show.events as e, homeport.cli.show.results, homeport.cli.show.json\n"
        "e.Shown(False, False, True, sys.stdout, sys.stderr).feed(b'{\"type\":\"deploy.stage\",\"deployId\":\"1\","
        "\"stage\":\"fetch\",\"state\":\"done\"}')\n"
        "assert not any(m.split('.')[0] == 'rich' for m in sys.modules), 'rich was loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# --- a real terminal ---


class Terminal:
    """A pty with somebody reading it."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        self.out = os.fdopen(slave, "w", encoding="utf-8", buffering=1)
        self._read = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            with self._changed:
                self._read += chunk
                self._changed.notify_all()

    def wait_for(self, words: str) -> None:
        with self._changed:
            found = self._changed.wait_for(lambda: words.encode() in self._read, timeout=20)
            assert found, self._read

    def close(self) -> str:
        self.out.close()
        self._reader.join(20)
        os.close(self._master)
        return self._read.decode()


def drawn(events: list[Event], monkeypatch: pytest.MonkeyPatch, **env: str) -> tuple[str, str]:
    """What came out of a terminal, and what of the other one."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    terminal, other = Terminal(), io.StringIO()
    view = Shown(False, False, False, terminal.out, other)
    for event in events:
        view.feed(msgspec.json.encode(event))
    view.close()
    return terminal.close(), other.getvalue()


GOOD_DEPLOY: list[Event] = [
    start(), stage("fetch", "start"), stage("fetch", "done", 20), stage("gate", "start"), stage("gate", "done", 30),
    stage("build", "start"), log("compiling [bold]x[/bold]"), stage("build", "done", 1800),
    stage("restart", "start"), RestartStart(deploy_id=ID, service="api"),
    RestartDone(deploy_id=ID, service="api", pid=42, duration_ms=812), stage("restart", "done", 900),
    done("deployed", ok=True, code=0),
]  # fmt: skip


def test_a_terminal_shows_folded_stages_and_the_outcome_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, err = drawn(GOOD_DEPLOY, monkeypatch)
    assert "\x1b[32m" in raw
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") == 1
    assert raw.rindex("\x1b[?25h") < raw.rindex("deployed abc1234")
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
    assert "50 ms  fetch, gate" in said
    assert "1.8 s  build" in said
    assert "✓ deployed abc1234 in 2.1 s: api, web" in said
    assert err == ""


def test_a_terminal_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = drawn(GOOD_DEPLOY, monkeypatch, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", raw)
    assert "deployed abc1234" in raw


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = drawn(GOOD_DEPLOY, monkeypatch, TERM="dumb")
    assert "\x1b" not in raw
    assert "deployed abc1234" in raw


def test_no_escape_code_of_others_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, err = drawn(evil_events(), monkeypatch)
    ours = re.sub(r"\x1b\[(\?25[lh]|[0-9;]*[mAK]|2K|1A)|\r", "", raw)
    assert_harmless(ours)
    assert "\x1b[2J" not in raw
    assert "[bold]x[/bold]" in ours
    assert_harmless(err)


def test_the_running_stage_is_seen_with_its_last_lines_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    view = Shown(False, False, False, terminal.out, io.StringIO())
    try:
        for event in [start(), stage("build", "start"), *(log(f"module {n} [red]") for n in range(20))]:
            view.feed(msgspec.json.encode(event))
        terminal.wait_for("module 19 [red]")
        began = time.process_time()
        terminal.wait_for("1.0 s")
        spent = time.process_time() - began
        assert spent < 0.5, "the display is too busy"
    finally:
        view.close()
        threads = [thread for thread in threading.enumerate() if "Refresh" in type(thread).__name__]
        raw = terminal.close()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert raw.count("\x1b[?25h") == 1
    assert view.done is None


def test_a_failure_on_a_terminal_shows_the_end_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, err = drawn([start(), stage("build", "start"), *(log(f"l{n}.") for n in range(30)), stage("build", "failed"),
                      done("failed", error_summary=BROKEN, next=LOGS)], monkeypatch, NO_COLOR="1")  # fmt: skip
    after = raw[raw.rindex("✗            build"):]
    assert re.findall(r"l(\d+)\.", after) == [str(n) for n in range(10, 30)]
    assert "✗ failed in build after 2.1 s: nothing live was changed, 9876543 still runs" in after
    assert err == SAID


# --- results ---

SERVICES = (
    ServicePlan(service="api", reasons=tuple(f"api/a_rather_long_name_{n}.js" for n in range(9)),
                actions=("build", "sync")),
    ServicePlan(service="website", reasons=("first deploy",), actions=("sync",)),
)  # fmt: skip
STATUS: dict[str, Any] = {
    "project": "shop", "environment": "staging", "host": "web-1", "sha": NEW, "deployId": ID, "hold": None,
    "blocked": [], "edits": 0, "tries": [], "running": None,
    "services": [{"service": "api", "sha": NEW, "runtime": "pm2", "state": "running", "drift": 0},
                 {"service": "website", "sha": None, "runtime": None, "state": "files", "drift": 2}],
}  # fmt: skip
DRIFT: dict[str, Any] = {"equal": False, "services": [
    {"service": "api", "target": "/srv/api", "paths": [
        {"path": "server.js", "state": "modified", "accepted": None, "foreign": None, "because": None},
        {"path": "new/file", "state": "added", "accepted": None, "foreign": NEW, "because": None},
        {"path": "gone", "state": "deleted", "accepted": None, "foreign": None, "because": None}]},
    {"service": "web", "target": "/srv/web", "paths": []}]}  # fmt: skip


def deploy_row(**more: Any) -> Deploy:
    fields: dict[str, Any] = {"id": ID, "kind": "commit", "request": Request(kind="commit"), "state": "done",
                              "status": "rolled_back", "sha": NEW, "previous_sha": OLD, "services": ("api", "web"),
                              "started_at": "2020-03-01T14:05:00Z", "duration_ms": 4200, "error_summary": BROKEN,
                              "next": LOGS}  # fmt: skip
    return Deploy(**(fields | more))


def test_plan() -> None:
    said = results.plan(Plan(from_sha=OLD, to_sha=NEW, deployable=True, services=SERVICES, paths=PathCounts(modified=2)))
    assert said == (
        "plan  9876543 → abc1234  2 paths: 2 modified\n\n"
        "  api      build → sync\n"
        "           api/a_rather_long_name_0.js, api/a_rather_long_name_1.js and 7 more\n"
        "  website  sync\n"
        "           first deploy\n\n"
        "next: homeport deploy\n"
    )
    assert results.plan(Plan(from_sha=NEW, to_sha=NEW, deployable=False)) == "plan  abc1234\nnothing to do\n"


def test_a_refused_plan_names_the_paths_and_the_way_out() -> None:
    paths = (*(f"f{n}" for n in range(15)), "caf\udce9")
    refusal = Refusal(rule="drift", message="16 paths were changed", paths=paths, next="homeport drift api")
    said = results.plan(Plan(from_sha=OLD, to_sha=NEW, deployable=False, services=SERVICES, refusals=(refusal,)))
    assert "refused\n  drift: 16 paths were changed\n    f0\n" in said
    assert "    and 4 more\n    next: homeport drift api\n" in said
    assert "homeport deploy" not in said


def test_status() -> None:
    assert results.status(STATUS) == (
        "shop  staging on web-1  abc1234\n\n"
        "  service  commit   runtime  drift    state\n"
        "  api      abc1234  pm2      -        running\n"
        "  website  -        -        2 paths  files\n"
    )
    held = STATUS | {
        "edits": 2, "hold": {"because": "sale", "by": "wk", "until": "2020-01-01T00:00:00Z"},
        "blocked": [{"sha": OLD, "because": "broken", "by": "homeport", "at": "bad time"}],
        "running": {"deployId": ID, "stage": "build"},
    }  # fmt: skip
    said = results.status(held)
    assert f"deploying now: {ID}, build\n" in said
    assert "sale (by wk)" in said
    assert "blocked 9876543: broken (by homeport, bad time)" in said
    assert "next: homeport drift   2 paths changed on the host\n      homeport unhold  ends the hold\n" in said
    assert "nothing deployed yet" in results.status(STATUS | {"sha": None, "services": []})


def test_drift() -> None:
    assert results.drift(DRIFT) == (
        "api  /srv/api\n"
        "  M server.js\n"
        "  A new/file   as in abc1234, by another deployer\n"
        "  D gone\n\n"
        "M changed  A new  D missing\n"
        "next: homeport diff                 what changed\n"
        "      homeport record               take another deployer's files as deployed\n"
        "      homeport adopt                bring it into git, on a branch of its own\n"
        "      homeport discard PATH         put it back; the edit is saved first\n"
        "      homeport deploy --keep-drift  deploy and leave the edits as they are\n"
    )
    assert results.drift({"equal": True, "services": DRIFT["services"]}) == "no drift: api, web\n"


def test_where_it_is_only_looked_at_no_command_is_named_that_would_be_refused() -> None:
    for who, ends in (("host", "homeport setup --no-observe"), ("environment", "homeport deploy  ")):
        listed = results.drift({**DRIFT, "observe": who})
        assert "homeport adopt " in listed and "homeport accept PATH " in listed and ends in listed, listed
        assert "discard" not in listed and "--keep-drift" not in listed, listed


def test_history_and_one_deploy() -> None:
    said = results.history([deploy_row(), deploy_row(kind="try", status="deployed", error_summary=None)])
    assert f"{ID}  rolled back     abc1234  2020-03-01" in said
    assert f"\n  {BROKEN}\n" in said
    assert "deployed (try)" in said
    assert results.history([]) == "no deploys yet\nnext: homeport deploy\n"
    one = results.deploy(deploy_row(), [("build", "done", ""), ("verify", "failed", "no\x1b answer")])
    assert one.startswith(f"deploy {ID}  rolled back\n")
    assert "abc1234 (was 9876543)" in one
    assert "  ✗  verify  failed  no\\x1b answer\n" in one
    assert one.endswith(f"next: {LOGS}\n")


def test_rescues_and_doctor() -> None:
    row = Rescue(id="r1", service="api", path="a\udcffb", mode="100644", oid="0" * 40, bytes=3400, because="discarded",
                 at="2020-03-01T00:00:00Z")  # fmt: skip
    said = results.rescues([row])
    assert "r1      api:a\\xffb  3.4 kB  discarded  20" in said
    assert said.endswith("next: homeport rescue restore r1\n")
    assert "no rescues" in results.rescues([])
    said = results.doctor([{"name": "origin", "ok": False, "detail": "no answer", "next": "git fetch"},
                           {"name": "disk", "ok": True, "detail": "fine", "next": ""}])  # fmt: skip
    assert said == "✗ origin  no answer\n          next: git fetch\n✓ disk    fine\n\n1 thing to mend\n"


def test_errors_have_three_parts_and_leave_out_the_empty_ones() -> None:
    assert results.error(Refused("drift", where="api", next="homeport drift")) == (
        "homeport: drift\n  where: api\n  next: homeport drift\n"
    )
    assert results.error(Failed("a\x1b[31m\nb")) == "homeport: a\\x1b[31m\n    b\n"
    assert_harmless(results.error(Failed(EVIL, where=EVIL, next=EVIL)))


def everything(color: bool) -> list[str]:
    bad = {"path": EVIL, "state": EVIL, "accepted": EVIL, "foreign": EVIL, "because": EVIL}
    service = {"service": EVIL, "sha": EVIL, "runtime": EVIL, "state": EVIL, "drift": 1}
    hold = {"because": EVIL, "by": EVIL, "until": EVIL}
    row = deploy_row(id=EVIL, sha=EVIL, services=(EVIL,), error_summary=EVIL, next=EVIL, requested_by=EVIL, started_at=EVIL)
    refusal = Refusal(rule=EVIL, message=EVIL, paths=(EVIL,), next=EVIL)
    services = (ServicePlan(service=EVIL, reasons=(EVIL,), actions=("sync",)),)
    return [
        results.plan(Plan(from_sha=EVIL, to_sha="x", deployable=False, services=services, refusals=(refusal,)),
                     color=color),
        results.status(STATUS | {"project": EVIL, "host": EVIL, "services": [service], "hold": hold, "edits": 1,
                                 "blocked": [{"sha": EVIL, "because": EVIL, "by": EVIL, "at": EVIL}],
                                 "running": {"deployId": EVIL, "stage": EVIL}}, color=color),
        results.drift({"equal": False, "services": [{"service": EVIL, "target": EVIL, "paths": [bad]}]}, color=color),
        results.drift({"equal": True, "services": [{"service": EVIL, "paths": []}]}, color=color),
        results.history([row], color=color), results.deploy(row, [(EVIL, "done", EVIL), (EVIL, EVIL, EVIL)], color=color),
        results.rescues([Rescue(id=EVIL, service=EVIL, path=EVIL, mode="", oid="", bytes=1, because=EVIL, at=EVIL)],
                        color=color),
        results.doctor([{"name": EVIL, "ok": False, "detail": EVIL, "next": EVIL}], color=color),
        results.diff(f"--- a\n+{EVIL}", color, escaped=True),
    ]  # fmt: skip


def test_results_escape_what_they_show_and_colour_adds_nothing_but_colour() -> None:
    for plain, coloured in zip(everything(False), everything(True), strict=True):
        assert_harmless(plain)
        assert re.sub(r"\x1b\[[0-9;]+m", "", coloured) == plain
        assert "\x1b[" in coloured


def test_a_diff_stays_as_git_wrote_it_unless_it_is_for_a_terminal() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\x1b[2J\n+b\tc\n"
    assert results.diff(text) == text
    assert results.diff(text, escaped=True) == text.replace("\x1b", "\\x1b")
    assert "\x1b[31m-a\\x1b[2J\x1b[0m\n\x1b[32m+b\tc\x1b[0m\n" in results.diff(text, True)


@pytest.mark.parametrize("value", ["caf\udce9", "\ud800 alone", "a\x00b", {"k\udcff": ["x\udcff", 1, None]},
                                   ("é",), deploy_row(id="\udcff")])  # fmt: skip
def test_json_of_anything_is_one_valid_line(value: Any) -> None:
    said = encode(value)
    assert "\n" not in said
    said.encode("utf-8")
    stdjson.loads(said)


def test_json_leaves_ordinary_text_alone() -> None:
    plan = Plan(from_sha=OLD, to_sha=NEW, deployable=True, services=SERVICES)
    assert stdjson.loads(encode(plan)) == stdjson.loads(msgspec.json.encode(plan))
    assert stdjson.loads(encode({"diff": "a\n\tb\x1b"})) == {"diff": "a\n\tb\x1b"}
    assert stdjson.loads(encode("caf\udce9")) == "caf\\xe9"


@pytest.mark.parametrize(("ms", "said"), [(None, ""), (0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_949, "59.9 s"),
                                          (59_999, "1 min 00 s"), (184_000, "3 min 04 s"),
                                          (3_900_000, "1 h 05 min")])  # fmt: skip
def test_durations(ms: int | None, said: str) -> None:
    assert words.took(ms) == said


def test_only_the_live_display_names_rich_at_the_top() -> None:
    folder = Path(results.__file__).parent
    early = [f.name for f in folder.glob("*.py") if re.search(r"^(from|import) rich", f.read_text(), re.M)]
    assert early == ["screen.py"]
