"""A key that is bound to a token by a forced command: it does what the token may, over plain ssh and through homeport."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.remote.conftest import Fleet
from tests.scenarios.conftest import PROGRAM


@pytest.fixture
def entered(fleet: Fleet) -> Fleet:
    """The person's key on production is bound to the token `ci`."""
    fleet.homeport("-e", "production", "deploy")
    fleet.prod.homeport("token", "create", "ci", "--right", "read", "--right", "deploy:all", "--kind", "agent")
    key = (fleet.keys / "person.pub").read_text()
    entry = f'restrict,command="{PROGRAM} -p shop -e production ssh-entry --token ci" {key}'
    (fleet.prod.root / "authorized_keys").write_text(entry)
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


def test_a_revoked_token_opens_nothing(entered: Fleet) -> None:
    entered.prod.homeport("token", "revoke", "ci")
    assert entered.homeport("--json", "-e", "production", "status", ok=(3,)).last["code"] == "no-token"
