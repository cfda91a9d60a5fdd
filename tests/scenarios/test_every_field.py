"""P7: text that a shell, or a program's options, would carry out is put into every place of homeport.toml, host.toml and
the command line that takes text; nothing of it is ever carried out."""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest

from homeport.cli.main import VERBS, cli
from homeport.decide.loading import load, load_host
from homeport.model.errors import ConfigFault
from tests.every_field import CONFIG_PLACES, HOST_PLACES, Place, is_shell_text, put, toml
from tests.scenarios.telling import run
from tests.test_loading import FULL
from tests.world import World

HOSTILE = ("$(touch X)", "`touch X`", "a; touch X;", "| touch X", "--upload-pack=touch X", "-oProxyCommand=touch X",
           "--output=X", "a\ntouch X\n", "%0atouch X", "{0.__class__}", "../X")  # fmt: skip
HOST = {"name": "host-1", "environments": ["production"], "addresses": ["192.0.2.1"], "observe": False,
        "roots": ["/opt"], "users": ["www"], "units": ["*"], "channels": ["127.0.0.1"],
        "listen": {"address": "127.0.0.1:1"}, "secrets": {"a": {"env": "A"}},
        "keys": {"ci": {"token": "ci"}}, "limits": {"fetch": "1m"},
        "rules": [{"id": "a", "action": "deploy"}], "hostfiles": [{"path": "/etc/a", "purpose": "a"}]}  # fmt: skip


def told(place: Place) -> str:
    return ".".join(place)


def accepted(document: dict[str, Any], host: bool = False) -> bool:
    try:
        (load_host if host else load)(toml(document).encode(), "homeport.toml")
    except ConfigFault as fault:
        assert fault.what and fault.where
        return False
    return True


STRICT = re.compile(r"project\.name|environments\.%|environments\.\*\.(branch|url|hosts\.\*)|services\.%|hosts\.(%|\*\.ssh)"
                    r"|services\.\*\.(target|owner|user|signal|after\.\*)|scopes\.%|checks\.%|forge\.url"
                    r"|.*\.env\.%|.*user|hosts\.\*\.addresses\.\*|.*cron|rules\.\*\.id")  # fmt: skip
"""Places with a spelling of their own: none of the hostile texts is one."""


def test_names_that_reach_a_program_or_a_path_have_a_strict_spelling() -> None:
    full = tomllib.loads(FULL)
    assert accepted(full) and len(CONFIG_PLACES) > 140
    loose = {told(place): text for place in CONFIG_PLACES if STRICT.fullmatch(told(place)) for text in HOSTILE
             if text not in ("../X", "{0.__class__}") and accepted(put(full, place, text))}  # fmt: skip
    assert not loose
    assert sum(STRICT.fullmatch(told(place)) is not None for place in CONFIG_PLACES) > 20


def test_every_place_takes_hostile_text_as_text_or_says_where_it_stands() -> None:
    """Put and read again: whatever is taken is what was written, byte for byte, and nothing of the rest has moved."""
    full, taken = tomllib.loads(FULL), 0
    for number, place in enumerate(CONFIG_PLACES):
        made = put(full, place, HOSTILE[number % len(HOSTILE)])
        assert tomllib.loads(toml(made)) == made
        taken += accepted(made)
    for number, place in enumerate(HOST_PLACES):
        taken += accepted(put(HOST, place, HOSTILE[number % len(HOSTILE)]), host=True)
    assert taken > 20, taken


BASE = """
[project]
name = "shop"
protect = ["uploads/"]
unprotect = ["*.bak9"]
mutable = ["web/counter"]

[environments.production]
branch = "main"
checks = [{ command = ["true"], name = "env" }]

[services.base]
source = "base"
target = "%(live)s/base"

[services.web]
source = "web"
target = "%(live)s/web"
watch = ["shared/*"]
ignore = ["*.md"]
uses = ["shared/"]
protect = ["data/"]
mutable = ["counter"]
in_place = ["in.conf"]
user = "%(user)s"
home = "%(home)s"
path = ["/usr/local/bin"]
runtime = "command"
unit = "web"
command = ["true"]
env = { A = "b" }
env_file = ".env"
validate = ["true"]
after = ["base"]
environments = ["production"]
checks = [{ command = ["true"], within = "100ms", name = "up" }]

  [services.web.build]
  run = ["mkdir", "-p", "dist"]
  outputs = ["dist"]
  inherit = [".env"]
  env = { C = "d" }

[[actions]]
paths = ["web/*"]
run = ["true"]
validate = ["true"]
wait = ["true"]
user = "%(user)s"

[scopes.all-of-it]
services = ["web"]

[migrate]
run = ["true"]
service = "web"
user = "%(user)s"

[checks.lint]
run = ["true"]
paths = ["web/*"]
user = "%(user)s"

[[rules]]
id = "a-rule"
action = "discard"
match = ["data/*"]
effect = "allow"
because = "why"

[[hostfiles]]
path = "%(live)s/etc.conf"
purpose = "nothing"
validate = ["true"]
reload = ["true"]

[notify]
urls = []
quiet_paths = ["docs/"]
"""


def deployed_with(world: World, document: dict[str, Any], number: int) -> Iterator[str]:
    """What a deploy, and looking at it, say with this configuration."""
    world.publish({"homeport.toml": toml(document), "web/n": f"{number}\n"})
    for words in (["deploy"], ["status"], ["hostfile", "list"], ["rules"], ["doctor"])[: 1 if number else 5]:
        ran = run(world, *words)
        assert "homeport itself failed" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
        yield ran.stdout + ran.stderr


@pytest.mark.timeout(7200)
def test_a_deploy_carries_nothing_out_that_stands_in_a_place_of_the_configuration(
    world: World, request: pytest.FixtureRequest
) -> None:
    base = tomllib.loads(BASE % {"live": world.live, "user": getpass.getuser(), "home": world.home})
    world.host_file.write_text(f'{world.host_file.read_text()}users = ["{getpass.getuser()}"]\n')
    world.publish({"homeport.toml": toml(base), "web/a": "a\n", "base/a": "a\n", "web/counter": "1\n", "web/in.conf": "1\n",
                   ".gitignore": "dist/\n"})  # fmt: skip
    assert world.deploy()["status"] == "deployed"
    proof = world.root / "X"
    hostile = [text.replace("X", str(proof)) for text in HOSTILE]
    soak, went = bool(request.config.getoption("--soak")), 0
    cases = [(place, text) for number, place in enumerate(CONFIG_PLACES) if not is_shell_text(place)
             for text in {hostile[0], hostile[number % len(hostile)]} if accepted(put(base, place, text))]  # fmt: skip
    assert len(cases) > 70, len(cases)
    step = 1 if soak else len(cases) // 6
    for number, (place, text) in enumerate(cases[::step]):
        said = "".join(deployed_with(world, put(base, place, text), number))
        went += "deployed" in said
        assert not proof.exists(), (told(place), text)
        assert not [path for path in world.root.rglob("X*") if ".git" not in path.parts], (told(place), text)
        if number % 10 == 9:
            world.publish({"homeport.toml": toml(base), "web/n": f"{number} good\n"})
            run(world, "deploy", "--discard-drift")
    assert went > 1, "some of them are deployed"


def options(verb: str) -> Iterator[list[str]]:
    """The words of a verb, with the hostile text `X` in one place each: every option and every argument it has."""
    command = cli.get_command(click.Context(cli), verb)  # type: ignore[attr-defined]
    assert command is not None

    def below(found: click.Command, words: list[str]) -> Iterator[list[str]]:
        if isinstance(found, click.Group):
            for name in found.list_commands(click.Context(found)):
                inner = found.get_command(click.Context(found), name)
                assert inner is not None
                yield from below(inner, [*words, name])
            yield [*words, "X"]
            return
        for parameter in found.params:
            if isinstance(parameter, click.Argument):
                yield [*words, "X"]
                yield [*words, "--", "X"]
            elif isinstance(parameter, click.Option) and not parameter.is_flag:
                yield [*words, parameter.opts[-1], "X"]
                yield [*words, f"{parameter.opts[-1]}=X"]

    yield from below(command, [verb])


NOT_HERE = {"serve", "supervise", "mcp", "demo", "shell", "run", "ssh-entry"}
"""Verbs that stay, or whose very argument is a command."""


def test_no_word_of_the_command_line_is_carried_out(world: World, request: pytest.FixtureRequest) -> None:
    world.project('[services.site]\nsource = "site"\ntarget = "{live}/site"\n', {"site/a.txt": "one\n"})
    assert world.deploy()["status"] == "deployed"
    (world.live / "site/a.txt").write_text("by hand\n")
    lines: list[Sequence[str]] = [words for verb in VERBS if verb not in NOT_HERE for words in options(verb)]
    lines += [["-C", "X", "status"], ["-p", "X", "status"], ["-e", "X", "status"], ["--host", "X", "status"]]
    assert len(lines) > 120, len(lines)
    proof = world.root / "Proof"
    hostile = [text.replace("X", str(proof)) for text in HOSTILE]
    step = 1 if request.config.getoption("--soak") else 11
    for number, words in enumerate(lines[::step]):
        text = hostile[number % len(hostile)]
        ran = run(world, *(word.replace("X", text) for word in words), env={"EDITOR": "true", "VISUAL": "true"})
        assert "homeport itself failed" not in ran.stdout + ran.stderr, (words, ran)
        assert not proof.exists(), (words, text)
        assert not list(world.clone.glob("*touch*")) and not list(world.live.rglob("*Proof*")), (words, text)
    assert os.path.isdir(world.clone)
