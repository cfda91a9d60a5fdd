"""What scenarios start from: a small world, and real machines over a real sshd."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.channel import ChannelServer
from tests.fleet import PROJECT, Fleet, Laptop, introduce
from tests.world import NODE_SERVER, World

if TYPE_CHECKING:
    from tests.scenarios.hosted import Forged


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["github", "gitea", "gitlab"])
def forged(request: pytest.FixtureRequest, world: World) -> Iterator[Forged]:
    """A deployed world on a forge, and an edit on its host."""
    from tests.scenarios.hosted import FAKES, on_forge

    yield from on_forge(world, FAKES[request.param]())


@pytest.fixture
def gitea(world: World) -> Iterator[Forged]:
    """As `forged`, for what is the same on every forge."""
    from tests.scenarios.hosted import FAKES, on_forge

    yield from on_forge(world, FAKES["gitea"]())


@pytest.fixture
def channel(world: World) -> Iterator[ChannelServer]:
    """A channel of messages; the project names it by `{ env = "SHOP_CHANNEL" }`."""
    made = ChannelServer()
    made.told_by(world)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def node_files() -> dict[str, str | None]:
    """A Node service under api/ that answers with its version."""
    return {"api/server.js": NODE_SERVER, "api/version.txt": "one\n"}


@pytest.fixture
def etc(world: World) -> Path:
    """A folder that stands for /etc, below a root of its own in host.toml."""
    folder = world.root / "etc"
    folder.mkdir()
    text = world.host_file.read_text()
    world.host_file.write_text(text.replace(f'roots = ["{world.live}"]', f'roots = ["{world.live}", "{folder}"]'))
    return folder


@pytest.fixture(scope="session")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of the person and of the machines, made once."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("person", "prod-1", "stage-1", "web-1", "web-2", "web-3"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True)
    return folder


@pytest.fixture
def bare_fleet(tmp_path: Path, ssh_keys: Path) -> Iterator[Fleet]:
    """Machines that nobody has set up: homeport is there, its state is not."""
    runtime = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    laptop = Laptop(tmp_path, runtime=runtime)
    laptop.host_file.write_text('name = "laptop"\nenvironments = ["nothing"]\n')
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin/ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path / "ssh_config"} "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "ssh_config").write_text(
        f"IdentityFile {ssh_keys / 'person'}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {tmp_path / 'known_hosts'}\nGlobalKnownHostsFile /dev/null\n"
    )
    fleet = Fleet(laptop, ssh_keys, runtime)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(bare_fleet: Fleet) -> Fleet:
    """Production and staging, both known to their hosts, nothing deployed yet."""
    prod = bare_fleet.add("prod-1", "production", "prod.example.com")
    stage = bare_fleet.add("stage-1", "staging", "stage.example.com")
    text = PROJECT.format(prod=prod.live / "site", stage=stage.live / "site")
    bare_fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"}, "first version")
    bare_fleet.laptop.git("push", "-q", "origin", "HEAD:staging")
    for machine in (prod, stage):
        introduce(bare_fleet, machine)
    return bare_fleet
