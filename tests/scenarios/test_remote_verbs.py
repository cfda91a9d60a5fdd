"""B3 B5: every verb from a laptop, on the machine that the environment names: the same words, the same exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess

import pexpect
import pytest

from tests.fleet import PROJECT, Fleet, introduce
from tests.world import PROGRAM, eventually

AGO = r" +(now\b|\d+ (s|min|h|d) ago)"
ODD = "it's \"odd\"; $(touch /tmp/no) `x` \\ back\nnext line --json *"


def test_a_deploy_from_the_laptop_lands_on_the_host_that_is_meant(fleet: Fleet) -> None:
    sha = fleet.laptop.git("rev-parse", "HEAD")
    ran = fleet.homeport("-e", "production", "deploy")
    assert f"deployed {sha[:7]}" in ran.stdout and "fetch" in ran.stdout
    assert fleet.prod.text("site/a.txt") == "one\n"
    assert not (fleet.stage.live / "site").exists()
    (row,) = json.loads(fleet.prod.homeport("--json", "history").stdout)["deploys"]
    assert row["requestedBy"].endswith(f"@{os.uname().nodename}")
    assert not fleet.laptop.state.exists(), "nothing is kept on the laptop"
    done = fleet.homeport("--json", "-e", "production", "deploy").last
    assert (done["type"], done["status"]) == ("deploy.done", "unchanged")


def ageless(text: str) -> str:
    """Without how long ago something was, the columns that give way to it, and the project that the host's own needs."""
    return re.sub(" +", " ", re.sub(AGO, "", text)).replace("homeport -p shop ", "homeport ")


def test_looking_deciding_and_undoing_answer_as_they_do_on_the_host(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    (fleet.prod.live / "site/a.txt").write_text("edited\n")
    (fleet.prod.live / "site/b.bin").write_bytes(b"\0\1\2 binary \xff")
    for args, code in (
        (("status",), 0), (("drift",), 3), (("diff", "site", "a.txt"), 3), (("history",), 0), (("logs",), 0),
        (("drift", "nothing"), 2),
    ):  # fmt: skip
        there, here = fleet.prod.homeport(*args, ok=(code,)), fleet.homeport("-e", "production", *args, ok=(code,))
        assert ageless(here.stdout) == ageless(there.stdout), args
        assert ageless(here.stderr) == ageless(there.stderr), args
    whole = fleet.homeport("-e", "production", "diff", ok=(3,)).stdout
    alone = fleet.homeport("-e", "production", "diff", "site/a.txt", ok=(3,)).stdout
    assert "Binary files" in whole and alone in whole and "b.bin" not in alone
    assert f"-{fleet.laptop.git('show', 'HEAD:site/a.txt')}\n+edited\n" in alone, "git and the host, side by side"
    (fleet.laptop.root / "edit.patch").write_text(alone)
    fleet.laptop.git("apply", "--check", "../edit.patch")
    said = fleet.homeport("-e", "production", "discard", "site/b.bin").stdout
    assert "put back: b.bin" in said
    (rescue,) = fleet.homeport("--json", "-e", "production", "rescue", "list").last["rescues"]
    argv = [str(PROGRAM), "-e", "production", "rescue", "show", rescue["id"]]
    shown = subprocess.run(argv, cwd=fleet.laptop.clone, env=fleet.laptop.env, capture_output=True, check=True)
    assert shown.stdout == b"\0\1\2 binary \xff"


def test_tokens_and_a_watched_drift_are_told_in_words_from_the_laptop_too(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    made = fleet.homeport("-e", "production", "token", "create", "ci", "--right", "read").stdout
    assert made.startswith("homeport_") and "keep it now" in made
    watching = fleet.start("-e", "production", "drift", "--watch")
    assert watching.stdout is not None
    assert "no drift" in watching.stdout.readline()
    (fleet.prod.live / "site/a.txt").write_text("edited\n")
    assert any("modified  a.txt" in line for line in watching.stdout)
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    eventually(lambda: not fleet.prod.working(), "the watch on the host has ended")


def test_commands_at_once_share_one_connection_and_the_persons_agent_opens_it(fleet: Fleet) -> None:
    running = [fleet.start("-e", "production", "status") for _ in range(4)]
    for one in running:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, out + err
    assert len(fleet.prod.sessions()) == 1
    fleet.prod.cut()
    config, socket = fleet.laptop.root / "ssh_config", fleet.runtime / "agent"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "Identit" not in line) + "\n")
    fleet.homeport("-e", "production", "status", ok=(1,))
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        eventually(socket.exists, "the agent listens")
        own = {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", str(fleet.keys / "person")], env={**os.environ, **own}, check=True)
        fleet.homeport("-e", "production", "status", env=own)
    finally:
        agent.kill()
        agent.wait()


def test_arguments_travel_as_they_are(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    names = ("-rf", "a 'quoted' \"name\"", "two\nlines", "$HOME", "--json", "*")
    for name in names:
        (fleet.prod.live / "site" / name).write_text("edited\n")
    said = fleet.homeport("--json", "-e", "production", "discard", "--", *(f"site/{name}" for name in names)).last
    assert len(said["discarded"]) == len(names) and fleet.prod.text("site/a.txt") == "one\n"
    assert not any((fleet.prod.live / "site" / name).exists() for name in names)
    (fleet.prod.live / "site/a.txt").write_text("edited\n")
    fleet.homeport("-e", "production", "accept", "site/a.txt", "--because", ODD, "--until", "7d")
    (service,) = fleet.prod.homeport("--json", "drift", ok=(3,)).last["services"]
    assert service["paths"][0]["accepted"].startswith(ODD)
    fleet.homeport("-e", "production", "hold", "--because", ODD)
    assert fleet.prod.homeport("--json", "status").last["hold"]["because"] == ODD
    long = fleet.homeport("-e", "production", "hold", "--because", "x" * 110_000, ok=(2,))
    assert "too long" in long.stderr or "longer than" in long.stderr


def test_an_edit_on_the_host_is_adopted_from_the_laptop_as_its_person_and_a_conflict_settled_there(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    (fleet.prod.live / "site/a.txt").write_text("mended at night\n")
    before = fleet.laptop.git("status", "--porcelain")
    said = fleet.homeport("--json", "-e", "production", "adopt", "--message", "Mended").last
    assert said["pushed"] and said["paths"] == ["site/a.txt"]
    fleet.laptop.git("fetch", "-q", "origin")
    signed = fleet.laptop.git("show", "-s", "--format=%an <%ae>|%cn", said["commit"])
    assert signed == "Ada Example <ada@example.com>|Ada Example"
    assert fleet.laptop.git("show", f"{said['commit']}:site/a.txt") == "mended at night"
    assert fleet.laptop.git("status", "--porcelain") == before
    fleet.laptop.publish({"site/a.txt": "from git\n"})
    told = fleet.homeport("-e", "production", "adopt", "site/a.txt", "--branch", "again", ok=(3,)).stderr
    fetch = told.partition("main: ")[2].partition(" && ")[0].split()
    assert fetch[:2] == ["git", "fetch"] and fetch[2].startswith("prod.example.com:"), told
    fleet.laptop.git("config", "core.sshCommand", str(fleet.laptop.root / "bin/ssh"))
    fleet.laptop.git(*fetch[1:])
    fleet.laptop.git("merge", "-q", "-s", "ours", "FETCH_HEAD")
    fleet.laptop.push()
    assert fleet.homeport("--json", "-e", "production", "deploy").last["status"] == "deployed"
    assert fleet.prod.text("site/a.txt") == "from git\n"


def test_questions_of_the_host_are_asked_at_the_laptop(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    (fleet.prod.live / "site/a.txt").write_text("mended\n")
    talk = pexpect.spawn(str(PROGRAM), ["-e", "production", "adopt", "--patch"], cwd=str(fleet.laptop.clone),
                         env=fleet.laptop.env, encoding="utf-8", timeout=30, dimensions=(40, 200))  # fmt: skip
    talk.expect(r"\+mended")
    talk.expect(r"adopt this change \(1 of 1\)\? \[y,n,q\]")
    talk.sendline("y")
    talk.expect("adopted 1 path")
    talk.expect(pexpect.EOF)
    talk.close()
    assert talk.exitstatus == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root: a mount namespace")
def test_several_hosts_are_deployed_in_order_and_a_failure_stops(bare_fleet: Fleet) -> None:
    """The second machine has its own folder at the same path, in a namespace of its own."""
    fleet = bare_fleet
    first = fleet.add("prod-1", "production", "prod.example.com")
    own = fleet.laptop.root / "other-live"
    own.mkdir()
    enter = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c",
             f'mount --bind {own} {first.live} && exec "$@"', "sh")  # fmt: skip
    second = fleet.add("web-2", "production", "web.example.com", enter)
    second.identify("web-2", "")
    second.host_file.write_text(second.host_file.read_text().replace(str(second.live), str(first.live)))
    text = PROJECT.format(prod=first.live / "site", stage="/nonexistent/site").replace('["prod-1"]', '["prod-1", "web-2"]')
    text = text.replace("[hosts.stage-1]", '[hosts.web-2]\nssh = "web.example.com"\n\n[hosts.stage-1]')
    text += f'\n[migrate]\nrun = "echo ran >> {fleet.laptop.root / "migrations"}"\nservice = "site"\n'
    fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"})
    for machine in (first, second):
        introduce(fleet, machine)
    ran = fleet.homeport("-e", "production", "deploy")
    assert ran.stdout.index("== prod-1") < ran.stdout.index("== web-2")
    assert (first.live / "site/a.txt").read_text() == (own / "site/a.txt").read_text() == "one\n"
    assert (fleet.laptop.root / "migrations").read_text() == "ran\n", "migrations run once, on the first host"
    (first.live / "site/a.txt").write_text("edited\n")
    fleet.laptop.publish({"site/a.txt": "two\n"})
    stopped = fleet.homeport("-e", "production", "deploy", ok=(3,))
    assert "not done on web-2" in stopped.stderr and (own / "site/a.txt").read_text() == "one\n"
    both = fleet.homeport("--json", "-e", "production", "drift", ok=(3,)).lines
    assert [said["equal"] for said in both] == [False, True], "a look goes on after a difference"
    assert fleet.homeport("--json", "-e", "production", "--host", "web-2", "drift").last["equal"]
