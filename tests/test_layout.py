"""Which live folders and services an environment has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide import layout
from homeport.decide.loading import load
from homeport.model.config import Config, Environment, Project, Service
from homeport.model.errors import UsageFault
from homeport.model.patterns import Matcher, effective_protect

TWO = """\
[project]
name = "shop"
protect = ["uploads/"]
unprotect = ["*.bak*"]
mutable = ["lock.json"]

[environments.production]
branch = "main"
[environments.staging]
branch = "next"

[services.web]
source = "apps/web/"
target = "/opt/web"
after = ["api"]
protect = ["cache/"]
unprotect = [".env*"]
mutable = ["hits.json"]
in_place = ["nginx.conf"]
owner = "www"
checkout = true
build = { run = "make", outputs = ["dist/"] }

[services.api]
source = "."
target = "/opt/api"
environments = ["production"]

[services.job]
source = "job"
environments = ["staging"]
"""

SHARED = """\
[project]
name = "shop"
target = "/srv/shop"
mutable = ["lock.json"]
[environments.production]
branch = "main"
[environments.staging]
branch = "next"
[services.api]
source = "a*i"
protect = ["data/", "/var/x"]
mutable = ["hits.json"]
in_place = ["conf/nginx.conf"]
build = { run = "make", outputs = ["dist"] }
environments = ["staging"]
[services.web]
source = "web"
target = "/opt/web"
"""


def test_the_target_of_a_service_carries_everything_a_sync_needs() -> None:
    web = layout.target_of(load(TWO), "web")
    assert web is not None
    assert (web.name, web.path, web.source) == ("web", "/opt/web", "apps/web")
    assert web.protect == effective_protect(["uploads/"], ["cache/"], ["*.bak*", ".env*"], ["dist"])
    assert web.mutable == ("lock.json", "hits.json")
    assert web.in_place == ("nginx.conf",)
    assert web.outputs == ("dist",)
    assert (web.owner, web.checkout) == ("www", True)


def test_a_source_of_a_dot_is_the_whole_repository() -> None:
    api = layout.target_of(load(TWO), "api")
    assert api is not None
    assert api.source == ""


def test_each_environment_has_its_own_services_and_targets() -> None:
    config = load(TWO)
    assert list(layout.services_of(config, "production")) == ["web", "api"]
    assert list(layout.services_of(config, "staging")) == ["web", "job"]
    assert list(layout.targets(config, "production")) == ["web", "api"]
    assert list(layout.targets(config, "staging")) == ["web"]
    assert layout.target_of(config, "job") is None


def test_services_without_a_target_share_the_projects() -> None:
    config = load(SHARED)
    found = layout.targets(config, "production")
    assert list(found) == ["_project", "web"]
    whole = found["_project"]
    assert (whole.path, whole.source, whole.outputs) == ("/srv/shop", "", ("a*i/dist",))
    assert layout.target_of(config, "api") == whole
    assert layout.targets(config, "staging")["_project"] == whole


def test_patterns_of_a_service_hold_below_its_source_only() -> None:
    whole = layout.targets(load(SHARED), "staging")["_project"]
    protects = Matcher(whole.protect).match
    assert protects("a*i/data/file")
    assert protects("a*i/deep/data/file")
    assert protects("a*i/var/x")
    assert not protects("a*i/deep/var/x")
    assert not protects("data/file")
    assert not protects("abi/data/file")
    mutable = Matcher(whole.mutable).match
    assert mutable("lock.json")
    assert mutable("a*i/hits.json")
    assert not mutable("hits.json")
    assert Matcher(whole.in_place).match("a*i/conf/nginx.conf")


def test_the_only_environment_needs_no_name() -> None:
    config = load('[project]\nname = "a"\n[environments.live]\nbranch = "main"\n')
    assert layout.environment_named(config, None) == ("live", config.environments["live"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (None, "which environment? there are production, staging"),
        ("prod", "unknown environment `prod`; there are production, staging"),
    ],
)
def test_homeport_never_guesses_an_environment(name: str | None, what: str) -> None:
    with pytest.raises(UsageFault) as caught:
        layout.environment_named(load(TWO), name)
    assert caught.value.what == what
    assert caught.value.exit_code == 2
    assert "-e" in caught.value.next


def test_services_come_after_those_they_name_and_else_as_declared() -> None:
    config = load(TWO)
    assert layout.order(config, ["web", "api", "job"]) == ["api", "web", "job"]
    assert layout.order(config, ["job", "web"]) == ["web", "job"]


def test_a_service_in_between_orders_those_around_it() -> None:
    config = _chain({0: [1], 1: [2], 2: []})
    assert layout.order(config, ["s0", "s2"]) == ["s2", "s0"]


def test_a_row_of_ten_thousand_services_is_ordered() -> None:
    count = 10_000
    config = _chain({n: [n + 1] if n + 1 < count else [] for n in range(count)})
    assert layout.order(config, config.services) == [f"s{n}" for n in reversed(range(count))]


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_the_order_holds_for_any_services_without_a_circle(rows: list[set[int]]) -> None:
    after = {n: sorted(m for m in row if m > n) for n, row in enumerate(rows)}
    placed = layout.order(_chain(after), [f"s{n}" for n in after])
    assert sorted(placed) == sorted(f"s{n}" for n in after)
    for n, before in after.items():
        assert all(placed.index(f"s{m}") < placed.index(f"s{n}") for m in before)


def _chain(after: dict[int, list[int]]) -> Config:
    services = {f"s{n}": Service(after=[f"s{m}" for m in before]) for n, before in after.items()}
    return Config(project=Project(name="a"), environments={"e": Environment(branch="main")}, services=services)
