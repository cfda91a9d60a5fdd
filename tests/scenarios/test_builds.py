"""E2 E3: builds run beside the live folder, their outputs are swapped in, and come back without a build."""

from __future__ import annotations

import os

import pytest

from tests.conftest import let_everybody_in
from tests.world import World

SITE = """
[services.web]
source = "web"
target = "{live}/web"

  [services.web.build]
  run = ["sh", "build.sh"]
  outputs = ["dist"]
"""
BUILD = """\
set -e
rm -rf dist; mkdir dist
echo "built from $(cat page.txt)" > dist/index.html
echo "$HOMEPORT_SHA" > dist/sha.txt
"""


@pytest.fixture
def built(world: World) -> World:
    world.project(SITE, {"web/build.sh": BUILD, "web/page.txt": "one\n", ".gitignore": "dist/\n"})
    assert world.deploy()["status"] == "deployed"
    return world


def test_outputs_of_a_build_go_live(built: World) -> None:
    assert built.text("web/dist/index.html") == "built from one\n"
    assert built.text("web/dist/sha.txt").strip() == built.git("rev-parse", "HEAD")
    assert built.json("drift")["equal"] is True


def test_a_failing_build_never_touches_the_live_folder(built: World) -> None:
    built.publish({"web/build.sh": "mkdir -p dist; echo half > dist/index.html; echo no luck >&2; exit 7\n",
                   "web/page.txt": "two\n"})  # fmt: skip
    events = built.homeport("--json", "deploy", ok=(1,)).lines
    assert (events[-1]["status"], events[-1]["exitCode"]) == ("failed", 1)
    assert "no luck" in [e["line"] for e in events if e["type"] == "deploy.log"]
    assert built.text("web/dist/index.html") == "built from one\n"
    assert built.text("web/page.txt") == "one\n"
    assert built.text("web/build.sh") == BUILD


def test_a_build_that_forgets_its_output_fails(built: World) -> None:
    built.publish({"web/build.sh": "rm -rf dist\n"})
    assert built.deploy(ok=(1,))["status"] == "failed"
    assert built.text("web/dist/index.html") == "built from one\n"


def test_a_new_build_replaces_the_old_outputs_whole(built: World) -> None:
    built.publish({"web/page.txt": "two\n", "web/build.sh": BUILD.replace("sha.txt", "commit.txt")})
    assert built.deploy()["status"] == "deployed"
    assert built.text("web/dist/index.html") == "built from two\n"
    assert sorted(p.name for p in (built.live / "web/dist").iterdir()) == ["commit.txt", "index.html"]


def test_rolling_back_restores_kept_outputs_without_a_build(built: World) -> None:
    built.publish({"web/page.txt": "two\n"})
    built.deploy()
    events = built.homeport("--json", "rollback").lines
    assert events[-1]["status"] == "deployed"
    assert built.text("web/dist/index.html") == "built from one\n"
    assert built.text("web/page.txt") == "one\n"
    assert not [e for e in events if e["type"] == "deploy.log"]


def test_the_build_says_what_it_prints_while_it_runs(built: World) -> None:
    built.publish({"web/build.sh": BUILD + "echo first; echo second >&2\n"})
    lines = [
        (e["stream"], e["line"])
        for e in built.homeport("--json", "deploy").lines
        if e["type"] == "deploy.log"
    ]
    assert ("stdout", "first") in lines
    assert ("stderr", "second") in lines


VENV = """
[services.web]
source = "web"
target = "{live}/web"
runtime = "command"
command = ["sh", "-c", "{live}/web/.venv/bin/tool > {live}/said.txt"]

  [services.web.build]
  run = ["sh", "build.sh"]
  outputs = [".venv"]
"""
VENV_BUILD = """\
set -e
rm -rf .venv
/usr/bin/python3 -m venv --without-pip .venv 2>/dev/null || python3 -m venv --without-pip .venv
printf '#!%s/.venv/bin/python\\nimport sys; print(sys.prefix, open("%s/page.txt").read().strip())\\n' \\
  "$PWD" "$PWD" > .venv/bin/tool
chmod +x .venv/bin/tool
"""


def test_a_virtual_environment_built_beside_runs_at_its_live_path(world: World) -> None:
    world.project(VENV, {"web/build.sh": VENV_BUILD, "web/page.txt": "one\n", ".gitignore": ".venv/\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("said.txt").split() == [str(world.live / "web/.venv"), "one"]
    world.publish({"web/page.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("said.txt").split() == [str(world.live / "web/.venv"), "two"]
    world.json("rollback")
    assert world.text("said.txt").split() == [str(world.live / "web/.venv"), "one"]


def test_a_build_cannot_see_homeports_state(world: World) -> None:
    spy = f"ls -A {world.state} > seen.txt 2>&1 || true; mkdir -p dist; cp seen.txt dist/\n"
    world.project(SITE, {"web/build.sh": spy, "web/page.txt": "1\n", ".gitignore": "dist/\nseen.txt\n"})
    assert world.deploy()["status"] == "deployed"
    assert "shop" not in world.text("web/dist/seen.txt")


IN_PLACE = SITE.replace('outputs = ["dist"]', 'outputs = ["dist"]\n  where = "live"')


def test_a_build_that_must_run_in_the_live_folder_does_and_is_redone_by_a_rollback(world: World) -> None:
    world.project(IN_PLACE, {"web/build.sh": BUILD, "web/page.txt": "one\n", ".gitignore": "dist/\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("web/dist/index.html") == "built from one\n"
    assert world.deploy()["status"] == "unchanged"
    world.publish({"web/build.sh": BUILD + "exit 3\n", "web/page.txt": "two\n"})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert world.text("web/page.txt") == "one\n"
    assert world.text("web/dist/index.html") == "built from one\n"


def test_only_the_newest_outputs_are_kept_and_the_host_may_limit_their_size(built: World) -> None:
    def kept() -> int:
        (row,) = [row for row in built.json("doctor")["checks"] if row["name"] == "kept outputs of web"]
        return int(row["detail"].split()[0])

    for number in range(7):
        built.publish({"web/page.txt": f"page {number}\n"})
        built.deploy()
    assert kept() == 4
    built.host_file.write_text(built.host_file.read_text() + '[limits]\noutputs = "100000"\n')
    built.homeport("status", ok=(2,))
    built.host_file.write_text(built.host_file.read_text().replace('"100000"', "1"))
    built.publish({"web/page.txt": "last\n"})
    built.deploy()
    assert kept() == 0
    assert built.text("web/dist/index.html") == "built from last\n"


HISTORY = """\
set -e
mkdir -p out
git log --format=%s > out/log
git describe --tags > out/tag
git status --porcelain > out/status
git rev-parse --abbrev-ref HEAD > out/branch
git cat-file -e $(cat other) 2>/dev/null && echo reached > out/other || echo absent > out/other
[ -w "$(cat .git/objects/info/alternates)" ] && echo writable > out/store || echo read-only > out/store
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root builds as another user")
def test_a_build_with_git_reads_the_history_of_its_commit_and_nothing_else(world: World) -> None:
    world.host_file.write_text(world.host_file.read_text() + 'users = ["nobody"]\n')
    let_everybody_in(world.root)
    world.git("commit", "-q", "--allow-empty", "-m", "elsewhere")
    world.git("push", "-q", "origin", "HEAD:other")
    other = world.git("rev-parse", "HEAD")
    world.git("checkout", "-q", "--orphan", "fresh")
    site = SITE.replace('source = "web"', 'source = "."\nuser = "nobody"').replace("dist", "out")
    files: dict[str, str | None] = {"build.sh": HISTORY, "other": other + "\n", ".gitignore": "out/\n"}
    world.project(site + "  git = true\n", files)
    world.git("tag", "v1")
    world.git("push", "-q", "origin", "v1")
    assert world.deploy()["status"] == "deployed"
    said = {path.name: path.read_text() for path in (world.live / "web/out").iterdir()}
    assert said == {"log": "first version\n", "tag": "v1\n", "status": "", "branch": "main\n", "other": "absent\n",
                    "store": "read-only\n"}  # fmt: skip
    world.publish({"more": "1\n"}, "second")
    assert world.deploy()["status"] == "deployed"
    assert world.text("web/out/log") == "second\nfirst version\n"
    assert world.text("web/out/tag").startswith("v1-1-g")
