"""An origin that takes the call and never answers, and a git that is killed in the middle of a fetch: the old version
keeps serving, no commit is blocked, nothing is left running (P5, P6)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scenarios.conftest import World, eventually
from tests.scenarios.telling import deployed, mended, picture


@pytest.fixture
def silence(world: World) -> Iterator[str]:
    """The address of an origin that takes connections and says nothing; the world's origin until `mend`."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        address = f"https://127.0.0.1:{listening.getsockname()[1]}/shop.git"
        deployed(world)
        world.publish({"site/a.txt": "two\n"})
        world.git("remote", "set-url", "origin", address)
        world.more["no_proxy"] = "127.0.0.1"
        yield address


def fetches(address: str) -> list[int]:
    """Processes of git that talk with that address."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and address.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def mend(world: World) -> None:
    world.git("remote", "set-url", "origin", str(world.origin))
    assert world.json("status")["blocked"] == []
    mended(world)
    assert world.text("site/a.txt") == "two\n"


def test_an_origin_that_never_answers_is_given_up(world: World, silence: str) -> None:
    before = picture(world.live)
    world.host_file.write_text(world.host_file.read_text() + '[limits]\nfetch = "1s"\n')
    done = world.homeport("--json", "deploy", ok=(1,))
    assert "longer than 1 s" in done.stdout, done.stdout
    assert picture(world.live) == before
    assert not fetches(silence), "nothing of the fetch runs on"
    mend(world)


def test_a_git_that_is_killed_in_the_middle_of_a_fetch_blocks_nothing(world: World, silence: str) -> None:
    before = picture(world.live)
    running = world.start("--json", "deploy")
    killed: set[int] = set()

    def ended() -> bool:
        for pid in fetches(silence):
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
