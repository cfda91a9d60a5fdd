"""A7 A9 B8: an edit on the host has a life that anybody can follow, from the first look until everything agrees."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.scenarios.test_adopt import FILES, SITE, squash
from tests.world import World


@pytest.fixture
def deployed(world: World) -> World:
    world.project(SITE, FILES)
    world.deploy()
    return world


@pytest.fixture
def edited(deployed: World) -> World:
    (deployed.live / "site/other.txt").write_text("by hand\n")
    return deployed


def states(world: World, *args: str) -> dict[str, str]:
    return {row["path"]: row["state"] for row in world.json("edits", *args)["edits"]}


def the_edit(world: World, *args: str) -> dict[str, Any]:
    (row,) = world.json("edits", *args)["edits"]
    return dict(row)


def test_an_edit_lives_from_open_over_adopted_and_merged_to_closed(edited: World) -> None:
    opened = the_edit(edited)
    assert (opened["service"], opened["path"], opened["state"], opened["branch"]) == ("site", "other.txt", "open", None)
    branch = edited.json("adopt")["branch"]
    adopted = the_edit(edited)
    assert (adopted["id"], adopted["state"], adopted["branch"]) == (opened["id"], "adopted", branch)
    assert adopted["since"] == opened["since"]
    assert adopted["by"]
    squash(edited, branch)
    assert the_edit(edited)["state"] == "merged"
    assert edited.deploy()["status"] in ("deployed", "unchanged")
    assert edited.json("edits")["edits"] == []
    assert edited.text("site/other.txt") == "by hand\n"
    assert the_edit(edited, "--all")["state"] == "closed"


def test_an_edit_that_is_merged_but_not_deployed_stays_in_the_list(edited: World) -> None:
    squash(edited, edited.json("adopt")["branch"])
    for _ in range(2):
        assert states(edited) == {"other.txt": "merged"}
    assert edited.json("drift", ok=(3,))["equal"] is False


def test_an_edit_undone_by_hand_is_closed(edited: World) -> None:
    assert states(edited) == {"other.txt": "open"}
    (edited.live / "site/other.txt").write_text("other\n")
    assert states(edited) == {}
    assert states(edited, "--all") == {"other.txt": "closed"}


def test_another_edit_of_an_adopted_file_is_open_again(edited: World) -> None:
    edited.json("adopt")
    (edited.live / "site/other.txt").write_text("by hand, again\n")
    row = the_edit(edited)
    assert (row["state"], row["branch"]) == ("open", None)


def test_a_discarded_edit_says_so_and_is_saved(edited: World) -> None:
    edited.homeport("discard", "site/other.txt")
    assert states(edited) == {}
    assert states(edited, "--all") == {"other.txt": "discarded"}
    assert [row["path"] for row in edited.json("rescue", "list")["rescues"]] == ["other.txt"]


def test_a_deploy_that_discards_drift_ends_the_edit(edited: World) -> None:
    edited.publish({"site/third.txt": "33\n"})
    edited.deploy("--discard-drift")
    assert states(edited, "--all") == {"other.txt": "discarded"}


def test_a_deploy_that_is_refused_records_the_edit(edited: World) -> None:
    edited.publish({"site/third.txt": "33\n"})
    edited.deploy(ok=(3,))
    assert states(edited, "--all") == {"other.txt": "open"}


def test_a_deploy_that_keeps_drift_leaves_the_edit_open(edited: World) -> None:
    edited.publish({"site/third.txt": "33\n"})
    edited.deploy("--keep-drift")
    assert states(edited) == {"other.txt": "open"}


def test_an_edit_that_arrives_by_another_way_is_closed(edited: World) -> None:
    first = the_edit(edited)["id"]
    edited.publish({"site/other.txt": "by hand\n"})
    edited.deploy()
    assert states(edited) == {}
    row = the_edit(edited, "--all")
    assert (row["id"], row["state"]) == (first, "closed")


def test_a_plan_records_nothing(edited: World) -> None:
    edited.publish({"site/third.txt": "33\n"})
    edited.json("plan", ok=None)
    database = edited.state / "shop/production/homeport.db"
    import sqlite3

    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("SELECT count(*) FROM edits").fetchone() == (0,)


def test_each_path_has_its_own_edit(edited: World) -> None:
    (edited.live / "site/third.txt").unlink()
    (edited.live / "site/new.txt").write_text("new\n")
    assert states(edited) == {"other.txt": "open", "third.txt": "open", "new.txt": "open"}
    edited.json("adopt", "site/third.txt")
    edited.homeport("discard", "site/new.txt")
    assert states(edited) == {"other.txt": "open", "third.txt": "adopted"}


# Accepted edits.


def test_an_accepted_edit_does_not_refuse_a_deploy_and_stays_visible(edited: World) -> None:
    edited.publish({"site/third.txt": "33\n"})
    edited.deploy(ok=(3,))
    said = edited.json("accept", "site/other.txt", "--because", "load test", "--until", "7d")
    assert [row["path"] for row in said["accepted"]] == ["other.txt"]
    assert edited.deploy()["status"] == "deployed"
    assert (edited.text("site/other.txt"), edited.text("site/third.txt")) == ("by hand\n", "33\n")
    (path,) = edited.json("drift", ok=(3,))["services"][0]["paths"]
    assert "load test" in path["accepted"]
    row = the_edit(edited)
    assert (row["state"], row["because"]) == ("accepted", "load test")
    assert row["by"] and row["until"]


def test_an_accepted_edit_is_not_discarded_by_a_deploy_that_discards(edited: World) -> None:
    (edited.live / "site/index.html").write_text("also by hand\n")
    edited.json("accept", "site/other.txt", "--because", "load test", "--until", "7d")
    edited.publish({"site/third.txt": "33\n"})
    edited.deploy("--discard-drift")
    assert edited.text("site/other.txt") == "by hand\n"
    assert edited.text("site/index.html") == FILES["site/index.html"]


def test_a_commit_that_changes_an_accepted_path_is_refused(edited: World) -> None:
    edited.json("accept", "site/other.txt", "--because", "load test", "--until", "7d")
    edited.publish({"site/other.txt": "from git\n"})
    assert edited.deploy(ok=(3,))["status"] == "refused"
    assert edited.text("site/other.txt") == "by hand\n"


def test_another_edit_of_an_accepted_file_has_to_be_decided_anew(edited: World) -> None:
    edited.json("accept", "site/other.txt", "--because", "load test", "--until", "7d")
    (edited.live / "site/other.txt").write_text("something else\n")
    edited.publish({"site/third.txt": "33\n"})
    assert edited.deploy(ok=(3,))["status"] == "refused"
    assert states(edited) == {"other.txt": "open"}


def test_an_acceptance_ends_at_its_hour(edited: World) -> None:
    edited.json("accept", "site/other.txt", "--because", "load test", "--until", "1ms")
    edited.publish({"site/third.txt": "33\n"})
    assert edited.deploy(ok=(3,))["status"] == "refused"
    assert states(edited) == {"other.txt": "open"}
    assert edited.json("drift", ok=(3,))["services"][0]["paths"][0]["accepted"] is None


@pytest.mark.parametrize("until", ["yesterday", "2001-01-01", "-1d", "", "99999999d"])
def test_an_acceptance_needs_a_time_to_come(edited: World, until: str) -> None:
    ran = edited.homeport("--json", "accept", "site/other.txt", "--because", "x", f"--until={until}", ok=(2,))
    assert ran.last["code"] == "until"
    assert states(edited) == {"other.txt": "open"}


def test_an_acceptance_needs_a_reason_and_a_path_with_drift(edited: World) -> None:
    assert edited.json("accept", "site/other.txt", "--because", " ", "--until", "7d", ok=(2,))["code"] == "because"
    edited.homeport("accept", "site/other.txt", "--until", "7d", ok=(2,))
    assert edited.json("accept", "site/third.txt", "--because", "x", "--until", "7d", ok=(3,))["code"] == "no-drift"


def test_adopting_everything_leaves_accepted_edits_out_and_naming_one_takes_it(edited: World) -> None:
    edited.json("accept", "site/other.txt", "--because", "load test", "--until", "2099-01-31")
    (edited.live / "site/third.txt").write_text("mine\n")
    said = edited.json("adopt")
    assert said["paths"] == ["site/third.txt"]
    assert said["skipped"] == [{"path": "site/other.txt", "because": "accepted: load test"}]
    assert edited.json("adopt", "site/other.txt")["paths"] == ["site/other.txt"]
    assert states(edited) == {"other.txt": "adopted", "third.txt": "adopted"}


# Age.


def test_status_warns_about_edits_that_nobody_decided_about(world: World) -> None:
    world.project(SITE, FILES, environment='edit_warning = "1ms"')
    world.deploy()
    assert world.json("status")["oldEdits"] == []
    (world.live / "site/other.txt").write_text("by hand\n")
    world.json("edits")
    said = world.json("status")
    assert [(row["path"], row["state"]) for row in said["oldEdits"]] == [("other.txt", "open")]
    shown = world.homeport("status").stdout
    assert "undecided 1 edit" in shown and "other.txt" in shown
    world.json("accept", "site/other.txt", "--because", "load test", "--until", "7d")
    assert world.json("status")["oldEdits"] == []


def test_a_young_edit_is_counted_and_not_warned_about(edited: World) -> None:
    said = edited.json("status")
    assert (said["edits"], said["oldEdits"]) == (1, [])


def test_the_list_for_a_person_names_what_to_do(edited: World) -> None:
    shown = edited.homeport("edits").stdout
    assert "site:other.txt" in shown and "open" in shown and "homeport adopt" in shown
    edited.json("adopt")
    assert "adopted" in edited.homeport("edits").stdout
    assert edited.homeport("check").stdout.count("edit_warning") == 0


def test_edits_of_services_that_share_a_checkout_carry_the_services_name(world: World) -> None:
    text = '[project]\nname = "shop"\ntarget = "{live}/all"\n\n[environments.production]\nbranch = "main"\n'
    text += '\n[services.site]\nsource = "site"\n\n[services.docs]\nsource = "docs"\n'
    world.publish({"homeport.toml": text.replace("{live}", str(world.live)), "docs/a.txt": "a\n", **FILES})
    world.deploy()
    (world.live / "all/docs/a.txt").write_text("b\n")
    (world.live / "all/README.md").write_text("b\n")
    rows = {row["path"]: row["service"] for row in world.json("edits")["edits"]}
    assert rows == {"docs/a.txt": "docs", "README.md": "_project"}
    assert world.json("adopt", "docs")["paths"] == ["docs/a.txt"]


def test_a_service_that_is_the_whole_shared_checkout_shows_all_of_its_drift_and_changes(world: World) -> None:
    text = '[project]\nname = "shop"\ntarget = "{live}/all"\n\n[environments.production]\nbranch = "main"\n'
    text += '\n[services.all]\nsource = "."\n\n[services.docs]\nsource = "docs"\n'
    world.publish({"homeport.toml": text.replace("{live}", str(world.live)), "docs/a.txt": "a\n", **FILES})
    assert {tuple(one["actions"]) for one in world.json("plan")["services"]} == {("sync",)}
    world.deploy()
    (world.live / "all/docs/a.txt").write_text("b\n")
    (world.live / "all/README.md").write_text("b\n")
    assert {one["service"]: one["drift"] for one in world.json("status")["services"]} == {"all": 2, "docs": 1}
    (drift,) = world.homeport("--json", "drift", "all", ok=(3,)).last["services"]
    assert [one["path"] for one in drift["paths"]] == ["README.md", "docs/a.txt"]
    shown = world.homeport("diff", "docs", ok=(3,)).stdout
    assert "docs/a.txt" in shown and "README.md" not in shown

    # another deployer was quicker: what it brought to one service is taken, and to the others not
    world.publish({"docs/a.txt": "b\n", "README.md": "b\n"})
    world.homeport("plan")
    (row,) = world.json("record", "docs")["services"]
    assert (row["service"], row["recorded"], row["left"]) == ("docs", ["docs/a.txt"], [])
    assert world.json("record")["services"][0]["recorded"] == ["README.md"]
