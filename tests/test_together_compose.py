"""Which Compose services one call may start: pure, beside the real engine of tests/scenarios/test_home_server.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from homeport.doors.permits import Permits, permitted
from homeport.doors.runtimes.compose import Compose
from homeport.doors.shell import LocalShell
from homeport.model.config import HostConfig
from homeport.model.errors import Refused
from homeport.model.running import Batching, Unit


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    (tmp_path / "compose.yaml").write_text("services: {api: {image: x}, web: {image: x}}\n")
    (tmp_path / "web").mkdir()
    return Unit(service="api", name="api", target=str(tmp_path), command=None, cwd=str(tmp_path), env={"A": "1"})


OTHER: list[tuple[str, dict[str, Any], bool]] = [
    ("another service of the file", {"service": "web", "name": "web"}, True),
    ("from a folder below", {"service": "web", "name": "web", "cwd": "web"}, True),
    ("with other images", {"image": "key", "image_before": "old", "changed": ("x",)}, True),
    ("with another variable", {"env": {"A": "2"}}, False),
    ("with more time to stop", {"stop_timeout": 30.0}, False),
    ("to be made anew", {"on_change": "recreate"}, False),
    ("as another user", {"user": "www"}, False),
    ("of another project", {"name": "more/api"}, False),
    ("of no project", {"name": "A B!"}, False),
    ("to be reloaded", {"on_change": "reload"}, False),
]


@pytest.mark.parametrize(("other", "with_it"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_what_one_call_starts_has_one_file_one_environment_and_one_way(
    unit: Unit, other: dict[str, Any], with_it: bool
) -> None:
    runtime = Compose(LocalShell())
    if "cwd" in other:
        other = {**other, "cwd": f"{unit.cwd}/{other['cwd']}"}
    assert runtime.together(unit) is not None
    assert (runtime.together(replace(unit, **other)) == runtime.together(unit)) is with_it


def test_two_that_are_reloaded_never_go_together(unit: Unit) -> None:
    assert Compose(LocalShell()).together(replace(unit, on_change="reload")) is None


def test_each_of_those_that_start_together_must_be_one_of_the_hosts_units(unit: Unit) -> None:
    runtime = permitted(Compose(LocalShell()), Permits(HostConfig(name="h", environments=[], units=["api"])))
    assert isinstance(runtime, Batching)
    with pytest.raises(Refused) as refused:
        runtime.restart_together([unit, replace(unit, service="web", name="web")], lambda _stream, _line: None)
    assert refused.value.code == "units"
