"""`homeport setup` and the unit that keeps the supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from homeport.doors import hostsetup
from homeport.doors.shell import LocalShell


class Noted:
    """A shell that runs nothing."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def run(self, argv: Sequence[str], **_: Any) -> None:
        self.ran.append(list(argv))


def test_a_unit_keeps_the_supervisor_and_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostsetup, "SYSTEMD_RUNS", str(tmp_path))
    monkeypatch.setattr(hostsetup, "UNITS", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    shell = Noted()
    machine = hostsetup.HostSetup("/var/lib/homeport", "shop", "/etc/homeport/host.toml", cast(LocalShell, shell))
    name = "homeport-shop-production-supervisor.service"
    assert machine.keep_supervisor("production") == (name, True)
    text = (tmp_path / name).read_text()
    for line in ("Environment=HOMEPORT_STATE=/var/lib/homeport", "KillMode=process", "Restart=always", "Type=notify"):
        assert line in text.splitlines()
    assert "homeport -p shop -e production supervise" in text
    assert shell.ran == [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", name]]
    assert machine.keep_supervisor("production") == (name, False)
    assert shell.ran[2:] == [["systemctl", "enable", "--now", name]]


def test_the_daemons_units_are_written_once_and_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostsetup, "SYSTEMD_RUNS", str(tmp_path))
    monkeypatch.setattr(hostsetup, "UNITS", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    shell = Noted()
    machine = hostsetup.HostSetup("/srv/state", "shop", "/srv/host.toml", cast(LocalShell, shell))
    assert machine.install_daemon() == ("homeport.service", True)
    text = (tmp_path / "homeport.service").read_text().splitlines()
    told = "Environment=HOMEPORT_STATE=/srv/state HOMEPORT_HOST_FILE=/srv/host.toml"
    assert {told, "KillMode=process", "Type=notify", "Requires=homeport.socket"} <= set(text)
    assert "ListenStream=/srv/state/.homeport.sock" in (tmp_path / "homeport.socket").read_text().splitlines()
    assert machine.install_daemon() == ("homeport.service", False)
    assert shell.ran == [["systemctl", "daemon-reload"], ["systemctl", "try-restart", "homeport.service"]]


def test_without_systemd_or_root_it_is_left_to_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = hostsetup.HostSetup("/s", "shop", "/h", cast(LocalShell, Noted()))
    monkeypatch.setattr(hostsetup, "SYSTEMD_RUNS", str(tmp_path / "none"))
    assert machine.keep_supervisor("production") is None
    monkeypatch.setattr(hostsetup, "SYSTEMD_RUNS", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.keep_supervisor("production") is None
