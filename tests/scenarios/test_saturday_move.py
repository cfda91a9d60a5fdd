"""A5 A6 A7 B3 B5 B8 E1: the Saturday move. A machine with five pm2 applications, edits that git does not know, files that
only the server has, and a CI runner that still copies with rsync, comes under homeport without one of them being lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import Fleet, Machine
from tests.world import NODE_SERVER, eventually

APPS = ("api", "web", "flows", "hooks", "feed")
P = ("-e", "production")
SERVICE = """
[services.{name}]
source  = "{name}"
target  = "{live}/{name}"
runtime = "pm2"
unit    = "{name}"
checks  = [{{ http = "http://127.0.0.1:{port}/health", within = "10s" }}]
"""
WORKFLOW = """\
name: deploy
on: {{push: {{branches: [main]}}}}
jobs:
  deploy:
    runs-on: [self-hosted]
    steps:
      - uses: actions/checkout@v4
      - run: sh ops/deploy.sh {live}
"""
OLD_DEPLOYER = """\
set -eu
for app in $(git diff --name-only HEAD~1 | cut -d/ -f1 | sort -u); do
  [ -d "$1/$app" ] || continue
  rsync -a --delete --exclude .env --exclude node_modules/ --exclude '*.bak*' --exclude '*s.json' "$app/" "$1/$app/"
  pm2 restart "$app" --update-env
done
"""
SERVERS_OWN = {
    "api/.env": "GREETING=moin\n", "api/credentials.json": '{"key": "only here"}\n', "api/server.js.bak-1": "before\n",
    "web/node_modules/left/index.js": "module.exports = 1\n", "flows/.env": "TOKEN=only-here\n",
}  # fmt: skip


class OldMachine:
    """The machine as it was found: applications by hand under the real pm2, and a runner that copies what was pushed."""

    def __init__(self, fleet: Fleet, pm2: str) -> None:
        self.fleet, self.pm2_program = fleet, pm2
        pm2_home = fleet.laptop.root / "pm2"
        more = {"PM2_HOME": str(pm2_home), "PATH": str(Path(pm2).parent)}
        self.host: Machine = fleet.add("prod-1", "production", "prod.example.com", more=more)
        self.host.host_file.unlink()
        self.ports = {app: fleet.laptop.free_port() for app in APPS}
        self.runner = fleet.laptop.root / "runner"

    def pm2(self, *args: str) -> str:
        done = subprocess.run([self.pm2_program, *args], env=self.host.env, cwd=self.host.home, capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def found(self) -> None:
        """The first commit, put there by hand long ago; what was done on the machine since."""
        laptop, live = self.fleet.laptop, self.host.live
        workflow = WORKFLOW.format(live=live)
        files: dict[str, str | None] = {".github/workflows/deploy.yml": workflow, "ops/deploy.sh": OLD_DEPLOYER}
        for app in APPS:
            files |= {f"{app}/server.js": NODE_SERVER, f"{app}/version.txt": "one\n", f"{app}/old.txt": "old\n"}
        files["flows/uv.lock"] = "sqlite\n"
        laptop.publish(files, "as it was")
        laptop.git("clone", "-q", str(laptop.origin), str(self.runner), cwd=laptop.root)
        subprocess.run(["rsync", "-a", *(f"{self.runner}/{app}" for app in APPS), f"{live}/"], check=True)
        for name, text in SERVERS_OWN.items():
            (live / name).parent.mkdir(parents=True, exist_ok=True)
            (live / name).write_text(text)
        listed = [f'{{name: "{app}", script: "server.js", cwd: "{live}/{app}", env: {{PORT: {port}}}}}'
                  for app, port in self.ports.items()]  # fmt: skip
        (self.host.home / "ecosystem.config.js").write_text(f"module.exports = {{apps: [{', '.join(listed)}]}}\n")
        self.pm2("start", "ecosystem.config.js")
        eventually(lambda: all(answer == "hello one" for answer in self.answers().values()), "five applications answer")
        (live / "api/server.js").write_text(NODE_SERVER + "// mended at midnight\n")
        (live / "flows/uv.lock").write_text("mysql\n")
        (live / "hooks/retry.js").write_text("module.exports = 3\n")
        (live / "feed/old.txt").unlink()

    def old_deploy(self) -> None:
        """What the runner does after a push: the step of the workflow, in its own checkout."""
        self.fleet.laptop.git("fetch", "-q", "origin", cwd=self.runner)
        self.fleet.laptop.git("reset", "-q", "--hard", "origin/main", cwd=self.runner)
        step = (self.runner / ".github/workflows/deploy.yml").read_text().split("run: ")[1].strip()
        done = subprocess.run(["sh", "-c", step], cwd=self.runner, env=self.host.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def answers(self) -> dict[str, str]:
        """What each application says: greeting and version."""
        return {app: " ".join(self.fleet.laptop.get(port)[1].split()[:2]) for app, port in self.ports.items()}

    def pids(self) -> dict[str, str]:
        return {app: self.fleet.laptop.get(port)[1].split()[2] for app, port in self.ports.items()}

    def servers_own(self) -> dict[str, tuple[int, str]]:
        """Files that only the server has, with their inodes: the very same files, not copies."""
        return {name: (os.stat(self.host.live / name).st_ino, (self.host.live / name).read_text()) for name in SERVERS_OWN}

    def drift(self) -> dict[str, tuple[str, bool]]:
        """Every path that differs: its state, and whether another deployer wrote it."""
        said = self.fleet.homeport("--json", *P, "drift", ok=(0, 3)).last
        return {f"{s['service']}/{p['path']}": (p["state"], p["foreign"] is not None)
                for s in said["services"] for p in s["paths"]}  # fmt: skip


@pytest.fixture
def old(bare_fleet: Fleet, pm2_program: str) -> Iterator[OldMachine]:
    machine = OldMachine(bare_fleet, pm2_program)
    try:
        machine.found()
        yield machine
    finally:
        machine.pm2("kill")


def configured(old: OldMachine) -> str:
    tables = "".join(SERVICE.format(name=a, live=old.host.live, port=port) for a, port in old.ports.items())
    return ('[project]\nname = "shop"\n\n[environments.production]\nbranch = "main"\nhosts = ["prod-1"]\n\n'
            f'[hosts.prod-1]\nssh = "prod.example.com"\n{tables}')  # fmt: skip


def other_deployers(fleet: Fleet) -> list[str]:
    said = fleet.homeport("--json", *P, "doctor", ok=None).last
    return [row["detail"] for row in said["checks"] if row["name"] == "prod-1: other deployer"]


EDITS = {
    "api/server.js": ("modified", False), "flows/uv.lock": ("modified", False), "hooks/retry.js": ("added", False),
    "feed/old.txt": ("deleted", False),
}  # fmt: skip


def test_a_machine_with_five_applications_and_an_old_deployer_is_taken_over(old: OldMachine) -> None:
    fleet, laptop, live = old.fleet, old.fleet.laptop, old.host.live
    own, pids = old.servers_own(), old.pids()
    laptop.publish({"homeport.toml": configured(old)}, "homeport looks")

    # look: nothing is written, and everything is seen
    said = fleet.homeport("--json", *P, "setup", "--observe").last
    assert said["ok"] and not any((live / app / ".homeport").exists() for app in APPS)
    assert old.drift() == EDITS, "protected files of the server are no drift"
    (other,) = other_deployers(fleet)
    assert other.startswith("ops/deploy.sh:4: rsync -a --delete"), "found through the workflow that runs it"
    assert fleet.homeport("--json", *P, "deploy", ok=(3,)).last["errorCode"] == "observe"

    # the old deployer goes on meanwhile, and is told from a person's hand
    laptop.publish({"web/version.txt": "two\n"})
    old.old_deploy()
    eventually(lambda: old.answers()["web"] == "hello two", "the old deployer's version answers")
    fleet.homeport(*P, "plan", ok=None)  # fetches; a look alone does not
    assert old.drift() == {**EDITS, "web/version.txt": ("modified", True)}
    now = old.pids()
    assert [app for app in APPS if now[app] != pids[app]] == ["web"]

    # the edits come home first, while nothing can overwrite them: one commit, without what another deployer wrote
    taken = fleet.homeport("--json", *P, "adopt", "--branch", "found-on-the-server").last
    assert sorted(taken["paths"]) == sorted(EDITS) and [skip["path"] for skip in taken["skipped"]] == ["web/version.txt"]
    laptop.git("fetch", "-q", "origin")
    laptop.git("merge", "-q", "--squash", "origin/found-on-the-server")
    laptop.commit("What was mended on the server")

    # take over: the workflow goes with the same push
    laptop.publish({".github/workflows/deploy.yml": None, "ops/deploy.sh": None}, "homeport deploys from now on")
    fleet.homeport("--json", *P, "setup", "--no-observe")
    assert all((live / app / ".homeport").exists() for app in APPS)
    assert other_deployers(fleet) == []
    recorded = fleet.homeport("--json", *P, "record").last["services"]
    assert {row["service"]: row["recorded"] + row["left"] for row in recorded}["feed"] == ["old.txt"]
    assert not any(row["left"] for row in recorded), "what is gone there and on the branch is no drift either"
    done = fleet.homeport("--json", *P, "deploy").last
    assert done["status"] == "deployed" and old.drift() == {}
    assert old.answers() == {**dict.fromkeys(APPS, "hello one"), "web": "hello two"}
    assert fleet.homeport("--json", *P, "edits").last["edits"] == [], "the loop is closed"
    assert (live / "api/server.js").read_text().endswith("midnight\n") and not (live / "feed/old.txt").exists()
    assert old.servers_own() == own

    # from now on a push touches what it changes, and nothing else
    before = old.pids()
    laptop.publish({"feed/version.txt": "two\n"})
    assert fleet.homeport("--json", *P, "deploy").last["ok"]
    after = old.pids()
    assert [app for app in APPS if before[app] != after[app]] == ["feed"] and old.answers()["feed"] == "hello two"
    assert old.servers_own() == own


