"""The kill matrix: daemon, runner, supervisor and keeper, each and all, killed at every moment of deploys asked over the
API; afterwards one outcome for each request, nothing left running, no line lost, and nobody was refused (E4, E5, P3).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import httpx
import pytest

from tests.faults.conftest import FAILED
from tests.faults.platform import ENDS, PARTS, SERVICES, Platform, Visitor, asked, events
from tests.world import eventually

pytestmark = pytest.mark.timeout(900)

UNTOUCHED = ("fetch start", "gate start", "await-checks start", "prove start", "inspect start", "decide start",
             "prepare start", "build start", "build running", "migrate start", "inspect-again start",
             "sync start")  # fmt: skip
"""Nothing live was changed yet: a deploy whose runner dies here has failed."""
TOUCHED = ("build-live start", "act start", "restart start", "restart running", "verify start", "stamp start", "end")
UNDOING = ("rollback:inspect start", "rollback:sync start", "rollback:build-live start", "rollback:restart start",
           "rollback:verify start", "rollback:verify done")  # fmt: skip
ITSELF = ("restarting-self",)
EVERY = ("begin", *UNTOUCHED, *TOUCHED, *UNDOING, *ITSELF)
WHO = {**{part: (part,) for part in PARTS}, "all": PARTS}
SAMPLE = [("decide start", "supervisor"), ("build running", "all"), ("restart running", "all"),
          ("verify start", "keeper"), ("end", "runner"), ("rollback:restart start", "all"),
          ("restarting-self", "supervisor")]  # fmt: skip
"""What every run of the suite tries; the whole product is for a soak."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Platform]]:
    platforms: list[Platform] = []
    yield platforms
    for platform in platforms:
        platform.end()


@pytest.fixture
def platform(
    made: list[Platform], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """One for all tests of this file, until one fails."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed; ./dev setup installs it")
    if not made:
        fresh = Platform(tmp_path_factory.mktemp("platform"))
        try:
            fresh.make()
        except BaseException:
            fresh.end()
            raise
        made.append(fresh)
    yield made[0]
    if request.node.stash.get(FAILED, False):
        made.pop().end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A soak tries every part at every moment."""
    soak = metafunc.config.getoption("--soak")
    pairs = [(moment, who) for moment in EVERY for who in WHO] if soak else SAMPLE
    metafunc.parametrize(("moment", "who"), pairs)


def test_killed_at_that_moment_there_is_one_outcome_and_nothing_is_lost(platform: Platform, moment: str, who: str) -> None:
    bad, itself = moment in UNDOING, moment in ITSELF
    old = f"v{platform.number}"
    new = old if itself else platform.next("bad" if bad else "v")
    wanted: dict[str, Any] = {"kind": "restart", "scope": "all"} if itself else {"scope": "all"}
    request = f"{moment} {who} {platform.number}"
    platform.hold(moment)
    with Visitor(list(platform.ports.values())) as visitor:
        caller = asked(platform.daemon, request, wanted)
        eventually(platform.reached.exists, f"{moment} is reached", ENDS)
        row = find(platform, request)
        seen = platform.journal(row["id"]) if moment != "begin" else b""
        platform.kill(*WHO[who])
        platform.at.unlink()
        if "daemon" in WHO[who]:
            if moment != "end":  # its answer may be out already
                with pytest.raises((httpx.HTTPError, CancelledError)):
                    caller.result(ENDS)
            platform.daemon.start()
        said = asked(platform.daemon, request, wanted).result(ENDS).json()
        if "daemon" not in WHO[who]:
            assert caller.result(ENDS).json() == said, "whoever waited is told the same"
        interrupted = "runner" in WHO[who] and moment in UNTOUCHED
        expected = "failed" if interrupted else "rolled_back" if bad else "deployed"
        assert said["status"] == expected, said
        platform.tidy()
    truth(platform, request, said, seen)
    assert not visitor.failures, visitor.failures
    assert not platform.gaps(), "no line of a service is lost or doubled, whoever reads them is killed"
    assert visitor.answers <= {old, new} and old in visitor.answers
    live = old if expected != "deployed" else new
    assert [platform.get(port)[1] for port in platform.ports.values()] == [live] * len(SERVICES)
    assert {platform.text(f"{name}/dist/version").strip() for name in SERVICES} == {live}
    settle(platform, bad, said)


def find(platform: Platform, request: str) -> dict[str, Any]:
    rows = platform.daemon.ask("GET", "/api/v1/deploys", params={"requestId": request}).json()["deploys"]
    assert len(rows) == 1, rows
    found: dict[str, Any] = rows[0]
    return found


def truth(platform: Platform, request: str, said: dict[str, Any], seen: bytes) -> None:
    """Database, journal and answer tell the same one outcome; what was in the journal before is still its beginning."""
    row = find(platform, request)
    assert (row["id"], row["state"], row["status"]) == (said["deployId"], "done", said["status"]), row
    newest = platform.daemon.ask("GET", "/api/v1/deploys?limit=1").json()["deploys"][0]
    assert newest["id"] == row["id"], "no other was made"
    raw = platform.journal(row["id"])
    assert raw.startswith(seen), "no line of the journal was lost"
    told = events(raw)
    assert [event["status"] for event in told if event["type"] == "deploy.done"] == [said["status"]]
    assert told[-1]["type"] == "deploy.done"
    for name in SERVICES:
        lines = [event["line"] for event in told if event["type"] == "deploy.log" and event.get("service") == name]
        numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
        assert numbers == list(range(1, len(numbers) + 1)), "no line of a build is lost or doubled"


def settle(platform: Platform, bad: bool, said: dict[str, Any]) -> None:
    """The next request gets what is pushed live, whatever this one came to; a bad version is not tried again by itself."""
    if bad:
        blocked = platform.json("status")["blocked"]
        assert said["sha"] in [one["sha"] for one in blocked], "a version that was rolled back is blocked"
        platform.json("unhold")
        platform.next()
    if said["status"] != "deployed":
        again = platform.daemon.deploy(scope="all").json()
        assert again["status"] == "deployed", again
    assert platform.json("drift")["equal"] is True
    assert not os.path.exists(platform.at)
