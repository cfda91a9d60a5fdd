"""A cable that loses packets, or is pulled, under a fetch, a check and calls to the forge: the deadline is told, the old
version keeps serving, no commit is blocked for it, no request is opened twice, and the next try works (P5, P6).

Two network namespaces of the test's own with a cable between them: homeport is in one, the origin's sshd, a web server
and a forge in the other, whose firewall loses what comes in.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from homeport.flow.stages.gating import LAST_LOOK
from tests.fleet import SSHD
from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import serving
from tests.scenarios.telling import deployed, mended, picture
from tests.world import World, eventually

pytestmark = [
    pytest.mark.soak,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of the network need root"),
    pytest.mark.skipif(not all(map(shutil.which, ("ip", "iptables"))), reason="needs iproute2 and iptables"),
]
HERE, THERE, PORT, WEB = "192.0.2.1", "192.0.2.2", 22022, 8080


@dataclass
class Cable:
    """Between homeport's namespace and the one of the origin: process ids that hold them."""

    here: int
    there: int

    def run(self, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.there), "-n", *words], check=True, capture_output=True)

    def loses(self, *how: str) -> None:
        """From now on everything that goes to homeport's side, or what iptables matches so."""
        self.run("iptables", "-A", "OUTPUT", *how, "-j", "DROP")

    def pulled(self) -> None:
        self.run("ip", "link", "set", "v1", "down")

    def well(self) -> None:
        self.run("iptables", "-F", "OUTPUT")
        self.run("ip", "link", "set", "v1", "up")
        asks = ["nsenter", "-t", str(self.here), "-n", "timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{THERE}/{PORT}"]
        eventually(lambda: subprocess.run(asks, capture_output=True).returncode == 0, "the other end answers again")


@contextlib.contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def cable(world: World) -> Iterator[Cable]:
    """The origin is fetched over ssh through it, and a page stands at its other end."""
    assert SSHD, "sshd is not installed; ./dev test installs it"
    own = os.readlink("/proc/self/ns/net")
    sleeping = ("unshare", "--net", "sleep", "1000")
    with running(*sleeping) as here, running(*sleeping) as there:
        for holder in (here, there):
            eventually(lambda pid=holder.pid: os.readlink(f"/proc/{pid}/ns/net") != own, "the namespace is there")
        made = Cable(here.pid, there.pid)
        made.run("ip", "link", "add", "v1", "type", "veth", "peer", "name", "v0", "netns", str(here.pid))
        made.run("sh", "-c", f"ip addr add {THERE}/30 dev v1; ip link set v1 up; ip link set lo up")
        inside = ["nsenter", "-t", str(here.pid), "-n"]
        up = f"ip addr add {HERE}/30 dev v0; ip link set v0 up; ip link set lo up"
        subprocess.run([*inside, "sh", "-c", up], check=True)
        key, log = world.root / "key", world.root / "sshd.log"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (world.root / "sshd_config").write_text(
            f"Port {PORT}\nListenAddress {THERE}\nHostKey {key}\nAuthorizedKeysFile {key}.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        )
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        page = world.root / "page"
        page.mkdir()
        web = [sys.executable, "-m", "http.server", "--bind", THERE, "--directory", str(page), str(WEB)]
        at = ["nsenter", "-t", str(there.pid), "-n"]
        with running(*at, SSHD, "-D", "-f", str(world.root / "sshd_config"), "-E", str(log)), running(*at, *web):
            deployed(world)
            world.enter = lambda cwd: [*inside, f"--wd={cwd}", "--"]
            world.more["GIT_SSH_COMMAND"] = (
                f"ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            )
            address = f"ssh://root@{THERE}:{PORT}{world.origin}"
            world.git("remote", "set-url", "--push", "origin", str(world.origin))
            world.git("remote", "set-url", "origin", address)
            eventually(lambda: world.homeport("status", ok=None).code == 0, "homeport follows the origin")
            world.sql(f"UPDATE meta SET value = '{address}' WHERE key = 'repo'")
            yield made


def patience(world: World, limit: str) -> None:
    world.host_file.write_text(world.host_file.read_text().partition("[limits]")[0] + f'[limits]\nfetch = "{limit}"\n')


@pytest.mark.parametrize("lost", ["40 % of the packets", "everything in mid-fetch", "the cable"])
def test_a_fetch_over_a_bad_cable_ends_in_time_and_the_next_one_works(world: World, cable: Cable, lost: str) -> None:
    before = picture(world.live)
    (world.clone / "site/big.bin").write_bytes(os.urandom(2_000_000))
    world.publish({"site/a.txt": "two\n"})
    if lost == "the cable":
        cable.pulled()
    elif lost == "everything in mid-fetch":
        cable.run("iptables", "-A", "OUTPUT", "-m", "quota", "--quota", "200000", "-j", "ACCEPT")
        cable.loses()
    else:
        cable.loses("-m", "statistic", "--mode", "random", "--probability", "0.4")
    patience(world, "2s")
    done = world.deploy(ok=None)
    if done["status"] != "deployed" or lost != "40 % of the packets":
        assert (done["status"], done["exitCode"]) == ("failed", 1), done
        assert "longer than 2 s" in done["errorSummary"] or "cannot be fetched" in done["errorSummary"], done
        assert picture(world.live) == before
    assert world.json("status")["blocked"] == []
    assert not [command for command in world.own_commands().values() if b"git" in command]
    cable.well()
    patience(world, "60s")
    mended(world)
    assert world.text("site/a.txt") == "two\n"


def test_a_check_over_a_pulled_cable_ends_in_time_and_the_old_version_serves(world: World, cable: Cable) -> None:
    toml = (world.clone / "homeport.toml").read_text()
    check = f'checks = [{{ http = "http://{THERE}:{WEB}/", within = "1s", timeout = "1s" }}]\n'
    world.publish({"homeport.toml": toml + check})
    world.deploy()
    world.publish({"site/a.txt": "two\n"})
    cable.loses("-p", "tcp", "--sport", str(WEB))
    done = world.deploy(ok=(1,))
    assert done["status"] == "failed", "nor could it be verified that the old version is well"
    assert "gave no whole answer within 1 s" in done["errorSummary"], done
    assert world.text("site/a.txt") == "a\n"
    cable.well()
    sha = world.git("rev-parse", "HEAD")
    world.homeport("unblock", sha, ok=None)
    world.homeport("unhold", ok=None)
    assert world.deploy()["sha"] == sha
    assert world.text("site/a.txt") == "two\n"


@contextlib.contextmanager
def within_network(of: int) -> Iterator[None]:
    """This thread opens its sockets in the network of that process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as back, open(f"/proc/{of}/ns/net") as there:
        assert libc.setns(there.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(back.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


FORGE = """
[forge]
kind = "github"
url = "{url}"
repo = "octo/shop"
token = {{ env = "FORGE_TOKEN" }}
"""
GATE = '\n[gate]\nsettle = "100ms"\ntimeout = "1s"\n'
SILENCE = 20.0
"""Seconds after which a write is given up that the forge does not answer; a read after fifteen, all its tries together."""


@pytest.fixture
def forge(world: World, cable: Cable) -> Iterator[GitHubFake]:
    """At the cable's other end; its listening socket is in that network, whoever answers there."""
    fake = GitHubFake()
    with contextlib.ExitStack() as stack:
        with within_network(cable.there):
            stack.enter_context(serving(fake, THERE))
        world.more["FORGE_TOKEN"] = TOKEN
        yield fake
    assert fake.wrong == []


def forge_port(forge: GitHubFake) -> tuple[str, ...]:
    """What iptables takes for packets from the forge only."""
    return "-p", "tcp", "--sport", forge.url.rpartition(":")[2]


def configured(world: World, forge: GitHubFake, more: str = "") -> dict[str, str | None]:
    text = (world.clone / "homeport.toml").read_text()
    return {"homeport.toml": text.partition("\n[forge]")[0] + FORGE.format(url=forge.url) + more}


@pytest.mark.parametrize("lost", ["40 % of the packets", "everything in mid-answer", "the cable"])
def test_a_gate_over_a_bad_cable_stays_shut_in_time_and_opens_afterwards(
    world: World, cable: Cable, forge: GitHubFake, lost: str
) -> None:
    sha = world.publish({**configured(world, forge, GATE), "site/a.txt": "two\n"})
    forge.add_run("CI", "success", sha=sha)
    plainly, source = forge.answer, forge_port(forge)
    if lost == "40 % of the packets":
        cable.loses(*source, "-m", "statistic", "--mode", "random", "--probability", "0.4")
    elif lost == "everything in mid-answer":
        cable.run("iptables", "-A", "OUTPUT", *source, "-m", "quota", "--quota", "300", "-j", "ACCEPT")
        cable.loses(*source)
    else:
        forge.answer = lambda seen: (cable.pulled(), plainly(seen))[1]  # type: ignore[method-assign, func-returns-value]
    began = time.monotonic()
    done = world.deploy(ok=None)
    assert time.monotonic() - began < LAST_LOOK + 15, "the gate's limit ends a question that is under way"
    if done["status"] != "deployed" or lost != "40 % of the packets":
        assert (done["status"], done["errorCode"], done["exitCode"]) == ("failed", "gate-timeout", 4), done
        assert "the forge could not be asked" in done["errorSummary"], done
        assert done["next"] == "homeport deploy, when it answers again"
        assert world.text("site/a.txt") == "a\n"
    assert world.json("status")["blocked"] == []
    eventually(lambda: all(b"\0send\0" in said for said in world.own_commands().values()),
               "nobody is left but who tries again to send the status")
    forge.answer = plainly  # type: ignore[method-assign]
    cable.well()
    world.publish({**configured(world, forge, GATE.replace("1s", "60s"))})
    forge.add_run("CI", "success", sha=world.git("rev-parse", "HEAD"))
    assert world.deploy()["ok"]
    assert world.text("site/a.txt") == "two\n"


def test_a_cable_pulled_in_the_middle_of_opening_a_request_opens_no_second_one(
    world: World, cable: Cable, forge: GitHubFake
) -> None:
    world.publish(configured(world, forge))
    assert world.deploy()["ok"]
    (world.live / "site/a.txt").write_text("by hand\n")
    plainly = forge.add_pull

    def opened_and_pulled(*said: str) -> int:
        number = plainly(*said)
        cable.loses(*forge_port(forge))
        return number

    forge.add_pull = opened_and_pulled  # type: ignore[method-assign, assignment]
    forge.branches = Everything()
    began = time.monotonic()
    ran = world.homeport("--json", "adopt", ok=(1,))
    assert time.monotonic() - began < SILENCE + 15
    (pull,) = forge.pulls
    assert f"branch {pull['head']} is pushed" in ran.last["what"]
    assert "homeport adopt" in ran.last["next"]

    said = world.homeport("--json", "adopt", ok=(1,)).last
    assert "is pushed" in said["what"], "the cable is still out"
    cable.well()
    said = world.json("adopt")
    assert (said["branch"], len(forge.pulls)) == (pull["head"], 1), "the one that is open is found"
    assert said["request"] and str(pull["number"]) in said["request"]
    (edit,) = world.json("edits")["edits"]
    assert (edit["state"], edit["request"]) == ("adopted", said["request"])


class Everything(set):  # type: ignore[type-arg]
    """Every branch is there: the real origin has them."""

    def __contains__(self, name: object) -> bool:
        return True


def test_commit_statuses_over_a_pulled_cable_delay_no_deploy_and_arrive_later(
    world: World, cable: Cable, forge: GitHubFake
) -> None:
    cable.loses(*forge_port(forge))
    sha = world.publish({**configured(world, forge), "site/a.txt": "two\n"})
    done = world.deploy()
    assert (done["status"], done["sha"]) == ("deployed", sha)
    assert done["durationMs"] < SILENCE * 1000, "nobody waited for the forge"
    assert forge.statuses == []
    cable.well()
    told = ("homeport/deploy/production", "success")
    eventually(lambda: told in [(s["context"], s["state"]) for s in forge.statuses], "the status arrives", 90)
    assert {s.path for s in forge.seen if s.method == "POST"} == {f"/api/v3/repos/octo/shop/statuses/{sha}"}
