"""D10: migrations run in their place, before anything live changes; a failing one leaves the old version serving."""

from __future__ import annotations

import pytest

from tests.world import World

SERVICES = """
[services.api]
source = "api"
target = "{live}/api"
env_file = ".env"
runtime = "command"
command = ["sh", "-c", "cat {live}/api/version.txt >> {live}/api.log"]

[services.site]
source = "site"
target = "{live}/site"

[migrate]
service = "api"
run = ["sh", "migrate.sh"]
"""
MIGRATE = """\
set -e
echo "$DATABASE $(cat version.txt) live=$(cat {live}/api/version.txt 2>/dev/null)" >> {live}/database.log
test "$(cat version.txt)" != broken
"""


@pytest.fixture
def migrated(world: World) -> World:
    (world.live / "api").mkdir()
    (world.live / "api/.env").write_text("DATABASE=shop\n")
    script = MIGRATE.replace("{live}", str(world.live))
    world.project(SERVICES, {"api/version.txt": "one\n", "api/migrate.sh": script, "site/i.html": "1\n"})
    assert world.deploy()["status"] == "deployed"
    return world


def test_a_migration_sees_the_live_environment_and_runs_before_the_new_files(migrated: World) -> None:
    assert migrated.text("database.log") == "shop one live=\n"
    migrated.publish({"api/version.txt": "two\n"})
    migrated.deploy()
    assert migrated.text("database.log").splitlines()[-1] == "shop two live=one"


def test_a_failing_migration_leaves_the_old_version_serving(migrated: World) -> None:
    log = migrated.text("api.log")
    migrated.publish({"api/version.txt": "broken\n"})
    done = migrated.deploy(ok=(1,))
    assert (done["status"], "migration ended with 1" in done["errorSummary"], bool(done["next"])) == ("failed", True, True)
    assert migrated.text("api/version.txt") == "one\n"
    assert migrated.text("api.log") == log, "nothing was started again"


def test_a_rebuild_of_what_nobody_edited_does_not_migrate_again(migrated: World) -> None:
    migrated.homeport("rebuild", "api")
    assert len(migrated.text("database.log").splitlines()) == 1
    (migrated.live / "api/version.txt").write_text("by hand\n")
    migrated.homeport("rebuild", "api")
    assert migrated.text("database.log").splitlines()[1:] == ["shop by hand live=by hand"]


def test_a_deploy_of_another_service_does_not_migrate(migrated: World) -> None:
    migrated.publish({"site/i.html": "2\n"})
    migrated.deploy("main", "site")
    assert len(migrated.text("database.log").splitlines()) == 1


def test_with_several_services_the_migrating_one_must_be_named(migrated: World) -> None:
    text = (migrated.clone / "homeport.toml").read_text().replace('service = "api"\n', "")
    migrated.publish({"homeport.toml": text, "api/version.txt": "two\n"})
    done = migrated.deploy(ok=(3,))
    assert done["errorCode"] == "migrate"
    assert migrated.text("api/version.txt") == "one\n"


UNDO = """\
set -e
cd migrations
for name in *; do
  [ -e "$HOMEPORT_LIVE/migrations/$name" ] || sed -i "/^$name$/d" {live}/tables
done
echo "$HOMEPORT_SHA $HOMEPORT_BACK_TO $(cat ../version.txt) $DATABASE" >> {live}/undone.log
"""
UP = """\
set -e
touch {live}/tables
for name in migrations/*; do grep -qx "$(basename $name)" {live}/tables || basename $name >> {live}/tables; done
"""


def test_an_undo_takes_back_what_a_failed_deploy_and_a_rollback_by_hand_leave(world: World) -> None:
    (world.live / "api").mkdir()
    (world.live / "api/.env").write_text("DATABASE=shop\n")
    here = str(world.live)
    undo = 'undo = ["sh", "undo.sh"]\n[[services.api.checks]]\ncommand = "! grep -q bad version.txt"\nwithin = "10ms"\n'
    first = world.project(SERVICES + undo, {
        "api/version.txt": "one\n", "api/migrations/a": "", "api/migrate.sh": UP.replace("{live}", here),
        "api/undo.sh": UNDO.replace("{live}", here), "site/i.html": "1\n",
    })  # fmt: skip
    assert world.deploy()["status"] == "deployed"
    bad = world.publish({"api/version.txt": "bad\n", "api/migrations/b": ""})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert world.text("tables") == "a\n"
    assert world.text("undone.log") == f"{bad} {first} bad shop\n", "on the files of the commit that is left"
    good = world.publish({"api/version.txt": "good\n", "api/migrations/c": ""})
    world.deploy()
    assert world.text("tables") == "a\nb\nc\n"
    world.homeport("rollback", first)
    assert world.text("tables") == "a\n"
    assert world.text("undone.log").splitlines()[1] == f"{good} {first} good shop"
    told = [row["action"] for row in world.json("audit")["audit"] if row["action"].startswith("migrate")]
    assert sorted(told) == ["migrate"] * 3 + ["migrate-undo"] * 2

    world.homeport("unblock", good)
    world.write({"api/undo.sh": "exit 7\n"})
    world.publish({"api/version.txt": "bad\n"})
    done = world.deploy(ok=(1,))
    assert (done["status"], "undo of the migration ended with 7" in done["errorSummary"]) == ("failed", True)
