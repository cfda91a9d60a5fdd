"""D1 D2 D5 D6 D8 D9 D10 D11 D12 D13 D14 D15 D16 D17: one home server with nobody watching, from push to message.

Ten services, each with its own in one Compose file, on a real engine, in a live folder that is a git checkout; a real
Caddy with a mounted Caddyfile, a real PostgreSQL with real migrations, a forge with workflow runs, a channel, the daemon
and the timer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.channel import ChannelServer
from tests.daemon.rig import Daemon
from tests.docker_host import BOX, CADDY, DockerHost, find_caddy, why_not
from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import serving
from tests.scenarios.postgres import USER, _as_user, program
from tests.world import World, eventually

SLEEPERS = ("auth", "queue", "mail", "hooks", "metrics", "backup")
COMPOSE = """\
services:
  db:
    image: %(box)s
    user: "%(uid)d:%(gid)d"
    network_mode: host
    stop_signal: SIGINT
    volumes: ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", "${DATA}:/data", "${SOCKETS}:/sockets"]
    command: ["%(postgres)s", "-D", "/data", "-c", "listen_addresses=", "-c", "fsync=off", "-k", "/sockets"]
  proxy:
    image: %(caddy)s
    network_mode: host
    stop_signal: SIGKILL
    environment: ["HOME=/tmp", "ADMIN=127.0.0.1:${ADMIN_PORT}", "PROXY_PORT", "API_PORT", "SITE_PORT"]
    volumes: ["./proxy/Caddyfile:/etc/caddy/Caddyfile:ro"]
    command: ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]
  api:
    build: ./api
    network_mode: host
    stop_signal: SIGKILL
    environment: ["VERSION=${HOMEPORT_SHA:-by hand}", "API_PORT"]
    command: ["/bin/sh", "-c", "echo $$VERSION >/www/version; exec httpd -f -p 127.0.0.1:$$API_PORT -h /www"]
  site:
    build: ./site
    network_mode: host
    stop_signal: SIGKILL
    command: ["httpd", "-f", "-p", "127.0.0.1:${SITE_PORT}", "-h", "/www"]
"""
SLEEPER = """\
  {name}:
    image: {box}
    network_mode: none
    stop_signal: SIGKILL
    volumes: ["./core/{name}:/etc/own:ro"]
    command: ["sleep", "100000"]
"""
CADDYFILE = """\
{
	admin {$ADMIN}
	auto_https off
}
http://127.0.0.1:{$PROXY_PORT} {
	handle /api/* {
		uri strip_prefix /api
		reverse_proxy 127.0.0.1:{$API_PORT}
	}
	reverse_proxy 127.0.0.1:{$SITE_PORT}
}
"""
MIGRATE = """\
set -eu
db() { %(psql)s -h "$SOCKETS" -U shop -d postgres -v ON_ERROR_STOP=1 -qtA "$@"; }
db -c "SET client_min_messages = warning" -c "CREATE TABLE IF NOT EXISTS migrated (name text PRIMARY KEY)"
for file in migrations/*.sql; do
  [ -n "$(db -c "SELECT 1 FROM migrated WHERE name = '$file'")" ] && continue
  echo "migrating $file"
  db -1 -f "$file" -c "INSERT INTO migrated VALUES ('$file')"
done
"""
CONFIG = """
[project]
name = "shop"
target = "%(live)s"
jobs = 4
keep = 3

[environments.production]
branch = "main"
converge = 0
checks = [
  { containers = 10, within = "20s", every = "100ms" },
  { name = "database", command = ["%(ready)s", "-q", "-h", "%(sockets)s"], within = "20s", every = "100ms" },
  { name = "proxy admin", http = "http://127.0.0.1:%(admin)d/config/", within = "20s", every = "100ms" },
]

[migrate]
service = "db"
run = ["sh", "migrate.sh"]

[forge]
kind = "github"
url = "%(forge)s"
repo = "octo/shop"
token = { env = "FORGE_TOKEN" }
webhook_secret = [{ env = "HOOK_SECRET" }]

[gate]
settle = "0s"

[notify]
urls = [{ env = "SHOP_CHANNEL" }]

[services.db]
source = "db"
runtime = "compose"
watch = ["compose.yaml"]
env_file = "%(live)s/.env"

[services.proxy]
source = "proxy"
runtime = "compose"
watch = ["compose.yaml"]
in_place = ["Caddyfile"]
on_change = "reload"
command = ["caddy", "reload", "--config", "/etc/caddy/Caddyfile", "--address", "127.0.0.1:%(admin)d"]
validate = ["caddy", "validate", "--config", "/etc/caddy/Caddyfile"]

[services.api]
source = "api"
runtime = "compose"
watch = ["compose.yaml"]
after = ["db"]
checks = [
  { http = "http://127.0.0.1:%(proxy)d/api/health", contains = "well", within = "20s", every = "50ms" },
  { version = "http://127.0.0.1:%(proxy)d/api/version", within = "20s", every = "50ms" },
]

[services.site]
source = "site"
runtime = "compose"
checkout = true
watch = ["compose.yaml"]
"""
CORE = """
[services.{name}]
source = "core/{name}"
runtime = "compose"
watch = ["compose.yaml"]
"""
SECRET = "not told to anybody"


def binary(name: str) -> str:
    """A program of PostgreSQL itself; those on the PATH may be Debian's wrappers."""
    return str(Path(program("initdb")).parent / name)


class HomeServer:
    """A stack that somebody brought up by hand, and the pushes that it gets."""

    def __init__(self, world: World, engine: DockerHost, forge: GitHubFake, sockets: Path) -> None:
        self.world, self.engine, self.forge, self.sockets = world, engine, forge, sockets
        self.daemon = Daemon(world)
        self.live = world.live / "stack"
        self.ports = {name: world.free_port() for name in ("ADMIN", "PROXY", "API", "SITE")}
        account = pwd.getpwnam(USER)
        named = {"box": BOX, "caddy": CADDY, "uid": account.pw_uid, "gid": account.pw_gid, "postgres": binary("postgres")}
        self.compose = COMPOSE % named + "".join(SLEEPER.format(name=name, box=BOX) for name in SLEEPERS)
        config = CONFIG % {"live": self.live, "admin": self.ports["ADMIN"], "proxy": self.ports["PROXY"],
                           "forge": forge.url, "sockets": sockets, "ready": binary("pg_isready")}  # fmt: skip
        config += "".join(CORE.format(name=name) for name in SLEEPERS) + f'mutable = ["state.json"]\nowner = "{USER}"\n'
        dockerfile = f"FROM {BOX}\nCOPY . /www/\n"
        self.push({
            "homeport.toml": config, "compose.yaml": self.compose, ".gitignore": ".env\n", "README.md": "ours\n",
            "proxy/Caddyfile": CADDYFILE, "api/Dockerfile": dockerfile, "api/health": "well\n", "api/n": "1\n",
            "site/Dockerfile": dockerfile, "site/index.html": "first\n",
            "db/migrate.sh": MIGRATE % {"psql": binary("psql")},
            "db/migrations/1.sql": "CREATE TABLE item (id int PRIMARY KEY);\n",
            **{f"core/{name}/own.conf": "1\n" for name in SLEEPERS}, "core/backup/state.json": "{}\n",
        })  # fmt: skip
        world.git("clone", "-q", str(world.origin), str(self.live), cwd=world.root)
        lines = [f"{name}_PORT={port}" for name, port in self.ports.items()]
        (self.live / ".env").write_text("\n".join([*lines, f"DATA={sockets}/data", f"SOCKETS={sockets}", ""]))

    def push(self, files: dict[str, str | None], ci: str | None = "success", message: str = "change") -> str:
        sha = self.world.publish(files, message)
        self.forge.add_run("CI", ci, sha=sha)
        return sha

    def tell(self, sha: str) -> None:
        """The forge's delivery of that push."""
        body = json.dumps({"ref": "refs/heads/main", "before": "a" * 40, "after": sha, "deleted": False,
                           "repository": {"full_name": "octo/shop"}}).encode()  # fmt: skip
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": sha, "X-Hub-Signature-256": f"sha256={digest}",
                   "Content-Type": "application/json"}  # fmt: skip
        assert self.daemon.ask("POST", "/hooks/github", content=body, headers=headers).status_code == 202

    def rows(self, sha: str) -> list[dict[str, Any]]:
        found = self.daemon.ask("GET", "/api/v1/deploys").json()["deploys"]
        return [row for row in found if row["sha"] == sha]

    def arrives(self, sha: str) -> dict[str, Any]:
        """The outcome of the deploy that the delivery of this push leads to."""
        self.tell(sha)
        eventually(lambda: any(row["state"] == "done" for row in self.rows(sha)), f"the deploy of {sha[:12]} has ended", 60)
        return self.rows(sha)[0]

    def containers(self) -> dict[str, str]:
        """Service and container id (and when it was started) of all that run."""
        told = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        rows = self.engine.docker("ps", "--no-trunc", "--format", told).splitlines()
        ids = dict(row.split() for row in rows)
        began = self.engine.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", *ids.values()).splitlines()
        return {name: next(line for line in began if line.startswith(id)) for name, id in ids.items()}

    def changed(self, before: dict[str, str]) -> set[str]:
        after = self.containers()
        return {name for name in {*before, *after} if before.get(name) != after.get(name)}

    def page(self, path: str = "/") -> str:
        return self.world.get(self.ports["PROXY"], path)[1].strip()

    def sql(self, query: str) -> str:
        argv = [binary("psql"), "-h", str(self.sockets), "-U", "shop", "-d", "postgres", "-tAc", query]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    def head(self) -> tuple[str, str]:
        """What git tells a person who looks into the live folder: the commit, and what differs from it."""
        git = self.world.git
        return git("rev-parse", "main", cwd=self.live), git("status", "--porcelain", cwd=self.live)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A database cluster that nothing has started yet, in a folder with a short name for its socket."""
    folder = Path(tempfile.mkdtemp(prefix="hp-pg-"))
    account = pwd.getpwnam(USER)
    os.chown(folder, account.pw_uid, account.pw_gid)
    argv = [program("initdb"), "-D", f"{folder}/data", "-U", "shop", "-A", "trust", "--no-sync", "--no-instructions"]
    subprocess.run(_as_user(argv), cwd=folder, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, check=True,
                   capture_output=True)  # fmt: skip
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(world: World, tmp_path: Path, sockets: Path) -> Iterator[HomeServer]:
    if because := why_not() or ("" if find_caddy() else "Caddy is not here; ./dev setup brings it"):
        pytest.skip(because)
    folder = tmp_path / "docker"
    folder.mkdir()
    engine, forge = DockerHost(folder), GitHubFake()
    try:
        engine.make_caddy()
        with serving(forge):
            world.more.update({**engine.env, "FORGE_TOKEN": TOKEN, "HOOK_SECRET": SECRET})
            made = HomeServer(world, engine, forge, sockets)
            try:
                yield made
            finally:
                made.daemon.close()
        assert forge.wrong == []
    finally:
        engine.close()


@pytest.mark.timeout(300)  # thirteen deploys on a machine that may be busy with other tests
def test_a_home_server_with_nobody_watching(server: HomeServer, channel: ChannelServer) -> None:
    world, forge = server.world, server.forge
    titles = lambda: [message["title"] for message in channel.taken]  # noqa: E731

    # somebody brought it up by hand, and homeport takes it over
    subprocess.run(["docker", "compose", "up", "--detach", "--quiet-pull"], cwd=server.live,
                   env={**os.environ, **server.engine.env}, check=True, capture_output=True)  # fmt: skip
    by_hand = server.containers()
    assert len(by_hand) == 10
    eventually(lambda: server.page() == "first", "the stack answers")
    first = world.git("rev-parse", "HEAD")
    assert world.json("converge")["status"] == "deployed"
    assert (server.head(), server.page("/api/version")) == ((first, ""), first)
    assert set(server.containers()) == set(by_hand)
    assert server.sql("SELECT name FROM migrated") == "migrations/1.sql"
    server.daemon.start()

    # routine: one service's files, told by the forge; what a program rewrote is saved and reset, what it took is given back
    before = server.containers()
    state, own = server.live / "core/backup/state.json", server.live / "core/backup/own.conf"
    assert own.owner() == USER != (server.live / "core/mail/own.conf").owner()
    state.write_text('{"seen": 1}\n')
    os.chown(own, 0, 0)
    two = server.push({"api/n": "2\n"}, message="Two")
    assert server.arrives(two)["status"] == "deployed"
    assert (server.changed(before), server.page("/api/version"), server.head()) == ({"api"}, two, (two, ""))
    assert (own.owner(), state.read_text()) == (USER, "{}\n")
    assert [row["path"] for row in world.json("rescue", "list")["rescues"]] == ["core/backup/state.json"]
    eventually(lambda: titles() == ["shop production: deployed"] * 2, "the first deploy and the routine one are told")
    eventually(lambda: ("homeport/deploy/production", "success") in {(s["context"], s["state"]) for s in forge.statuses},
               "the forge is told too")  # fmt: skip

    # words only: nothing is touched but the live copy of the words, and nobody is told
    before = server.containers()
    words = server.push({"README.md": "ours, and well described\n"})
    assert (server.arrives(words)["services"], server.changed(before), server.head()) == ([], set(), (words, ""))

    # a migration: run once, before anything else, and told at length
    migration = server.push({"db/migrations/2.sql": "ALTER TABLE item ADD name text;\n", "api/n": "3\n"})
    assert server.arrives(migration)["status"] == "deployed"
    assert server.sql("SELECT count(*) FROM migrated") == "2" and server.sql("SELECT name FROM item") == ""
    assert server.changed(before) == {"api"}, "the database runs on"

    # the Compose file: only whose definition it changes is made anew
    before = server.containers()
    mount = '"./core/mail:/etc/own:ro"]'
    larger = server.compose.replace(mount, f'{mount}\n    environment: ["SIZE=2"]')
    assert server.arrives(server.push({"compose.yaml": larger, "core/hooks/own.conf": "2\n"}))["status"] == "deployed"
    assert server.changed(before) == {"mail", "hooks", "api"}, "another definition, a new file, another version to tell"

    # the proxy's file: through the same inode, tried in a container of its own, then reloaded
    before = server.containers()
    reverse = "\treverse_proxy 127.0.0.1:{$SITE_PORT}\n"
    good = CADDYFILE.replace(reverse, "\thandle /ping {\n\t\trespond pong\n\t}\n" + reverse)
    assert server.arrives(server.push({"proxy/Caddyfile": good}))["status"] == "deployed"
    # Caddy says that it has reloaded before the last connection to what served until then is taken
    eventually(lambda: server.page("/ping") == "pong", "the proxy has its new file")
    assert server.changed(before) == set()
    invalid = server.push({"proxy/Caddyfile": good.replace("respond pong", "respnod pong")})
    row = server.arrives(invalid)
    assert (row["status"], "validation of proxy" in row["errorSummary"]) == ("rolled_back", True), row
    assert (server.page("/ping"), server.changed(before)) == ("pong", set())
    assert (server.live / "proxy/Caddyfile").read_text() == good
    assert "Valid" in server.engine.docker("exec", "stack-proxy-1", "caddy", "validate", "--config", "/etc/caddy/Caddyfile")

    # a red workflow, then the next good push; both wait for nobody
    red = server.push({"proxy/Caddyfile": good, "site/index.html": "second\n"}, ci="failure")
    assert server.arrives(red)["errorCode"] == "gate-failed"
    assert server.page() == "first"
    assert server.arrives(server.push({"site/index.html": "third\n"}))["status"] == "deployed"
    assert (server.page(), world.json("status")["blocked"], world.json("status")["hold"]) == ("third", [], None)

    # two pushes in quick succession: the first one's checks have not ended when the second one comes
    early = server.push({"site/index.html": "fourth\n"}, ci=None)
    server.tell(early)
    eventually(lambda: any(row["stage"] == "await-checks" for row in server.rows(early)), "the first one waits at its gate")
    late = server.push({"site/index.html": "fifth\n"})
    assert server.arrives(late)["status"] == "deployed"
    assert ([row["status"] for row in server.rows(early)], server.page()) == (["superseded"], "fifth")

    # a bad commit that passes the gate: undone, blocked, told, left alone by the timer; the next good push ends that
    before = server.containers()
    bad = server.push({"api/health": "ill\n", "db/migrations/3.sql": "ALTER TABLE item ADD size int;\n",
                       **world.patience("1s")})  # fmt: skip
    row = server.arrives(bad)
    assert (row["status"], server.page("/api/health"), server.head()) == ("rolled_back", "well", (late, ""))
    assert (server.page("/api/version"), server.changed(before)) == (late, {"api"})
    status = world.json("status")
    assert ([block["sha"] for block in status["blocked"]], "unhealthy" in str(row["errorCode"])) == ([bad], True)
    eventually(lambda: titles()[-1] == "shop production: failed and was rolled back", "the failure is told")
    assert world.json("converge")["code"] in ("held", "blocked")
    assert len(server.rows(bad)) == 1
    cured = server.push({"api/health": "well\n", "api/n": "4\n", **world.patience("20s")})
    assert server.arrives(cured)["status"] == "deployed"
    status = world.json("status")
    assert (server.page("/api/version"), status["blocked"], status["hold"]) == (cured, [], None)
    eventually(lambda: titles()[-1] == "shop production: recovered", "the recovery is told")

    # an image that somebody pulled or built anew: its containers are stale, and the timer makes exactly them anew
    before = server.containers()
    (server.engine.folder / "caddy/Dockerfile").write_text("FROM scratch\nCOPY root /\nLABEL newer=yes\n")
    server.engine.docker("build", "--quiet", "--tag", CADDY, str(server.engine.folder / "caddy"))
    assert (world.json("converge")["services"], server.changed(before)) == (["proxy"], {"proxy"})
    eventually(lambda: server.page("/ping") == "pong", "the proxy is back")

    # a dead webhook: the timer alone
    lost = server.push({"site/index.html": "sixth\n"})
    assert world.json("converge")["sha"] == lost
    assert (server.page(), server.head()) == ("sixth", (lost, ""))
    assert world.json("converge")["code"] == "equal"
