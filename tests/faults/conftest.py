"""A host with three services for the fault tests; a machine without strace skips (and fails on CI).

One host serves the tests of one worker, one after the other: each leaves a version that is complete and live, as the
next one finds out. A test that failed leaves nothing; the next one gets a host of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator

import pytest

from tests.faults.harness import Host
from tests.faults.moments import Share
from tests.scenarios.conftest import world
from tests.world import World

__all__ = ["world"]

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Share | None:
    """Which moments are tried: all or a share of them (`./dev test --soak --piece 1/4`), None for a sample."""
    if not request.config.getoption("--soak"):
        return None
    number, _, of = str(request.config.getoption("--piece")).partition("/")
    plugins = request.config.pluginmanager
    screen, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")

    def tell(text: str) -> None:
        """At once, and on the screen: a soak takes long."""
        if screen is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                screen.write_line(f"{request.node.name}: {text}")
                screen.flush()

    return Share(int(number), int(of), tell)


@pytest.fixture(scope="session")
def hosts() -> Iterator[list[Host]]:
    """The host of this worker, when there is one."""
    made: list[Host] = []
    yield made
    for host in made:
        host.world.close()


@pytest.fixture
def host(hosts: list[Host], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; ./dev test installs it")
    if not hosts:
        hosts.append(Host(World(tmp_path_factory.mktemp("host"))))
    host = hosts[0]
    host.settle()
    yield host
    if request.node.stash.get(FAILED, False):
        hosts.clear()
        host.world.close()
    else:
        host.world.kill_homeport()


@pytest.fixture
def own_host(world: World) -> Host:
    """For what a test does to it that no other test should find."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; ./dev test installs it")
    return Host(world)
