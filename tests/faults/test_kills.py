"""kill -9 of the runner at its journal lines and at the calls that change something; one command ends it (P1, P2, P3)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.harness import Host, outputs
from tests.faults.moments import Moment, Share, spread
from tests.world import World

pytestmark = pytest.mark.timeout(3600)

MOVES = ("renameat2", "renameat", "rename", "unlink", "unlinkat", "rmdir")
MAKES = ("mkdir", "mkdirat", "symlinkat", "openat", "write", "ftruncate")
DISK = ("fsync", "fdatasync", "syncfs", "pwrite64")

WHERE: dict[str, Callable[[Moment], bool]] = {
    "journal lines": lambda m: m.syscall == "write" and '\\"type\\":' in m.shown,
    "moves in sync": lambda m: m.stage == "sync" and m.syscall in MOVES,
    "files made in sync": lambda m: m.stage == "sync" and m.syscall in MAKES,
    "disk and database in sync": lambda m: m.stage == "sync" and m.syscall in DISK,
    "stamp": lambda m: "stamp" in m.stage,
    "before the sync": lambda m: m.stage not in ("sync", "start") and _before_sync(m),
    "between sync and stamp": lambda m: m.stage != "sync" and "stamp" not in m.stage and not _before_sync(m),
}


def _before_sync(moment: Moment) -> bool:
    stage = moment.stage.removeprefix("after ")
    return stage in ("start", "fetch", "gate", "inspect", "decide", "prepare", "build", "migrate", "inspect-again")


def changes(moment: Moment) -> bool:
    """A kill before a file is opened to be read leaves what the call before it left."""
    return moment.syscall != "openat" or "O_CREAT" in moment.shown


def test_every_changing_call_is_known(host: Host) -> None:
    """The tests below reach every kind of call by which the runner changes a file."""
    found = {m.syscall for m in host.moments() if m.stage == "sync"}
    assert {"renameat2", "fsync", "fdatasync", "pwrite64", "unlinkat", "mkdirat", "openat", "write"} <= found
    assert found <= {*MOVES, *MAKES, *DISK}


def test_the_disk_is_waited_for_no_more_than_it_needs(host: Host) -> None:
    """In the sync: once for each new file and each change of a name, and what records it; nothing while only looking."""
    waits = [m for m in host.moments() if m.syscall in ("fsync", "fdatasync", "syncfs")]
    names = [m for m in host.moments() if m.stage == "sync" and m.syscall in MOVES]
    by_stage = Counter(m.stage for m in waits)
    assert by_stage["sync"] <= len(names), by_stage
    assert by_stage["build"] <= 2 * len(outputs(host.number)), by_stage
    assert sum(n for stage, n in by_stage.items() if stage not in ("sync", "start", "build")) <= 10, by_stage
    assert by_stage["restart"] <= 2, "the service's record before and after"
    looking = ("inspect", "decide", "prepare", "inspect-again", "verify")
    assert not any(by_stage[stage] for stage in looking), by_stage


@pytest.mark.parametrize("where", WHERE)
def test_a_kill_at_any_moment_is_ended_by_one_command(host: Host, where: str, soak: Share | None) -> None:
    killed = 0
    for moment in host.each(lambda m: WHERE[where](m) and changes(m), 4 if where == "journal lines" else 3, soak=soak):
        host.publish()
        with host.trying(soak, f"killed before {moment}"):
            deploy, fell = host.killed(moment)
            killed += fell
            host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
            recovered(host, deploy)
    assert killed > 0


def recovered(host: Host, deploy: str) -> None:
    """One `homeport deploy` ends the interrupted one truly, and brings the version that was asked for."""
    asked = host.deploy()
    assert asked["status"] in ("deployed", "unchanged")
    row = host.row(deploy)
    assert row.status in ("deployed", "unchanged") if row.changed_live else row.status in ("failed", "deployed"), row
    if row.status == "failed":
        assert (row.attempts, row.error_code) == (1, "interrupted"), row
    assert one_ending(host, deploy) <= 1
    host.ended(host.number)


def one_ending(host: Host, deploy: str) -> int:
    """How often the journal says that the deploy is done; every line that is whole is one JSON object."""
    journal = host.world.state / f"shop/production/journal/{deploy}.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum(json.loads(line)["type"] == "deploy.done" for line in lines if line.endswith("}"))


@pytest.mark.parametrize("becomes", ["folder", "file"])
def test_a_path_that_was_becoming_a_folder_or_a_file_is_finished(host: Host, becomes: str, soak: Share | None) -> None:
    """Git does not list what lies in a folder that stands where it knows a file; neither side is a conflict then."""
    odd = becomes == "folder"
    host.towards(odd=odd)
    found = [m for m in host.moments() if m.stage == "sync"]
    first = next(n for n, m in enumerate(found) if m.syscall == "renameat" and ("shape" in m.shown or "inner" in m.shown))
    last = max(n for n, m in enumerate(found) if m.syscall == "renameat2")
    moments = [m for m in found[first + 1 : last] if m.syscall in MOVES][:6]
    for moment in moments if soak else spread(moments, 3):
        host.towards(odd=odd)
        host.publish()
        deploy, killed = host.killed(moment)
        assert killed
        recovered(host, deploy)
        assert host.row(deploy).status == "deployed"


def test_a_kill_in_a_large_sync_is_ended_by_one_command(world: World, soak: Share | None) -> None:
    """From sixteen files on the disk is told once for all of them, not file by file."""
    host = Host(world, 40)
    found = [m for m in host.trace() if WHERE["moves in sync"](m)]
    for moment in found if soak else [found[len(found) // 2]]:
        host.publish()
        deploy, _ = host.killed(moment)
        host.old_or_new(host.number - 1, host.number, "plain/in-place.txt")
        recovered(host, deploy)
