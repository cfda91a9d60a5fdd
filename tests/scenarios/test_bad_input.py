"""B1: what is wrong is named, with its place and the next command; nothing is guessed or changed."""

from __future__ import annotations

import pytest

from tests.world import World

SITE = """
[services.site]
source = "site"
target = "{live}/site"
"""
FILES: dict[str, str | None] = {"site/index.html": "one\n"}

BAD_ARGUMENTS = [
    (("deploy", "no-such-branch"), 3),
    (("deploy", "--upload-pack=touch X"), 2),
    (("deploy", "$(touch X)"), 2),
    (("deploy", "main", "no-such-service"), 2),
    (("-e", "nowhere", "deploy"), 2),
    (("-p", "nobody", "-C", "/", "status"), 2),
    (("rollback", "d-unknown"), 3),
    (("no-such-verb",), 2),
    (("restart", "no-such-service"), 2),
    (("show", "d-unknown"), 2),
    (("rescue", "show", "unknown"), 2),
]


@pytest.mark.parametrize(("arguments", "code"), BAD_ARGUMENTS, ids=[" ".join(a) for a, _ in BAD_ARGUMENTS])
def test_wrong_arguments_end_with_their_code_and_change_nothing(
    world: World, arguments: tuple[str, ...], code: int
) -> None:
    world.project(SITE, FILES)
    world.deploy()
    ran = world.homeport(*arguments, ok=None)
    assert ran.code == code, ran.stdout + ran.stderr
    assert (ran.stdout + ran.stderr).strip()
    assert not list(world.clone.glob("X")) and not list(world.live.glob("**/X"))
    assert world.json("status")["sha"] == world.git("rev-parse", "HEAD")


BAD_CONFIGS = {
    "unknown key": ('[services.site]\nsource = "site"\ntargt = "{live}/site"\n', "target"),
    "wrong type": ('[services.site]\nsource = "site"\ntarget = 7\n', "target"),
    "unknown runtime": (
        '[services.site]\nsource = "site"\ntarget = "{live}/site"\nruntime = "pm3"\n',
        "runtime",
    ),
    "not TOML": ("[services.site\n", "homeport.toml"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_check_names_file_line_and_key(world: World, name: str) -> None:
    services, word = BAD_CONFIGS[name]
    world.project(services, FILES)
    ran = world.homeport("check", ok=(2,))
    spoken = ran.stdout + ran.stderr
    assert "homeport.toml" in spoken and word in spoken
    if name != "not TOML":
        lines = (world.clone / "homeport.toml").read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if word[:4] in line.split("=")[0])
        assert f"homeport.toml:{number}" in spoken
    assert world.homeport("deploy", ok=None).code == 2
    assert not list(world.live.iterdir())


def test_a_right_configuration_passes_check(world: World) -> None:
    world.project(SITE, FILES)
    world.homeport("check")


def test_with_two_environments_one_must_be_named(world: World) -> None:
    world.project(SITE, FILES, '\n[environments.staging]\nbranch = "staging"\n')
    ran = world.homeport("deploy", ok=(2,))
    assert "production" in ran.stdout + ran.stderr and "staging" in ran.stdout + ran.stderr
    assert world.json("-e", "production", "deploy")["status"] == "deployed"


def test_a_host_serves_only_the_environments_it_names(world: World) -> None:
    world.project(SITE, FILES, '\n[environments.staging]\nbranch = "main"\n')
    ran = world.homeport("-e", "staging", "deploy", ok=(3,))
    assert "staging" in ran.stdout + ran.stderr
    assert not list(world.live.iterdir())


@pytest.mark.parametrize(("line", "code"), [('unit = "other-api"', "units"), ('user = "daemon"', "users")])
def test_what_the_host_does_not_list_is_refused_before_anything_is_touched(world: World, line: str, code: str) -> None:
    world.host_file.write_text(world.host_file.read_text().replace('units = ["*"]', 'units = ["shop-*"]'))
    unit = "" if line.startswith("unit") else 'unit = "shop-site"\n'
    command = 'runtime = "command"\ncommand = ["true"]\n'
    world.project(f"{SITE}{command}{unit}{line}\n", FILES)
    assert world.json("deploy", ok=(3,))["errorCode"] == code
    assert not list(world.live.iterdir())


def test_a_target_outside_the_hosts_roots_is_refused(world: World) -> None:
    elsewhere = world.root / "elsewhere"
    world.project(f'[services.site]\nsource = "site"\ntarget = "{elsewhere}"\n', FILES)
    world.homeport("deploy", ok=(3,))
    assert not elsewhere.exists()
