"""A1 A8 A9: uncommitted work goes live as a commit of its own, and no deploy takes it away in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.world import World

SITE = """
[services.site]
source = "site"
target = "{live}/site"

[services.docs]
source = "docs"
target = "{live}/docs"
"""
FILES: dict[str, str | None] = {
    "site/index.html": "one\n", "site/other.txt": "other\n", "site/gone.txt": "gone\n", "docs/page.md": "page\n",
    ".gitignore": "*.log\n",
}  # fmt: skip


@pytest.fixture
def deployed(world: World) -> World:
    world.project(SITE, FILES, "try = true\n")
    world.deploy()
    return world


def untouched(world: World) -> tuple[str, ...]:
    """What a try must leave alone."""
    git = world.clone / ".git"
    return (
        (git / "index").read_bytes().hex(), world.git("rev-parse", "HEAD"), world.git("reflog"),
        world.git("for-each-ref"), world.git("count-objects", "-v"), world.git("status", "--porcelain"),
    )  # fmt: skip


def test_the_working_tree_goes_live_as_it_is_and_the_checkout_is_only_read(deployed: World) -> None:
    world = deployed
    world.write({"site/index.html": "two\n", "site/new.txt": "new\n", "site/gone.txt": None, "site/noise.log": "noise\n",
                 "site/.env": "TOKEN=hidden\n", "docs/page.md": "staged\n"})  # fmt: skip
    world.git("add", "docs/page.md")
    (world.clone / "site/run.sh").write_text("#!/bin/sh\n")
    (world.clone / "site/run.sh").chmod(0o755)
    (world.clone / "site/link").symlink_to("new.txt")
    before = untouched(world)
    done = world.json("try")
    assert (done["status"], done["exitCode"]) == ("deployed", 0)
    assert untouched(world) == before
    live = [world.text(name) for name in ("site/index.html", "site/new.txt", "docs/page.md")]
    assert live == ["two\n", "new\n", "staged\n"]
    assert sorted(p.name for p in (world.live / "site").iterdir() if p.name != ".homeport") == [
        "index.html", "link", "new.txt", "other.txt", "run.sh",
    ]  # fmt: skip
    assert os.readlink(world.live / "site/link") == "new.txt" and os.access(world.live / "site/run.sh", os.X_OK)
    mirror = next(world.state.glob("shop/repo.git"))
    kept = world.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/homeport/tries/production", cwd=mirror)
    assert kept.split(" ")[1] == done["sha"]
    assert "hidden" not in world.git("log", "-p", "--all", cwd=mirror)
    (row,) = world.json("status")["tries"]
    assert (row["sha"], sorted(row["services"])) == (done["sha"], ["docs", "site"])
    assert (row["expired"], row["old"]) == (False, False)
    assert row["author"] == "Ada Example <ada@example.com>" and row["who"] and row["until"] > row["since"]
    again = world.json("try")
    assert again["status"] == "unchanged"


def test_only_the_named_service_and_a_deploy_leaves_it_alone(deployed: World) -> None:
    world = deployed
    world.write({"site/index.html": "try\n", "docs/page.md": "not this one\n"})
    world.json("try", "site")
    assert (world.text("site/index.html"), world.text("docs/page.md")) == ("try\n", "page\n")
    world.git("stash", "-q")
    world.publish({"docs/page.md": "newer\n", "site/other.txt": "newer\n"})
    done = world.homeport("--json", "deploy")
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("try\n", "other\n")
    assert world.text("docs/page.md") == "newer\n"
    assert any(line.get("code") == "try" and "Ada Example" in line["message"] for line in done.lines)
    named = world.homeport("--json", "deploy", "site", ok=(3,))
    assert named.last["errorCode"] == "try" and "--over-try" in named.last["next"]
    assert world.json("rollback")["status"] == "deployed", "it ends the try, and takes back no deploy of the others"
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("one\n", "other\n")
    status = world.json("status")
    assert (world.text("docs/page.md"), status["tries"], status["blocked"]) == ("newer\n", [], [])
    world.write({"site/index.html": "another\n"})
    world.json("try", "site")
    assert world.deploy("--over-try")["status"] == "deployed"
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("one\n", "newer\n")
    assert world.json("status")["tries"] == []


def test_a_commit_that_contains_the_try_ends_it(deployed: World) -> None:
    world = deployed
    world.write({"site/index.html": "try\n"})
    world.json("try")
    assert world.deploy(ok=(3,))["errorCode"] == "try"
    assert [r["rule"] for r in world.json("plan")["refusals"]] == ["try"]
    world.git("commit", "-qam", "not pushed")
    elsewhere(world, {".gitignore": "*.log\n*.tmp\n"})
    told = [world.json("converge", ok=None) for _ in range(3)]
    assert [t["code"] for t in told[1:]] == ["refused", "refused"], "no row for every tick"
    world.git("reset", "-q", "--hard", "origin/main")
    world.git("pull", "-q")
    world.publish({"site/index.html": "try\n"})
    world.publish({"site/index.html": "try, and more\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("site/index.html") == "try, and more\n"
    assert world.json("status")["tries"] == []


def test_a_rollback_ends_a_row_of_tries_at_the_last_commit(deployed: World) -> None:
    world = deployed
    sha = world.publish({"site/index.html": "newer\n"})
    world.deploy()
    assert world.json("try")["status"] == "unchanged", "nothing to do, and still it is no commit to go back to"
    for text in ("first\n", "second\n"):
        world.write({"site/index.html": text})
        world.json("try")
    done = world.json("rollback")
    assert (done["status"], done["sha"], world.text("site/index.html")) == ("deployed", sha, "newer\n")
    status = world.json("status")
    assert (status["tries"], status["blocked"]) == ([], [])


def test_a_checkout_that_lacks_what_is_deployed_takes_nothing_away_unasked(deployed: World) -> None:
    world = deployed
    old = world.git("rev-parse", "HEAD")
    new = world.publish({"site/other.txt": "deployed by somebody else\n"}, "The other one's work")
    world.deploy()
    world.git("reset", "-q", "--hard", old)
    world.write({"site/index.html": "try\n"})
    ran = world.homeport("--json", "try", ok=(3,))
    assert ran.last["code"] == "try-base"
    assert new[:12] in ran.last["what"] and "The other one's work" in ran.last["what"]
    assert world.text("site/other.txt") == "deployed by somebody else\n"
    agent = world.homeport("--json", "try", "--yes", ok=(3,), env={"HOMEPORT_ACTOR": "agent"})
    assert agent.last["code"] == "try-base" and "a person may allow it, not an agent" in agent.last["what"]
    assert world.text("site/other.txt") == "deployed by somebody else\n"
    assert world.json("try", "--yes")["status"] == "deployed"
    kept = [(row["action"], row["actor"], row["outcome"]) for row in world.json("audit")["audit"] if "try-base" in str(row)]
    assert kept == [("exception try-base", "person", "done"), ("confirm", "agent", "refused")]
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("try\n", "other\n")


def test_an_environment_that_does_not_allow_it_refuses_also_when_the_working_tree_says_otherwise(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    text = (world.clone / "homeport.toml").read_text()
    world.write({"site/index.html": "try\n", "homeport.toml": text.replace('"main"', '"main"\ntry = true')})
    assert world.json("try", ok=(3,))["code"] == "no-try"
    assert world.text("site/index.html") == "one\n"


def other_clone(world: World, *, fresh: bool = True) -> Path:
    """Somebody else's clone, up to date."""
    there = world.root / "other-clone"
    if not fresh:
        return there
    if not there.exists():
        world.git("clone", "-q", str(world.origin), str(there), cwd=world.root)
        for key, value in (("user.name", "Grace Example"), ("user.email", "grace@example.com")):
            world.git("config", key, value, cwd=there)
    world.git("fetch", "-q", cwd=there)
    world.git("reset", "-q", "--hard", "origin/main", cwd=there)
    return there


def protect(world: World) -> None:
    """From now on main takes what is merged, and no push, as on a forge that protects it."""
    hook = world.origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    refuse = "{ echo protected >&2; exit 1; }"
    hook.write_text(f"#!/bin/sh\n[ -e {world.root}/merging ] || ! grep -q refs/heads/main || {refuse}\n")
    hook.chmod(0o755)


def merged(world: World, *refs: str) -> None:
    mark = world.root / "merging"
    mark.touch()
    world.git("push", "-q", "origin", "HEAD:main", *refs, cwd=other_clone(world, fresh=False))
    mark.unlink()


def elsewhere(world: World, files: dict[str, str]) -> None:
    """Somebody else publishes."""
    there = other_clone(world)
    for name, text in files.items():
        (there / name).write_text(text)
    world.git("commit", "-qam", "The other one's work", cwd=there)
    merged(world)


def squash(world: World, branch: str) -> None:
    """Merges as a forge would: one new commit on main, the branch deleted."""
    there = other_clone(world)
    world.git("merge", "-q", "--squash", f"origin/{branch}", cwd=there)
    world.git("commit", "-qm", "Merged", cwd=there)
    merged(world, f":{branch}")


def test_a_staging_try_becomes_a_merged_request_and_the_next_deploy_ends_it(world: World) -> None:
    """The first seed story: tried on staging, taken into git from there, merged, redeployed, nothing left over."""
    services = SITE.replace('source = "site"\n', 'source = "site"\nwatch = ["shared/"]\n')
    world.project(services, {**FILES, "shared/lib.txt": "lib\n", "notes.txt": "notes\n"}, "try = true\n")
    world.deploy()
    protect(world)
    world.write({"site/index.html": "tried\n", "site/new.txt": "new\n", "site/gone.txt": None, "notes.txt": "mine\n",
                 "shared/lib.txt": "tried lib\n", "docs/page.md": "not tried\n"})  # fmt: skip
    world.json("try", "site")
    (world.live / "site/other.txt").write_text("and a hand edit on top\n")
    clean = untouched(world)
    elsewhere(world, {"docs/page.md": "moved on\n"})
    said = world.json("adopt", "site")
    assert untouched(world)[1:] == clean[1:]
    assert said["paths"] == ["shared/lib.txt", "site/gone.txt", "site/index.html", "site/new.txt", "site/other.txt"]
    assert [row["path"] for row in said["skipped"]] == ["notes.txt"]
    counted = world.git("rev-list", "--left-right", "--count", f"main...{said['branch']}", cwd=world.origin)
    assert counted.split() == ["0", "1"]
    assert world.git("show", f"{said['branch']}:site/index.html", cwd=world.origin) == "tried"
    (row,) = world.json("status")["tries"]
    assert row["branch"] == said["branch"]
    again = world.json("adopt")
    assert (again["commit"], again["branch"]) == (said["commit"], said["branch"])
    assert {e["state"] for e in world.json("edits")["edits"]} == {"adopted"}
    assert world.deploy(ok=(0,))["status"] == "deployed", "docs go ahead, site stays"
    assert (world.text("site/index.html"), world.text("docs/page.md")) == ("tried\n", "moved on\n")
    squash(world, said["branch"])
    assert world.deploy()["status"] == "deployed"
    status = world.json("status")
    assert (status["tries"], status["edits"]) == ([], 0)
    assert world.json("edits")["edits"] == []
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("tried\n", "and a hand edit on top\n")


def test_what_git_has_no_place_for_or_cannot_settle_refuses_and_changes_nothing(deployed: World) -> None:
    world = deployed
    os.unlink(world.clone / "site/other.txt")
    os.mkfifo(world.clone / "site/other.txt")
    assert world.json("try", ok=(3,))["code"] == "oddity"
    os.unlink(world.clone / "site/other.txt")
    world.git("checkout", "-q", "--", "site/other.txt")
    world.git("init", "-q", str(world.clone / "site/vendor"), cwd=world.root)
    assert world.json("try", ok=(3,))["code"] == "nested"
    assert world.json("try", "docs")["status"] == "unchanged", "it does not lie in what is tried"
    os.rename(world.clone / "site/vendor", world.clone / "vendor")
    world.git("checkout", "-q", "-b", "side")
    world.write({"site/index.html": "side\n"})
    world.git("commit", "-qam", "side")
    world.git("checkout", "-q", "main")
    world.write({"site/index.html": "main\n"})
    world.git("commit", "-qam", "main")
    with pytest.raises(AssertionError):
        world.git("merge", "-q", "side")
    assert world.json("try", ok=(3,))["code"] == "unmerged"
    world.git("merge", "--abort")
    (world.root / "outside.txt").write_text("a hard link's content\n")
    os.unlink(world.clone / "site/other.txt")
    os.link(world.root / "outside.txt", world.clone / "site/other.txt")
    assert world.json("try")["status"] == "deployed", "a commit that was never pushed goes along"
    assert (world.text("site/index.html"), world.text("site/other.txt")) == ("main\n", "a hard link's content\n")
    assert os.stat(world.live / "site/other.txt").st_nlink == 1
    assert world.json("status")["tries"][0]["services"] == ["site"]


def test_a_try_from_a_branch_that_was_thrown_away_is_still_adopted_on_the_new_one(deployed: World) -> None:
    world = deployed
    world.write({"site/index.html": "tried\n"})
    world.json("try")
    there = other_clone(world)
    world.git("commit", "-q", "--amend", "-m", "Another first commit", cwd=there)
    world.git("push", "-q", "--force", "origin", "HEAD:main", cwd=there)
    said = world.json("adopt")
    assert said["base"] == world.git("rev-parse", "main", cwd=world.origin)
    assert said["paths"] == ["site/index.html"]
    hook = world.origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho no more branches >&2\nexit 1\n")
    hook.chmod(0o755)
    (world.live / "site/other.txt").write_text("by hand\n")
    refused = world.json("adopt", ok=(1,))
    assert refused["code"] == "push" and "no more branches" in refused["what"]
    assert {e["path"]: e["state"] for e in world.json("edits")["edits"]}["other.txt"] == "open"
    hook.unlink()
    assert world.json("adopt", "--branch", said["branch"], ok=(3,))["code"] == "branch-exists"
    assert world.json("adopt")["paths"] == ["site/other.txt"]


def test_a_try_that_was_asked_for_again_and_changed_nothing_is_still_adopted_whole(deployed: World) -> None:
    world = deployed
    world.write({"site/index.html": "tried\n", "site/other.txt": "tried too\n"})
    first = world.json("try")
    world.write({"docs/page.md": "not of the site\n"})
    again = world.json("try")
    assert again["sha"] != first["sha"]
    (world.live / "site/index.html").write_text("tried, and mended there\n")
    said = world.json("adopt")
    assert said["paths"] == ["docs/page.md", "site/index.html", "site/other.txt"], "main has not moved: no conflict"
    assert world.git("show", f"{said['branch']}:site/index.html", cwd=world.origin) == "tried, and mended there"


def test_the_newest_try_wins_and_one_whose_time_is_over_holds_nobody_up(world: World) -> None:
    world.project(SITE, FILES, 'try = true\nhold_ttl = "1ms"\nedit_warning = "1ms"\n')
    world.deploy()
    world.write({"site/index.html": "ada's\n"})
    world.homeport("--json", "try", env={"SUDO_USER": "ada"})
    world.write({"site/index.html": "grace's\n"})
    second = world.homeport("--json", "try", env={"SUDO_USER": "grace"})
    assert second.last["status"] == "deployed"
    assert any(line.get("code") == "try" and "ada" in line["message"] for line in second.lines)
    (row,) = world.json("status")["tries"]
    assert (row["who"], row["expired"], row["old"]) == ("grace", True, True)
    shown = world.homeport("status").stdout
    assert "old try" in shown and "deploys may end it" in shown
    assert world.deploy()["status"] == "deployed"
    assert world.text("site/index.html") == "one\n"
    mirror = world.state / "shop/repo.git"
    kept = world.git("for-each-ref", "--format=%(objectname)", "refs/homeport/tries", cwd=mirror).split()
    assert row["sha"] in kept and len(kept) == 2, "what was live is not lost"


def test_a_try_that_fails_is_rolled_back_and_blocks_and_holds_nothing(world: World) -> None:
    look = 'command = ["grep", "-q", "good", "{live}/site/index.html"]\n  within = "50ms"\n'
    service = SITE.partition("[services.docs]")[0] + f"\n  [[services.site.checks]]\n  {look}"
    world.project(service, {"site/index.html": "good\n"}, "try = true\n")
    world.deploy()
    world.write({"site/index.html": "bad\n"})
    assert world.json("try", ok=(1,))["status"] == "rolled_back"
    assert world.text("site/index.html") == "good\n"
    status = world.json("status")
    assert (status["tries"], status["blocked"], status["hold"], status["edits"]) == ([], [], None, 0)
