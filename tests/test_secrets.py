"""P9: what counts as a secret, how it is hidden, and where a configuration may name one."""

from __future__ import annotations

import os
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from homeport.doors.secrets import LARGEST, Keyring, Redactor, secretive, value_of
from homeport.flow.site import Site
from homeport.model.config import Config, Forge, HostConfig, Migrate, Notify, Project, Secret
from homeport.model.errors import ConfigFault, Refused


def tables_with_secrets(table: type[msgspec.Struct]) -> set[type]:
    """The tables below this one that name a secret themselves, whatever the key is called."""
    found: set[type] = set()

    def look(hint: object, holder: type) -> None:
        if hint is Secret:
            found.add(holder)
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            for inner in typing.get_type_hints(hint).values():
                look(inner, hint)
        for inner in typing.get_args(hint):
            look(inner, holder)

    look(table, table)
    return found


def test_each_table_that_may_name_a_secret_is_hidden_by_everything_that_writes(tmp_path: Path) -> None:
    """`hide_secrets` names [forge], [notify], [migrate] and the host's [secrets]: there are no others."""
    assert tables_with_secrets(Config) == {Forge, Notify, Migrate}
    assert tables_with_secrets(HostConfig) == {HostConfig}

    def kept(name: str) -> Secret:
        (tmp_path / name).write_text(f"canary-{name}\n")
        return Secret(file=str(tmp_path / name))

    config = Config(project=Project(name="shop"), environments={}, notify=Notify(urls=[kept("channel")]),
                    forge=Forge(kind="github", token=kept("token"), webhook_secret=[kept("hook")]),
                    migrate=Migrate(run="true", lock=kept("lock")))  # fmt: skip
    host, redactor = HostConfig(name="one", secrets={"mail": kept("mail")}), Redactor()
    Site.hide_secrets(cast("Site", SimpleNamespace(host_config=host, secrets=redactor)), config)
    said = " ".join(f"canary-{path.name}" for path in tmp_path.iterdir())
    assert redactor.redact(said) == " ".join(["***"] * 5)


def test_what_a_configuration_refers_to_is_hidden_and_what_is_not_there_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hook").write_text("canary-hook\n")
    monkeypatch.setenv("CHANNEL", "discord://1234/aVeryLongWebhookToken0123456789/?x=1")
    forge = Forge(kind="github", token=Secret(file=str(tmp_path / "none")),
                  webhook_secret=[Secret(file=str(tmp_path / "hook"))])  # fmt: skip
    redactor = Redactor()
    redactor.learn([forge, Notify(urls=[Secret(env="CHANNEL"), "json://127.0.0.1/"]), None])
    said = redactor.redact("canary-hook aVeryLongWebhookToken0123456789 discord 1234 127.0.0.1")
    assert said == "*** *** discord 1234 127.0.0.1"


def test_variables_that_hold_secrets_are_told_by_their_names_and_addresses_by_their_passwords() -> None:
    for name in ("API_TOKEN", "token", "STRIPE_SECRET_KEY", "SECRET_KEY_BASE", "DBPASSWORD", "SMTP_PASS",
                 "AWS_CREDENTIALS"):  # fmt: skip
        assert secretive(name), name
    for name in ("PATH", "PWD", "OLDPWD", "PORT", "KEYBOARD", "TOKENS_PER_MINUTE", "HOME"):
        assert not secretive(name), name
    redactor = Redactor()
    redactor.learn(None, {"DATABASE_URL": "postgres://shop:p%40ssword@db.example.com/shop", "API_KEY": "canary-key",
                          "COLOUR": "aubergine", "PIN_TOKEN": "1234"})  # fmt: skip
    assert redactor.redact("p@ssword p%40ssword canary-key aubergine 1234 shop") == "*** *** *** aubergine 1234 shop"


def test_a_secret_is_read_from_a_small_ordinary_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").write_bytes(b" \n")
    for name in ("pipe", "large", "binary", "empty", "none", "."):
        with pytest.raises(ConfigFault) as caught:
            value_of(Secret(file=str(tmp_path / name)), "forge.token")
        assert caught.value.code == "no-secret"
    (tmp_path / "good").write_text(" canary \n")
    assert value_of(Secret(file=str(tmp_path / "good")), "forge.token") == "canary"


def test_as_root_a_commit_names_only_secrets_that_the_owner_of_the_machine_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "etc/homeport", tmp_path / "etc/homeport-not"
    for folder in (own / "shop", other):
        folder.mkdir(parents=True)
        (folder / "token").write_text("canary\n")
    (own / "away").symlink_to(other)
    host = HostConfig(name="one", secrets={"mail": Secret(file=str(other / "token"))})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    bare = Keyring(str(own / "host.toml"), None)
    assert bare.value_of(Secret(file=str(own / "shop/token")), "forge.token") == "canary"
    for path in (other / "token", own / "away/token", own / "../homeport-not/token", Path("/etc/shadow")):
        with pytest.raises(Refused) as caught:
            bare.value_of(Secret(file=str(path)), "forge.token")
        assert (caught.value.code, "canary" in str(caught.value)) == ("secrets", False)
    assert Keyring(str(own / "host.toml"), host).value_of(Secret(file=str(other / "token")), "forge.token") == "canary"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bare.value_of(Secret(file=str(other / "token")), "forge.token") == "canary", "it reads what its user may"
