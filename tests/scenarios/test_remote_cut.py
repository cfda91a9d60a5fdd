"""E5: the real sshd of a connection is killed in the middle of every verb, at its beginning, while it works, and when it
is done but nobody has heard, and in the middle of every watch: a clear state on both sides, and a command that shows it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click
import pytest

from homeport.cli.main import VERBS, cli
from tests.fleet import Fleet, children, name_of
from tests.scenarios.test_remote_broken import Gate, said_after
from tests.world import PROGRAM, eventually

HERE = {"init", "check", "schema", "completion", "demo", "serve", "supervise", "mcp", "ssh-entry"}
"""Verbs of a machine itself."""
MOMENTS = ("begin", "middle", "answer")
BASE = "homeport -e production --host prod-1"


@dataclass
class Cut:
    """A fleet with what the verbs need, and counters for what has to be new each time."""

    fleet: Fleet
    deploy: str = ""
    rescue: str = ""
    count: int = 0
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.fleet.prod)
        self.site, self.conf = self.fleet.prod.live / "site/a.txt", self.fleet.prod.live / "proxy.conf"
        self.copy, self.new = self.fleet.prod.root / "copy.db", self.fleet.laptop.root / "new.conf"
        self.held = self.fleet.prod.root / "held"
        self.late, self.late_reached = self.fleet.prod.root / "late", self.fleet.prod.root / "late-reached"

    @property
    def waits(self) -> str:
        """A command of the host's that waits while `late` is there: by then it has asked all that it asks."""
        return f": > {self.late_reached}; while [ -e {self.late} ]; do sleep 0.02; done"

    def close(self, late: bool) -> None:
        self.gate.reached.unlink(missing_ok=True)
        self.late_reached.unlink(missing_ok=True)
        self.late.touch() if late else self.gate.close()

    def open(self) -> None:
        self.late.unlink(missing_ok=True)
        self.gate.open()

    def ask(self, *words: str, ok: tuple[int, ...] | None = (0, 3)) -> dict[str, Any]:
        ran = self.fleet.homeport("--json", "-e", "production", *words, ok=ok)
        return ran.last if ran.stdout else {}

    def edit(self) -> None:
        self.count += 1
        self.site.write_text(f"edited {self.count}\n")

    def clean(self) -> None:
        self.ask("discard", "site/a.txt", ok=None)

    def pushed(self) -> None:
        self.clean()
        self.count += 1
        self.fleet.laptop.publish({"site/b.txt": f"{self.count}\n"})

    def branch(self) -> str:
        return f"cut-{self.count}"

    def actions(self, what: str) -> int:
        return sum(row["action"] == what for row in self.ask("audit", "-n", "500")["audit"])

    def hold_program(self) -> None:
        """homeport on the host waits before it has said a word."""
        script = self.fleet.prod.tools / "homeport"
        script.write_text(
            f"#!/bin/sh\nif [ -e {self.gate.shut} ]; then : > {self.gate.reached}; fi\n"
            f'while [ -e {self.gate.shut} ]; do sleep 0.02; done\nexec {PROGRAM} "$@"\n'
        )
        script.chmod(0o755)

    def let_program(self) -> None:
        (self.fleet.prod.tools / "homeport").unlink(missing_ok=True)


@dataclass(frozen=True)
class Verb:
    words: tuple[str, ...]
    """`{...}` of them is filled in."""
    after: str | None = None
    """What the message names; None: it only looks, and is named itself."""
    ready: Callable[[Cut], object] = lambda cut: None
    """Before each time."""
    audited: str = ""
    """The action that the host keeps once it is done."""
    late: bool = False
    """It asks the other side something after git was called, so that it is held later to be done without it."""
    again: Callable[[Cut, dict[str, Any]], object] | None = None
    """What must be true of the answer when it is asked again, done as it was but unheard."""


def the_same_try(cut: Cut, said: dict[str, Any]) -> None:
    (row,) = cut.ask("status")["tries"]
    assert (said["status"], row["sha"]) == ("unchanged", said["sha"]), (said, row)
    assert cut.site.read_text() == f"tried {cut.count}\n"


def written_once(cut: Cut, said: dict[str, Any]) -> None:
    assert not said["changed"] and cut.conf.read_text() == cut.new.read_text(), said
    versions = cut.ask("hostfile", "list", str(cut.conf))["versions"]
    assert [row["how"] for row in versions].count("edit") == 1, versions


def nothing_changed(cut: Cut, said: dict[str, Any]) -> None:
    assert said["ok"] and not [step for step in said["steps"] if step["changed"]], (cut, said)


def on_one_branch(cut: Cut, said: dict[str, Any]) -> None:
    assert (said["branch"], said["pushed"]) == (cut.branch(), True), said


DEPLOYS = "history"
TABLE: dict[str, Verb] = {
    "status": Verb(("status",)), "history": Verb(("history",)), "show": Verb(("show", "{deploy}")),
    "logs": Verb(("logs", "{deploy}")), "plan": Verb(("plan",)), "drift": Verb(("drift",)), "diff": Verb(("diff",)),
    "edits": Verb(("edits",)), "rules": Verb(("rules",)), "audit": Verb(("audit",)), "doctor": Verb(("doctor",)),
    "rescue list": Verb(("rescue", "list")), "rescue show": Verb(("rescue", "show", "{rescue}")),
    "hostfile list": Verb(("hostfile", "list")), "hostfile diff": Verb(("hostfile", "diff")),
    "token list": Verb(("token", "list")), "db check": Verb(("db", "check")),
    "deploy": Verb(("deploy",), DEPLOYS, Cut.pushed), "rollback": Verb(("rollback",), DEPLOYS, Cut.clean),
    "rebuild": Verb(("rebuild", "site"), DEPLOYS, Cut.edit), "restart": Verb(("restart", "site"), DEPLOYS, Cut.clean),
    "migrate": Verb(("migrate",), DEPLOYS, Cut.clean), "converge": Verb(("converge",), DEPLOYS, Cut.pushed),
    "cancel": Verb(("cancel",), DEPLOYS), "try": Verb(("try",), DEPLOYS, Cut.clean, late=True, again=the_same_try),
    "adopt": Verb(("adopt", "--branch", "{branch}"), "edits", Cut.edit, "adopt", again=on_one_branch),
    "accept": Verb(("accept", "site/a.txt", "--because", "x", "--until", "7d"), "edits", Cut.edit, "accept"),
    "discard": Verb(("discard", "site/a.txt"), "drift", Cut.edit, "discard"),
    "record": Verb(("record",), "drift", Cut.clean, "record"),
    "rescue restore": Verb(("rescue", "restore", "{rescue}"), "drift", Cut.clean, "rescue restore"),
    "hostfile edit": Verb(("hostfile", "edit", "{conf}", "--from", "{new}", "--no-note"), "hostfile list {conf}",
                          late=True, again=written_once),
    "hostfile record": Verb(("hostfile", "record", "{conf}"), "hostfile list {conf}",
                            lambda cut: cut.conf.write_text(f"timeout {cut.count}\n"), "hostfile record"),
    "notify test": Verb(("notify", "test"), "notify test"),
    "block": Verb(("block", "{old}", "--because", "x"), "status",
                  lambda cut: cut.ask(*filled(cut, TABLE["unblock"].words), ok=None), "block"),
    "unblock": Verb(("unblock", "{old}"), "status", lambda cut: cut.ask(*filled(cut, TABLE["block"].words)), "unblock"),
    "hold": Verb(("hold", "--because", "x"), "status", lambda cut: cut.ask("unhold", ok=None), "hold"),
    "unhold": Verb(("unhold",), "status", lambda cut: cut.ask("hold", "--because", "x"), "unhold"),
    "db backup": Verb(("db", "backup", "{copy}"), "db check", lambda cut: cut.copy.unlink(missing_ok=True)),
    "token create": Verb(("token", "create", "ci", "--right", "read"), "token list",
                         lambda cut: cut.ask("token", "revoke", "ci", ok=None), "token create"),
    "token revoke": Verb(("token", "revoke", "ci"), "token list",
                         lambda cut: cut.ask(*TABLE["token create"].words, ok=None), "token revoke"),
    "setup": Verb(("setup", "--widen"), "setup", again=nothing_changed),
    "run": Verb(("run", "-s", "site", "--", "sh", "-c", "{script}")), "shell": Verb(("shell", "site")),
}  # fmt: skip
SAMPLE = (("hold", "begin"), ("adopt", "answer"), ("rescue list", "middle"), ("run", "answer"), ("shell", "begin"),
          ("try", "answer"), ("hostfile edit", "answer"))
"""What a short run cuts, and when."""


def leaves(command: click.Command, above: str = "") -> list[str]:
    if not isinstance(command, click.Group):
        return [above]
    context = click.Context(command)
    found: list[str] = []
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        found += leaves(below, f"{above} {name}".strip())
    return found


def test_every_verb_that_there_is_has_its_entry() -> None:
    assert sorted(leaves(cli)) == sorted({*TABLE, *HERE}) and set(VERBS) >= HERE


def filled(cut: Cut, words: tuple[str, ...]) -> list[str]:
    old = cut.fleet.laptop.git("rev-list", "--max-parents=0", "HEAD")
    return [word.format(deploy=cut.deploy, rescue=cut.rescue, branch=cut.branch(), conf=cut.conf, new=cut.new, old=old,
                        copy=cut.copy, script="") for word in words]  # fmt: skip


@pytest.fixture
def cut(fleet: Fleet) -> Cut:
    made = Cut(fleet)
    text = (fleet.laptop.clone / "homeport.toml").read_text()
    waits = json.dumps(made.waits)
    text = text.replace('branch = "main"', 'branch = "main"\ntry = true').replace(
        "\n[services.preview]", f'runtime = "command"\ncommand = {waits}\n\n[services.preview]')  # fmt: skip
    text += '\n[migrate]\nrun = "true"\nservice = "site"\n'
    text += f'\n[[hostfiles]]\npath = "{made.conf}"\npurpose = "proxy"\nhosts = ["prod-1"]\nreload = {waits}\n'
    made.conf.write_text("timeout 10\n")
    made.new.write_text("timeout 20\n")
    fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"})
    fleet.homeport("-e", "production", "deploy")
    fleet.laptop.publish({"site/b.txt": "0\n"})
    made.deploy = fleet.homeport("--json", "-e", "production", "deploy").last["deployId"]
    made.edit()
    made.clean()
    made.rescue = made.ask("rescue", "list")["rescues"][0]["id"]
    return made


def stop(fleet: Fleet) -> None:
    """Its connections hear and say nothing any more, and are still there."""
    for pid in fleet.prod.sessions():
        for each in [*(p for p in children(pid) if name_of(p).startswith("sshd")), pid]:
            os.kill(each, signal.SIGSTOP)


def cut_at(cut: Cut, name: str, moment: str) -> None:
    verb, fleet = TABLE[name], cut.fleet
    verb.ready(cut)
    words = filled(cut, verb.words)
    before = cut.actions(verb.audited)
    if moment == "begin":
        cut.hold_program()
    if name == "try":
        fleet.laptop.write({"site/a.txt": f"tried {cut.count}\n"})
    late = moment == "answer" and verb.late
    cut.close(late)
    running = fleet.start("--json", "-e", "production", *words)
    eventually((cut.late_reached if late else cut.gate.reached).exists, f"{name} is held at its {moment}")
    if moment == "answer":
        stop(fleet)
        cut.open()
        eventually(lambda: not fleet.prod.working(), f"the host is done with {name}")
    fleet.prod.cut()
    said, shown = said_after(running, 1)
    cut.open()
    eventually(lambda: not fleet.prod.working(), f"the host ends what it began with {name}")
    cut.let_program()
    told = (name, moment, said, shown)
    if name == "doctor":
        (row,) = [row for row in said["checks"] if row["name"] == "prod-1"]
        assert not row["ok"] and row["next"] in (f"{BASE} doctor", "ssh prod.example.com true"), told
        return
    assert said["code"] == "connection" and said["next"] in shown, told
    if name == "setup" and moment == "begin":  # it asks the machine itself, before there is a homeport to ask
        assert said["next"] == "ssh prod.example.com true   (once it answers: the same command again)", told
        return
    if verb.after is None:
        assert said["next"] == f"{BASE} {shlex.join(words)}" and "nothing was to be changed" in said["what"], told
    elif verb.after == DEPLOYS:
        assert said["next"] == f"{BASE} history" or said["next"].startswith(f"{BASE} logs -f "), told
    else:
        assert said["next"] == f"{BASE} {verb.after.format(conf=cut.conf)}", told
    fleet.homeport("--json", *shlex.split(said["next"])[1:], ok=(0, 1, 2, 3) if name == "notify test" else (0, 1, 3))
    if verb.audited:
        done = cut.actions(verb.audited) - before
        assert done == (0 if moment == "begin" else 1), (done, told)
    if name == "adopt":
        there = cut.fleet.laptop.git("ls-remote", str(fleet.laptop.origin), f"refs/heads/{cut.branch()}")
        assert bool(there) == (moment != "begin") and cut.site.read_text() == f"edited {cut.count}\n"
        (row,) = cut.ask("edits")["edits"]
        assert row["state"] == ("open" if moment == "begin" else "adopted"), row
    if moment == "answer" and verb.again is not None:
        verb.again(cut, cut.ask(*words))
    if name == "try":
        fleet.laptop.git("checkout", "-q", "--", "site/a.txt")
    if verb.after == DEPLOYS:
        rows = cut.ask("history")["deploys"]
        assert all(row["state"] == "done" for row in rows), rows
        assert cut.ask("db", "check")["ok"]


def cut_at_terminal(cut: Cut, name: str, moment: str) -> None:
    """`run` and `shell` are a conversation with a program there; ssh's own status is all that is left."""
    fleet = cut.fleet
    script = f"echo >> {cut.held}; {cut.waits}"
    words = [word.format(script=script) for word in TABLE[name].words]
    cut.held.unlink(missing_ok=True)
    if moment == "begin":
        cut.hold_program()
    cut.close(late=moment != "begin")
    running = subprocess.Popen(
        [str(PROGRAM), "-e", "production", *words], cwd=fleet.laptop.clone, env=fleet.laptop.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if name == "shell" and moment != "begin":
        assert running.stdin is not None
        running.stdin.write(f"{script}; exit\n")
        running.stdin.flush()
    eventually((cut.gate.reached if moment == "begin" else cut.late_reached).exists, f"{name} is at its {moment}")
    if moment == "answer":
        stop(fleet)
        cut.open()
        eventually(lambda: not fleet.prod.working(), f"the host is done with {name}")
    fleet.prod.cut()
    out, err = running.communicate(timeout=30)
    assert running.returncode == 255, out + err
    assert "the connection broke" in err and f"next: {BASE} audit -n 1" in err, err
    cut.open()
    eventually(lambda: not fleet.prod.working(), f"{name} ends")
    cut.let_program()
    if moment != "begin":
        (row,) = cut.ask("audit", "-n", "1")["audit"]
        assert row["action"] == name and cut.held.read_text() == "\n", row


def follow(cut: Cut, *words: str) -> subprocess.Popen[str]:
    """Looks until it is told to end; what it says first has come."""
    running = cut.fleet.start("--json", "-e", "production", *words)
    assert running.stdout is not None
    assert json.loads(running.stdout.readline()), words
    return running


def cut_looking_on(cut: Cut, running: subprocess.Popen[str], words: str, left: int) -> None:
    """`left` processes of the host are not the looker's."""
    cut.fleet.prod.cut()
    said, shown = said_after(running, 1)
    assert said["next"] == f"{BASE} {words}" and said["next"] in shown and "nothing was to be changed" in said["what"], said
    eventually(lambda: len(cut.fleet.prod.working()) == left, f"nobody looks on with {words} at the host any more")


def look_on(cut: Cut) -> None:
    """`drift --watch` and `logs -f`: the edit and the deploy of that moment are there all the same."""
    prod = cut.fleet.prod
    running = follow(cut, "drift", "--watch")
    stop(cut.fleet)
    cut.edit()
    cut_looking_on(cut, running, "drift --watch", 0)
    running = follow(cut, "drift", "--watch")
    cut_looking_on(cut, running, "drift --watch", 0)
    (row,) = [path for one in cut.ask("drift")["services"] for path in one["paths"]]
    assert row["path"] == "a.txt", row
    cut.pushed()
    cut.close(late=True)
    with subprocess.Popen([str(PROGRAM), "--json", "-p", "shop", "deploy"], cwd=prod.home, env=prod.env, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as deploying:  # fmt: skip
        eventually(cut.late_reached.exists, "the host deploys")
        running = follow(cut, "logs", "-f")
        cut_looking_on(cut, running, "logs -f", 2)
        running = follow(cut, "logs", "-f")
        stop(cut.fleet)
        cut.open()
        told = deploying.communicate(timeout=60)[0]
    cut_looking_on(cut, running, "logs -f", 0)
    done = json.loads(told.splitlines()[-1])
    assert cut.ask("logs", "-f")["deployId"] == done["deployId"] and done["status"] == "deployed"


def watch_tries(cut: Cut) -> None:
    """`try --watch`: ends with the first one's connection, and outlives a later one's."""
    fleet = cut.fleet

    def cut_at_work() -> None:
        eventually(cut.late_reached.exists, "the host works on a try")
        fleet.prod.cut()
        cut.open()
        eventually(lambda: not fleet.prod.working(), "the host ends the try")

    cut.close(late=True)
    fleet.laptop.write({"site/a.txt": "first\n"})
    running = fleet.start("--json", "-e", "production", "try", "--watch")
    cut_at_work()
    said, _ = said_after(running, 1)
    assert said["code"] == "connection" and " logs -f " in said["next"], said
    assert cut.site.read_text() == "first\n"
    running = fleet.start("-e", "production", "try", "--watch")
    assert running.stderr is not None
    eventually(lambda: "watching" in running.stderr.readline(), "it is watched")
    cut.close(late=True)
    fleet.laptop.write({"site/a.txt": "second\n"})
    cut_at_work()
    assert cut.site.read_text() == "second\n"
    fleet.laptop.write({"site/a.txt": "third\n"})
    eventually(lambda: cut.site.read_text() == "third\n", "the next save is live")
    eventually(lambda: not fleet.prod.working(), "its try has ended")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode in (0, 130) and f"next: {BASE} logs -f " in err and "still watching" in err, err


def test_who_watches_when_the_connection_dies_is_told_so_and_can_watch_on(cut: Cut) -> None:
    look_on(cut)
    watch_tries(cut)


def test_a_verb_whose_connection_dies_says_so_and_what_shows_it(cut: Cut) -> None:
    for name, moment in SAMPLE:
        (cut_at_terminal if name in ("run", "shell") else cut_at)(cut, name, moment)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_verb_whose_connection_dies_says_so_and_what_shows_it(cut: Cut, moment: str) -> None:
    for name in TABLE:
        if name in ("run", "shell"):
            cut_at_terminal(cut, name, moment)
        else:
            cut_at(cut, name, moment)
    assert (cut.ask("status")["hold"] is None) == (moment != "begin"), "an unhold that was never heard left it there"
