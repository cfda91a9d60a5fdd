"""What a key that is bound to a token may run: words, verbs, scopes."""

from __future__ import annotations

import pytest

from homeport.cli.main import VERBS
from homeport.decide import entering
from homeport.decide.loading import load
from homeport.model.errors import Refused
from homeport.model.tokens import Token

CONFIG = load("""
[project]
name = "shop"
[environments.production]
branch = "main"
[services.api]
source = "api"
target = "/opt/api"
[services.web]
source = "web"
target = "/opt/web"
[scopes.front]
services = ["web"]
[scopes.both]
services = ["web", "api"]
""", "homeport.toml")  # fmt: skip


def token(*rights: str) -> Token:
    return Token(name="ci", kind="agent", rights=rights, digest="", by="ada", at="")


@pytest.mark.parametrize(
    "command",
    [None, "", "  ", "bash -i", "git-upload-pack '/x'", "homeport 'status", "sh -c 'homeport status'", "homeporter status",
     "homeport\0 status x'", "env homeport status"],
)  # fmt: skip
def test_what_is_no_call_of_homeport_is_refused(command: str | None) -> None:
    with pytest.raises(Refused) as refused:
        entering.words_of(command)
    assert refused.value.code == "entry"


def test_words_are_cut_as_a_shell_would_and_nothing_is_expanded() -> None:
    assert entering.words_of("/usr/local/bin/homeport hold --because 'a b' $(id) `id` $HOME * ; rm") == [
        "hold", "--because", "a b", "$(id)", "`id`", "$HOME", "*", ";", "rm"
    ]  # fmt: skip


def test_every_verb_is_either_bound_to_a_right_or_refused() -> None:
    named = {name.partition(" ")[0] for name in entering.RIGHT_OF} - {"migrate"}
    assert named <= set(VERBS)
    for verb in ("setup", "token create", "ssh-entry", "serve", "supervise", "db backup", "init", "demo", "shell", "run"):
        with pytest.raises(Refused):
            entering.right_for(verb)


def test_the_content_of_a_host_file_comes_from_the_caller() -> None:
    """No editor runs on the host, and no file of the host is read, for a key that is bound."""
    for given, called, allowed in (
        ({"source": "-"}, False, True), ({"version": "1a2b"}, False, True), ({"source": "new.conf"}, True, True),
        ({}, True, True), ({}, False, False), ({"source": "/etc/shadow"}, False, False), ({"source": "-x"}, False, False),
    ):  # fmt: skip
        try:
            entering.check_options("hostfile edit", ".", given, called=called)
        except Refused as refused:
            assert not allowed and refused.code == "entry"
        else:
            assert allowed, given


@pytest.mark.parametrize(
    ("rights", "services", "allowed"),
    [
        (("deploy:*",), [], True), (("deploy:front",), ["web"], True), (("deploy:front",), [], False),
        (("deploy:front",), ["web", "api"], False), (("deploy:both",), ["web", "api"], True),
        (("read", "try"), ["web"], False),
        (("deploy:front", "deploy:nowhere"), ["api"], False),
    ],
)  # fmt: skip
def test_a_scope_holds_what_is_deployed(rights: tuple[str, ...], services: list[str], allowed: bool) -> None:
    try:
        entering.check_scope(token(*rights), CONFIG, "production", services)
    except Refused as refused:
        assert not allowed and refused.code == "no-right"
    else:
        assert allowed


def test_the_services_of_a_deploy_are_told_from_its_reference() -> None:
    known = ("api", "web")
    assert entering.services_in("deploy", {"words": ("web",)}, known) == ["web"]
    assert entering.services_in("deploy", {"words": ("v1.2", "web")}, known) == ["web"]
    assert entering.services_in("deploy", {"words": ("v1.2",)}, known) == []
    assert entering.services_in("deploy", {"words": ("web", "x"), "ref": "v1"}, known) == ["web", "x"]
    assert entering.services_in("rollback", {"to": "d-1"}, known) == []
