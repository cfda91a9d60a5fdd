"""P9: one secret of each kind, printed by everything that runs, is looked for wherever anything is written or shown."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.cli.main import VERBS
from tests.channel import ChannelServer
from tests.daemon.rig import Daemon
from tests.forges.fakes import TOKEN, GitHubFake
from tests.forges.server import serving
from tests.scenarios.telling import run
from tests.world import World, eventually

CONFIG = """
[forge]
kind = "github"
url = "{forge}"
repo = "octo/shop"
token = {{ env = "FORGE_KEY" }}
webhook_secret = [{{ file = "{secrets}/hook" }}]

[notify]
urls = [{{ env = "SHOP_CHANNEL" }}]

[services.web]
source = "web"
target = "{live}/web"
runtime = "command"
command = ["sh", "{live}/web/leak.sh", "command"]
env_file = ".env"
checks = [{{ command = ["sh", "{live}/web/leak.sh", "check"], within = "100ms" }}]

  [services.web.build]
  run = ["sh", "leak.sh", "build"]
  outputs = ["dist"]

[[actions]]
paths = ["web/**"]
run = ["sh", "{live}/web/leak.sh", "action"]

[checks.lint]
run = ["sh", "web/leak.sh", "lint"]
user = "{user}"
"""
LEAK = """\
cat /proc/[0-9]*/cmdline >> {report}/cmdline 2> /dev/null
env > {report}/environ-$1
cat {secrets}/all
cat {secrets}/all >&2
mkdir -p dist; date > dist/made
! grep -q "$1" {live}/web/bad.txt bad.txt web/bad.txt 2> /dev/null || {{ cat {secrets}/all; exit 3; }}
"""


@pytest.fixture
def forge() -> Iterator[GitHubFake]:
    fake = GitHubFake()
    with serving(fake):
        yield fake


@pytest.fixture
def told(world: World, forge: GitHubFake, channel: ChannelServer) -> dict[str, str]:
    """A project that was told every kind of secret; kind -> the text to look for."""
    folder = world.root / "secrets"
    folder.mkdir()
    known = {"forge token": TOKEN, "webhook secret": "canary-hook-1", "channel password": "canary-channel-2",
             "host secret": "canary-host-3", "env file": "canary-env-4", "env file, a key": "canary-key-5",
             "variable": "canary-variable-6"}  # fmt: skip
    (folder / "hook").write_text(known["webhook secret"])
    (folder / "host").write_text(known["host secret"] + "\n")
    world.more |= {"FORGE_KEY": TOKEN, "DEPLOY_SECRET": known["variable"],
                   "SHOP_CHANNEL": f"json://shop:{known['channel password']}@127.0.0.1:{channel.port}/"}  # fmt: skip
    world.host_file.write_text(f'{world.host_file.read_text()}[secrets]\nother = {{ file = "{folder}/host" }}\n')
    (world.live / "web").mkdir()
    (world.live / "web/.env").write_text(f"DB_PASSWORD={known['env file']}\nSIGNING_KEY='{known['env file, a key']}'\n"
                                         "COLOUR=aubergine\n")  # fmt: skip
    (folder / "all").write_text(f"aubergine {' '.join(known.values())} {world.more['SHOP_CHANNEL']}\n")
    (world.root / "report").mkdir()
    leak = LEAK.format(report=world.root / "report", secrets=folder, live=world.live)
    config = CONFIG.format(user=getpass.getuser(), forge=forge.url, secrets=folder, live=world.live)
    world.project(config, {"web/leak.sh": leak, "web/bad.txt": "none\n", ".gitignore": "dist/\n"})
    return known


LONG_RUNNING = {"demo", "serve", "supervise", "mcp", "converge"}
MORE = {"logs": ["web"], "show": [], "run": ["--", "true"], "shell": ["web"], "block": ["HEAD"],
        "hold": ["--because", "a canary"], "accept": ["x"], "notify": ["test"], "rescue": ["list"], "hostfile": ["list"],
        "token": ["list"], "db": ["check"], "restart": ["web"], "rebuild": ["web"], "completion": ["bash"],
        "diff": [], "discard": ["web/x"], "init": [], "ssh-entry": ["--token", "x"]}  # fmt: skip


def shown(world: World, everything: bool) -> dict[str, str]:
    """What each verb says, with -v or as JSON by turns; `everything`: in words, with -v and as JSON."""
    said, forms = {}, ([], ["-v"], ["--json"])
    for number, verb in enumerate(verb for verb in VERBS if verb not in LONG_RUNNING):
        for form in forms if everything else forms[1 + number % 2 :][:1]:
            ran = run(world, *form, verb, *MORE.get(verb, []))
            said[" ".join(["homeport", *form, verb])] = ran.stdout + ran.stderr
    return said


def written(world: World) -> dict[str, str]:
    """Every file that homeport keeps, and the daemon's own log."""
    files = {str(path): content for path, content in world.kept() if "repo.git/objects" not in str(path)}
    log = world.root / "daemon.log"
    return {path: content.decode("latin-1") for path, content in {**files, str(log): log.read_bytes()}.items()}


ROUTES = ["/api/v1/status", "/api/v1/deploys", "/api/v1/drift", "/api/v1/edits", "/api/v1/plan", "/metrics", "/healthz",
          "/api/v1/schema"]  # fmt: skip


def test_no_secret_comes_out_anywhere(
    world: World, forge: GitHubFake, channel: ChannelServer, told: dict[str, str], request: pytest.FixtureRequest
) -> None:
    said: dict[str, str] = {}
    ends, soak = [], bool(request.config.getoption("--soak"))
    for bad in ("nothing", "check", *(("build", "command", "action", "lint") if soak else ())):
        world.publish({"web/bad.txt": bad + "\n"}, f"{bad} fails")
        ran = world.homeport("--json", "deploy", ok=None)
        said[f"deploy, {bad} fails"] = ran.stdout + ran.stderr
        ends.append(ran.last["status"])
    assert ends[0] == "deployed", json.dumps(ran.last)
    assert "rolled_back" in ends, ends
    daemon = Daemon(world).start()
    try:
        bearer = world.json("token", "create", "robot", "--right", "read", "--right", "deploy:*")["token"]
        headers = {"Authorization": f"Bearer {bearer}"}
        world.publish({"web/bad.txt": "check\nonce more\n"})
        answer = daemon.ask("POST", "/api/v1/self/deploy", json={"scope": "all"}, headers=headers)
        said["the answer of a deploy"] = answer.text
        assert answer.status_code == 500 and "aubergine" in answer.text
        deploy = answer.json()["deployId"]
        for route in [*ROUTES, f"/api/v1/deploys/{deploy}", f"/api/v1/deploys/{deploy}/log"]:
            said[route] = daemon.ask("GET", route, headers=headers).text
        said["a wrong delivery"] = daemon.ask("POST", "/hooks/github", content=b"{}", headers={
            "X-Hub-Signature-256": f"sha256={told['webhook secret']}", "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "1", **headers}).text  # fmt: skip
    finally:
        daemon.close()
    eventually(lambda: len(channel.taken) > 1 and any(seen.method == "POST" for seen in forge.seen), "messages are out")
    said |= shown(world, soak) | written(world)
    said["messages"] = json.dumps(channel.taken)
    said["the forge"] = json.dumps([[seen.method, seen.path, seen.query, seen.body] for seen in forge.seen])
    report = Path(world.root / "report")
    said["command lines"] = (report / "cmdline").read_bytes().decode("latin-1")
    for path in report.glob("environ-*"):
        got = {kind for kind, value in told.items() if value in path.read_text()}
        assert got <= ({"env file", "env file, a key"} if path.name.endswith(("command", "check")) else set()), path
    assert len(list(report.glob("environ-*"))) >= 4
    assert sum("aubergine" in text for text in said.values()) > 5, "what was printed is kept"
    out = {f"{kind} in {where}" for where, text in said.items() for kind, value in told.items() if value in text}
    out |= {f"API token in {where}" for where, text in said.items() if bearer in text}
    assert not out, "\n".join(sorted(out))
