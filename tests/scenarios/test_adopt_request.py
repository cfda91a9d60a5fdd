"""A10 B5: the branch becomes a request on the forge, is merged when asked, and a fault of the forge loses nothing."""

from __future__ import annotations

from tests.forges.fakes import TOKEN
from tests.forges.server import Answer
from tests.scenarios.hosted import Forged
from tests.scenarios.test_adopt import FILES, SITE, branches, touched
from tests.world import World


def test_a_request_is_opened_against_the_environments_branch(forged: Forged) -> None:
    said = forged.run("adopt", "--message", "Say other things").last
    (pull,) = forged.fake.pulls
    assert (pull["head"], pull["base"], pull["sha"]) == (said["branch"], "main", said["commit"])
    assert said["request"] and str(pull["number"]) in said["request"]
    (edit,) = forged.run("edits").last["edits"]
    assert (edit["state"], edit["branch"], edit["request"]) == ("adopted", said["branch"], said["request"])
    assert TOKEN not in str(said)


def test_merge_squashes_deletes_the_branch_and_the_next_deploy_closes_the_edit(forged: Forged) -> None:
    said = forged.run("adopt", "--merge").last
    assert said["merged"] is True
    assert branches(forged.world) == ["main"]
    assert [row["state"] for row in forged.run("edits").last["edits"]] == ["merged"]
    assert forged.run("deploy").last["ok"] is True
    assert forged.run("edits").last["edits"] == []
    assert forged.world.text("site/other.txt") == "by hand\n"


def test_merging_later_goes_on_with_the_same_branch(gitea: Forged) -> None:
    first = gitea.run("adopt").last
    (row,) = gitea.run("drift", ok=(3,)).last["services"][0]["paths"]
    assert (row["adopted"], row["foreign"]) == (first["request"], None)
    said = gitea.run("adopt", "--merge").last
    shown = gitea.world.homeport("drift", ok=(3,), env={"SHOP_FORGE": TOKEN}).stdout
    assert f"adopted: {first['request']}; merged as" in shown and "another deployer" not in shown, shown
    assert "homeport deploy " in shown and "homeport record" not in shown and "homeport adopt" not in shown, shown
    assert (said["branch"], said["commit"], said["merged"]) == (first["branch"], first["commit"], True)
    assert len(gitea.fake.pulls) == 1


def test_a_request_merged_on_the_forge_is_seen(gitea: Forged) -> None:
    said = gitea.run("adopt").last
    gitea.fake.merge_now("1", said["commit"])
    assert [row["state"] for row in gitea.run("edits").last["edits"]] == ["merged"]


def test_a_forge_that_fails_after_the_push_is_told_and_gone_on_with(gitea: Forged) -> None:
    """Whatever it refuses, one branch is pushed, no edit is lost, and asked again it comes to one request; the rest is in
    test_adopt_forge_faults.py."""
    said = {401: "forge-denied", 403: "forge-denied", 404: "forge-missing", 422: "forge-refused"}
    for status, code in said.items():
        gitea.fake.queued = [Answer(status, {"message": "down"})] * 8
        ran = gitea.run("adopt", ok=(1, 3))
        (branch,) = [name for name in branches(gitea.world) if name != "main"]
        assert f"branch {branch} is pushed" in ran.last["what"] and ran.last["code"] == code, ran.last
        assert "homeport adopt" in ran.last["next"]
    assert [(row["state"], row["branch"]) for row in gitea.run("edits").last["edits"]] == [("adopted", branch)]
    gitea.fake.queued = []
    said = gitea.run("adopt").last
    assert (said["branch"], len(gitea.fake.pulls)) == (branch, 1)
    assert touched(gitea.world, branch) == ["M\tsite/other.txt"]


def test_a_request_that_cannot_be_merged_stays_open(gitea: Forged) -> None:
    gitea.fake.refuse_merge = 405
    ran = gitea.run("adopt", "--merge", ok=(3,))
    assert ran.last["code"] == "not-mergeable"
    assert [row["state"] for row in gitea.run("edits").last["edits"]] == ["adopted"]


def test_without_its_token_nothing_is_pushed(gitea: Forged) -> None:
    ran = gitea.world.homeport("--json", "adopt", ok=(2,))
    assert ran.last["code"] == "no-secret" and "SHOP_FORGE" in ran.last["what"]
    assert branches(gitea.world) == ["main"]


def test_merge_without_a_forge_is_refused_before_anything_is_pushed(world: World) -> None:
    world.project(SITE, FILES)
    world.deploy()
    (world.live / "site/other.txt").write_text("by hand\n")
    assert world.json("adopt", "--merge", ok=(3,))["code"] == "no-forge"
    assert branches(world) == ["main"]


def test_a_forge_without_a_token_names_the_page_to_open(world: World) -> None:
    world.project(SITE + '\n[forge]\nkind = "github"\nrepo = "octo/shop"\n', FILES)
    world.deploy()
    (world.live / "site/other.txt").write_text("by hand\n")
    said = world.json("adopt", "--branch", "fix/other")
    assert (said["request"], said["pushed"]) == (None, True)
    assert said["page"].startswith("https://github.com/octo/shop/compare/main...fix/other")
    shown = world.homeport("adopt").stdout
    assert "https://github.com/octo/shop/compare/main...fix/other" in shown
