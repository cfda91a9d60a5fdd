"""D5 D11: what a commit concerns is decided per service: source, ignore, watch, uses, actions; nothing else runs."""

from __future__ import annotations

from tests.world import World

SERVICES = """
[services.lib]
source = "packages/lib"

[services.api]
source = "api"
target = "{live}/api"
ignore = ["*.md", "test/"]
uses = ["lib"]
watch = ["config/*.json"]
runtime = "command"
command = ["sh", "-c", "echo started >> {live}/api.log"]

[services.site]
source = "site"
target = "{live}/site"
uses = ["theme/colours.txt"]

[[actions]]
paths = ["proxy/*.conf"]
validate = ["sh", "-c", "! grep -r broken {live}/../clone/proxy"]
run = ["sh", "-c", "echo reloaded >> {live}/proxy.log"]
"""
FILES: dict[str, str | None] = {
    "packages/lib/a.txt": "1\n", "api/server.sh": "1\n", "api/README.md": "1\n", "api/test/t.txt": "1\n",
    "config/app.json": "{}\n", "config/notes.txt": "1\n", "site/index.html": "1\n", "theme/colours.txt": "red\n",
    "proxy/site.conf": "one\n",
}  # fmt: skip


def starts(world: World) -> int:
    path = world.live / "api.log"
    return len(path.read_text().splitlines()) if path.exists() else 0


def concerned(world: World, files: dict[str, str | None]) -> set[str]:
    """Publishes a change; the services that the plan names for it."""
    world.publish(files)
    return {row["service"] for row in world.json("plan")["services"]}


def test_each_kind_of_path_concerns_exactly_the_services_that_name_it(world: World) -> None:
    world.project(SERVICES, FILES)
    assert world.deploy()["status"] == "deployed"
    began = starts(world)

    assert concerned(world, {"packages/lib/a.txt": "2\n"}) == {"api"}
    assert set(world.deploy()["services"]) == {"api"}
    assert starts(world) == began + 1

    assert concerned(world, {"config/app.json": '{"a":1}\n'}) == {"api"}
    world.deploy()
    assert starts(world) == began + 2

    assert concerned(world, {"theme/colours.txt": "blue\n"}) == set()
    assert concerned(world, {"config/notes.txt": "2\n", "elsewhere/x.txt": "x\n"}) == set()
    assert world.deploy()["status"] == "unchanged"
    assert starts(world) == began + 2


def test_an_ignored_path_is_put_in_place_without_a_restart(world: World) -> None:
    world.project(SERVICES, FILES)
    world.deploy()
    began = starts(world)
    world.publish({"api/README.md": "2\n", "api/test/t.txt": "2\n"})
    assert world.deploy()["status"] == "deployed"
    assert world.text("api/README.md") == "2\n"
    assert starts(world) == began


def test_a_plan_says_how_much_concerns_each_service(world: World) -> None:
    """D5: counts of paths and lines, from the service's own last success; binary files have no lines."""
    world.project(SERVICES, FILES)
    world.deploy()
    world.publish({"site/index.html": "2\n3\n", "site/new.txt": "a\nb\nc\n"})
    (world.clone / "site/picture").write_bytes(bytes(range(256)))
    world.publish({"docs.md": "no service\n"})
    plan = world.json("plan")
    assert plan["extent"] == {"site": {"paths": 3, "inserted": 5, "removed": 1}}
    assert (plan["paths"]["added"], plan["paths"]["modified"]) == (3, 1)
    assert "3 paths, +5 -1 lines" in world.homeport("plan").stdout
    world.deploy()
    assert world.json("plan")["extent"] == {}


def test_an_action_runs_for_its_paths_once_and_not_again(world: World) -> None:
    world.project(SERVICES, FILES)
    world.deploy()
    assert world.text("proxy.log") == "reloaded\n"
    world.publish({"site/index.html": "2\n"})
    world.deploy()
    assert world.text("proxy.log") == "reloaded\n"
    world.publish({"proxy/site.conf": "two\n", "api/README.md": "2\n"})
    plan = world.json("plan")
    assert (plan["deployable"], plan["quiet"]) == (True, False)
    assert plan["actions"] == [{"paths": ["proxy/*.conf"], "runs": True, "service": None}]
    assert plan["services"] == [{"service": "api", "reasons": ["api/README.md"], "actions": ["sync"]}]
    assert "action  for proxy/*.conf" in world.homeport("plan").stdout
    assert world.deploy()["status"] == "deployed"
    assert world.text("proxy.log") == "reloaded\nreloaded\n"


def test_an_action_whose_validation_fails_does_not_run(world: World) -> None:
    world.project(SERVICES, FILES)
    world.deploy()
    world.publish({"proxy/site.conf": "broken\n"})
    assert world.deploy(ok=(1,))["ok"] is False
    assert world.text("proxy.log") == "reloaded\n"


def test_a_used_folder_makes_a_new_build(world: World) -> None:
    world.project(
        """
[services.web]
source = "web"
target = "{live}/web"
uses = ["shared/ui"]
build = { run = ["sh", "-c", "mkdir -p dist && date +%N > dist/stamp"], outputs = ["dist"] }
""",
        {"web/a.txt": "1\n", "shared/ui/b.txt": "1\n", ".gitignore": "dist/\n"},
    )
    world.deploy()
    first = world.text("web/dist/stamp")
    world.publish({"unrelated.txt": "1\n"})
    assert world.deploy()["status"] == "unchanged"
    assert world.text("web/dist/stamp") == first
    world.publish({"shared/ui/b.txt": "2\n"})
    assert world.deploy()["services"] == ["web"]
    assert world.text("web/dist/stamp") != first


def test_two_services_of_one_live_checkout_build_apart(world: World) -> None:
    text = """
[services.one]
source = "one"
build = { run = ["sh", "-c", "mkdir -p dist && cat a.txt > dist/out"], outputs = ["dist"] }

[services.two]
source = "two"
build = { run = ["sh", "-c", "mkdir -p dist && cat a.txt ../one/a.txt > dist/out"], outputs = ["dist"] }
"""
    world.publish({
        "homeport.toml": f'[project]\nname = "shop"\ntarget = "{world.live}/all"\n'
                         f'[environments.production]\nbranch = "main"\n{text}',
        "one/a.txt": "1\n", "two/a.txt": "2\n", ".gitignore": "dist/\n", "top.txt": "t\n",
    })  # fmt: skip
    assert world.deploy()["status"] == "deployed"
    assert (world.text("all/one/dist/out"), world.text("all/two/dist/out")) == ("1\n", "2\n1\n")
    assert world.json("drift")["equal"] is True
    world.publish({"one/a.txt": "11\n"})
    assert world.deploy()["services"] == ["one"]
    assert (world.text("all/one/dist/out"), world.text("all/two/dist/out")) == ("11\n", "2\n1\n")
    world.json("rollback")
    assert (world.text("all/one/dist/out"), world.text("all/two/dist/out")) == ("1\n", "2\n1\n")


def test_an_edit_that_is_put_back_restarts_what_may_run_it(world: World) -> None:
    world.project(SERVICES, FILES)
    world.deploy()
    began = starts(world)
    (world.live / "api/server.sh").write_text("by hand\n")
    world.publish({"site/index.html": "2\n"})
    assert world.deploy("--discard-drift")["status"] == "deployed"
    assert starts(world) == began + 1
