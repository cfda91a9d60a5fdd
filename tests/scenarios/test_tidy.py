"""E1: the mirror is tidied behind a deploy, and what no branch and no record names any more is in it still."""

from __future__ import annotations

from homeport.doors.git import Mirror
from homeport.doors.shell import LocalShell
from tests.test_tidy_mirror import lying, scattered
from tests.world import World, eventually


def test_a_deploy_tidies_the_mirror_behind_it(world: World) -> None:
    world.project('\n[services.site]\nsource = "site"\ntarget = "{live}/site"\n', {"site/a.txt": "one\n"})
    world.deploy()
    objects = world.state / "shop/repo.git/objects"
    made = scattered(objects, 4000)
    world.publish({"site/a.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: lying(objects)[0] < 100, "the loose objects are packed", 60)
    mirror = Mirror.open_or_create(str(world.state / "shop/repo.git"), str(world.origin), LocalShell())
    assert all(mirror.has(oid) for oid in made)
    assert world.json("drift")["equal"] and world.json("rollback")["status"] == "deployed"
