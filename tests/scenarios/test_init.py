"""E9: the first homeport.toml, from what the repository holds and from what runs on the machine; it checks, and deploys."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from tests.world import NODE_SERVER, World, eventually

UNIT = "[Service]\nExecStart=/usr/bin/env node hooks.js\nWorkingDirectory={live}/hooks\n"
COMPOSE = "services:\n  db:\n    image: postgres:16\n  proxy:\n    build: ./proxy\n"


def written(world: World) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((world.clone / "homeport.toml").read_text())["services"]
    return found


def test_from_what_the_repository_holds(world: World) -> None:
    apps = [{"name": "shop-api", "cwd": str(world.live / "api"), "script": "server.js"}]
    start = json.dumps({"scripts": {"start": "node ."}})
    world.publish({
        "ecosystem.config.js": f"module.exports = {json.dumps({'apps': apps}, indent=2)};\n", "api/server.js": NODE_SERVER,
        "stack/compose.yaml": COMPOSE, "stack/proxy/package.json": start,
        "ops/shop-hooks.service": UNIT.format(live=world.live),
        "hooks/hooks.js": "", "package.json": json.dumps({"workspaces": ["apps/*"]}), "apps/web/package.json": start,
        "jobs/Procfile": "worker: node worker.js\n",
    })  # fmt: skip
    world.homeport("init", "--name", "shop")
    services = written(world)
    assert {name: (s["source"], s["runtime"], s.get("unit"), s.get("target")) for name, s in services.items()} == {
        "shop-api": ("api", "pm2", "shop-api", str(world.live / "api")),
        "shop-hooks": ("hooks", "systemd", "shop-hooks", str(world.live / "hooks")),
        "worker": ("jobs", "pm2", "worker", None), "web": ("apps/web", "pm2", "web", None),
        "stack": ("stack", "compose", "db proxy", "/opt/shop/stack"),
    }  # fmt: skip
    assert world.homeport("check").code == 0
    assert world.json("init", ok=(3,))["code"] == "exists", "never written over"


def test_from_the_live_host_and_the_first_deploy_finds_everything_as_it_is(world: World) -> None:
    """What runs by hand comes under homeport with what `init --live` wrote, not a line changed."""
    world.publish({"api/server.js": NODE_SERVER, "api/version.txt": "one\n", "feed/version.txt": "one\n"})
    port = world.free_port()
    for name, folder in (("shop-api", "api"), ("elsewhere", "elsewhere")):
        (world.live / folder).mkdir()
        for file in ("server.js", "version.txt"):
            (world.live / folder / file).write_text((world.clone / "api" / file).read_text())
        app = {"name": name, "script": "server.js", "cwd": str(world.live / folder), "env": {"PORT": port}}
        port = world.free_port()
        (world.root / f"{name}.json").write_text(json.dumps([app]))
        world.pm2("start", str(world.root / f"{name}.json"))
    port = int(json.loads((world.root / "shop-api.json").read_text())[0]["env"]["PORT"])
    eventually(lambda: world.get(port)[0] == 200, "it answers")
    world.homeport("init", "--live", "--name", "shop")
    (api,) = (service for service in written(world).values() if service.get("unit") == "shop-api")
    assert (api["source"], api["runtime"], api["target"]) == ("api", "pm2", str(world.live / "api"))
    assert f"# pm2 also runs elsewhere in {world.live}/elsewhere" in (world.clone / "homeport.toml").read_text()
    world.commit("homeport")
    world.push()
    assert world.json("drift")["equal"], "first contact knows it"
    inode = (world.live / "api/version.txt").stat().st_ino
    assert world.deploy()["ok"] and (world.live / "api/version.txt").stat().st_ino == inode
    world.publish({"api/version.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: world.get(port)[1].startswith("hello two"), "with the port that it always had")
