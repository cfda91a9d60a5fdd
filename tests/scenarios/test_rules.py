"""B9 B10: what rules refuse, who may allow an exception, which rules count, and that the audit keeps it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

from tests.world import PROGRAM, World, eventually

AGENT = {"HOMEPORT_ACTOR": "agent"}


def services(world: World, rules: str, version: str = "one") -> tuple[str, dict[str, str | None]]:
    """Two services without builds; `sip` leaves a line in a file at each restart."""
    text = f"""
[services.api]
source = "api"
target = "{{live}}/api"

[services.pbx]
source = "pbx"
target = "{{live}}/pbx"
runtime = "command"
unit = "asterisk"
command = ["/bin/sh", "-c", "echo again >> {world.root}/restarts"]
{rules}"""
    files: dict[str, str | None] = {"api/auth/login.js": f"{version}\n", "api/index.js": "one\n", "pbx/dialplan": "one\n"}
    return text, files


def restarts(world: World) -> int:
    path = world.root / "restarts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def rule(id: str, action: str, match: str, effect: str = "deny", because: str = "") -> str:
    return f'\n[[rules]]\nid = "{id}"\naction = "{action}"\nmatch = "{match}"\neffect = "{effect}"\nbecause = "{because}"\n'


def host_rules(world: World, text: str) -> None:
    world.host_file.write_text(world.host_file.read_text() + text)


def audit(world: World, *args: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.json("audit", *args)["audit"]
    return rows


def test_a_path_that_is_guarded_stays_as_it_is_whatever_the_commit_says(world: World) -> None:
    guard = rule("auth", "write", "api/auth/", because="ask security")
    text, files = services(world, guard)
    world.project(text, files)
    world.deploy()
    # no rule was deployed before the first deploy, so it passed; from now on the rule counts
    assert world.text("api/auth/login.js") == "one\n"

    world.publish({"api/auth/login.js": "two\n", "api/index.js": "two\n"})
    plan = world.json("plan")
    assert plan["deployable"] is False
    (refusal,) = plan["refusals"]
    assert refusal["rule"] == "auth"
    assert refusal["paths"] == ["api/auth/login.js"]
    assert "ask security" in refusal["message"]
    done = world.deploy(ok=(3,))
    assert (done["status"], done["errorCode"]) == ("refused", "rule")
    assert world.text("api/index.js") == "one\n"

    # a commit cannot lift the guard that judges it
    toml = (world.clone / "homeport.toml").read_text()
    world.publish({"homeport.toml": toml.replace(guard, "")}, "no guard any more")
    assert world.deploy(ok=(3,))["errorCode"] == "rule"
    # one that lifts it and changes nothing guarded can be deployed, and the next one is free
    world.publish({"api/auth/login.js": "one\n", "api/index.js": "one\n"})
    assert world.deploy()["status"] == "unchanged"
    world.publish({"api/auth/login.js": "three\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("api/auth/login.js") == "three\n"


def test_a_restart_that_wants_a_word_gets_it_from_a_person_only(world: World) -> None:
    text, files = services(world, "")
    world.project(text, files)
    host_rules(world, rule("calls", "restart", "asterisk", "confirm", "calls drop"))
    # the first deploy is judged by the host's rules
    first = world.homeport("deploy", ok=(3,))
    assert "--confirm calls" in first.stderr
    assert "calls drop" in first.stderr
    assert restarts(world) == 0
    world.deploy("--confirm", "calls", "--because", "first start")
    assert restarts(world) == 1

    refused = world.json("restart", "pbx", ok=(3,))
    assert (refused["status"], refused["errorCode"]) == ("refused", "confirm")
    agent = world.homeport("restart", "pbx", "--confirm", "calls", ok=(3,), env=AGENT)
    assert "an agent has no right to confirm" in agent.stderr
    assert "an agent cannot give it" in world.homeport("restart", "pbx", ok=(3,), env=AGENT).stderr
    assert restarts(world) == 1
    world.homeport("restart", "pbx", "--confirm", "calls", "--because", "night shift agreed")
    assert restarts(world) == 2
    # what restarts nothing needs no word
    world.publish({"api/index.js": "two\n"})
    assert world.deploy()["status"] == "deployed"

    exceptions = [row for row in audit(world) if row["action"] == "exception calls"]
    assert len(exceptions) == 2
    assert "restart pbx" in exceptions[0]["detail"]
    assert "night shift agreed" in exceptions[0]["detail"]
    assert {row["actor"] for row in exceptions} == {"person"}
    tried = next(row for row in audit(world) if row["action"] == "confirm")
    assert (tried["actor"], tried["outcome"]) == ("agent", "refused")


def test_a_person_at_a_terminal_is_asked_and_must_name_the_rule(world: World) -> None:
    text, files = services(world, "")
    world.project(text, files)
    world.deploy()
    host_rules(world, rule("calls", "restart", "pbx", "confirm", "calls drop"))
    assert "not allowed" in at_a_terminal(world, ["restart", "pbx"], "yes\n")
    assert "not allowed without a reason" in at_a_terminal(world, ["restart", "pbx"], "calls\n\n")
    assert restarts(world) == 1
    shown = at_a_terminal(world, ["restart", "pbx"], "calls\nplanned\n")
    assert "calls drop" in shown
    assert restarts(world) == 2
    assert any("planned" in row["detail"] for row in audit(world) if row["action"] == "exception calls")


def at_a_terminal(world: World, args: list[str], typed: str) -> str:
    """Runs the program with a terminal of its own, the answers typed ahead; what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([str(PROGRAM), *args], cwd=world.clone, env=world.env, stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True)  # fmt: skip
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while True:
        try:
            got = os.read(ours, 4096)
        except OSError:
            break
        if not got:
            break
        shown += got
    process.wait(60)
    os.close(ours)
    return shown.decode("utf-8", "replace").replace("\r\n", "\n")


def test_the_hosts_rules_win_over_those_of_the_repository(world: World) -> None:
    text, files = services(world, rule("auth", "write", "api/auth/"))
    world.project(text, files)
    world.deploy()
    world.publish({"api/auth/login.js": "two\n"})
    assert world.deploy(ok=(3,))["errorCode"] == "rule"
    host_rules(world, rule("ours", "write", "api/auth/", "allow", "this host is for trying out"))
    assert world.deploy()["status"] == "deployed"
    said = world.json("rules", "--explain", "write:api/auth/login.js")
    assert (said["effect"], said["rule"], said["from"]) == ("allow", "ours", "host.toml")
    assert said["others"] == ["auth"]
    host_rules(world, rule("stays", "delete", "api/index.js"))
    world.publish({"api/index.js": None})
    refused = world.homeport("deploy", ok=(3,))
    assert "rule stays forbids deleting api/index.js" in refused.stderr and world.text("api/index.js") == "one\n"


def test_a_request_that_waited_is_judged_by_the_host_file_of_its_turn(world: World) -> None:
    """The runner that is there takes the next request too: with the limits that hold then."""
    text, files = services(world, "")
    held, go = world.root / "held", world.root / "go"
    world.project(text.replace("echo again", f"touch {held}; until [ -e {go} ]; do sleep 0.02; done; echo again"), files)
    with world.start("deploy") as first:
        eventually(held.exists, "the first deploy restarts")
        with world.start("--json", "restart", "pbx") as second:
            eventually(lambda: audit(world)[0]["action"] == "ask restart", "the second one waits")
            host_rules(world, rule("calls", "restart", "asterisk", because="not tonight"))
            go.touch()
            said = second.communicate(timeout=60)[0]
        first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 3), said
    assert "rule calls forbids restarting pbx: not tonight" in said
    assert restarts(world) == 1


def test_an_edit_that_needs_review_is_not_rebuilt_accepted_or_merged_but_adopted(world: World) -> None:
    text, files = services(world, rule("dial", "try", "pbx/", "review", "calls are routed here"))
    world.project(text, files)
    world.deploy()
    (world.live / "pbx/dialplan").write_text("by hand\n")
    refused = world.json("rebuild", "pbx", ok=(3,))
    assert refused["errorCode"] == "review"
    assert restarts(world) == 1
    stays = world.homeport("accept", "pbx/dialplan", "--because", "x", "--until", "1d", ok=(3,))
    assert "calls are routed here" in stays.stderr
    made = world.json("adopt", "--branch", "fix/dial")
    assert made["review"], "whoever reads it is not told to merge it himself"
    assert made["pushed"] is True
    # what came by the branch has its review
    world.git("fetch", "-q", "origin")
    world.git("merge", "-q", "--ff-only", "origin/fix/dial")
    world.push()
    assert world.deploy()["status"] == "deployed"
    assert restarts(world) == 2


def test_drift_is_not_discarded_and_branches_are_not_pushed_where_rules_forbid_it(world: World) -> None:
    rules = rule("keep", "discard", "*.js", "confirm") + rule("names", "push", "homeport/*")
    text, files = services(world, rules)
    world.project(text, files)
    world.deploy()
    (world.live / "api/index.js").write_text("by hand\n")
    (world.live / "pbx/dialplan").write_text("by hand\n")
    assert "rule keep wants a person's word" in world.homeport("discard", "api/index.js", ok=(3,)).stderr
    world.homeport("discard", "pbx/dialplan")
    done = world.deploy("--discard-drift", ok=(3,))
    assert done["errorCode"] == "confirm"
    assert world.text("api/index.js") == "by hand\n"
    assert "rule names forbids pushing" in world.homeport("adopt", ok=(3,)).stderr
    assert world.json("adopt", "--branch", "fix/own")["branch"] == "fix/own"
    silent = world.json("discard", "api/index.js", "--confirm", "keep", ok=(2,))
    assert (silent["code"], silent["next"]) == ("because", 'the same command with: --confirm keep --because "..."')
    world.homeport("discard", "api/index.js", "--confirm", "keep", "--because", "it was a trial")
    assert world.text("api/index.js") == "one\n"


IN_A_NETWORK = """\
import fcntl, os, socket, struct, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for name, address in ((b"lo", "127.0.0.1"), (b"lo:1", "192.0.2.7")):
    fcntl.ioctl(made, 0x8916, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address)))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Gives the machine an address (SIOCSIFADDR) in a network of its own, then becomes the program."""


def test_a_machine_with_an_address_of_production_takes_nothing_meant_for_staging(world: World) -> None:
    text, files = services(world, "")
    hosts = """hosts = ["host-1"]
try = true
[environments.live]
branch = "main"
hosts = ["prod-1"]
[hosts.host-1]
ssh = "stage.example.com"
[hosts.prod-1]
ssh = "prod.example.com"
addresses = ["192.0.2.7", "2001:db8::7"]
"""
    world.project(text, files, hosts)
    world.homeport("-e", "production", "deploy")
    assert "which environment" in world.homeport("deploy", ok=(2,)).stderr
    (world.clone / "api/index.js").write_text("tried\n")
    world.homeport("-e", "production", "try", "api")
    (world.clone / "api/index.js").write_text("tried again\n")
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    world.enter = lambda _cwd: [*own, sys.executable, "-c", IN_A_NETWORK]
    for words in (["try", "api"], ["deploy"], ["--host", "host-1", "try", "--yes"], ["rebuild", "api"], ["discard", "api"]):
        refused = world.homeport("-e", "production", *words, ok=(3,))
        assert "has the address 192.0.2.7 of prod-1, which serves live" in refused.stderr
    assert world.text("api/index.js") == "tried\n"


def test_a_try_passes_the_rules_and_makes_none(world: World) -> None:
    text, files = services(world, rule("auth", "try", "api/auth/", "review", "two people look at logins"))
    world.project(text, files, "try = true")
    world.deploy()
    (world.clone / "api/auth/login.js").write_text("tried\n")
    toml = world.clone / "homeport.toml"
    toml.write_text(toml.read_text().replace('"api/auth/"', '"nothing"'))
    refused = world.homeport("try", "api", ok=(3,))
    assert "rule auth wants a review before trying api/auth/login.js: two people look at logins" in refused.stderr
    world.git("checkout", "-q", "api/auth")
    (world.clone / "api/index.js").write_text("tried\n")
    world.homeport("try", "api")
    assert world.text("api/index.js") == "tried\n"
    # the rules of the try itself count for nothing
    assert world.json("rules", "--explain", "try:api/auth/login.js")["effect"] == "review"
    (world.clone / "api/auth/login.js").write_text("tried\n")
    world.homeport("try", "api", ok=(3,))
    # a path that the branch brought meanwhile was merged there
    world.git("stash", "-q")
    world.publish({"api/auth/login.js": "merged\n"})
    (world.clone / "api/index.js").write_text("tried again\n")
    world.homeport("try", "api")
    assert world.text("api/auth/login.js") == "merged\n"


def test_migrations_commands_and_actions_are_guarded_like_everything_that_changes_something(world: World) -> None:
    text, files = services(world, "")
    log = world.root / "done"
    text += f"""
[migrate]
run = "cat schema >> {log}"
service = "api"

[[actions]]
paths = ["conf/"]
run = "cat {{live}}/api/schema >> {log}"
"""
    world.project(text, {**files, "api/schema": "one\n", "conf/a": "a"})
    world.deploy()
    before = log.read_text()
    host_rules(world, rule("data", "migrate", "api", "confirm", "the database is shared"))
    host_rules(world, rule("hands", "run", "asterisk", "review", "calls are routed here"))
    host_rules(world, rule("reload", "run", "conf/", "confirm"))
    assert world.json("migrate", ok=(3,))["errorCode"] == "confirm"
    for words in (["run", "-s", "pbx", "--", "touch", str(log) + ".ran"], ["shell", "pbx"]):
        refused = world.homeport(*words, ok=(3,))
        assert "rule hands wants a review before running a command for pbx: calls are routed here" in refused.stderr
    assert not (world.root / "done.ran").exists()
    # a deploy that migrates and acts names both; each wants its own word
    world.publish({"api/schema": "two\n", "conf/a": "b"})
    assert {r["rule"] for r in world.json("plan")["refusals"]} == {"data", "reload"}
    assert world.deploy("--confirm", "data", "--because", "agreed", ok=(3,))["errorCode"] == "confirm"
    assert log.read_text() == before
    world.deploy("--confirm", "data", "--confirm", "reload", "--because", "agreed")
    assert log.read_text() == before + "two\ntwo\n"
    world.json("migrate", "--confirm", "data", "--because", "once more")
    assert log.read_text().count("two") == 3
    told = [row["detail"] for row in audit(world) if row["action"] == "exception data"]
    assert len(told) == 2
    assert "migrate api; once more" in told[0]
    said = world.json("rules", "--explain", "run:pbx")
    assert (said["effect"], said["rule"], said["mayConfirm"]) == ("review", "hands", False)
    assert "asked when: `homeport run`, `homeport shell`" in world.homeport("rules", "--explain", "run").stdout
    assert "no action 'shell'" in world.homeport("rules", "--explain", "shell", ok=(2,)).stderr


def test_the_undo_of_a_failed_deploy_asks_no_rule_while_a_rollback_by_hand_does(world: World) -> None:
    check = 'checks = [{ command = "test ! -e {live}/api/third.js", within = "1s", every = "50ms" }]'
    text, files = services(world, "")
    text = text.replace('target = "{live}/api"', 'target = "{live}/api"\n' + check)
    world.project(text, files)
    world.deploy()
    world.publish({"api/index.js": "two\n"})
    world.deploy()
    host_rules(world, rule("forward", "rollback", "*", "confirm") + rule("new", "delete", "api/*"))
    assert world.json("rollback", ok=(3,))["errorCode"] == "confirm"
    world.publish({"api/third.js": "three\n"})
    done = world.deploy(ok=(1,))
    assert done["status"] == "rolled_back"
    assert not (world.live / "api/third.js").exists()
    world.json("rollback", "--confirm", "forward", "--because", "two is broken")
    assert world.text("api/index.js") == "one\n"
