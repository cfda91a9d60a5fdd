"""On which machine an environment's work belongs, how its address is read, and what its host file must hold."""

from __future__ import annotations

import tomllib

import pytest

from homeport.decide import hostfile, placing
from homeport.decide.loading import load, load_host
from homeport.doors.hostsetup import machine_of, over_ssh
from homeport.model.config import HostConfig
from homeport.model.errors import ConfigFault, Refused, UsageFault
from homeport.model.remote import split

CONFIG = load("""
[project]
name = "shop"
[environments.production]
branch = "main"
hosts = ["a", "b"]
[environments.local]
branch = "main"
[hosts.a]
ssh = "ada@a.example.com:2222"
addresses = ["192.0.2.1"]
[hosts.b]
ssh = "b.example.com"
[services.api]
source = "api"
target = "/srv/shop/api"
user = "www"
owner = "web:web"
runtime = "pm2"
env_file = "/etc/shop/api.env"
[services.docs]
source = "docs"
target = "/srv/shop/inner/docs"
""", "homeport.toml")  # fmt: skip


def places(environment: str, here: str, *, sure: bool = True, asked: str | None = None, owned: str = "") -> list[str]:
    found = placing.elsewhere(CONFIG, environment, here, sure, asked, lambda address: address == owned)
    return [place.destination for place in found]


def test_work_goes_where_the_environment_is() -> None:
    assert places("production", "laptop") == ["ada@a.example.com:2222", "b.example.com"]
    assert places("production", "laptop", asked="b") == ["b.example.com"]
    assert places("production", "a") == places("local", "laptop") == []
    assert places("production", "a", asked="b") == ["b.example.com"]
    with pytest.raises(UsageFault):
        places("production", "laptop", asked="c")


def test_a_laptop_that_is_only_called_like_a_host_is_not_that_host() -> None:
    assert places("production", "a", sure=False) == ["ada@a.example.com:2222", "b.example.com"]
    assert places("production", "a", sure=False, owned="192.0.2.1") == []
    assert places("production", "b", sure=False) == [], "without addresses the name counts"


@pytest.mark.parametrize(
    ("here", "asked", "environments", "owned", "allowed"),
    [
        ("a", "a", [], "192.0.2.1", True), ("a", "a", ["production"], "192.0.2.1", True), ("a", "a", [], "", False),
        ("a", "b", [], "192.0.2.1", False), ("a", None, ["local"], "192.0.2.1", False), ("b", None, [], "", True),
    ],
)  # fmt: skip
def test_only_the_machine_that_is_meant_works(here: str, asked: str | None, environments: list[str], owned: str,
                                              allowed: bool) -> None:  # fmt: skip
    host = HostConfig(name=here, environments=environments)
    try:
        placing.check_identity(CONFIG, "production", host, here, asked, (), lambda address: address == owned)
    except Refused as refused:
        assert not allowed and refused.code == "identity"
    else:
        assert allowed


BEHIND_ONE_ROUTER = """
[project]
name = "shop"
[environments.production]
branch = "main"
hosts = ["p"]
[environments.staging]
branch = "staging"
hosts = ["s"]
[hosts.p]
ssh = "p.example.com"
addresses = ["192.0.2.1"]
[hosts.s]
ssh = "s.example.com"
addresses = {staging}
[services.docs]
source = "docs"
target = "/srv/docs"
"""


@pytest.mark.parametrize(
    ("here", "told", "staging", "environment", "allowed"),
    [
        ("p", [], [], "production", False), ("p", ["192.0.2.1"], [], "production", True),
        ("p", ["192.0.2.9"], [], "production", False),
        ("s", ["192.0.2.1"], [], "staging", False),  # staging's machine says that production's address leads to it
        ("s", ["192.0.2.1"], ["192.0.2.1"], "staging", True), ("p", ["192.0.2.1"], ["192.0.2.1"], "production", True),
        ("s", ["2001:DB8::1"], ["2001:db8:0::1"], "staging", True),
    ],
)  # fmt: skip
def test_a_machine_behind_a_router_says_itself_which_address_leads_to_it(
    here: str, told: list[str], staging: list[str], environment: str, allowed: bool
) -> None:
    config = load(BEHIND_ONE_ROUTER.replace("{staging}", str(staging).replace("'", '"')), "homeport.toml")
    host = HostConfig(name=here, addresses=told)
    try:
        placing.check_identity(config, environment, host, here, None, (), placing.owning(host, lambda _: False))
    except Refused as refused:
        assert not allowed and refused.code == "identity"
    else:
        assert allowed
    with pytest.raises(ConfigFault, match="must be an IP address"):
        load_host('name = "p"\naddresses = ["router.example.com"]', "host.toml")


def test_destinations_and_repositories_are_read_as_ssh_and_git_do() -> None:
    assert split("ada@a.example.com:2222") == ("ada@a.example.com", "2222")
    assert split("ada@[2001:db8::1]:22") == ("ada@2001:db8::1", "22")
    assert split("[2001:db8::1]") == ("2001:db8::1", "") and split("alias") == ("alias", "")
    assert over_ssh("git@git.example.com:shop.git") and over_ssh("ssh://git.example.com/shop.git")
    assert not over_ssh("https://git.example.com/shop.git") and not over_ssh("/srv/shop.git")
    assert machine_of("ssh://git@git.example.com:2222/shop.git") == ("git.example.com", "2222")
    assert machine_of("git@git.example.com:shop.git") == ("git.example.com", "")


def test_the_host_file_holds_what_is_needed_and_no_more() -> None:
    needs = hostfile.needs_of(CONFIG, "production", "root")
    assert needs.roots == ["/etc/shop", "/srv/shop"] and needs.users == ["web", "www"] and needs.units == ["api"]
    host = load_host(hostfile.first_text("a", needs, observe=True), "host.toml")
    assert host.observe and host.name == "a" and hostfile.lacking(host, needs, as_root=True) == {}
    narrow = load_host('name = "a"\nunits = ["shop-*"]', "host.toml")
    assert set(hostfile.lacking(narrow, needs, as_root=True)) == {"roots", "users", "units"}
    assert set(hostfile.lacking(narrow, needs, as_root=False)) == {"units"}, "an empty list limits nobody but root"


@pytest.mark.parametrize(
    "text",
    ['name = "a"', 'name = "a" # x\nroots = ["/a", "/b"]\n[limits]\noutputs = "1GB"\n',
     'roots = [\n  "/[x]", # why\n]\nname = "a"\n[[rules]]\nid = "r"\naction = "deploy"\nmatch = "roots = []"\n'],
)  # fmt: skip
def test_a_host_file_is_widened_where_it_stands(text: str) -> None:
    wider = tomllib.loads(hostfile.widened(text, {"roots": ["/new"]}, True))
    before = tomllib.loads(text)
    assert wider == {**before, "roots": [*before.get("roots", []), "/new"], "observe": True}


def test_a_host_file_that_is_written_oddly_is_left_to_its_owner() -> None:
    with pytest.raises(ConfigFault) as fault:
        hostfile.widened('"name" = "a"\n', {"roots": ["/new"]}, None)
    assert fault.value.code == "host-file" and 'roots = ["/new"]' in fault.value.next
