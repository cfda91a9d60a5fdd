"""B10 D15: the audit has a row for whatever changed anything, with who, from where and the outcome; and how holds end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from homeport.cli.main import VERBS
from tests.world import World

LOOKS = {"check", "schema", "completion", "plan", "status", "history", "show", "logs", "doctor", "drift", "diff", "edits",
         "rules", "audit"}  # fmt: skip
"""Verbs that change nothing."""
WITHOUT_RECORD = {
    "init": "writes homeport.toml into a checkout, where git sees it",
    "demo": "works in a sandbox of its own",
    "setup": "makes the machine ready, before there is a database",
    "serve": "listens; what is asked of it has rows of its own",
    "supervise": "runs what is deployed",
    "notify": "sends a message to try a channel",
    "mcp": "runs other verbs for an agent, and each leaves its row",
    "ssh-entry": "runs another verb for whoever holds a key, and that one leaves its row",
}


def world_with_everything(world: World) -> Path:
    """One service, a host file, and tries allowed."""
    conf = world.live / "proxy.conf"
    conf.write_text("one\n")
    world.project(
        '\n[services.api]\nsource = "api"\ntarget = "{live}/api"\nruntime = "command"\ncommand = ["true"]\n'
        f'\n[migrate]\nrun = "true"\nservice = "api"\n\n[[hostfiles]]\npath = "{conf}"\npurpose = "proxy"\n',
        {"api/a": "one\n", "api/b": "one\n"}, "try = true",
    )  # fmt: skip
    return conf


def counted(world: World) -> int:
    """Rows of the audit, without starting the program for it."""
    with contextlib.closing(sqlite3.connect(world.state / "shop/production/homeport.db")) as database:
        return int(database.execute("SELECT count(*) FROM audit").fetchone()[0])


def test_every_verb_that_changes_something_leaves_a_row(world: World) -> None:
    conf = world_with_everything(world)
    live = world.live / "api/a"

    def by_hand(text: str) -> None:
        live.write_text(text)

    def rescued() -> str:
        return str(world.json("rescue", "list")["rescues"][0]["id"])

    def changed_try() -> list[str]:
        (world.clone / "api/b").write_text("tried\n")
        return ["try", "api"]

    def foreign() -> list[str]:
        by_hand("three\n")
        return ["adopt", "--branch", "fix/three"]

    steps: dict[str, Callable[[], list[str]]] = {
        "deploy": lambda: ["deploy"],
        "restart": lambda: ["restart", "api"],
        "migrate": lambda: ["migrate"],
        "run": lambda: ["run", "-s", "api", "--", "true"],
        "shell": lambda: ["shell", "api"],
        "try": changed_try,
        "rollback": lambda: ["rollback"],
        "rebuild": lambda: (by_hand("two\n"), ["rebuild", "api"])[1],
        "accept": lambda: ["accept", "api/a", "--because", "x", "--until", "1d"],
        "discard": lambda: ["discard", "api/a"],
        "rescue": lambda: ["rescue", "restore", rescued()],
        "adopt": foreign,
        "record": lambda: ["record", "api"],
        "hostfile": lambda: (conf.write_text("two\n"), ["hostfile", "record", str(conf), "--because", "x"])[1],
        "block": lambda: ["block", "main"],
        "unblock": lambda: ["unblock", "main"],
        "hold": lambda: ["hold", "--because", "x"],
        "unhold": lambda: ["unhold"],
        "db": lambda: ["db", "backup", str(world.root / "copy.db")],
        "token": lambda: ["token", "create", "ci", "--right", "read"],
        "converge": lambda: (world.publish({"api/b": "four\n"}), ["converge"])[1],
        "cancel": lambda: ["cancel"],
    }
    untold = set(VERBS) - LOOKS - set(WITHOUT_RECORD) - set(steps)
    assert not untold, f"does it change anything? then it leaves a row in the audit: {untold}"
    seen = 0
    for verb, words in steps.items():
        done = world.homeport(*words(), ok=(0, 1, 3) if verb in ("cancel", "converge") else (0,))
        there = counted(world)
        assert there > seen or verb == "cancel", f"{verb} left no row: {done.stdout}"
        seen = there
    rows = world.json("audit", "-n", "1000")["audit"]
    assert len(rows) == seen
    assert all(row["who"] and row["at"] and row["outcome"] and row["from"] for row in rows)
    deploys = [(row["action"], row["outcome"]) for row in rows if row["action"] in ("commit", "try", "rollback", "live")]
    assert ("commit", "deployed") in deploys
    assert ("try", "deployed") in deploys
    assert ("rollback", "deployed") in deploys


def test_where_it_came_from_and_what_kind_of_asker_it_was(world: World) -> None:
    world_with_everything(world)
    world.homeport("deploy", env={"SSH_CONNECTION": "192.0.2.7 5000 192.0.2.1 22", "HOMEPORT_ACTOR": "agent"})
    rows = world.json("audit")["audit"]
    found = {(row["from"], row["actor"]) for row in rows if row["action"] in ("ask commit", "commit")}
    assert found == {("ssh 192.0.2.7", "agent")}
    assert "(agent) from ssh 192.0.2.7" in world.homeport("audit").stdout
    assert len(world.json("audit", "-n", "1")["audit"]) == 1


def test_a_hold_of_a_failed_deploy_ends_with_the_next_success_and_a_persons_own_stays(world: World) -> None:
    check = 'checks = [{ command = "! grep -q bad {live}/api/a", within = "300ms", every = "50ms" }]'
    world.project(f'\n[services.api]\nsource = "api"\ntarget = "{{live}}/api"\n{check}\n', {"api/a": "one\n"})
    world.deploy()
    bad = world.publish({"api/a": "bad\n"})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    status = world.json("status")
    assert status["hold"]["by"] == "homeport"
    assert [block["sha"] for block in status["blocked"]] == [bad]
    held = world.homeport("--json", "deploy", ok=(3,), env={"HOMEPORT_ACTOR": "trigger"})
    assert held.last["errorCode"] == "held"
    world.homeport("hold", "--because", "moving the database", "--for", "10m")
    # the longest hold is the one that counts
    assert world.json("status")["hold"]["by"] == "homeport"
    world.publish({"api/a": "two\n"})
    assert world.deploy()["status"] == "deployed"
    status = world.json("status")
    assert status["hold"]["because"] == "moving the database"
    assert status["blocked"] == []
    assert status["idle"]["code"] == "held"
    world.homeport("unhold")
    newest = world.publish({"api/a": "three\n"})
    world.homeport("block", newest, "--because", "not today")
    assert world.deploy(ok=(3,))["errorCode"] == "blocked"
    told = world.homeport("status").stdout
    assert f"nothing is deployed by itself: commit {newest[:12]} is blocked: not today" in told
