"""D3 D17: homeport's own checks of a commit in clean checkouts, and what the forge is told of them and of deploys."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
from collections.abc import Iterator

import pytest

from tests.conftest import let_everybody_in
from tests.daemon.rig import Daemon
from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import serving
from tests.world import World, eventually

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
        let_everybody_in(world.root)
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


def test_a_request_of_the_same_repository_and_the_clock_are_checked_and_a_fork_never(
    world: World, forge: GitHubFake
) -> None:
    told = f'\n[forge]\nkind = "github"\nurl = "{forge.url}"\nrepo = "octo/shop"\ntoken = {{ env = "FORGE_TOKEN" }}\n'
    told += 'webhook_secret = [{ env = "HOOK_SECRET" }]\n'
    user = f'user = "{pwd.getpwuid(os.geteuid()).pw_name}"\n'
    words = f'\n[checks.words]\nrun = "cat {world.live}/site/.env; ! grep -r bad site"\n{user}'
    words += f'\n[checks.audit]\nrun = "exit 9"\ncron = "@weekly"\n{user}'
    world.more["HOOK_SECRET"] = "s3cret-of-the-hook"
    site = '[services.site]\nsource = "site"\ntarget = "{live}/site"\n'
    main = world.project(site + words + told, {"site/a": "good\n"})
    assert [e["check"] for e in world.homeport("--json", "deploy").lines if e["type"] == "deploy.check"] == ["words"]

    (world.live / "site/.env").write_text("API_TOKEN=canary-of-the-service\n")

    # its own branch says that nothing is checked; what the environment's branch says counts
    world.git("checkout", "-q", "-b", "feature")
    plain = (world.clone / "homeport.toml").read_text().replace("! grep -r bad site", "exit 0")
    world.write({"site/a": "bad\n", "homeport.toml": plain})
    ours = world.commit()
    world.git("push", "-q", "origin", "feature")
    world.write({"site/a": "bad too\n"})
    theirs = world.commit()
    world.git("push", "-q", "origin", f"{theirs}:refs/pull/7/head")
    world.git("checkout", "-q", "main")

    def said(sha: str) -> list[tuple[str, str]]:
        posts = [seen for seen in forge.seen if seen.method == "POST" and seen.path.endswith(f"/statuses/{sha}")]
        return [(seen.body["context"].removeprefix("homeport/check/"), seen.body["state"]) for seen in posts]

    def deliver(sha: str, head: int, action: str = "opened") -> str:
        side = {"repo": {"id": 1}}
        pull = {"number": 7, "merged": False, "head": {"ref": "feature", "sha": sha, "repo": {"id": head}},
                "base": {"ref": "main", **side}}  # fmt: skip
        body = json.dumps({"action": action, "pull_request": pull, "repository": {"full_name": "octo/shop"}}).encode()
        digest = hmac.new(b"s3cret-of-the-hook", body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": f"{sha}{head}{action}",
                   "X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"}  # fmt: skip
        return str(daemon.ask("POST", "/hooks/github", content=body, headers=headers).json()["because"])

    daemon = Daemon(world).start()
    try:
        assert "fork" in deliver(theirs, 2)
        assert "over" in deliver(ours, 1, "closed")
        # a payload that only says it is of this repository: that commit is on no branch that was fetched
        assert "are run" in deliver(theirs, 1)
        assert "are run" in deliver(ours, 1, "synchronize")
        eventually(lambda: said(ours) == [("words", "pending"), ("words", "failure")], "the request's check is told")
    finally:
        daemon.close()
    assert (said(theirs), len(world.json("history")["deploys"])) == ([], 1)
    (printed,) = [path.read_text() for path in (world.state / "shop/production/journal").glob(f"check-{ours[:12]}.jsonl")]
    assert "API_TOKEN=***" in printed and "canary" not in printed

    # the webhook is dead: the timer's tick finds the request in the forge's list; what was checked already is left alone
    world.git("checkout", "-q", "-b", "late", "main")
    world.write({"site/a": "well\n"})
    late = world.commit()
    world.git("push", "-q", "origin", "late")
    world.git("checkout", "-q", "main")
    forge.add_pull("feature", "main", ours)
    forge.add_pull("late", "main", late)
    forge.add_pull("feature", "main", theirs, fork=True)
    forge.add_pull("feature", "release", "c" * 40)
    listings = lambda: [seen.headers for seen in forge.seen if seen.path.endswith("/pulls")]  # noqa: E731
    a_minute_later = "UPDATE cached SET value = '2020-01-01T00:00:00+00:00' WHERE key = 'checks-looked'"
    before = len(listings())
    world.sql(a_minute_later)
    world.homeport("converge")
    eventually(lambda: said(late) == [("words", "pending"), ("words", "success")], "the listed request is checked")
    world.homeport("converge")
    assert len(listings()) == before + 1, "once a minute, however often something ticks"
    world.sql(a_minute_later)
    world.homeport("converge")
    eventually(lambda: len(listings()) == before + 2, "the list is looked at again")
    assert "if-none-match" in listings()[-1]
    assert said(main)[-1] != ("audit", "failure"), "one seen for the first time waits"
    world.sql("UPDATE cached SET value = '2020-01-01T00:00:00+00:00' WHERE key = 'cron:audit'")
    assert world.json("converge")["code"] == "equal"
    eventually(lambda: said(main)[-2:] == [("audit", "pending"), ("audit", "failure")], "the clock's check is told")
    assert "audit ended with 9" in world.homeport("--json", "audit").stdout
    assert (len(said(late)), len(said(ours)), said(theirs)) == (2, 2, []), "each commit once, a fork's never"
