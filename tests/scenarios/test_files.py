"""A3 A8 D4 D5 D9: commits become live files, exactly those, and nothing happens when nothing changed."""

from __future__ import annotations

from tests.world import World

TWO = """
[services.site]
source = "site"
target = "{live}/site"

[services.docs-site]
source = "manual"
target = "{live}/manual"
"""
FILES: dict[str, str | None] = {
    "site/index.html": "<h1>one</h1>\n",
    "site/css/a.css": "a{}\n",
    "manual/m.txt": "m1\n",
}


def test_a_commit_becomes_live_files(world: World) -> None:
    sha = world.project(TWO, FILES)
    done = world.deploy()
    assert (done["type"], done["ok"], done["status"], done["exitCode"]) == (
        "deploy.done",
        True,
        "deployed",
        0,
    )
    assert done["sha"] == sha
    assert sorted(done["services"]) == ["docs-site", "site"]
    assert world.text("site/index.html") == "<h1>one</h1>\n"
    assert world.text("site/css/a.css") == "a{}\n"
    assert world.text("manual/m.txt") == "m1\n"
    status = world.json("status")
    assert status["sha"] == sha
    assert {row["service"]: row["sha"] for row in status["services"]} == {"site": sha, "docs-site": sha}


def test_the_same_commit_again_is_unchanged(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    before = (world.live / "site/index.html").stat()
    done = world.deploy()
    after = (world.live / "site/index.html").stat()
    assert (done["status"], done["services"]) == ("unchanged", [])
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_one_changed_service_leaves_the_other_alone(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    inode = (world.live / "manual/m.txt").stat().st_ino
    sha = world.publish({"site/index.html": "<h1>two</h1>\n", "site/new.txt": "n\n", "site/css/a.css": None})
    plan = world.json("plan")
    assert [row["service"] for row in plan["services"] if row["actions"]] == ["site"]
    assert plan["paths"] == {"added": 1, "modified": 1, "deleted": 1}
    done = world.deploy()
    assert (done["status"], done["services"], done["sha"]) == ("deployed", ["site"], sha)
    assert world.text("site/index.html") == "<h1>two</h1>\n"
    assert world.text("site/new.txt") == "n\n"
    assert not (world.live / "site/css/a.css").exists()
    assert (world.live / "manual/m.txt").stat().st_ino == inode


def test_a_push_that_touches_only_documentation_deploys_nothing(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    inode = (world.live / "site/index.html").stat().st_ino
    world.publish({"README.md": "words\n", "notes/plan.md": "more\n"})
    assert world.json("plan")["deployable"] is False
    done = world.deploy()
    assert (done["status"], done["services"], done["exitCode"]) == ("unchanged", [], 0)
    assert (world.live / "site/index.html").stat().st_ino == inode


def test_exactly_the_named_commit_goes_live_not_the_tip(world: World) -> None:
    first = world.project(TWO, FILES)
    world.publish({"site/index.html": "<h1>newer</h1>\n"})
    assert world.deploy(first)["sha"] == first
    assert world.text("site/index.html") == "<h1>one</h1>\n"


def test_a_commit_the_branch_does_not_reach_is_refused(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    world.git("checkout", "-q", "-b", "side")
    world.write({"site/index.html": "<h1>side</h1>\n"})
    side = world.commit("on a side branch")
    world.git("push", "-q", "origin", "side")
    world.git("checkout", "-q", "main")
    done = world.deploy(side, ok=(3,))
    assert (done["ok"], done["status"]) == (False, "refused")
    assert world.text("site/index.html") == "<h1>one</h1>\n"


def test_a_scoped_deploy_does_not_hide_the_other_services_change(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    world.publish({"site/index.html": "<h1>two</h1>\n", "manual/m.txt": "m2\n"})
    assert world.deploy("main", "site")["services"] == ["site"]
    assert world.text("manual/m.txt") == "m1\n"
    assert world.deploy()["services"] == ["docs-site"]
    assert world.text("manual/m.txt") == "m2\n"


def test_protected_files_stay_and_are_never_reported(world: World) -> None:
    world.project(TWO, FILES)
    world.deploy()
    kept = {"site/.env": "SECRET=1\n", "site/node_modules/x/i.js": "1\n", "site/old.bak1": "b\n"}
    for name, text in kept.items():
        path = world.live / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert world.json("drift")["equal"] is True
    world.publish({"site/index.html": "<h1>two</h1>\n"})
    world.deploy()
    assert {name: world.text(name) for name in kept} == kept
