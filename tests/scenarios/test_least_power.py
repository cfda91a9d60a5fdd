"""P8: project code runs as a user that owns no key, token or state of homeport; it tries to read each and cannot."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World, eventually

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")]

NOBODY = pwd.getpwnam("nobody")
SERVICE = """
[services.web]
source = "web"
target = "{live}/web"
runtime = "command"
command = ["sh", "{live}/web/spy.sh", "restart"]
%s
checks = [{ command = ["sh", "{live}/web/spy.sh", "check"], within = "1s" }]

  [services.web.build]
  run = ["sh", "spy.sh", "build"]
  outputs = ["dist"]

[migrate]
service = "web"
run = ["sh", "spy.sh", "migration"]
%s

[[actions]]
paths = ["web/**"]
run = ["sh", "{live}/web/spy.sh", "action"]
user = "nobody"

[checks.lint]
run = ["sh", "web/spy.sh", "lint"]
"""
SPY = """\
said={report}/$1-$(id -un)
: > $said
while read -r secret; do
  if [ -d $secret ]; then ls $secret > /dev/null 2>&1 && echo "listed $secret" >> $said
  else true < $secret && echo "read $secret" >> $said; fi
done < {report}/secrets 2> /dev/null
[ $(id -u) = 0 ] || while read -r kept; do
  test -f $kept && true >> $kept && echo "wrote $kept" >> $said
  test -d $kept && true > $kept/spied && echo "made $kept/spied" >> $said
done < {report}/kept 2> /dev/null
cat /proc/[0-9]*/environ 2> /dev/null | tr '\\0' '\\n' | grep canary >> $said
for open in /proc/$$/fd/*; do readlink $open; done | grep -e {state} -e host.toml -e deploy-key >> $said
mkdir -p dist 2> /dev/null; date > dist/made 2> /dev/null
true
"""


@pytest.fixture
def open_world(world: World) -> Iterator[World]:
    """The world's live folder, state, host file and key under a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-open-"))
    folder.chmod(0o755)
    try:
        world.live, world.state = folder / "live", folder / "state"
        (world.live / "web").mkdir(parents=True)
        os.chown(world.live / "web", NOBODY.pw_uid, NOBODY.pw_gid)
        (folder / "report").mkdir()
        (folder / "report").chmod(0o777)
        (folder / "deploy-key").write_text("canary\n")
        (folder / "deploy-key").chmod(0o600)
        text = world.host_file.read_text().replace(str(world.root / "live"), str(world.live))
        world.host_file = folder / "host.toml"
        key = folder / "deploy-key"
        world.host_file.write_text(f'{text}users = ["nobody"]\n[secrets]\ntoken = {{ file = "{key}" }}\n')
        world.host_file.chmod(0o600)
        yield world
    finally:
        world.kill_homeport()
        shutil.rmtree(folder)


def spied(world: World, user: str = "", undo: str = "") -> dict[str, str]:
    """Deploys twice; what each piece of project code could read or write, the second time, by `what-user`: of each file and
    folder of the state, of the host file and of what that names; what homeport keeps beside the live folder may be read."""
    state, folder = world.state, world.live.parent
    spy = SPY.format(report=folder / "report", state=state)
    for name in ("secrets", "kept"):
        (folder / "report" / name).write_text("")
    world.project(SERVICE % (user, undo), {"web/spy.sh": spy, "web/page.txt": "one\n", ".gitignore": "dist/\n"})
    env = {"SECRET_TOKEN": "canary"}
    assert world.homeport("--json", "deploy", env=env).last["status"] == "deployed"
    eventually(lambda: not world.own_processes(), "nobody adds to the state, or takes from it")
    secrets = [folder / "host.toml", folder / "deploy-key", state, *state.rglob("*")]
    beside = world.live / ".homeport-web"
    kept = [*secrets, beside, *(path for path in beside.rglob("*") if not path.is_relative_to(beside / "build"))]
    names = {path.name for path in kept}
    assert {"homeport.db", "lock", "HEAD", "journal", "web.index", "host.toml", "live.json"} <= names, names
    for name, paths in (("secrets", secrets), ("kept", kept)):
        (folder / "report" / name).write_text("".join(f"{path}\n" for path in paths))
    for path in (folder / "report").glob("*-*"):
        path.unlink()
    world.publish({"web/page.txt": "two\n"})
    assert world.homeport("--json", "deploy", env=env).last["status"] == "deployed"
    world.homeport("run", "--", "sh", f"{world.live}/web/spy.sh", "run", env=env)
    return {path.name: path.read_text() for path in (folder / "report").glob("*-*")}


CODE = ("action", "build", "check", "lint", "migration", "restart", "run")


def test_project_code_without_a_user_runs_as_the_owner_of_its_folder_and_reads_no_secret(open_world: World) -> None:
    assert spied(open_world) == {f"{what}-nobody": "" for what in CODE}
    assert (open_world.live / "web/dist/made").stat().st_uid == NOBODY.pw_uid


def test_project_code_runs_as_the_user_it_names_and_reads_no_secret(open_world: World) -> None:
    os.chown(open_world.live / "web", 0, 0)
    named = 'user = "nobody"'
    assert spied(open_world, named, named) == {f"{what}-nobody": "" for what in CODE}


def test_root_is_written_out_where_another_user_owns_the_folder(open_world: World) -> None:
    said = spied(open_world, 'user = "root"')
    assert {name for name in said if name != "migration-nobody"} == {
        "action-nobody", "build-root", "check-root", "lint-nobody", "restart-root", "run-root"}  # fmt: skip
    assert "read" in said["check-root"], "the spy sees what there is to see"
    doctor = open_world.homeport("doctor", ok=None).stdout
    assert "as root" in doctor


INHERITS = """
[services.web]
source = "web"
target = "{live}/web"
  [services.web.build]
  run = ["sh", "-c", "mkdir -p dist; cat .env conf/key > dist/got 2> dist/missing; true"]
  outputs = ["dist"]
  inherit = [".env", "conf/key"]
"""


def test_what_a_build_inherits_is_never_read_through_a_link(open_world: World) -> None:
    """The owner of the live folder plants links to what only root can read, then asks for a build."""
    web, secret = open_world.live / "web", open_world.live.parent
    (web / ".env").symlink_to(secret / "deploy-key")
    (secret / "keys").mkdir(mode=0o700)
    (secret / "keys/key").write_text("canary\n")
    (web / "conf").symlink_to(secret / "keys")
    open_world.project(INHERITS, {"web/page.txt": "one\n", ".gitignore": "dist/\n.env\nconf\n"})
    done = open_world.deploy(ok=(0, 3))
    assert done["status"] in ("deployed", "refused")
    for path in open_world.live.rglob("*"):
        assert path.is_symlink() or not path.is_file() or "canary" not in path.read_text(errors="replace"), path
    text = (open_world.clone / "homeport.toml").read_text().replace('".env"', '"../../deploy-key"')
    (open_world.clone / "homeport.toml").write_text(text)
    assert open_world.homeport("check", ok=(2,)).code == 2


BEHIND = """
[services.%(name)s]
source = "%(name)s"
target = "{live}/%(name)s"
cwd = "run"
"""
STARTS = "echo $(id -un) > started"


def test_what_the_owner_of_a_live_folder_links_to_is_no_folder_for_a_command_of_root(open_world: World) -> None:
    """It started there, as the owner of what the link leads to: root. A link that stays within is followed."""
    away = open_world.live.parent / "roots-own"
    away.mkdir()
    for name in ("restarted", "checked"):
        (open_world.live / name).mkdir()
        (open_world.live / name / "run").symlink_to(away)
        os.chown(open_world.live / name, NOBODY.pw_uid, NOBODY.pw_gid)
    restarted = BEHIND % {"name": "restarted"} + f'runtime = "command"\ncommand = "{STARTS}"\n'
    checked = BEHIND % {"name": "checked"} + f'checks = [{{ command = "{STARTS}", within = "1s" }}]\n'
    open_world.project(restarted + checked, {"restarted/a": "1\n", "checked/a": "1\n", ".gitignore": "run\n"})
    for name in ("restarted", "checked"):
        done = open_world.deploy(name, ok=(1, 3))
        assert (done["errorCode"], "leads out" in done["errorSummary"]) == ("not-the-folder", True)
    assert not list(away.iterdir())
    for name in ("restarted", "checked"):
        (open_world.live / name / "run").unlink()
        (open_world.live / name / "within").mkdir()
        os.chown(open_world.live / name / "within", NOBODY.pw_uid, NOBODY.pw_gid)
        (open_world.live / name / "run").symlink_to("within")
    open_world.publish({".gitignore": "run\nwithin\n", "restarted/a": "2\n", "checked/a": "2\n"})
    assert open_world.deploy()["status"] == "deployed"
    assert {open_world.text(f"{name}/within/started") for name in ("restarted", "checked")} == {"nobody\n"}


def test_a_commit_does_not_have_a_file_of_the_machine_read_as_a_secret(open_world: World) -> None:
    with tempfile.NamedTemporaryFile("w", suffix="-elsewhere") as other:
        other.write(f"json://127.0.0.1:{open_world.free_port()}/canary")
        other.flush()
        named = f'[services.web]\nsource = "web"\ntarget = "{{live}}/web"\n[notify]\nurls = [{{ file = "{other.name}" }}]\n'
        open_world.project(named, {"web/a.txt": "one\n"})
        said = open_world.homeport("notify", "test", ok=(1,))
        assert "no file that a commit may name" in said.stdout and "canary" not in said.stdout + said.stderr
        text = open_world.host_file.read_text()
        open_world.host_file.write_text(f'{text}channel = {{ file = "{other.name}" }}\n')
        assert "the channel did not take the message" in open_world.homeport("notify", "test", ok=(1,)).stdout, "it is read"
