"""E8: one command for a fleet over plain ssh: rolling, canary first or all at once, stopped by the first failure."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.fleet import Fleet, introduce
from tests.world import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root: a mount namespace"),
]
NAMES = ("web-1", "web-2", "web-3")
PROJECT = """\
[project]
name = "shop"

[environments.production]
branch = "main"
hosts = ["web-1", "web-2", "web-3"]
strategy = "{strategy}"

{hosts}

[services.site]
source = "site"
target = "{live}/site"
runtime = "command"
command = ["sh", "-c", "cat {live}/whoami >> {root}/order; while test -e {root}/$(cat {live}/site/a.txt); do sleep 0.05; done"]

  [[services.site.checks]]
  command = ["sh", "-c", "! grep -q broken-$(cat {live}/whoami) {live}/site/a.txt"]
  within = "100ms"
"""  # noqa: E501


@pytest.fixture
def three(bare_fleet: Fleet) -> Fleet:
    """Three machines with the same path to three live folders, each in a mount namespace of its own."""
    root = bare_fleet.laptop.root
    live = root / "live-here"
    live.mkdir()
    for name in NAMES:
        own = root / f"{name}-live"
        own.mkdir()
        (own / "whoami").write_text(f"{name}\n")
        enter = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c",
                 f'mount --bind {own} {live} && exec "$@"', "sh")  # fmt: skip
        machine = bare_fleet.add(name, "production", f"{name}.example.com", enter)
        machine.host_file.write_text(machine.host_file.read_text().replace(str(machine.live), str(live)))
    return bare_fleet


def publish(fleet: Fleet, strategy: str, text: str, **more: str) -> None:
    root = fleet.laptop.root
    hosts = "\n".join(f'[hosts.{name}]\nssh = "{name}.example.com"\n' for name in NAMES)
    project = PROJECT.format(strategy=strategy, hosts=hosts, live=root / "live-here", root=root)
    fleet.laptop.publish({"homeport.toml": project + more.get("end", ""), "site/a.txt": text})


def introduced(fleet: Fleet) -> None:
    for machine in fleet.machines.values():
        introduce(fleet, machine)


def live(fleet: Fleet) -> list[str]:
    files = [fleet.laptop.root / f"{name}-live/site/a.txt" for name in NAMES]
    return [file.read_text().strip() if file.exists() else "" for file in files]


def test_the_canary_goes_first_and_a_bad_one_spares_the_others(three: Fleet) -> None:
    publish(three, "canary", "one\n")
    introduced(three)
    ran = three.homeport("-e", "production", "deploy")
    assert live(three) == ["one"] * 3
    order = (three.laptop.root / "order").read_text().split()
    assert order[0] == "web-1" and sorted(order) == list(NAMES)
    assert ran.stdout.startswith("== web-1") and "\nweb-2  " in ran.stdout and "\nweb-3  " in ran.stdout

    publish(three, "canary", "broken-web-1\n")
    stopped = three.homeport("-e", "production", "deploy", ok=(1,))
    assert live(three) == ["one"] * 3 and "deploy stopped at web-1; not done on web-2, web-3" in stopped.stderr
    publish(three, "canary", "broken-web-3\n")
    stopped = three.homeport("-e", "production", "deploy", ok=(1,))
    assert live(three) == ["broken-web-3", "broken-web-3", "one"], "the one that failed went back by itself"
    assert "deploy stopped at web-3; done on web-1, web-2" in stopped.stderr and "--host web-3 history" in stopped.stderr
    three.homeport("-e", "production", "--host", "web-3", "unblock", three.laptop.git("rev-parse", "HEAD"))
    publish(three, "canary", "four\n")
    done = three.homeport("--json", "-e", "production", "deploy").lines
    assert live(three) == ["four"] * 3 and sorted(one["ok"] for one in done if one["type"] == "deploy.done") == [True] * 3


def test_all_at_once_are_cancelled_together_and_get_one_commit(three: Fleet) -> None:
    root = three.laptop.root
    publish(three, "all", "one\n", end=f'\n[migrate]\nrun = "echo ran >> {root / "migrated"}"\nservice = "site"\n')
    introduced(three)
    three.homeport("-e", "production", "deploy")
    assert (root / "migrated").read_text() == "ran\n" and live(three) == ["one"] * 3
    assert (root / "order").read_text().split()[0] == "web-1", "with migrations the first goes ahead"

    (root / "two").touch()
    publish(three, "all", "two\n")
    running = three.start("-e", "production", "deploy")
    eventually(lambda: (root / "order").read_text().split()[3:] and live(three) == ["two"] * 3, "all are at work at once")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 6 and live(three) == ["one"] * 3, errors
    (root / "two").unlink()
    said = three.homeport("--json", "-e", "production", "deploy").lines
    shas = {one["sha"] for one in said if one["type"] == "deploy.done"}
    assert shas == {three.laptop.git("rev-parse", "HEAD")} and live(three) == ["two"] * 3


def test_a_machine_that_is_off_is_found_before_the_others_begin(three: Fleet) -> None:
    publish(three, "all", "one\n")
    introduced(three)
    off = three.machines["web-2"]
    assert off.sshd is not None
    off.cut()
    off.sshd.kill()
    off.sshd.wait()
    stopped = three.homeport("-e", "production", "deploy", ok=(1,))
    assert live(three) == ["", "", ""] and "not done on web-1, web-3" in stopped.stderr, stopped.stderr
    looked = three.homeport("-e", "production", "--json", "drift", ok=None).lines
    assert [said.get("equal", said.get("code")) for said in looked] == [True, "connect", True], "a look goes on"
