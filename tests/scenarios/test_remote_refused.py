"""A2 B1: three guards of a try; the wrong machine, an unknown one, one without homeport: all refused before anything."""

from __future__ import annotations

import json

from tests.fleet import Fleet, introduce
from tests.world import PROGRAM


def refused(fleet: Fleet, code: int, *args: str) -> dict[str, str]:
    ran = fleet.homeport("--json", "-e", "production", *args, ok=(code,))
    assert ran.stderr.count("homeport:") == 1
    said: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return said


def test_three_guards_of_a_try_hold_each_without_the_others_and_no_option_lifts_them(fleet: Fleet) -> None:
    laptop = fleet.laptop
    staged = (laptop.clone / "homeport.toml").read_text().replace('branch = "staging"', 'branch = "staging"\ntry = true')
    staged = staged.replace('"prod.example.com"', '"prod.example.com"\naddresses = ["192.0.2.7"]')
    laptop.publish({"homeport.toml": staged})
    laptop.git("push", "-q", "origin", "HEAD:staging")
    fleet.prod.identify("prod-1", 'addresses = ["192.0.2.7"]\n')
    staging = ("--json", "-e", "staging")
    fleet.homeport(*staging, "deploy")
    laptop.write({"site/a.txt": "tried\n"})
    every = (("try",), ("try", "--yes"))

    for words in every:  # the environment's own word
        assert refused(fleet, 3, *words)["code"] == "no-try"
    for name in ("prod-1", "stage-2"):  # the machine's own word
        fleet.stage.identify(name)
        for words in every:
            said = fleet.homeport(*staging, *words, ok=(3,)).last
            assert said["code"] == "identity" and f"this machine is {name}, not stage-1" in said["what"]
    fleet.stage.identify("stage-1", 'addresses = ["192.0.2.7"]\n')  # the right name, at production's address
    for words in (*every, ("deploy",), ("discard", "site/a.txt")):
        said = fleet.homeport(*staging, *words, ok=(3,)).last
        assert said["code"] == "identity" and "192.0.2.7 of prod-1, which serves production" in said["what"]
    fleet.stage.identify("stage-1")
    assert fleet.stage.text("site/a.txt") == "one\n"
    assert fleet.homeport(*staging, "try").last["status"] == "deployed" and fleet.stage.text("site/a.txt") == "tried\n"
    assert not (fleet.prod.live / "site").exists()


def test_a_machine_that_is_another_one_refuses_whatever_is_asked(fleet: Fleet) -> None:
    fleet.prod.identify("stage-1")
    assert refused(fleet, 3, "status")["next"] == "is the address right? if so, correct `name` there"
    for args in (("deploy",), ("discard", "site/a.txt")):
        assert refused(fleet, 3, *args)["code"] == "identity"
    assert not (fleet.prod.live / "site").exists()
    fleet.prod.host_file.write_text('name = "prod-1"\nenvironments = ["staging"]\nroots = ["/"]\n')
    assert refused(fleet, 3, "deploy")["code"] == "identity"
    fleet.prod.host_file.unlink()
    said = refused(fleet, 3, "deploy")
    assert said["code"] == "identity" and "homeport -e production --host prod-1 setup" in said["next"]


def test_a_machine_without_the_expected_address_refuses_and_one_that_has_it_works(fleet: Fleet) -> None:
    text = (fleet.laptop.clone / "homeport.toml").read_text()
    wrong = text.replace('"prod.example.com"', '"prod.example.com"\naddresses = ["192.0.2.7"]')
    (fleet.laptop.clone / "homeport.toml").write_text(wrong)
    said = refused(fleet, 3, "status")
    assert said["code"] == "identity" and "`addresses` in its host.toml" in said["next"]
    fleet.prod.identify("prod-1", 'addresses = ["192.0.2.7"]\n')  # a router that translates has that one
    fleet.homeport("-e", "production", "status")
    fleet.prod.identify("prod-1")
    (fleet.laptop.clone / "homeport.toml").write_text(wrong.replace("192.0.2.7", "127.0.0.1"))
    fleet.homeport("-e", "production", "status")


def test_an_unknown_host_key_and_a_changed_one_are_never_accepted(fleet: Fleet) -> None:
    known = fleet.laptop.root / "known_hosts"
    lines = known.read_text().splitlines()
    known.write_text("")
    assert refused(fleet, 3, "deploy")["code"] == "host-key"
    stage = next(line for line in lines if line.startswith("stage-1"))
    known.write_text(stage.replace("stage-1", "prod-1") + "\n")
    assert refused(fleet, 3, "deploy")["code"] == "host-key-changed"
    assert known.read_text().count("\n") == 1, "nothing was added to the known hosts"
    known.write_text("\n".join(lines) + "\n")
    fleet.prod.authorized.write_text("")
    assert refused(fleet, 1, "deploy")["code"] == "ssh-key"
    assert not (fleet.prod.live / "site").exists()
    port = fleet.laptop.free_port()
    config = fleet.laptop.root / "ssh_config"
    config.write_text(config.read_text().replace(str(fleet.prod.port), str(port)))
    assert refused(fleet, 1, "deploy")["code"] == "connect"


def test_a_host_without_homeport_with_an_older_one_or_with_noise(bare_fleet: Fleet) -> None:
    fleet = bare_fleet
    prod = fleet.add("prod-1", "production", "prod.example.com")
    text = f"""[project]\nname = "shop"\n[environments.production]\nbranch = "main"\nhosts = ["prod-1"]\n
[hosts.prod-1]\nssh = "prod.example.com"\n[services.site]\nsource = "site"\ntarget = "{prod.live}/site"\n"""
    fleet.laptop.publish({"homeport.toml": text, "site/a.txt": "one\n"})
    told = refused(fleet, 2, "deploy")
    assert told["code"] == "no-project", "nobody introduced the project to the host"
    assert told["next"] == "in a checkout of shop: homeport -e production setup"
    introduce(fleet, prod)
    folder = prod.root / "bin"
    folder.mkdir()
    config = prod.root / "sshd_config"
    config.write_text(config.read_text().replace(f":{PROGRAM.parent}:", f":{folder}:"))
    prod.restart()
    assert refused(fleet, 2, "deploy")["code"] == "no-program"
    program = folder / "homeport"
    for script, code in (
        ("echo 'Error: No such option: --caller' >&2; exit 2", "version"),
        ("""echo '{"type":"hello","protocol":99,"version":"9.0","host":"x"}'; cat >/dev/null""", "version"),
        ("echo 'command restricted'; exit 1", "no-answer"),
        ("""echo '{"type":"hello","protocol":"one"}'; cat >/dev/null""", "no-answer"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert refused(fleet, 1 if code == "no-answer" else 2, "deploy")["code"] == code
    program.write_text("#!/bin/sh\necho homeport 9.0\n")
    kept = fleet.homeport("--json", "-e", "production", "setup", ok=(1,)).last["steps"][-1]
    assert kept["name"] == "program" and "homeport 9.0 is there, newer" in kept["done"]
    program.write_text(f'#!/bin/sh\necho "welcome to prod"\nexec {PROGRAM} "$@"\n')
    assert fleet.homeport("--json", "-e", "production", "deploy").last["status"] == "deployed"


def test_another_hosts_name_and_verbs_of_a_machine_itself_are_refused_here(fleet: Fleet) -> None:
    assert refused(fleet, 2, "--host", "web-9", "status")["code"] == "no-host"
    assert fleet.homeport("-e", "production", "--host", "stage-1", "status", ok=(2,)).stderr.startswith("homeport:")
