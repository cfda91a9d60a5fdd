"""What the record says of a service while it is restarted: an undo after a kill must not trust what it said before."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from homeport.flow.goals import service_now
from homeport.flow.stages import restarting
from homeport.model.config import Service
from homeport.model.deploys import ServiceRecord, StartedWith
from homeport.model.errors import Failed, HomeportError, InfrastructureFault, Refused

BEFORE = StartedWith(tree="before")
PORT = {"handoff": "port", "listen": "127.0.0.1:3000"}


class Killed(BaseException):
    """kill -9: nothing is tidied."""


def after(service: Service, end: BaseException) -> StartedWith | None:
    """What the record says the service was started with, when its restart ends so."""
    kept: list[ServiceRecord] = []

    def start(unit: Any, on_line: Any) -> None:
        raise end

    site = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0, now=lambda: ""), environment="production",
                           builds=SimpleNamespace(reached=lambda *_: nullcontext("/")),
                           store=SimpleNamespace(save_service=kept.append))  # fmt: skip
    runtime = SimpleNamespace(restart=start)
    tools = SimpleNamespace(site=site, runtimes={service.runtime: runtime}, lines_of=lambda _: None,
                            journal=SimpleNamespace(write=lambda _: None))  # fmt: skip
    record = ServiceRecord(service="api", started=BEFORE)
    work = SimpleNamespace(deploy=SimpleNamespace(id="d"), config=None)
    with pytest.raises(type(end)):
        restarting.restart(service_now("api", service, None, record), cast(Any, work), cast(Any, tools))
    return kept[-1].started if kept else BEFORE


@pytest.fixture(autouse=True)
def plain_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "unit_to_start", lambda *_: restarting_unit())
    monkeypatch.setattr(restarting, "unit_scopes", lambda *_: {})


def restarting_unit() -> Any:
    from homeport.model.running import Unit

    return Unit(service="api", name="api", target=None, command=None, cwd="/", env={})


@pytest.mark.parametrize("runtime", ["supervisor", "pm2", "systemd", "command"])
def test_killed_in_the_middle_it_is_not_known_what_runs(runtime: Any) -> None:
    """Also under the supervisor, which may have replaced the old one already: rolled back, the new one would go on."""
    assert after(Service(runtime=runtime), Killed()) is None


@pytest.mark.parametrize(
    ("service", "fault", "known"),
    [
        (Service(runtime="supervisor"), Failed("it ended", code="not-ready"), True),
        (Service(runtime="pm2"), Failed("it ended", code="not-online"), False),
        (Service(runtime="pm2", **PORT), Failed("it ended", code="not-online"), True),  # type: ignore[arg-type]
        (Service(runtime="pm2", **PORT), Failed("taken", code="no-door"), False),  # type: ignore[arg-type]
        (Service(runtime="pm2", **PORT), InfrastructureFault("no answer", code="no-supervisor"), False),  # type: ignore[arg-type]
        (Service(runtime="systemd"), Refused("units", code="units"), True),
    ],
)  # fmt: skip
def test_an_old_version_that_serves_on_is_not_started_again(service: Service, fault: HomeportError, known: bool) -> None:
    assert after(service, fault) == (BEFORE if known else None)
