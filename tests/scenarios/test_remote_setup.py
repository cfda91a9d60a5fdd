"""A12: `homeport setup` makes bare machines ready, over ssh and here, says what each step did, and can be run again."""

from __future__ import annotations

import os
import shutil
import site
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import PROJECT, Fleet, Machine


def steps(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in said["steps"]}


@pytest.fixture
def bare(bare_fleet: Fleet) -> Fleet:
    """One production machine that nobody has set up: no host file, no state."""
    prod = bare_fleet.add("prod-1", "production", "prod.example.com")
    prod.host_file.unlink()
    runs = 'runtime = "command"\ncommand = "true"\nunit = "shop-site"\nenvironments = ["production"]'
    text = PROJECT.format(prod=prod.live / "site", stage="/srv/preview").replace('environments = ["production"]', runs)
    bare_fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"})
    return bare_fleet


def test_a_bare_machine_is_ready_after_one_command_and_again_changes_nothing(bare: Fleet) -> None:
    prod = bare.prod
    first = bare.homeport("--json", "-e", "production", "setup").last
    assert first["ok"] and first["host"] == "prod-1"
    shown = steps(first)["host file"]
    assert shown["changed"] and any(line.startswith(f'roots = ["{prod.live}"]') for line in shown["lines"])
    text = prod.host_file.read_text()
    assert 'name = "prod-1"' in text and 'units = ["shop-site"]' in text and 'users = []' in text
    assert stat.S_IMODE(prod.state.stat().st_mode) == stat.S_IMODE((prod.state / "shop").stat().st_mode) == 0o700
    again = bare.homeport("--json", "-e", "production", "setup").last
    assert again["ok"] and not any(step["changed"] for step in again["steps"])
    assert prod.host_file.read_text() == text
    assert bare.homeport("--json", "-e", "production", "deploy").last["status"] == "deployed"


def test_the_lists_of_a_machine_are_widened_only_when_that_is_asked_for(bare: Fleet) -> None:
    prod = bare.prod
    prod.host_file.write_text(
        '# ours\nname = "prod-1"  # the first\nenvironments = ["production"]\nroots = [\n  "/srv/[x]",\n]\nusers = []\n'
        'units = ["other-*"]\n\n[limits]\noutputs = "2GB"\n'
    )
    refused = bare.homeport("--json", "-e", "production", "setup", ok=(1,)).last
    assert not steps(refused)["host file"]["ok"]
    lines = steps(refused)["host file"]["lines"]
    assert lines == [f"roots: {prod.live}", "units: shop-site"] and "live folder of site" not in steps(refused)
    before = prod.host_file.read_text()
    ran = bare.homeport("-e", "production", "setup", "--widen")
    assert "✓ host file" in ran.stdout
    text = prod.host_file.read_text()
    assert text.startswith('# ours\nname = "prod-1"  # the first\n') and text.endswith('\n[limits]\noutputs = "2GB"\n')
    assert f'roots = ["/srv/[x]", "{prod.live}"]' in text and 'units = ["other-*", "shop-site"]' in text and before != text
    prod.host_file.write_text(text.replace('"prod-1"', '"prod-2"'))
    wrong = bare.homeport("--json", "-e", "production", "setup", "--widen", ok=(3,))
    assert wrong.last["code"] == "identity"


def test_a_machine_that_observes_is_looked_at_beside_the_old_deployer(bare: Fleet) -> None:
    prod = bare.prod
    (prod.live / "site").mkdir()
    (prod.live / "site/a.txt").write_text("one\n")
    (prod.live / "site/night.txt").write_text("by hand\n")
    said = bare.homeport("--json", "-e", "production", "setup", "--observe").last
    assert said["ok"] and "only looked at" in steps(said)["live folder of site"]["done"]
    assert sorted(os.listdir(prod.live / "site")) == ["a.txt", "night.txt"], "no claim is written"
    assert not bare.homeport("--json", "-e", "production", "drift", ok=(3,)).last["equal"]
    refused = bare.homeport("--json", "-e", "production", "deploy", "--keep-drift", ok=(3,)).last
    assert refused["errorCode"] == "observe"
    assert bare.homeport("--json", "-e", "production", "status").last["idle"]["code"] == "observes"
    said = bare.homeport("--json", "-e", "production", "setup", "--no-observe").last
    assert "claimed" in steps(said)["live folder of site"]["done"] and (prod.live / "site/.homeport").exists()
    assert bare.homeport("--json", "-e", "production", "deploy", "--keep-drift").last["ok"]


def test_a_repository_behind_ssh_gets_a_deploy_key_of_the_hosts_own(bare: Fleet) -> None:
    """The forge is a third sshd that lets nobody in until the printed key is added there."""
    prod, forge = bare.prod, bare.add("stage-1", "staging", "forge.example.com")
    forge.authorized.write_text("")
    origin = f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{forge.port}{bare.laptop.origin}"
    bare.laptop.git("config", "remote.origin.url", origin)
    first = bare.homeport("--json", "-e", "production", "setup", ok=(1,)).last
    step = steps(first)["repository"]
    *learnt, key = step["lines"]
    assert not step["ok"] and key.startswith("ssh-ed25519 ") and key.endswith("homeport shop@prod-1")
    assert learnt and all("SHA256:" in line for line in learnt)
    private = prod.state / "shop/ssh/id_ed25519"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    forge.authorized.write_text(key + "\n")
    second = bare.homeport("--json", "-e", "production", "setup").last
    assert second["ok"] and (private.with_suffix(".pub")).read_text().strip() == key
    assert bare.homeport("--json", "-e", "production", "deploy").last["status"] == "deployed"


def test_homeport_is_sent_to_a_machine_that_has_none(bare: Fleet) -> None:
    """The wheel is made from the program that runs here; what it depends on is lent to the machine, so that no
    package index is needed."""
    prod = bare.prod
    without_homeport(prod, bare.keys)
    said = bare.homeport("--json", "-e", "production", "setup").last
    assert said["ok"] and "installed just now" in steps(said)["program"]["done"]
    linked = prod.root / "prefix/bin/homeport"
    assert linked.is_symlink() and str(prod.root) in os.readlink(linked)
    status = bare.homeport("--json", "-e", "production", "status").last
    assert status["host"] == "prod-1"


def without_homeport(machine: Machine, keys: Path) -> None:
    config = machine.root / "sshd_config"
    lent = f'"HOMEPORT_PREFIX={machine.root}/prefix" "PIP_NO_INDEX=1" "PIP_NO_DEPS=1" "PYTHONPATH={lend(machine)}"'
    path = f"PATH={machine.root}/prefix/bin:/usr/local/bin:/usr/bin:/bin"
    config.write_text(config.read_text().replace(f"PATH={machine.env['PATH']}", path).replace("SetEnv ", f"SetEnv {lent} "))
    machine.restart()
    assert shutil.which("homeport", path=path.removeprefix("PATH=")) is None, "homeport is installed for this whole machine"


def lend(machine: Machine) -> Path:
    """The libraries of this test run without homeport itself."""
    folder = machine.root / "lent"
    folder.mkdir()
    (packages,) = (p for p in site.getsitepackages() if p.endswith("site-packages"))
    for name in os.listdir(packages):
        if "homeport" not in name and not name.startswith(("pip", "_virtualenv", "distutils")):
            (folder / name).symlink_to(f"{packages}/{name}")
    return folder
