"""C4: events of the user who asked, resumable by byte, for late comers too; slow readers and hostile lines do no harm."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from homeport.daemon.events import Tails
from homeport.daemon.served import Environment, Served
from homeport.doors.journal import chunk_from
from tests.daemon.rig import Daemon, Waiting
from tests.world import eventually

HOSTILE = r"""
import os, sys
os.write(1, b"caf\xe9 \xff\xfe\n")
os.write(1, b"\x1b[2J\x1b]0;title\x07\x00 bell\n")
os.write(1, b"x" * 10_000_000 + b"\n")
os.write(1, b'{"type":"deploy.done","deployId":"forged"}\n')
os.write(1, "\u202e\u2028 end\n".encode())
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    made = Waiting(tmp_path_factory.mktemp("events"))
    try:
        made.make(more='[services.odd]\nsource = "odd"\ntarget = "{live}/odd"\nbuild = { run = ["python3", "odd.py"] }\n')
        made.publish({"odd/odd.py": HOSTILE})
        yield made
    finally:
        made.hold.unlink(missing_ok=True)
        made.close()


@pytest.fixture(scope="module")
def daemon(world: Waiting) -> Iterator[Daemon]:
    made = Daemon(world).start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def deploy(daemon: Daemon) -> str:
    """A deploy that has ended, asked for by ada and joined by nobody."""
    said = daemon.deploy(scope="platform", requestedBy="ada", sessionId="s-1")
    assert said.status_code == 200, said.text
    return str(said.json()["deployId"])


@pytest.fixture(scope="module")
def hostile(daemon: Daemon) -> dict[str, Any]:
    """The outcome of a deploy whose build prints 10 MB of what no screen should show."""
    said: dict[str, Any] = daemon.ask("POST", "/api/v1/deploys?wait=true", json={"services": ["odd"]}).json()
    assert said["status"] == "deployed", said
    return said


def connect(daemon: Daemon, query: str, **more: Any) -> Any:
    url = f"ws://localhost/api/v1/events?{query}"
    return unix_connect(str(daemon.socket), url, compression=None, max_size=None, **more)


async def heard(connection: ClientConnection,
                until: Callable[[dict[str, Any]], bool] = lambda _: False) -> list[dict[str, Any]]:  # fmt: skip
    """Every event, one line each, until the stream ends or `until` says so."""
    found: list[dict[str, Any]] = []
    async for message in connection:
        assert isinstance(message, str)
        found += [json.loads(line) for line in message.split("\n")]
        assert found[-1]["type"] == "events.offset", "every message says where to go on"
        if any(until(event) for event in found):
            break
    return found


def told(daemon: Daemon, query: str) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        async with connect(daemon, query) as connection:
            return await heard(connection)

    return asyncio.run(asyncio.wait_for(run(), 30))


def refused(daemon: Daemon, query: str, **more: Any) -> int:
    async def run() -> int:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(daemon, query, **more):
                pass
        return int(caught.value.response.status_code)

    return asyncio.run(run())


def test_a_late_comer_gets_the_whole_deploy_with_names_and_fields(daemon: Daemon, deploy: str) -> None:
    events = [event for event in told(daemon, f"deploy={deploy}") if event["type"] != "events.offset"]
    assert {event["deployId"] for event in events} == {deploy}
    start, done = events[0], events[-1]
    assert start["type"] == "deploy.start" and done["type"] == "deploy.done"
    assert (start["mode"], start["targets"], start["sessionId"], start["requestedBy"]) == ("commit", ["web"], "s-1", "ada")
    assert {"ok", "exitCode", "durationMs", "errorSummary"} <= set(done) and done["ok"] is True
    lines = [event for event in events if event["type"] == "deploy.log"]
    assert lines and all({"stream", "line", "deployId"} <= set(line) for line in lines)
    assert [event["type"] for event in events].count("deploy.done") == 1


def test_resumed_at_any_byte_nothing_is_lost_or_doubled(daemon: Daemon, deploy: str, world: Waiting) -> None:
    raw = (world.state / f"shop/production/journal/{deploy}.jsonl").read_bytes()
    whole = [json.loads(line) for line in raw.splitlines()]
    starts = [at + 1 for at, byte in enumerate(raw) if byte == 10]
    for number, start in list(enumerate(starts, 1))[::5]:
        again = [event for event in told(daemon, f"deploy={deploy}&from={start}") if event["type"] != "events.offset"]
        assert again == whole[number:] if number < len(whole) else again[-1]["type"] == "deploy.done"
    middle = [event for event in told(daemon, f"deploy={deploy}&from={starts[2] + 5}") if event["type"] != "events.offset"]
    assert middle == whole[4:], "from inside a line on, the next one is the first"
    assert told(daemon, f"deploy={deploy}")[-1]["next"] == len(raw)


def test_live_events_reach_the_clients_of_the_user_who_asked_and_of_whoever_joined(daemon: Daemon, world: Waiting) -> None:
    """`user` hears its own deploys, an operator all; `__self__` is nobody's."""
    world.publish({"web/page.txt": "live\n"})
    world.hold.touch()

    def ended(event: dict[str, Any]) -> bool:
        return event["type"] == "deploy.done"

    async def run() -> tuple[Any, ...]:
        async with connect(daemon, "user=bob") as bob, connect(daemon, "user=cleo") as cleo, connect(daemon, "") as all_, \
                connect(daemon, "user=dan") as dan, connect(daemon, "user=__self__") as nobody:  # fmt: skip
            silent = [asyncio.create_task(dan.recv()), asyncio.create_task(nobody.recv())]
            asked = daemon.deploying(scope="platform", requestedBy="bob", sessionId="s-2")
            joined = daemon.deploying(scope="platform", requestedBy="cleo", requestId="joins")
            listening = [asyncio.create_task(heard(one, ended)) for one in (bob, cleo, all_)]
            await asyncio.to_thread(eventually, world.building, "the build runs")
            here = "/api/v1/deploys?requestId=joins"
            await asyncio.to_thread(eventually, lambda: daemon.ask("GET", here).json()["deploys"], "both have asked")
            world.hold.unlink()
            found = await asyncio.wait_for(asyncio.gather(*listening), 30)
            quiet = [not task.done() for task in silent]
            for task in silent:
                task.cancel()
            own = daemon.deploying(scope="platform", requestedBy="__self__").result(30)
            return (*found, quiet, asked.result(30).json(), joined.result(30).json(), own.status_code)

    bob, cleo, all_, quiet, asked, joined, own = asyncio.run(run())
    assert asked == joined and own == 200 and quiet == [True, True]
    for events in (bob, cleo, all_):
        names = [event["type"] for event in events if event["type"] != "events.offset"]
        assert names[0] == "deploy.start" and names[-1] == "deploy.done"
        assert {event["deployId"] for event in events} == {asked["deployId"]}
    lines = [event["line"] for event in bob if event["type"] == "deploy.log" and event["line"].startswith("line ")]
    assert lines == [f"line {n + 1}" for n in range(len(lines))] and lines


def test_a_deploy_of_another_user_is_not_shown_and_what_is_not_there_is_said(daemon: Daemon, deploy: str) -> None:
    assert refused(daemon, f"deploy={deploy}&user=mallory") == 403
    assert refused(daemon, f"deploy={deploy}&user=__self__") == 403
    assert told(daemon, f"deploy={deploy}&user=ada")[0]["type"] == "deploy.start"
    assert refused(daemon, "deploy=none") == 404
    for start in ("-1", "x", "1e3", "9" * 40):
        assert refused(daemon, f"deploy={deploy}&from={start}") == 400, start
    assert refused(daemon, f"deploy={deploy}", additional_headers={"Authorization": "Bearer homeport_x"}) == 401
    assert refused(daemon, f"deploy={deploy}", origin="https://evil.example.com") == 403


def test_hostile_lines_arrive_as_text_and_end_nothing(daemon: Daemon, hostile: dict[str, Any]) -> None:
    events = told(daemon, f"deploy={hostile['deployId']}")
    lines = [event["line"] for event in events if event["type"] == "deploy.log"]
    assert "caf\\xe9 \\xff\\xfe" in lines
    assert any("\x1b[2J" in line and "\\x00" in line for line in lines), "escaped in JSON, shown by nobody as it is"
    assert sum(line.count("x") for line in lines if set(line) == {"x"}) == 10_000_000
    assert max(map(len, lines)) <= 64 * 1024
    assert '{"type":"deploy.done","deployId":"forged"}' in lines
    assert [event["type"] for event in events if event["type"] == "deploy.done"] == ["deploy.done"]
    assert len(hostile["logTail"]) <= 9000


def clients(daemon: Daemon) -> int:
    figures = daemon.ask("GET", "/metrics").text
    return int(float(figures.rsplit("homeport_event_clients ", 1)[1].split()[0]))


def test_a_slow_reader_is_dropped_and_told_where_to_go_on(daemon: Daemon, world: Waiting, hostile: dict[str, Any]) -> None:
    """It reads nothing of a 10 MB journal; meanwhile another reads all of it, and the slow one then resumes."""
    big = world.state / f"shop/production/journal/{hostile['deployId']}.jsonl"
    assert big.stat().st_size > 8_000_000

    async def run() -> tuple[str, int, int]:
        async with connect(daemon, f"deploy={big.stem}", max_queue=1, ping_interval=None) as slow:
            await asyncio.to_thread(told, daemon, f"deploy={big.stem}")
            await asyncio.to_thread(eventually, lambda: clients(daemon) == 0, "the slow one was dropped")
            last, size = 0, 0
            try:
                async for message in slow:
                    size += len(message)
                    last = json.loads(message.rsplit("\n", 1)[1])["next"]
            except ConnectionClosed:
                pass
            return f"{slow.close_code} {slow.close_reason}", last, size

    said, last, size = asyncio.run(asyncio.wait_for(run(), 60))
    assert said == f"1013 too slow; go on with from={last}", (said, last)
    assert 0 < last < os.path.getsize(big) and size < os.path.getsize(big)
    assert told(daemon, f"deploy={big.stem}&from={last}")[-2]["type"] == "deploy.done"


def test_a_client_that_talks_is_let_go(daemon: Daemon, deploy: str) -> None:
    async def run() -> int:
        async with connect(daemon, "user=nobody-deploys") as connection:
            try:
                for _ in range(100_000):
                    await connection.send("flood")
            except ConnectionClosed:
                pass
            await connection.wait_closed()
            return int(connection.close_code or 0)

    assert asyncio.run(asyncio.wait_for(run(), 30)) == 1008
    assert daemon.answers()


def test_a_deploy_that_was_replaced_or_cancelled_before_it_ran_ends_for_its_listeners_at_once(
    daemon: Daemon, world: Waiting
) -> None:
    """Also for those who listen to every deploy, and get the lines of the one that runs meanwhile."""
    world.hold.touch()
    world.publish({"web/page.txt": "again\n"})
    runs = daemon.deploying(scope="platform")
    eventually(world.building, "the build runs")
    waits = daemon.ask("POST", "/api/v1/deploys", json={"scope": "all", "requestedBy": "eve"}).json()["deployId"]
    last: list[str] = []

    def ended(event: dict[str, Any]) -> bool:
        return event["type"] == "deploy.done" and event["deployId"] in last

    async def run() -> list[list[dict[str, Any]]]:
        async with connect(daemon, f"deploy={waits}") as one, connect(daemon, "") as all_, \
                connect(daemon, "user=eve") as eve:  # fmt: skip
            wanted = {"services": ["api"], "requestedBy": "eve"}
            newer = (await asyncio.to_thread(daemon.ask, "POST", "/api/v1/deploys", json=wanted)).json()["deployId"]
            last.append(newer)
            await asyncio.to_thread(daemon.ask, "POST", f"/api/v1/deploys/{newer}/cancel")
            return await asyncio.gather(heard(one), heard(all_, ended), heard(eve, ended))

    only, everything, own = asyncio.run(asyncio.wait_for(run(), 20))
    assert world.building(), "the one that runs has not ended"
    world.hold.unlink()
    assert [event["type"] for event in only] == ["deploy.cancelled", "deploy.done", "events.offset"]
    assert only[1]["status"] == "superseded" and runs.result(30).status_code == 200
    for events in (everything, own):
        outcomes = [(e["deployId"], e["status"]) for e in events if e["type"] == "deploy.done"]
        assert outcomes == [(waits, "superseded"), (last[0], "cancelled")]
    running = {event["deployId"] for event in everything} - {waits, *last}
    assert len(running) == 1 and {event["deployId"] for event in own} == {waits, *last}


def test_clients_side_by_side_are_served_from_one_reading(tmp_path: Path) -> None:
    """Ten that ask at the same moment for the same bytes, and one of them goes while they are read."""
    journal, read = tmp_path / "d-1.jsonl", []
    journal.write_bytes(b'{"type":"deploy.log"}\n' * 3)

    async def quickly(act: Callable[..., Any], path: str, offset: int, most: int) -> Any:
        read.append(offset)
        await asyncio.sleep(0.01)
        return act(path, offset, most)

    site = SimpleNamespace(journal_path=lambda _: str(journal), read_journal=chunk_from)
    environment = cast("Environment", SimpleNamespace(site=site))

    async def ask() -> list[Any]:
        tails = Tails(cast("Served", SimpleNamespace(quickly=quickly)))
        asking = [asyncio.create_task(tails.piece(environment, "d-1", 0)) for _ in range(10)]
        await asyncio.sleep(0)
        asking[0].cancel()
        return await asyncio.gather(*asking[1:])

    pieces = asyncio.run(ask())
    assert read == [0]
    assert all(piece is pieces[0] for piece in pieces)
    assert pieces[0].after == journal.stat().st_size
