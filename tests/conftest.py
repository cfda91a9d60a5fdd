"""What every test shares: on CI a skip is a failure, and where the real pm2 lies."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = {"GIT_CONFIG_COUNT": "3", "GIT_CONFIG_KEY_0": "core.fsync", "GIT_CONFIG_VALUE_0": "none",
         "GIT_CONFIG_KEY_1": "gc.auto", "GIT_CONFIG_VALUE_1": "0",
         "GIT_CONFIG_KEY_2": "maintenance.auto", "GIT_CONFIG_VALUE_2": "false"}  # fmt: skip
"""For the git of whoever pushes, never for homeport's: nothing of it has to outlive a power cut."""

if os.environ.get("CI") != "true":
    # on CI Hypothesis does so by itself: a machine that is busy with other things makes no test fail
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what runs in the background with Ctrl-C ignored, and so would everything below it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`./dev test --soak`: the tests of faults try every moment, not a sample of them; with `--piece`, one part of them."""
    parser.addoption("--soak", action="store_true", help="try every moment of a fault, not a sample")
    parser.addoption("--piece", default="1/1", metavar="K/N", help="of a soak's moments the K-th of N equal shares")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `soak` take long, or need much of a machine: they are no part of a run without `--soak`."""
    if not config.getoption("--soak"):
        later = [item for item in items if item.get_closest_marker("soak") is not None]
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that cannot run where it must run has not passed."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI allows no skips: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that skips itself."""
    report = yield
    if os.environ.get("CI") == "true" and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI allows no skips: {report.longrepr}"
    return report


def find_pm2() -> str | None:
    """The real pm2: HOMEPORT_TEST_PM2, the PATH, or what `./dev setup` installed."""
    named = os.environ.get("HOMEPORT_TEST_PM2")
    if named:
        return named
    own = REPOSITORY / ".dev/node/node_modules/.bin/pm2"
    return shutil.which("pm2") or (str(own) if own.exists() else None)


def find_pnpm() -> str:
    """The real pnpm, on the PATH or where pm2 is (`./dev setup` installs both); a machine without it skips."""
    beside = Path(find_pm2() or "/nowhere").parent / "pnpm"
    found = shutil.which("pnpm") or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip("pnpm is not installed; ./dev setup installs it")
    return found


def let_everybody_in(folder: Path) -> None:
    """Every user may walk to it from now on. That is never taken back: the folders above are those of the tests that run
    beside this one too, and one of them may be another user just now."""
    for above in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in above.parents:
            above.chmod(above.stat().st_mode | 0o011)


@pytest.fixture(scope="session")
def pm2_program() -> str:
    """The path of pm2; a machine without it skips (and fails on CI)."""
    found = find_pm2()
    if found is None:
        pytest.skip("pm2 is not installed; ./dev setup installs it")
    return found
