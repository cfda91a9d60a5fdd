"""E5: the connection dies in the middle of a verb, by killing the real sshd of it: both sides end in a clear state.

Every verb, one by one, is in test_remote_cut.py."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Machine
from tests.world import commands_on, eventually


class Gate:
    """Makes git on the host wait while it is shut, so that a verb is caught in the middle."""

    def __init__(self, machine: Machine) -> None:
        self.shut, self.reached = machine.root / "shut", machine.root / "reached"
        script = machine.git_wrapper
        script.write_text(
            f"#!/bin/sh\nif [ -e {self.shut} ]; then : > {self.reached}; fi\n"
            f"while [ -e {self.shut} ]; do sleep 0.02; done\n"
            f'exec {shutil.which("git")} "$@"\n'
        )
        script.chmod(0o755)

    def close(self) -> None:
        self.shut.touch()

    def open(self) -> None:
        self.shut.unlink(missing_ok=True)


def said_after(running: subprocess.Popen[str], code: int) -> tuple[dict[str, Any], str]:
    """The last line of JSON, and what a person reads, of a verb that was cut off."""
    out, err = running.communicate(timeout=30)
    assert running.returncode == code, out + err
    return json.loads(out.splitlines()[-1]), err


BUILD = """
[services.site.build]
run = "touch {begun}; while [ ! -e {go} ]; do sleep 0.02; done; touch out"
outputs = ["out"]
"""


@pytest.fixture
def building(fleet: Fleet) -> tuple[Fleet, Path, Path]:
    """Production with a build that goes on until it is told to end."""
    begun, go = fleet.laptop.root / "begun", fleet.laptop.root / "go"
    text = (fleet.laptop.clone / "homeport.toml").read_text().replace(
        "\n[services.preview]", BUILD.format(begun=begun, go=go) + "\n[services.preview]"
    )
    fleet.laptop.publish({"homeport.toml": text})
    return fleet, begun, go


def test_a_deploy_goes_on_without_its_connection_and_can_be_followed(building: tuple[Fleet, Path, Path]) -> None:
    fleet, begun, go = building
    running = fleet.start("--json", "-e", "production", "deploy", "--request-id", "run-7")
    eventually(begun.exists, "the build runs")
    fleet.prod.cut()
    fault, shown = said_after(running, 1)
    assert fault["code"] == "connection"
    deploy = fault["what"].split("deploy ")[1].split(" ")[0]
    assert fault["next"] == f"homeport -e production --host prod-1 logs -f {deploy}" and fault["next"] in shown
    eventually(lambda: len(fleet.prod.working()) == 1, "only the runner is left on the host")
    follower = fleet.start(*fault["next"].split()[1:])
    go.touch()
    out, err = follower.communicate(timeout=30)
    assert follower.returncode == 0 and "deployed" in out, out + err
    again = fleet.homeport("--json", "-e", "production", "deploy", "--request-id", "run-7").last
    assert again["ok"]
    rows = fleet.prod.homeport("--json", "history").last["deploys"]
    assert [row["id"] for row in rows if row["status"] == "deployed"] == [deploy]


def test_ctrl_c_cancels_there_and_a_second_one_leaves_it_running(building: tuple[Fleet, Path, Path]) -> None:
    fleet, begun, _ = building
    running = fleet.start("-e", "production", "deploy")
    eventually(begun.exists, "the build runs")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 6 and "cancelled" in out + err
    assert not (fleet.prod.live / "site").exists() or not (fleet.prod.live / "site/a.txt").exists()
    begun.unlink()
    leaving = fleet.start("-e", "production", "deploy")
    eventually(begun.exists, "the build runs again")
    eventually(lambda: len(runners(fleet.prod)) == 1, "the runner before has left")
    (runner,) = runners(fleet.prod)
    os.kill(runner, signal.SIGSTOP)  # so that the cancel does not end it first
    leaving.send_signal(signal.SIGINT)
    eventually(lambda: asked_to_cancel(fleet.prod), "the host heard the cancel")
    leaving.send_signal(signal.SIGINT)
    out, err = leaving.communicate(timeout=30)
    os.kill(runner, signal.SIGCONT)
    assert leaving.returncode == 6 and "logs -f" in err, out + err
    eventually(lambda: not fleet.prod.working(), "the runner ends")
    assert fleet.prod.homeport("--json", "history").last["deploys"][0]["status"] == "cancelled"


def runners(machine: Machine) -> list[int]:
    return [pid for pid, command in commands_on(machine.state).items() if b"homeport.runner" in command]


def asked_to_cancel(machine: Machine) -> bool:
    place = f"file:{machine.state}/shop/production/homeport.db?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as database, database:
        query = "SELECT count(*) FROM deploys WHERE state <> 'done' AND cancel_by IS NOT NULL"
        (asked,) = database.execute(query).fetchone()
    return bool(asked)


def test_a_look_that_is_cut_off_changes_nothing_and_leaves_no_process(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    (fleet.prod.live / "site/a.txt").write_text("edited\n")
    gate = Gate(fleet.prod)
    for verb in ("status", "drift", "diff"):
        gate.reached.unlink(missing_ok=True)
        gate.close()
        running = fleet.start("--json", "-e", "production", verb)
        eventually(gate.reached.exists, f"{verb} is in the middle")
        fleet.prod.cut()
        fault, shown = said_after(running, 1)
        assert fault["code"] == "connection" and fault["next"].endswith(f"--host prod-1 {verb}") and fault["next"] in shown
        eventually(lambda: not fleet.prod.working(), "nothing of homeport is left on the host")
        gate.open()
    assert fleet.prod.text("site/a.txt") == "edited\n"
    assert not fleet.homeport("--json", "-e", "production", "drift", ok=(3,)).last["equal"]


def cut_in(fleet: Fleet, machine: Machine, gate: Gate, *words: str) -> dict[str, Any]:
    """Runs a verb, cuts its connection in the middle, and lets the host go on; what the person was told."""
    gate.reached.unlink(missing_ok=True)
    gate.close()
    running = fleet.start("--json", "-e", machine.environment, *words)
    eventually(gate.reached.exists, f"{words[0]} is in the middle")
    machine.cut()
    fault, shown = said_after(running, 1)
    assert fault["code"] == "connection" and fault["next"] in shown
    gate.open()
    eventually(lambda: not machine.working(), "the host ends what it began")
    return fault


def test_an_adoption_a_discard_a_restore_and_a_setup_that_are_cut_off_are_ended_by_the_host(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    (fleet.prod.live / "site/a.txt").write_text("edited\n")
    gate, base = Gate(fleet.prod), "homeport -e production --host prod-1"
    assert cut_in(fleet, fleet.prod, gate, "adopt", "--branch", "mended")["next"] == f"{base} edits"
    assert fleet.prod.text("site/a.txt") == "edited\n"
    (edit,) = fleet.homeport("--json", "-e", "production", "edits").last["edits"]
    assert (edit["state"], edit["branch"]) == ("adopted", "mended")
    assert fleet.laptop.git("ls-remote", str(fleet.laptop.origin), "refs/heads/mended")
    assert cut_in(fleet, fleet.prod, gate, "discard", "site/a.txt")["next"] == f"{base} drift"
    assert fleet.prod.text("site/a.txt") == "one\n"
    (saved,) = fleet.homeport("--json", "-e", "production", "rescue", "list").last["rescues"]
    assert cut_in(fleet, fleet.prod, gate, "rescue", "restore", saved["id"])["next"] == f"{base} drift"
    assert fleet.prod.text("site/a.txt") == "edited\n"
    kept = fleet.homeport("--json", "-e", "production", "rescue", "list").last["rescues"]
    assert saved["id"] in [row["id"] for row in kept]
    host_file = fleet.prod.host_file.read_text()
    assert cut_in(fleet, fleet.prod, gate, "setup", "--widen")["next"] == f"{base} setup"
    said = fleet.homeport("--json", "-e", "production", "setup").last
    assert said["ok"] and fleet.prod.host_file.read_text() == host_file
    assert [edit["state"] for edit in fleet.homeport("--json", "-e", "production", "edits").last["edits"]] == ["open"]


WAITS = """touch {0}/begun; while [ -e {0}/shut ]; do sleep 0.02; done"""


def test_whatever_runs_as_a_deploy_goes_on_without_its_connection_to_one_true_outcome(fleet: Fleet) -> None:
    """Cut while the host works on it: a try whose tree it has, a rebuild, a restart, a rollback, a migration, a tick."""
    place, text = fleet.prod.root, (fleet.laptop.clone / "homeport.toml").read_text()
    begun, shut, waits = place / "begun", place / "shut", json.dumps(WAITS.format(place))
    text = text.replace('branch = "main"', 'branch = "main"\ntry = true').replace(
        "\n[services.preview]", f'runtime = "command"\ncommand = {waits}\n\n[services.preview]')
    text += f'\n[migrate]\nrun = {waits}\nservice = "site"\n'
    fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"})
    fleet.homeport("-e", "production", "deploy")

    def cut_while_it_works(*words: str) -> dict[str, Any]:
        begun.unlink(missing_ok=True)
        shut.touch()
        running = fleet.start("--json", "-e", "production", *words)
        eventually(begun.exists, f"the host works on {words[0]}")
        fleet.prod.cut()
        fault, _ = said_after(running, 1)
        deploy = fault["what"].split("deploy ")[1].split(" ")[0]
        assert fault["code"] == "connection" and fault["next"].endswith(f"--host prod-1 logs -f {deploy}")
        shut.unlink()
        eventually(lambda: not fleet.prod.working(), "the host ends it")
        row: dict[str, Any] = fleet.homeport("--json", "-e", "production", "show", deploy).last
        assert (row["state"], row["status"]) == ("done", "deployed"), row
        return row

    fleet.laptop.write({"site/a.txt": "tried\n"})
    tried = cut_while_it_works("try")
    assert tried["kind"] == "try" and fleet.prod.text("site/a.txt") == "tried\n"
    (row,) = fleet.homeport("--json", "-e", "production", "status").last["tries"]
    assert (row["deployId"], fleet.laptop.git("diff", "--name-only")) == (tried["id"], "site/a.txt")
    assert fleet.homeport("--json", "-e", "production", "try").last["status"] == "unchanged", "asked again it is there"
    assert cut_while_it_works("rollback")["kind"] == "rollback" and fleet.prod.text("site/a.txt") == "one\n"
    fleet.laptop.git("checkout", "-q", "--", "site/a.txt")
    (fleet.prod.live / "site/a.txt").write_text("by hand\n")
    assert cut_while_it_works("rebuild", "site")["kind"] == "live"
    fleet.homeport("-e", "production", "discard", "site/a.txt")
    assert cut_while_it_works("restart", "site")["kind"] == "restart"
    assert cut_while_it_works("migrate")["kind"] == "migrate"
    pushed = fleet.laptop.publish({"site/a.txt": "two\n"})
    assert cut_while_it_works("converge")["sha"] == pushed and fleet.prod.text("site/a.txt") == "two\n"


def test_a_try_that_is_cut_off_before_the_host_has_the_tree_never_runs_and_can_be_asked_again(fleet: Fleet) -> None:
    text = (fleet.laptop.clone / "homeport.toml").read_text()
    fleet.laptop.publish({"homeport.toml": text.replace('branch = "staging"', 'branch = "staging"\ntry = true')})
    fleet.laptop.git("push", "-q", "origin", "HEAD:staging")
    fleet.homeport("-e", "staging", "deploy")
    fleet.laptop.write({"site/a.txt": "tried\n"})
    fault = cut_in(fleet, fleet.stage, Gate(fleet.stage), "try")
    assert fault["next"] == "homeport -e staging --host stage-1 history"
    assert fleet.stage.text("site/a.txt") == "one\n" and fleet.laptop.git("diff", "--name-only") == "site/a.txt"
    assert len(fleet.homeport("--json", *fault["next"].split()[1:]).last["deploys"]) == 1
    assert fleet.homeport("--json", "-e", "staging", "try").last["status"] == "deployed"
    assert fleet.stage.text("site/a.txt") == "tried\n"


def test_an_edit_of_a_host_file_that_is_cut_off_is_the_old_file_or_the_new_one_reloaded(fleet: Fleet) -> None:
    conf, place = fleet.prod.live / "proxy.conf", fleet.prod.root
    conf.write_text("timeout 10\n")
    waits = "touch {0}/begun-{1}; while [ ! -e {0}/go-{1} ]; do sleep 0.02; done; seq 1 20000; echo x >> {0}/{1}"
    entry = f'\n[[hostfiles]]\npath = "{conf}"\npurpose = "proxy"\nhosts = ["prod-1"]\n'
    entry += "".join(f'{key} = "{waits.format(place, key)}"\n' for key in ("validate", "reload"))
    fleet.laptop.publish({"homeport.toml": (fleet.laptop.clone / "homeport.toml").read_text() + entry})
    fleet.homeport("-e", "production", "deploy")
    new = fleet.laptop.root / "new.conf"
    new.write_text("timeout 20\n")
    for middle, left in (("validate", "timeout 10\n"), ("reload", "timeout 20\n")):
        running = fleet.start("--json", "-e", "production", "hostfile", "edit", str(conf), "--from", str(new), "--no-note")
        eventually((place / f"begun-{middle}").exists, f"{middle} runs")
        fleet.prod.cut()
        fault, _ = said_after(running, 1)
        assert fault["code"] == "connection" and fault["next"].endswith(f"--host prod-1 hostfile list {conf}")
        (place / f"go-{middle}").touch()
        eventually(lambda: not fleet.prod.working(), "the host ends it")
        versions = fleet.homeport("--json", *fault["next"].split()[1:]).last["versions"]
        assert [row["how"] for row in versions].count("edit") == (left == "timeout 20\n") and conf.read_text() == left
        (row,) = fleet.homeport("--json", "-e", "production", "hostfile", "list").last["hostfiles"]
        assert row["state"] == "recorded", row
        assert sorted(p.name for p in fleet.prod.live.glob(".proxy*")) == [], "no copy is left beside it"
    assert (place / "reload").exists(), "what was put in place was reloaded, at the next look at the latest"


def test_logs_that_are_followed_end_with_their_listener(building: tuple[Fleet, Path, Path]) -> None:
    fleet, begun, go = building
    running = fleet.start("-e", "production", "deploy")
    eventually(begun.exists, "the build runs")
    following = fleet.start("-e", "production", "logs", "-f")
    assert following.stdout is not None and following.stdout.readline(), "the host follows"
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=30)
    assert following.returncode == 130
    eventually(lambda: len(fleet.prod.working()) == 2, "the follower on the host ended, the deploy did not")
    go.touch()
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, out + err
