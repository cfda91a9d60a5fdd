"""A1 A2: `homeport try` over ssh: uncommitted work of the laptop is live on staging; only what is lacking there travels."""

from __future__ import annotations

import os
import signal

import pytest

from tests.fleet import Fleet
from tests.world import eventually


@pytest.fixture
def trying(fleet: Fleet) -> Fleet:
    text = (fleet.laptop.clone / "homeport.toml").read_text()
    fleet.laptop.publish({"homeport.toml": text.replace('branch = "staging"', 'branch = "staging"\ntry = true')})
    fleet.laptop.git("push", "-q", "origin", "HEAD:staging")
    fleet.homeport("-e", "staging", "deploy")
    return fleet


def test_uncommitted_work_goes_live_on_staging_and_never_on_production(trying: Fleet) -> None:
    fleet = trying
    fleet.laptop.write({"site/a.txt": "tried\n", "site/new.txt": "new\n", "site/.env": "TOKEN=hidden\n"})
    before = fleet.laptop.git("status", "--porcelain"), fleet.laptop.git("count-objects", "-v")
    done = fleet.homeport("--json", "-e", "staging", "try").last
    assert done["status"] == "deployed" and fleet.stage.text("site/a.txt") == "tried\n"
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
