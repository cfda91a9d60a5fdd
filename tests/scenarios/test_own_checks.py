"""D3 D17: homeport's own checks of a commit in clean checkouts, and what the forge is told of them and of deploys."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import serving
from tests.scenarios.conftest import World, eventually

CONFIG = """
[services.site]
source = "site"
target = "{live}/site"

[checks.words]
run = "! grep -r bad site && echo words are fine"
paths = ["site/"]

[checks.clean]
run = "echo $(id -un) $(ls -A) ${HOMEPORT_STATE-none} ${FORGE_TOKEN-none} > {live}/../seen-$$; [ ! -e {live}/../red ]"
paths = ["other/"]

[checks.taste]
run = "exit 5"
required = false
"""


@pytest.fixture
def forge(world: World) -> Iterator[GitHubFake]:
    fake = GitHubFake()
    with serving(fake):
        world.more["FORGE_TOKEN"] = TOKEN
        yield fake
    assert fake.wrong == []


def test_a_commit_is_proved_in_clean_checkouts_before_anything_is_touched_and_the_forge_hears_of_it(
    world: World, forge: GitHubFake
) -> None:
    if os.geteuid() == 0:
        world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
        world.root.chmod(0o777)
        for above in list(world.root.parents)[:3]:
            above.chmod(above.stat().st_mode | 0o011) if above.name.startswith(("pytest", "popen")) else None
    told = f'\n[forge]\nkind = "github"\nurl = "{forge.url}"\nrepo = "octo/shop"\ntoken = {{ env = "FORGE_TOKEN" }}\n'
    world.project(CONFIG + told, {"site/index.html": "good\n", "other/x": "1\n"})
    lines = world.homeport("--json", "deploy").lines
    results = {e["check"]: (e["ok"], e["required"]) for e in lines if e["type"] == "deploy.check"}
    assert results == {"words": (True, True), "clean": (True, True), "taste": (False, False)}
    (seen,) = [path.read_text().split() for path in world.root.glob("seen-*")]
    who = "nobody" if os.geteuid() == 0 else seen[0]
    assert seen == [who, "homeport.toml", "other", "site", "none", "none"]
    statuses = lambda: {(s["context"], s["state"]) for s in forge.statuses}  # noqa: E731
    eventually(lambda: len(statuses()) == 4, "three checks and the deploy are told")
    assert statuses() == {("homeport/check/words", "success"), ("homeport/check/clean", "success"),
                          ("homeport/check/taste", "failure"), ("homeport/deploy/production", "success")}  # fmt: skip

    world.publish({"site/index.html": "bad\n"})
    done = world.deploy(ok=(4,))
    assert (done["status"], done["errorCode"], world.text("site/index.html")) == ("failed", "check-failed", "good\n")
    assert len(list(world.root.glob("seen-*"))) == 1, "other/ did not change"
    assert world.json("status")["blocked"] == []
    eventually(lambda: ("homeport/check/words", "failure") in statuses(), "the failure is told")

    (world.root / "red").touch()
    world.publish({"site/index.html": "better\n", "other/x": "2\n"})
    assert "clean" in world.deploy(ok=(4,))["errorSummary"]
    (world.root / "red").unlink()
    lines = world.homeport("--json", "deploy").lines
    assert (lines[-1]["status"], world.text("site/index.html")) == ("deployed", "better\n")
    again = [e["check"] for e in lines if e["type"] == "deploy.check"]
    assert sorted(again) == ["clean", "taste"], "what passed for these files is not run again"
