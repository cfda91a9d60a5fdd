"""When a trigger asks for a deploy (D1 D6 D7 D15 D16), and why it does not: decided without a repository."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from homeport.decide.converging import Look, decide
from homeport.decide.scoping import rights_for, services_of_scope
from homeport.model.config import Config, Environment, Project, Scope, Service
from homeport.model.deploys import Block, Deploy, Hold, Request
from homeport.model.errors import UsageFault

TIP, OLD = "a" * 40, "b" * 40
HOLD = Hold(because="moving", by="ann", at="2026-01-01", until="2099-01-01")

FAILED = replace(HOLD, by="homeport", deploy_id="d-bad")


def ended(status: str, sha: str = TIP, kind: str = "commit", **more: Any) -> Deploy:
    request = Request(kind=kind, **more)  # type: ignore[arg-type]
    return Deploy(id=f"d-{status}", kind=kind, request=request, state="done", status=status, sha=sha)  # type: ignore[arg-type]


def closed() -> Deploy:
    return replace(ended("failed"), error_code="gate-failed", error_summary="CI failed")


def look(*last: Deploy, **more: Any) -> Look:
    return Look(**{"tip": TIP, "services": (OLD,), "last": last, **more})


RUNS = Deploy(id="d-run", kind="commit", request=Request(kind="commit"), sha=OLD)


@pytest.mark.parametrize(
    ("seen", "due", "code"),
    [
        (look(), True, "due"),
        (look(services=()), True, "due"),
        (look(ended("deployed", OLD)), True, "due"),
        (look(services=(TIP, TIP)), False, "equal"),
        (look(services=(TIP, OLD)), True, "due"),
        (look(ended("unchanged")), False, "equal"),
        (look(ended("deployed"), services=(TIP, None)), False, "equal"),
        (look(ended("deployed", services=("web",))), True, "due"),
        (look(ended("superseded")), True, "due"),
        (look(ended("cancelled")), False, "cancelled"),
        (look(ended("failed")), True, "due"),
        (look(replace(ended("failed"), blamed=True)), False, "failed"),
        (look(replace(ended("failed"), error_code="check-failed")), False, "failed"),
        (look(ended("refused")), True, "refused"),
        (look(closed()), True, "gate"),
        (look(ended("rolled_back"), blocks=(Block(sha=TIP, because="broken", by="homeport", at=""),)), False, "blocked"),
        (look(blocks=(Block(sha=OLD, because="broken", by="homeport", at=""),)), True, "due"),
        (look(holds=(HOLD,)), False, "held"),
        (look(holds=(HOLD,), pushed=True), False, "held"),
        (look(holds=(FAILED,)), False, "held"),
        (look(holds=(FAILED,), pushed=True), True, "due"),
        (look(holds=(HOLD, FAILED), pushed=True), False, "held"),
        (look(running=RUNS), False, "runs"),
        (look(running=RUNS, pushed=True), True, "due"),
        (look(running=Deploy(id="d", kind="commit", request=Request(kind="commit"), sha=TIP), pushed=True), False, "runs"),
        (look(observe=True), False, "observes"),
        (look(ended("deployed", OLD, "rollback"), ended("deployed")), True, "due"),
    ],
)
def test_what_is_due(seen: Look, due: bool, code: str) -> None:
    found = decide(seen)
    assert (found.due, found.code) == (due, code), found.because
    assert found.because and (found.replan, found.regate) == (code == "refused", code == "gate")


def shop(**scopes: list[str]) -> Config:
    services = {"api": Service(source="api", target="/opt/api"), "web": Service(source="web", target="/opt/web"),
                "lab": Service(source="lab", target="/opt/lab", environments=["staging"])}  # fmt: skip
    return Config(project=Project(name="shop"), environments={"production": Environment(branch="main")}, services=services,
                  scopes={name: Scope(services=its) for name, its in scopes.items()})  # fmt: skip


def test_a_scope_is_its_services_in_declared_order_and_all_is_everything() -> None:
    config = shop(platform=["web", "api", "lab"], empty=["lab"])
    assert services_of_scope(config, "production", "platform") == ("api", "web")
    assert services_of_scope(config, "production", "all") == ()
    assert services_of_scope(shop(all=["web"]), "production", "all") == ("web",)
    for wrong in ("empty", "none", "../all", ""):
        with pytest.raises(UsageFault) as caught:
            services_of_scope(config, "production", wrong)
        assert caught.value.code == "no-scope"


def test_a_token_reaches_what_its_scope_holds_and_no_more() -> None:
    config = shop(front=["web"], both=["web", "api"])
    assert rights_for(config, "production", ["web"]) == ["deploy:*", "deploy:all", "deploy:both", "deploy:front"]
    assert rights_for(config, "production", ["api", "web"]) == ["deploy:*", "deploy:all", "deploy:both"]
    assert rights_for(config, "production", []) == ["deploy:*", "deploy:all"]
    assert rights_for(shop(all=["web"]), "production", []) == ["deploy:*"], "its own `all` is not everything"
