"""A host with three services for every fault test; a machine without strace skips (and fails on CI)."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.harness import Host
from tests.scenarios.conftest import World, world

__all__ = ["world"]


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether every moment is tried, not a sample (`./dev test --soak`)."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def host(world: World) -> Host:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed; ./dev test installs it")
    return Host(world)
