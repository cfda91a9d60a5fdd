"""B11: host files from a laptop: the file and the editor are the laptop's, validation and reload are the host's."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pexpect

from tests.fleet import Fleet
from tests.world import PROGRAM

P = ("-e", "production")


def registered(fleet: Fleet, more: str = "") -> Path:
    """A host file of production's host, deployed."""
    conf = fleet.prod.live / "proxy.conf"
    conf.write_text("timeout 10\n")
    toml = (fleet.laptop.clone / "homeport.toml").read_text()
    entry = f'\n[[hostfiles]]\npath = "{conf}"\npurpose = "proxy"\nhosts = ["prod-1"]\n'
    entry += f'validate = "grep -q timeout $HOMEPORT_FILE"\n{more}'
    fleet.laptop.publish({"homeport.toml": toml + entry})
    fleet.homeport(*P, "deploy")
    return conf


def test_a_host_file_is_edited_from_the_laptop(fleet: Fleet) -> None:
    keys = fleet.prod.live / "keys.env"
    keys.write_text("KEY=sesame-old\n")
    keys.chmod(0o600)
    conf = registered(fleet, f'reload = "cp {fleet.prod.live}/proxy.conf {fleet.prod.root}/reloaded"\n'
                      f'\n[[hostfiles]]\npath = "{keys}"\npurpose = "keys"\nsecret = true\n')  # fmt: skip
    script = fleet.laptop.root / "editor"
    script.write_text('#!/bin/sh\ncase "$1" in */proxy.conf) sed -i s/10/20/ "$1";; esac\n')
    script.chmod(0o755)
    said = fleet.homeport(*P, "hostfile", "edit", str(conf), "--because", "uploads", env={"EDITOR": str(script)})
    assert "put in place and reloaded" in said.stdout
    assert conf.read_text() == (fleet.prod.root / "reloaded").read_text() == "timeout 20\n"
    new = fleet.laptop.root / "new.conf"
    new.write_text("timeout 30\n")
    done = fleet.homeport("--json", *P, "hostfile", "edit", str(conf), "--from", str(new), "--because", "more").last
    assert conf.read_text() == "timeout 30\n"
    # the note is the person's own commit
    fleet.laptop.git("fetch", "-q", "origin", done["note"]["branch"])
    assert fleet.laptop.git("log", "-1", "--format=%an <%ae>", "FETCH_HEAD") == "Ada Example <ada@example.com>"
    # a secret one is written from here, and none of it is told here or pushed
    new.write_text("KEY=sesame-new\n")
    told = [fleet.homeport(*P, "hostfile", "edit", str(keys), "--from", str(new), "--because", "rotated")]
    told += [fleet.homeport(*P, "hostfile", "list", str(keys)), fleet.homeport(*P, "hostfile", "diff")]
    assert (keys.read_text(), stat.S_IMODE(keys.stat().st_mode)) == ("KEY=sesame-new\n", 0o600)
    assert not any("sesame" in one.stdout + one.stderr for one in told)
    fleet.laptop.git("fetch", "-q", "origin")
    assert "rotated" in (pushed := fleet.laptop.git("log", "-p", "--all")) and "sesame" not in pushed
    new.write_text("nonsense\n")
    refused = fleet.homeport(*P, "hostfile", "edit", str(conf), "--from", str(new), ok=(1,))
    assert "is not valid" in refused.stderr
    kept = re.search(r"next: scp prod\.example\.com:(\S+) proxy\.conf, mend it, then: homeport -e prod", refused.stderr)
    assert kept and Path(kept[1]).read_text() == "nonsense\n", refused.stderr
    assert "no such file" in fleet.homeport(*P, "hostfile", "edit", str(conf), "--from", "/none", ok=(2,)).stderr.lower()
    for words in (["hostfile", "list"], ["hostfile", "list", str(conf)], ["rules"], ["audit", "-n", "2"]):
        assert fleet.homeport(*P, *words).stdout == fleet.prod.homeport(*words).stdout
    conf.write_text("by hand\n")
    assert "+by hand" in fleet.homeport(*P, "hostfile", "diff", ok=(3,)).stdout
    # staging does not know it
    assert json.loads(fleet.homeport("--json", "-e", "staging", "hostfile", "list").stdout)["hostfiles"] == []


def test_a_rule_of_the_host_asks_the_person_at_the_laptop_and_never_an_agent(fleet: Fleet) -> None:
    conf = registered(fleet)
    fleet.prod.identify("prod-1", f'\n[[rules]]\nid = "proxy"\naction = "hostfile"\nmatch = "{conf}"\n'
                        'effect = "confirm"\n\n[[rules]]\nid = "site"\n'
                        'action = "deploy"\neffect = "confirm"\nbecause = "friday"\n')  # fmt: skip
    new = fleet.laptop.root / "new.conf"
    new.write_text("timeout 30\n")
    agent = fleet.homeport(*P, "hostfile", "edit", str(conf), "--from", str(new), "--confirm", "proxy", ok=(3,),
                           env={"HOMEPORT_ACTOR": "agent"})  # fmt: skip
    assert "an agent has no right to confirm" in agent.stderr
    confirmed(fleet, ["hostfile", "edit", str(conf), "--from", str(new), "--no-note"], "proxy", "put in place")
    assert conf.read_text() == "timeout 30\n"
    fleet.laptop.publish({"site/a.txt": "two\n"})
    refused = fleet.homeport("--json", *P, "deploy", ok=(3,)).last
    assert refused["errorCode"] == "confirm"
    assert refused["unconfirmed"][0][0] == "site"
    confirmed(fleet, ["deploy"], "site", "deployed")
    assert fleet.prod.text("site/a.txt") == "two\n"
    rows = json.loads(fleet.prod.homeport("--json", "audit").stdout)["audit"]
    exceptions = [row for row in rows if row["action"].startswith("exception")]
    assert [row["action"] for row in exceptions] == ["exception site", "exception proxy"]
    assert all("agreed" in row["detail"] and "@" in row["who"] for row in exceptions)


def confirmed(fleet: Fleet, words: list[str], rule: str, end: str) -> None:
    """Runs it at a terminal, and gives the word that is asked for."""
    talk = pexpect.spawn(str(PROGRAM), [*P, *words], cwd=str(fleet.laptop.clone), env=fleet.laptop.env, encoding="utf-8",
                         timeout=30, dimensions=(40, 200))  # fmt: skip
    talk.expect(f"Type {rule} to allow it")
    talk.sendline(rule)
    talk.expect("Why")
    talk.sendline("agreed")
    talk.expect(end)
    talk.expect(pexpect.EOF)
    talk.close()
    assert talk.exitstatus == 0
