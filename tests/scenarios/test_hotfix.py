"""B2 B4 B5 B8: a hotfix made on the production host at night, from the editor there to the closed edit."""

from __future__ import annotations

from tests.scenarios.test_try import elsewhere, protect, squash
from tests.world import World

API = """
[services.api]
source  = "api"
target  = "{live}/api"
runtime = "command"
command = "cp out/app.txt running.txt"
protect = ["running.txt"]

  [services.api.build]
  run = "mkdir -p out && cat src.txt lib.txt > out/app.txt"
  outputs = ["out"]
"""
FILES: dict[str, str | None] = {"api/src.txt": "timeout 1\nsecond line\nthird line\n", "api/lib.txt": "lib\n"}


def test_a_hotfix_is_rebuilt_there_kept_by_every_deploy_and_comes_back_through_a_request(world: World) -> None:
    world.project(API, FILES, 'edit_warning = "1ms"\ntry = true\n')
    world.deploy()
    protect(world)
    source, running = world.live / "api/src.txt", world.live / "api/running.txt"
    assert running.read_text() == "timeout 1\nsecond line\nthird line\nlib\n"

    source.write_text("timeout 60\nsecond line\nthird line\n")
    assert world.json("rebuild", "api")["status"] == "deployed"
    assert running.read_text().startswith("timeout 60\n")
    (edit,) = world.json("edits")["edits"]
    assert (edit["path"], edit["state"], edit["old"]) == ("src.txt", "open", True), "a rebuild hides no edit"
    status = world.json("status")
    assert (status["edits"], [e["path"] for e in status["oldEdits"]]) == (1, ["src.txt"])

    elsewhere(world, {"api/lib.txt": "newer lib\n"})
    assert world.deploy(ok=(3,))["errorCode"] == "drift", "the commit does not touch the edited file"
    world.git("pull", "-q", "--rebase", "origin", "main")
    assert world.json("try", ok=(3,))["errorCode"] == "drift", "a try takes it away no more than a deploy"
    elsewhere(world, {"api/src.txt": "timeout 1\nsecond line\nthird line, longer\n"})
    assert world.deploy(ok=(3,))["errorCode"] == "conflict", "now it does"
    assert running.read_text().startswith("timeout 60\n")

    said = world.json("adopt", "--message", "Wait longer")
    assert said["paths"] == ["api/src.txt"]
    merged = world.git("show", f"{said['branch']}:api/src.txt", cwd=world.origin)
    assert merged == "timeout 60\nsecond line\nthird line, longer"
    assert world.deploy(ok=(3,))["errorCode"] == "conflict", "a branch is not merged yet"
    squash(world, said["branch"])
    done = world.deploy()
    assert done["status"] == "deployed"
    assert source.read_text() == "timeout 60\nsecond line\nthird line, longer\n"
    assert running.read_text() == "timeout 60\nsecond line\nthird line, longer\nnewer lib\n"
    assert (world.json("edits")["edits"], world.json("drift")["equal"]) == ([], True)
    (closed,) = world.json("edits", "--all")["edits"]
    assert (closed["state"], closed["branch"]) == ("closed", said["branch"])
    mirror = world.state / "shop/repo.git"
    assert "adopt/" not in world.git("for-each-ref", "refs/homeport/", cwd=mirror), "nothing is left over"


def test_an_edit_outlives_the_name_of_its_service(world: World) -> None:
    world.project(API, FILES)
    world.deploy()
    (world.live / "api/src.txt").write_text("by hand\n")
    (before,) = world.json("edits")["edits"]
    world.publish({"homeport.toml": (world.clone / "homeport.toml").read_text().replace("services.api", "services.web")})
    planned = world.json("plan", ok=(3,))
    assert planned["code"] == "claimed" and "homeport deploy" in planned["next"]
    kept = world.homeport("--json", "deploy", "--keep-drift")
    assert kept.last["status"] in ("deployed", "unchanged")
    assert any(line.get("code") == "renamed" for line in kept.lines)
    (after,) = world.json("edits")["edits"]
    assert (after["id"], after["since"], after["service"]) == (before["id"], before["since"], "web")
    assert world.json("adopt")["paths"] == ["api/src.txt"]
    services = {s["service"]: s["drift"] for s in world.json("status")["services"]}
    assert services == {"web": 1}
