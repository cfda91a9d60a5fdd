"""D9 E2: a live folder that is a git checkout: its HEAD, branch and index follow every deploy and rollback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import let_everybody_in
from tests.world import World

WHOLE = """
[services.site]
source = "site"
checkout = true

[services.manual]
source = "manual"
runtime = "command"
command = "grep -q works m.txt"
"""
FILES: dict[str, str | None] = {"site/index.html": "one\n", "manual/m.txt": "works\n", "README": "hello\n"}


@pytest.fixture
def shop(world: World) -> Path:
    """The live folder: a clone of the first commit that somebody made by hand."""
    text = f'[project]\nname = "shop"\ntarget = "{world.live}/shop"\n\n[environments.production]\nbranch = "main"\n'
    world.publish({"homeport.toml": text + WHOLE, **FILES}, "first version")
    live = world.live / "shop"
    world.git("clone", "-q", str(world.origin), str(live), cwd=world.root)
    return live


def look(world: World, live: Path) -> tuple[str, str, list[str]]:
    """(commit, branch, what `git status` says) as git tells a person who looks into the live folder."""
    head, branch = world.git("rev-parse", "HEAD", cwd=live), world.git("rev-parse", "--abbrev-ref", "HEAD", cwd=live)
    return head, branch, world.git("status", "--porcelain", cwd=live).splitlines()


def test_head_and_index_follow_each_deploy_and_rollback(world: World, shop: Path) -> None:
    first = world.git("rev-parse", "HEAD")
    assert world.deploy()["ok"]
    assert look(world, shop) == (first, "main", [])
    second = world.publish({"site/index.html": "two\n", "site/new.html": "new\n", "README": None})
    assert world.deploy()["status"] == "deployed"
    assert look(world, shop) == (second, "main", [])
    assert world.git("log", "--format=%s", "origin/main", cwd=shop).splitlines() == ["change", "first version"]
    assert "homeport" in world.git("reflog", "-1", cwd=shop)
    assert world.json("rollback")["ok"]
    assert look(world, shop) == (first, "main", [])
    assert (shop / "README").read_text() == "hello\n"
    world.git("fsck", "--strict", cwd=shop)


def test_a_deploy_that_is_rolled_back_takes_head_back_too(world: World, shop: Path) -> None:
    first = world.git("rev-parse", "HEAD")
    world.deploy()
    world.publish({"manual/m.txt": "broken\n"})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert look(world, shop) == (first, "main", [])


def test_a_protected_file_that_git_tracks_shows_as_changed_and_is_left(world: World, shop: Path) -> None:
    world.publish({".env": "FROM=git\n"})
    (shop / ".env").write_text("FROM=host\n")
    second = world.git("rev-parse", "HEAD")
    world.deploy()
    assert look(world, shop) == (second, "main", ["M .env"])
    assert (shop / ".env").read_text() == "FROM=host\n"


def test_what_only_the_checkout_has_stays_reachable(world: World, shop: Path) -> None:
    world.deploy()
    (shop / "site/index.html").write_text("by hand\n")
    for key, value in (("user.name", "Ada Example"), ("user.email", "ada@example.com")):
        world.git("config", key, value, cwd=shop)
    world.git("commit", "-qam", "midnight", cwd=shop)
    midnight = world.git("rev-parse", "HEAD", cwd=shop)
    (shop / "README").write_text("staged\n")
    world.git("add", "README", cwd=shop)
    assert world.deploy(ok=(0, 3))["status"] == "refused"
    assert look(world, shop)[0] == midnight, "a deploy that is refused moves nothing"
    second = world.publish({"manual/m.txt": "works better\n"})
    assert world.deploy("--discard-drift")["ok"]
    assert look(world, shop) == (second, "main", [])
    kept = world.git("for-each-ref", "--format=%(refname)", "refs/homeport/kept", cwd=shop).splitlines()
    assert f"refs/homeport/kept/commit-{midnight[:12]}" in kept
    assert world.git("show", "refs/homeport/kept/index:README", cwd=shop) == "staged"


def test_a_merge_under_way_is_left_alone_and_told(world: World, shop: Path) -> None:
    world.deploy()
    (shop / ".git/MERGE_HEAD").write_text(world.git("rev-parse", "HEAD") + "\n")
    first = world.git("rev-parse", "HEAD")
    world.publish({"site/index.html": "two\n"})
    lines = world.homeport("--json", "deploy").lines
    assert lines[-1]["status"] == "deployed"
    assert any("a merge is under way" in line.get("message", "") for line in lines)
    assert world.git("rev-parse", "HEAD", cwd=shop) == first
    (shop / ".git/MERGE_HEAD").unlink()
    world.deploy()
    assert look(world, shop) == (world.git("rev-parse", "HEAD"), "main", []), "the next deploy mends it"


@pytest.mark.parametrize("hindrance", ["no .git", "a locked index", "owned by several"])
def test_a_checkout_that_cannot_be_moved_is_told_with_what_to_do(world: World, shop: Path, hindrance: str) -> None:
    if hindrance == "no .git":
        shutil.rmtree(shop / ".git")
    elif hindrance == "a locked index":
        (shop / ".git/index.lock").touch()
    elif os.geteuid() == 0:
        os.chown(shop / ".git/config", 65534, 65534)
    else:
        pytest.skip("only root can give a file to another user")
    world.publish({"site/index.html": "two\n"})
    done = world.homeport("deploy")
    said = done.stdout + done.stderr
    assert "stay where they were" in said
    assert {"no .git": "git init", "a locked index": "rm ", "owned by several": "chown"}[hindrance] in said
    assert (shop / "site/index.html").read_text() == "two\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root deploys into the folder of another user")
def test_the_checkout_of_another_user_stays_theirs_and_runs_nothing_as_root(world: World, shop: Path) -> None:
    world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
    trap, hook = world.root / "trap", shop / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {trap}\n")
    hook.chmod(0o755)
    for key in ("core.fsmonitor", "filter.x.clean", "core.sshCommand"):
        world.git("config", key, f"touch {trap}; cat", cwd=shop)
    (shop / ".git/info/attributes").write_text("* filter=x\n")
    for path in [shop, *shop.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    let_everybody_in(world.root)
    second = world.publish({"site/index.html": "two\n"})
    done = world.homeport("deploy")
    assert "stay where they were" not in done.stdout + done.stderr
    assert not trap.exists()
    assert {p.lstat().st_uid for p in (shop / ".git").rglob("*")} == {65534}
    git = ("-c", f"safe.directory={shop}", "-c", "core.fsmonitor=false")
    assert world.git(*git, "rev-parse", "main", cwd=shop) == second
    assert not trap.exists()
