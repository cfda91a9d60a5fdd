"""An origin that takes the call and never answers, over https and over ssh, cancelled, given up or killed in the middle of
a fetch: the old version keeps serving, no commit is blocked, nothing is left running (P5, P6)."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fleet import SSHD
from tests.scenarios.telling import deployed, mended, picture
from tests.world import World, eventually


@pytest.fixture
def silent(world: World) -> Iterator[int]:
    """The port of a server that takes connections and says nothing; a new version is to be fetched."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        deployed(world)
        world.publish({"site/a.txt": "two\n"})
        world.more["no_proxy"] = "127.0.0.1"
        yield listening.getsockname()[1]


def comes_from(world: World, origin: str) -> None:
    """The origin is there from now on, and homeport knows that."""
    world.git("remote", "set-url", "origin", origin)
    world.sql(f"UPDATE meta SET value = '{origin}' WHERE key = 'repo'")


def fetches(port: int) -> list[int]:
    """Processes that talk, or would, with that port of a silent origin."""
    found = []
    there = re.compile(rb"127\.0\.0\.1:%d\b|(?s:\x00%d\x00.*@127\.0\.0\.1\x00)" % (port, port))
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue
        if there.search(command):
            found.append(int(folder.name))
    return found


def nothing_runs_on(port: int) -> None:
    """Of a fetch: what was killed may take a moment to die on a busy machine, what was not would wait for minutes."""
    eventually(lambda: not fetches(port), "nothing of the fetch runs on")


def mend(world: World) -> None:
    world.git("remote", "set-url", "origin", str(world.origin))
    assert world.json("status")["blocked"] == []
    mended(world)
    assert world.text("site/a.txt") == "two\n"


ORIGINS = {"https": "https://127.0.0.1:{}/shop.git", "ssh": "ssh://git@127.0.0.1:{}/shop.git"}


@pytest.mark.parametrize("over", [*ORIGINS, "a mirror that another environment fetches into"])
def test_a_cancel_ends_a_fetch_that_hangs_at_once(world: World, silent: int, over: str) -> None:
    before = picture(world.live)
    with open(world.state / "shop/repo.git/homeport.lock") as lock:
        if over in ORIGINS:
            comes_from(world, ORIGINS[over].format(silent))
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        running = world.start("--json", "deploy")
        if over in ORIGINS:
            eventually(lambda: len(fetches(silent)) > 1, "git and what it talks through wait for the origin")
        else:
            eventually(lambda: "fetch" in str(world.json("status")["running"]), "the deploy waits for the mirror")
        asked = time.monotonic()
        cancelled = world.homeport("--json", "cancel").last
        said, _ = running.communicate(timeout=60)
        assert time.monotonic() - asked < 30
    nothing_runs_on(silent)
    last = json.loads(said.splitlines()[-1])
    assert (running.returncode, last["status"], cancelled["status"]) == (6, "cancelled", "cancelled")
    assert picture(world.live) == before
    assert world.json("history")["deploys"][0]["status"] == "cancelled"
    mend(world)


def test_a_fetch_that_a_killed_runner_left_is_ended_by_the_next_command(world: World, silent: int) -> None:
    comes_from(world, ORIGINS["https"].format(silent))
    running = world.start("deploy")
    eventually(lambda: len(fetches(silent)) > 1, "git waits for the origin")
    world.kill_homeport()
    running.communicate(timeout=60)
    assert fetches(silent)
    world.homeport("drift")
    nothing_runs_on(silent)
    assert world.json("history")["deploys"][0]["status"] == "failed"
    mend(world)


def test_an_origin_that_never_answers_is_given_up(world: World, silent: int) -> None:
    before = picture(world.live)
    comes_from(world, ORIGINS["https"].format(silent))
    world.host_file.write_text(world.host_file.read_text() + '[limits]\nfetch = "1s"\n')
    done = world.homeport("--json", "deploy", ok=(1,))
    assert "longer than 1 s" in done.stdout, done.stdout
    assert picture(world.live) == before
    nothing_runs_on(silent)
    mend(world)


def test_a_git_that_is_killed_in_the_middle_of_a_fetch_blocks_nothing(world: World, silent: int) -> None:
    before = picture(world.live)
    comes_from(world, ORIGINS["https"].format(silent))
    running = world.start("--json", "deploy")
    killed: set[int] = set()

    def ended() -> bool:
        for pid in fetches(silent):
            killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return running.poll() is not None

    eventually(ended, "the deploy has ended")
    assert killed
    assert running.communicate(timeout=60)[0]
    assert running.returncode == 1
    assert picture(world.live) == before
    mend(world)


class Resetting:
    """In front of a real sshd: each connection is reset (RST) once so many bytes came from there; 0 resets none."""

    def __init__(self, to: int, after: int) -> None:
        self.after, self._to, self.cut = after, to, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._door.accept()
                threading.Thread(target=self._carry, args=(peer,), daemon=True).start()

    def _carry(self, peer: socket.socket) -> None:
        came = 0
        with peer, socket.create_connection(("127.0.0.1", self._to)) as server, suppress(OSError):
            while True:
                for end in select.select([peer, server], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    came += len(data) if end is server else 0
                    if end is server and 0 < self.after < came:
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.cut += 1
                        return
                    (peer if end is server else server).sendall(data)

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


@pytest.fixture
def resetting(world: World) -> Iterator[Resetting]:
    """The origin is fetched over ssh through it; less than half of a new version passes."""
    assert SSHD, "sshd is not installed; ./dev test installs it"
    deployed(world)
    key, port = world.root / "key", world.free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (world.root / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {key}.pub\nPidFile none\nStrictModes no\n"
        "UsePAM no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    log = world.root / "sshd.log"
    with open(log, "wb") as errors:
        argv = [SSHD, "-D", "-e", "-f", str(world.root / "sshd_config")]
        sshd = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=errors)
    made = Resetting(port, 400_000)
    try:
        eventually(lambda: "listening" in log.read_text(), "sshd listens")
        world.more["GIT_SSH_COMMAND"] = (
            f"ssh -F none -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        )
        world.git("remote", "set-url", "--push", "origin", str(world.origin))
        (world.clone / "site/big.bin").write_bytes(os.urandom(1_000_000))
        world.publish({"site/a.txt": "two\n"})
        comes_from(world, f"ssh://{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{made.port}{world.origin}")
        yield made
    finally:
        made.close()
        sshd.kill()
        sshd.wait()


def test_a_connection_that_is_reset_in_the_middle_of_a_fetch_fails_it_and_the_next_one_works(
    world: World, resetting: Resetting
) -> None:
    before = picture(world.live)
    done = world.deploy(ok=(1,))
    assert resetting.cut, "it came to the middle of the fetch"
    assert (done["status"], "cannot be fetched" in done["errorSummary"]) == ("failed", True), done
    assert picture(world.live) == before
    nothing_runs_on(resetting.port)
    assert world.json("status")["blocked"] == []
    resetting.after = 0
    mended(world)
    assert world.text("site/a.txt") == "two\n"


def test_a_verb_that_looks_waits_only_briefly_for_a_new_origin() -> None:
    """`status` and `cancel` in a checkout whose origin was changed ask the new one whose it is, once."""
    from homeport import wiring

    seen: list[float] = []

    class Slow:
        patience = 900.0

        def fetch(self) -> None:
            seen.append(self.patience)

    class Book:
        told: dict[str, str] = {}

        def set_meta(self, key: str, value: str) -> None:
            self.told[key] = value

    mirror, book = Slow(), Book()
    wiring._follow(mirror, book, "https://192.0.2.1/shop.git")  # type: ignore[arg-type]
    assert (seen, mirror.patience, book.told) == ([10.0], 900.0, {"repo": "https://192.0.2.1/shop.git"})
