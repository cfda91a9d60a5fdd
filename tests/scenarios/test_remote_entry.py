"""B10: a key that is bound to a token by a forced command: it does what the token may, by plain ssh and by homeport."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.fleet import Fleet
from tests.world import PROGRAM


@pytest.fixture
def entered(fleet: Fleet) -> Fleet:
    """The person's key on production is bound to the token `ci`."""
    fleet.homeport("-e", "production", "deploy")
    fleet.prod.homeport("token", "create", "ci", "--right", "read", "--right", "deploy:all", "--kind", "agent")
    key = (fleet.keys / "person.pub").read_text()
    entry = f'restrict,command="{PROGRAM} -p shop -e production ssh-entry --token ci" {key}'
    fleet.prod.authorized.write_text(entry)
    fleet.prod.cut()  # the shared connection was opened before the key was bound
    return fleet


def ssh(fleet: Fleet, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ssh", "prod.example.com", *([command] if command else [])], env=fleet.laptop.env,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)  # fmt: skip


def test_a_bound_key_does_what_its_token_may_and_no_more(entered: Fleet) -> None:
    fleet = entered
    fleet.laptop.publish({"site/a.txt": "two\n"})
    done = ssh(fleet, "homeport -p shop -e production --json deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["status"] == "deployed" and fleet.prod.text("site/a.txt") == "two\n"
    assert json.loads(done.stdout.splitlines()[0])["requestedBy"] == "ci"
    assert fleet.homeport("--json", "-e", "production", "status").last["sha"] == last["sha"], "also through homeport"
    mark = fleet.laptop.root / "ran"
    for command, code in (
        ("", "entry"), (f"touch {mark}", "entry"), ("homeport token list", "entry"),
        ("homeport hold --because x", "no-right"),
        ("homeport -C /tmp status", "entry"), ("homeport -p ../../x status", "no-project"),
        (f"homeport status; touch {mark}", "usage"),
    ):  # fmt: skip
        done = ssh(fleet, command.replace("homeport ", "homeport --json ", 1) if "--json" not in command else command)
        said = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"code": "entry"}
        assert (said["code"], done.returncode) == (code, 2 if code in ("usage", "no-project") else 3), (command, done)
    assert not mark.exists()
    assert fleet.homeport("--json", "-e", "production", "adopt", ok=(3,)).last["code"] == "no-right"


def test_host_files_are_seen_with_read_and_changed_with_try_and_deploy_and_rules_win(fleet: Fleet) -> None:
    prod, conf = fleet.prod, fleet.prod.live / "proxy.conf"
    conf.write_text("timeout 10\n")
    entry = f'\n[[hostfiles]]\npath = "{conf}"\npurpose = "proxy"\nhosts = ["prod-1"]\n'
    fleet.laptop.publish({"homeport.toml": (fleet.laptop.clone / "homeport.toml").read_text() + entry})
    fleet.homeport("-e", "production", "deploy")
    kinds = {"try": ["read", "try"], "deploy": ["read", "deploy:*"],
             "hands": ["read", "try", "deploy:*", "adopt"]}  # fmt: skip
    for name, rights in kinds.items():
        words = [word for right in rights for word in ("--right", right)]
        prod.homeport("token", "create", name, *words, "--kind", "agent")

    def as_token(name: str, command: str, given: str = "") -> tuple[int, str]:
        """What sshd runs for a key that is bound to the token."""
        argv = [str(PROGRAM), "-p", "shop", "-e", "production", "ssh-entry", "--token", name]
        done = subprocess.run(argv, env={**prod.env, "SSH_ORIGINAL_COMMAND": f"homeport --json {command}"}, input=given,
                              capture_output=True, text=True, timeout=30)  # fmt: skip
        return done.returncode, str(json.loads(done.stdout.splitlines()[-1]).get("code", ""))

    edit = f"hostfile edit {conf} --no-note"
    assert as_token("try", "hostfile list") == (0, "")
    for name in ("try", "deploy"):
        assert as_token(name, f"{edit} --from -", "timeout 20\n") == (3, "no-right")
    assert as_token("hands", f"{edit} --from /etc/passwd") == (3, "entry"), "the content is the caller's"
    assert conf.read_text() == "timeout 10\n"
    assert as_token("hands", f"{edit} --from - --because x", "timeout 20\n") == (0, "")
    assert conf.read_text() == "timeout 20\n"
    forced = f"{PROGRAM} -p shop -e production ssh-entry --token hands"
    prod.authorized.write_text(f'restrict,command="{forced}" {prod.authorized.read_text()}')
    prod.cut()
    new = fleet.laptop.root / "new.conf"
    new.write_text("timeout 30\n")
    fleet.homeport("-e", "production", "hostfile", "edit", str(conf), "--from", str(new), "--no-note")
    assert conf.read_text() == "timeout 30\n", "through homeport it is the laptop's file"
    conf.write_text("by hand\n")
    assert as_token("hands", f"hostfile record {conf} --because x") == (0, "")
    assert {row["who"] for row in json.loads(prod.homeport("--json", "audit", "-n", "3").stdout)["audit"]} == {"hands"}
    prod.identify("prod-1", f'\n[[rules]]\nid = "proxy"\naction = "hostfile"\nmatch = "{conf}"\neffect = "confirm"\n')
    assert as_token("hands", f"{edit} --confirm proxy --because x --from -", "timeout 40\n")[0] == 3
    assert conf.read_text() == "by hand\n"


def test_a_revoked_token_opens_nothing(entered: Fleet) -> None:
    entered.prod.homeport("token", "revoke", "ci")
    assert entered.homeport("--json", "-e", "production", "status", ok=(3,)).last["code"] == "no-token"


def test_setup_binds_a_key_and_host_toml_says_to_which_token(fleet: Fleet) -> None:
    """From the laptop; the machine's own file can give the key another token, or close the door, at once."""
    prod = fleet.prod
    before = prod.authorized.read_text() + "# the next line has no end"
    prod.authorized.write_text(before)
    prod.authorized.chmod(0o640)
    public = fleet.keys / "stage-1.pub"
    setup = ("--json", "-e", "production", "setup", "--key", str(public), "--token", "ci")
    refused = step_of(fleet.homeport(*setup, ok=(1,)).last)
    assert "has no token ci" in refused["done"] and prod.authorized.read_text() == before
    for name, right in (("ci", "read"), ("hands", "hold")):
        prod.homeport("token", "create", name, "--right", right, "--kind", "agent")
    step = step_of(fleet.homeport(*setup).last)
    line, may = step["lines"]
    kind, key, _ = public.read_text().split()
    assert line.endswith(f"{kind} {key} ci") and line.startswith('restrict,command="') and may == "ci may: read"
    assert line.split('"')[1].endswith(" -p shop -e production ssh-entry --token ci --key ci")
    assert prod.authorized.read_text() == f"{before}\n{line}\n" and prod.authorized.stat().st_mode & 0o777 == 0o640
    assert not step_of(fleet.homeport("--json", "-e", "production", "setup").last)["changed"]
    assert prod.authorized.read_text() == f"{before}\n{line}\n"

    asked = bound(fleet, "homeport --json status")
    assert asked.returncode == 0 and json.loads(asked.stdout)["host"] == "prod-1", asked
    hold = bound(fleet, "homeport --json hold --because x")
    assert (hold.returncode, json.loads(hold.stdout)["code"]) == (3, "no-right")
    table = prod.host_file.read_text()
    prod.host_file.write_text(table.replace('token = "ci"', 'token = "hands"'))
    assert bound(fleet, "homeport hold --because x").returncode == 0
    assert json.loads(bound(fleet, "homeport --json status").stdout)["code"] == "no-right"
    prod.host_file.write_text(table.partition("[keys.ci]")[0])
    assert json.loads(bound(fleet, "homeport --json unhold").stdout)["code"] == "no-key"
    assert "ci" in step_of(fleet.homeport("--json", "-e", "production", "setup").last)["lines"][0]
    assert prod.authorized.read_text() == f"{before}\n", "its line went with its table"

    # the key that came in by hand opens a shell, and is not taken from its owner
    prod.homeport("token", "create", "person", "--right", "read")
    own = ("--key", str(fleet.keys / "person.pub"), "--token", "person")
    taken = step_of(fleet.homeport("--json", "-e", "production", "setup", *own, ok=(1,)).last)
    assert taken["done"].startswith("line 1 of ") and prod.authorized.read_text() == f"{before}\n"
    assert "[keys" not in prod.host_file.read_text()


def step_of(said: dict[str, Any]) -> dict[str, Any]:
    return next(dict(step) for step in said["steps"] if step["name"] == "ssh keys")


def bound(fleet: Fleet, command: str) -> subprocess.CompletedProcess[str]:
    """As CI would ask, with the key that `setup` bound."""
    argv = ["ssh", "-o", f"IdentityFile={fleet.keys / 'stage-1'}", "-F", "none", "-o", "IdentitiesOnly=yes"]
    argv += ["-o", f"UserKnownHostsFile={fleet.laptop.root / 'known_hosts'}", "-o", "HostKeyAlias=prod-1"]
    argv += ["-p", str(fleet.prod.port), "-o", "BatchMode=yes", "127.0.0.1", command]
    env = {name: value for name, value in fleet.laptop.env.items() if name != "PATH"} | {"PATH": os.environ["PATH"]}
    return subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
