"""D10: with `migrate.lock` a migration runs only while it holds an advisory lock of a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from homeport.doors.advisory import key_of
from tests.scenarios import postgres
from tests.world import World

SERVICES = """
[services.api]
source = "api"
target = "{live}/api"

[migrate]
run = ["sh", "migrate.sh"]
timeout = "4s"
lock = { env = "SHOP_DATABASE" }
"""

MIGRATE = """\
echo migrated >> {live}/database.log
psql -tAc "select count(*) from pg_locks where locktype = 'advisory'" "$DB" >> {live}/database.log
"""


def files(world: World, text: str) -> dict[str, str | None]:
    return {"api/a.txt": text, "api/migrate.sh": MIGRATE.replace("{live}", str(world.live))}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres.server() as url:
        yield url


def test_a_migration_holds_the_lock_and_waits_for_another(world: World, database: str) -> None:
    services = SERVICES.replace('target = "{live}/api"', f'target = "{{live}}/api"\nenv = {{ DB = "{database}" }}')
    world.project(services, files(world, "1\n"))
    env = {"SHOP_DATABASE": database}
    world.homeport("deploy", env=env)
    assert world.text("database.log").split() == ["migrated", "1"]

    world.publish({"api/a.txt": "2\n"})
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (key_of("shop"),))
        ran = world.homeport("--json", "deploy", ok=(1,), env=env)
        done = json.loads(ran.stdout.splitlines()[-1])
        assert (done["status"], done["errorCode"]) == ("failed", "migrate-lock")
        assert world.text("api/a.txt") == "1\n"
        assert world.text("database.log").split() == ["migrated", "1"]
    world.homeport("unblock", done["sha"], ok=(0, 3))
    world.homeport("deploy", env=env)
    assert world.text("database.log").split() == ["migrated", "1", "migrated", "1"]


def test_a_database_that_is_away_is_nobodys_fault(world: World, database: str) -> None:
    del database
    world.project(SERVICES, files(world, "1\n"))
    ran = world.homeport("--json", "deploy", ok=(1,), env={"SHOP_DATABASE": "postgresql://u:hunter2@/x?host=/nowhere"})
    assert ran.last["errorCode"] == "database"
    assert "hunter2" not in ran.stdout + ran.stderr
    assert world.json("status")["blocked"] == []
    ran = world.homeport("--json", "deploy", ok=(1, 2))
    assert ran.last["errorCode"] == "no-secret"
