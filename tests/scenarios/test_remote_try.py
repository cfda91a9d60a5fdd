"""A1 A2: `homeport try` over ssh: uncommitted work of the laptop is live on staging; only what is lacking there travels."""

from __future__ import annotations

import os
import signal

import pytest

from tests.fleet import Fleet, Machine
from tests.world import eventually


@pytest.fixture
def trying(fleet: Fleet) -> Fleet:
    text = (fleet.laptop.clone / "homeport.toml").read_text()
    (fleet.laptop.clone / "site/large.bin").write_bytes(os.urandom(1_000_000))
    fleet.laptop.publish({"homeport.toml": text.replace('branch = "staging"', 'branch = "staging"\ntry = true')})
    fleet.laptop.git("push", "-q", "origin", "HEAD:staging")
    fleet.homeport("-e", "staging", "deploy")
    return fleet


def held(machine: Machine) -> int:
    """Bytes of objects in its mirror."""
    return sum(path.stat().st_size for path in (machine.state / "shop/repo.git/objects").rglob("*") if path.is_file())


def test_uncommitted_work_goes_live_on_staging_and_never_on_production(trying: Fleet) -> None:
    fleet = trying
    fleet.laptop.write({"site/a.txt": "tried\n", "site/new.txt": "new\n", "site/.env": "TOKEN=hidden\n"})
    before = fleet.laptop.git("status", "--porcelain"), fleet.laptop.git("count-objects", "-v")
    kept = held(fleet.stage)
    done = fleet.homeport("--json", "-e", "staging", "try").last
    assert done["status"] == "deployed" and fleet.stage.text("site/a.txt") == "tried\n"
    assert 0 < held(fleet.stage) - kept < 50_000, "what the host has of the tree already is not sent again"
    assert fleet.stage.text("site/new.txt") == "new\n" and not (fleet.stage.live / "site/.env").exists()
    assert (fleet.laptop.git("status", "--porcelain"), fleet.laptop.git("count-objects", "-v")) == before
    assert fleet.homeport("--json", "-e", "staging", "status").last["tries"]
    assert fleet.homeport("--json", "-e", "staging", "try").last["status"] == "unchanged"
    refused = fleet.homeport("--json", "-e", "production", "try", ok=(3,)).last
    assert refused["code"] == "no-try" and not (fleet.prod.live / "site").exists()


def test_a_working_tree_that_cannot_be_taken_ends_both_sides_and_changes_nothing(trying: Fleet) -> None:
    fleet = trying
    (fleet.laptop.clone / "site/a.txt").unlink()
    os.mkfifo(fleet.laptop.clone / "site/a.txt")
    assert fleet.homeport("--json", "-e", "staging", "try", ok=(3,)).last["code"] == "oddity"
    assert fleet.stage.text("site/a.txt") == "one\n"
    eventually(lambda: not fleet.stage.working(), "nothing is left on the host")
    assert not fleet.homeport("--json", "-e", "staging", "status").last["tries"]


def test_a_try_begins_with_the_call_of_the_last_one_which_does_nothing_when_it_was_a_wrong_guess(trying: Fleet) -> None:
    """The program itself, from nothing each time; the host hears of the command before the laptop knows where it goes."""
    fleet = trying
    calls, bin = fleet.laptop.root / "calls", fleet.laptop.root / "bin/ssh"
    bin.write_text(bin.read_text().replace("exec", f'echo "$*" >>{calls}\nexec', 1))

    def tried(text: str) -> tuple[int, int]:
        """(calls of the host, those that were to wait) of one try."""
        calls.write_text("")
        fleet.laptop.write({"site/a.txt": text})
        running = fleet.start("--json", "-e", "staging", "try")
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0 and fleet.stage.text("site/a.txt") == text, out + err
        made = [line for line in calls.read_text().splitlines() if "--caller" in line]
        return len(made), sum('"waits":true' in line for line in made)

    assert tried("first\n") == (1, 0)
    assert tried("second\n") == (1, 1), "the call was made once, and early"
    notes = fleet.laptop.state / ".early"
    notes.write_bytes(notes.read_bytes().replace(b'"by":"', b'"by":"not-'))
    ran = len(fleet.homeport("--json", "-e", "staging", "history").last["deploys"])
    assert tried("third\n") == (2, 1), "the guess was wrong"
    eventually(lambda: not fleet.stage.working(), "the host's program that waited has ended")
    after = fleet.homeport("--json", "-e", "staging", "history").last["deploys"]
    assert len(after) == ran + 1 and not any(row["requestedBy"].startswith("not-") for row in after)


def test_every_save_goes_live_until_ctrl_c(trying: Fleet) -> None:
    fleet = trying
    running = fleet.start("-e", "staging", "try", "--watch")
    fleet.laptop.write({"site/a.txt": "first\n"})
    eventually(lambda: fleet.stage.text("site/a.txt") == "first\n", "the first save is live")
    fleet.laptop.write({"site/a.txt": "second\n"})
    eventually(lambda: fleet.stage.text("site/a.txt") == "second\n", "the second save is live")
    eventually(lambda: not fleet.stage.working(), "the try has ended")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode in (0, 6, 130) and "Traceback" not in err, out + err
