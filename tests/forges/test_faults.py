"""A forge that limits, fails, is silent or lies: a typed fault with the moment to come back, and the token kept."""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from homeport.doors.clock import SystemClock
from homeport.doors.forges import http
from homeport.doors.forges.github import GitHub
from homeport.doors.forges.http import Client
from homeport.flow.stages import gating
from homeport.model.config import Gate, Seconds
from homeport.model.deploys import Request
from homeport.model.errors import ConfigFault, GateClosed
from homeport.model.forge import ForgeFault, Status

from .conftest import Clock, Memory, World
from .fakes import SHA, TOKEN, GitHubFake
from .server import Answer, serving

if TYPE_CHECKING:
    from homeport.flow.work import Tools, Work

PASSED = Status(name="homeport/check/lint", verdict="passed")


def fault(world: World, *answers: Answer, call: Callable[[], object] | None = None) -> ForgeFault:
    world.fake.queued = list(answers)
    with pytest.raises(ForgeFault) as caught:
        call() if call else world.client().checks(SHA)
    assert caught.value.infrastructure
    return caught.value


@pytest.mark.parametrize("status", [403, 429])
def test_retry_after_in_seconds(world: World, status: int) -> None:
    came = fault(world, Answer(status, {"message": "slow down"}, {"Retry-After": "120"}))
    assert (came.code, came.until) == ("rate-limited", world.clock.time + 120)


def test_retry_after_as_a_date(world: World) -> None:
    came = fault(world, Answer(429, {}, {"Retry-After": formatdate(world.clock.time + 300, usegmt=True)}))
    assert came.until == world.clock.time + 300


def test_retry_after_of_a_maintenance(world: World) -> None:
    came = fault(world, Answer(503, b"down", {"Retry-After": "60"}))
    assert (came.code, came.until) == ("rate-limited", world.clock.time + 60)


@pytest.mark.parametrize("prefix", ["X-RateLimit", "RateLimit"])
def test_a_used_up_limit_says_when_it_resets(world: World, prefix: str) -> None:
    reset = world.clock.time + 900
    came = fault(world, Answer(403, {"message": "API rate limit exceeded"},
                               {f"{prefix}-Remaining": "0", f"{prefix}-Reset": str(int(reset))}))  # fmt: skip
    assert came.until == reset


def test_a_secondary_limit_without_a_moment_doubles(github: World) -> None:
    said = Answer(403, {"message": "You have exceeded a secondary rate limit. Please wait."})
    client = github.client()
    waits = []
    for _ in range(4):
        came = fault(github, said, call=lambda: client.checks(SHA))
        assert came.until is not None
        waits.append(came.until - github.clock.time)
        github.clock.time = came.until + 1
    assert waits == [60, 120, 240, 480]


def test_the_forge_is_left_alone_until_then_by_every_process(world: World) -> None:
    came = fault(world, Answer(429, {}, {"Retry-After": "120"}))
    asked = len(world.fake.seen)
    again = fault(world)
    assert (again.code, again.until, len(world.fake.seen)) == ("rate-limited", came.until, asked)
    world.clock.time += 121
    assert world.client().checks(SHA) == []


def test_the_last_request_of_a_limit_still_counts(github: World) -> None:
    reset = github.clock.time + 600
    empty = {"total_count": 0, "workflow_runs": []}
    came = fault(github, Answer(200, empty, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(reset))}))
    assert (came.until, len(github.fake.seen)) == (reset, 1)


@pytest.mark.parametrize("after", ["99999999999", "1e308", "inf", "nan", "-5", "soon", "Wed, 21 Oct 9999 07:28:00 GMT"])
def test_no_forge_can_stop_deploys_for_ever(world: World, after: str) -> None:
    came = fault(world, Answer(429, {}, {"Retry-After": after}))
    assert came.until is not None and 0 < came.until - world.clock.time <= 3600


def test_a_forged_pause_in_the_cache_is_not_believed(world: World) -> None:
    fault(world, Answer(429, {}, {"Retry-After": "120"}))
    for value in ("1e300", "nan", "x", ""):
        world.memory.held = dict.fromkeys(world.memory.held, value)
        assert world.client().checks(SHA) == []


def test_reads_survive_two_bad_answers(world: World) -> None:
    world.fake.add_status("ci", "success")
    world.fake.queued = [Answer(502, b"<html>bad gateway"), Answer(500, {"message": "oops"})]
    assert [check.name for check in world.client().checks(SHA)] == ["ci"]
    assert len(world.clock.slept) == 2


def test_a_forge_that_stays_down_is_asked_less_and_less(world: World) -> None:
    client = world.client()
    waits = []
    for _ in range(3):
        came = fault(world, *[Answer(503, b"")] * 3, call=lambda: client.checks(SHA))
        assert came.code == "forge-down" and came.until is not None and came.status == 503
        waits.append(came.until - world.clock.time)
    assert waits == sorted(waits) and waits[0] < waits[-1] <= 900


def test_nothing_is_written_twice(world: World) -> None:
    came = fault(world, Answer(502, b""), call=lambda: world.client().set_status(SHA, PASSED))
    assert came.code == "forge-down"
    assert len(world.fake.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(401, "forge-denied"), (403, "forge-denied"), (404, "forge-missing"),
                                              (410, "forge-refused"), (422, "forge-refused")])  # fmt: skip
def test_other_refusals_have_their_names(world: World, status: int, code: str) -> None:
    came = fault(world, Answer(status, {"message": "Resource not accessible by personal access token"}))
    assert (came.code, came.status, came.until) == (code, status, None)
    assert len(world.fake.seen) == 1, "asking again would not help"
    assert came.next or code == "forge-refused"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[", b"{}", b"null", b"[1]", b'{"check_runs": "x"}', b"\xff\xfe", b"[" * 100_000]
)
def test_an_answer_that_makes_no_sense_is_a_fault(world: World, body: bytes) -> None:
    assert fault(world, Answer(200, body)).code == "forge-garbled"


def test_an_answer_without_end_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST", 1000)
    assert fault(world, Answer(200, b" " * 5000 + b"[]")).code == "forge-garbled"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_stay_within_the_forge(github: World, status: int) -> None:
    github.fake.add_run("CI", "success")
    github.fake.queued = [Answer(status, b"", {"Location": "/api/v3/repos/octo/shop/actions/runs?head_sha=" + SHA})]
    assert [check.name for check in github.client().checks(SHA)] == ["CI"]


@pytest.mark.parametrize("place", ["{other}/x", "https://127.0.0.1/x", "//evil.example.com/x", "file:///etc/passwd",
                                   "http://127.0.0.1:99999/"])  # fmt: skip
def test_the_token_is_never_taken_elsewhere(github: World, place: str) -> None:
    with serving(GitHubFake()) as other:
        came = fault(github, Answer(302, b"", {"Location": place.format(other=other.url)}))
        assert came.code == "forge-refused" and other.seen == []


def test_redirects_in_a_circle_end(github: World) -> None:
    came = fault(github, *[Answer(302, b"", {"Location": "/again"})] * 5)
    assert came.code == "forge-refused" and len(github.fake.seen) <= 3
    github.fake.queued.clear()


def test_writes_are_not_redirected(world: World) -> None:
    came = fault(world, Answer(307, b"", {"Location": "/x"}), call=lambda: world.client().set_status(SHA, PASSED))
    assert came.code == "forge-refused" and "forge.repo" in came.next


def test_writes_to_github_are_a_second_apart(github: World) -> None:
    client = github.client()
    for _ in range(3):
        client.set_status(SHA, PASSED)
    assert github.clock.slept == [1.0, 1.0]


@contextmanager
def _listener(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that misbehaves below HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def loop() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    serve(peer)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def _asked(web: str) -> ForgeFault:
    clock = Clock()
    client = GitHub("octo/shop", TOKEN, Memory(), web=web, timing=clock.timing)
    try:
        with pytest.raises(ForgeFault) as caught:
            client.checks(SHA)
    finally:
        client.close()
    assert caught.value.code == "forge-down" and caught.value.until is not None
    return caught.value


def test_a_connection_that_breaks_off() -> None:
    with _listener(lambda peer: None) as web:
        _asked(web)
    with _listener(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]")) as web:
        _asked(web)
    with _listener(lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as web:
        _asked(web)


class Enough(Exception):
    pass


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fifteen seconds for a read and twenty for a write."""
    monkeypatch.setattr(http, "DEADLINE", 0.4)
    monkeypatch.setattr(http, "WRITING", 0.4)


@contextmanager
def _silence() -> Iterator[tuple[str, threading.Event]]:
    """A forge that takes the question and never answers; the event: it has one."""
    asked, over = threading.Event(), threading.Event()

    def serve(peer: socket.socket) -> None:
        peer.recv(65536)
        asked.set()
        over.wait(30)

    with _listener(serve) as web:
        try:
            yield web, asked
        finally:
            over.set()


def test_a_silent_forge_is_left_as_soon_as_nobody_waits_any_more() -> None:
    with _silence() as (web, asked):
        client = GitHub("octo/shop", TOKEN, Memory(), web=web)

        def go_on() -> None:
            if asked.is_set():
                raise Enough

        client.attend(go_on)
        began = time.monotonic()
        with pytest.raises(Enough):
            client.checks(SHA)
        assert time.monotonic() - began < 5, "a read alone may take twenty seconds"
        client.close()


def test_a_silent_forge_costs_one_deadline_whatever_is_asked_of_it_and_by_how_many(in_no_time: None) -> None:
    """It was a minute for each question: three tries of twenty seconds."""
    with _silence() as (web, asked):
        began = time.monotonic()
        clients = [GitHub("octo/shop", TOKEN, Memory(), web=web) for _ in range(3)]
        asks: list[Callable[[GitHub], object]] = [lambda one: one.checks(SHA), lambda one: one.open_requests("main"),
                                                  lambda one: one.set_status(SHA, PASSED)]  # fmt: skip
        said = []
        for client in clients:
            for ask in asks:
                with pytest.raises(ForgeFault) as caught:
                    ask(client)
                said.append(caught.value)
            client.close()
        assert asked.is_set() and time.monotonic() - began < 5
    assert "takes too long to answer" in said[0].what and "curl" in said[0].next
    assert {fault.code for fault in said} == {"forge-down"} and all("a moment ago" in fault.what for fault in said[1:])


def test_what_came_of_a_write_that_a_forge_did_not_answer_can_be_asked_at_once(
    in_no_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, posts = threading.Event(), []

    def serve(peer: socket.socket) -> None:
        if peer.recv(65536).startswith(b"POST"):
            posts.append(1)
            over.wait(1.0)
            return
        body = b'{"total_count": 0, "workflow_runs": []}'
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with _listener(serve) as web:
        client = GitHub("octo/shop", TOKEN, Memory(), web=web, write_gap=0.0)
        for _ in range(3):
            with pytest.raises(ForgeFault):
                client.set_status(SHA, PASSED)
        over.set()
        assert len(posts) == 1
        monkeypatch.setattr(http, "DEADLINE", 20.0)  # this one is answered
        with pytest.raises(ForgeFault, match="unexpected"):
            client.checks(SHA)
        client.close()


def test_the_pause_before_a_forge_is_asked_again_is_left_too(github: World) -> None:
    github.fake.queued = [Answer(502, b"")]
    client, looks = github.client(), iter(range(100))

    def go_on() -> None:
        if len(github.clock.slept) == 2:
            raise Enough
        next(looks)

    client.attend(go_on)
    with pytest.raises(Enough):
        client.checks(SHA)
    assert len(github.fake.seen) == 1 and sum(github.clock.slept) < 0.5


def test_a_gate_before_a_silent_forge_closes_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question that is under way then is not waited for."""
    monkeypatch.setattr(gating, "LAST_LOOK", 0.5)
    memory, ticks = Memory(), time.monotonic
    store = SimpleNamespace(cached=memory.cached, cache=memory.cache, cancel_asked=lambda _: None, waiting=lambda: None)
    gate = SimpleNamespace(gate=Gate(timeout=Seconds(0.1), settle=Seconds(0)), checks={})
    with _silence() as (web, _):
        site = SimpleNamespace(store=store, environment="production", clock=SystemClock(),
                               forge=lambda _: GitHub("octo/shop", TOKEN, memory, web=web))  # fmt: skip
        deploy = SimpleNamespace(id="d-1", kind="commit", request=Request(kind="commit"))
        work = SimpleNamespace(config=gate, sha=SHA, deploy=deploy)
        began = ticks()
        with pytest.raises(GateClosed) as caught:
            gating.pass_checks(cast("Work", work), cast("Tools", SimpleNamespace(site=site)))
        assert ticks() - began < 5
    assert caught.value.code == "gate-timeout" and "could not be asked" in caught.value.what


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    came = _asked(f"http://127.0.0.1:{port}")
    assert TOKEN not in str(came) and f"127.0.0.1:{port}" in came.where


def test_an_answer_by_the_drop_is_cut_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            for _ in range(1000):
                peer.sendall(b" " * 100)
        except OSError:
            pass

    monkeypatch.setattr(http, "DEADLINE", -1.0)
    with _listener(drip) as web:
        assert "too long" in _asked(web).what


def test_the_token_is_in_no_url_error_log_or_repr(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = {"message": f"bad credentials {TOKEN}", "errors": [TOKEN]}
    world.fake.queued = [Answer(401, said)]
    try:
        world.client().checks(SHA)
    except ForgeFault as came:
        text = "".join(traceback.format_exception(came)) + str(vars(came))
    assert "***" in text and TOKEN not in text
    world.client().set_status(SHA, PASSED)
    assert caplog.text and TOKEN not in caplog.text
    assert not any(TOKEN in seen.path or TOKEN in str(seen.query) or TOKEN in str(seen.body) for seen in world.fake.seen)
    assert TOKEN not in "".join(world.memory.held.values())
    assert TOKEN not in repr(Client("https://git.example.com", "X", TOKEN, Memory()))


def test_what_the_forge_says_cannot_paint_the_terminal(world: World) -> None:
    came = fault(world, Answer(422, {"message": "\x1b[2J\x07 no\r\nyes" + "x" * 1000}))
    assert came.what.isprintable() and len(came.what) < 400


@pytest.mark.parametrize("token", ["", " ", "abc\n", "a b", "tök", "a\r\nX-Evil: 1"])
def test_an_unusable_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigFault) as caught:
        Client("https://git.example.com", "X", token, Memory())
    assert caught.value.code == "bad-token"
    assert not token.strip() or token not in str(vars(caught.value))
