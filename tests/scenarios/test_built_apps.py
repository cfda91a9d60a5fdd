"""E2: applications with dependencies of their own, built beside the live folder at its live path, run after the swap.

Each goes from one version to the next, which needs a package that the first did not have, and back without a build. The
packages come through npm and pip as a project's would; npm keeps them under .dev, so that a second run fetches none.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.world import World

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
PASSED_ON = ("NODE_EXTRA_CA_CERTS", "https_proxy", "HTTPS_PROXY", "no_proxy", "npm_config_registry", "PIP_CERT")
NODE_APP = """
[services.web]
source = "web"
target = "{live}/web"
runtime = "pm2"
unit = "web"
command = ["node", "serve.mjs"]
env = { PORT = "%(port)d" }
checks = [{ http = "http://127.0.0.1:%(port)d/", within = "60s", stable = "200ms" }]

  [services.web.build]
  run = "npm install --no-audit --no-fund --loglevel=error && %(build)s"
  outputs = ["node_modules", "%(output)s"]
  timeout = "5m"
  env = %(env)s
"""
VITE_CONFIG = """\
import { defineConfig } from "vite";
export default defineConfig({ define: { BUILT_IN: JSON.stringify(process.cwd()) } });
"""
VITE = {
    "web/index.html": '<!doctype html><script type="module" src="/main.js"></script>\n',
    "web/vite.config.js": VITE_CONFIG,
    "web/serve.mjs": 'import { preview } from "vite";\nconst server = await preview({ root: import.meta.dirname, '
                     'preview: { host: "127.0.0.1", port: Number(process.env.PORT), strictPort: true } });\n',
    "web/main.js": 'document.title = "one " + BUILT_IN;\n',
}  # fmt: skip
NEXT = {
    "web/serve.mjs": 'process.argv = [process.argv[0], "next", "start", "-H", "127.0.0.1", "-p", process.env.PORT];\n'
                     'await import("next/dist/bin/next");\n',
    "web/pages/index.js": 'export default function Page() { return <p>one</p>; }\n',
}  # fmt: skip
NEXT_ENV = {"NEXT_TELEMETRY_DISABLED": "1"}


def node_project(world: World, port: int, build: str, output: str, more: dict[str, str]) -> str:
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"npm_config_cache": str(REPOSITORY / ".dev/npm-cache"), "npm_config_prefer_offline": "true", **more}
    table = "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in env.items()) + " }"
    return NODE_APP % {"port": port, "build": build, "output": output, "env": table}


def package(**dependencies: str) -> str:
    return json.dumps({"name": "web", "private": True, "type": "module", "dependencies": dependencies}) + "\n"


def goes_live(world: World) -> None:
    """A build of a large application takes its minutes."""
    said, _ = world.start("--json", "deploy").communicate(timeout=600)
    assert json.loads(said.splitlines()[-1])["status"] == "deployed", said[-3000:]


def bundle(world: World, port: int) -> str:
    """The script that the page names."""
    page = world.get(port)[1]
    return world.get(port, page.partition('src="')[2].partition('"')[0])[1]


def test_a_vite_application_runs_after_the_swap_with_a_package_that_is_new(world: World, pm2_program: str) -> None:
    port, live = world.free_port(), str(world.live / "web")
    services = node_project(world, port, "npx vite build", "dist", {})
    ignored = {".gitignore": "node_modules/\ndist/\npackage-lock.json\n"}
    world._pm2_used = True
    world.project(services, {**VITE, **ignored, "web/package.json": package(vite="5.4.21")})
    goes_live(world)
    assert "one " in bundle(world, port) and live in bundle(world, port), "it was built at its live path"
    world.publish({"web/package.json": package(vite="5.4.21", ms="2.1.3"),
                   "web/main.js": 'import ms from "ms";\ndocument.title = "two " + ms(7200000) + BUILT_IN;\n'})  # fmt: skip
    goes_live(world)
    assert "two " in bundle(world, port) and live in bundle(world, port)
    assert (world.live / "web/node_modules/ms/package.json").exists()
    assert world.json("rollback")["status"] == "deployed"
    assert "one " in bundle(world, port)
    assert not (world.live / "web/node_modules/ms").exists(), "the packages of that version, as they were"


def test_a_next_application_runs_after_the_swap_with_a_package_that_is_new(world: World, pm2_program: str) -> None:
    port, next_ = world.free_port(), {"next": "14.2.33", "react": "18.3.1", "react-dom": "18.3.1"}
    services = node_project(world, port, "npx next build", ".next", NEXT_ENV)
    ignored = {".gitignore": "node_modules/\n.next/\npackage-lock.json\n"}
    world._pm2_used = True
    world.project(services, {**NEXT, **ignored, "web/package.json": package(**next_)})
    goes_live(world)
    assert "<p>one</p>" in world.get(port)[1]
    page = 'import ms from "ms";\nexport const getServerSideProps = async () => ({ props: { said: ms(7200000) } });\n'
    world.publish({"web/package.json": package(**next_, ms="2.1.3"),
                   "web/pages/index.js": page + "export default function Page({ said }) { return <p>two {said}</p>; }\n"})
    goes_live(world)
    assert "2h" in world.get(port)[1]
    assert world.json("rollback")["status"] == "deployed"
    assert "<p>one</p>" in world.get(port)[1]


PYTHON_APP = """
[services.api]
source = "api"
target = "{live}/api"
runtime = "command"
command = ["sh", "-c", "{live}/api/.venv/bin/greet > {live}/said.txt"]

  [services.api.build]
  run = "rm -rf .venv && python3 -m venv .venv && .venv/bin/pip install -q --no-index --no-deps wheels/*.whl"
  outputs = [".venv"]
  timeout = "5m"
"""


def wheel(folder: Path, name: str, source: str, script: str = "") -> None:
    """A package as pip takes it, with (or without) a program."""
    info = f"{name}-1.0.dist-info"
    files = {f"{name}.py": source, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}  # fmt: skip
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_a_virtual_environment_runs_after_the_swap_with_a_package_that_is_new(world: World) -> None:
    wheels, live = world.clone / "api/wheels", str(world.live / "api/.venv")
    greet = "import sys\ndef main():\n    try:\n        import extra\n        print(sys.prefix, extra.said)\n" \
            "    except ImportError:\n        print(sys.prefix, 'alone')\n"  # fmt: skip
    wheel(wheels, "greet", greet, "greet = greet:main")
    world.project(PYTHON_APP, {".gitignore": ".venv/\n"})
    goes_live(world)
    assert world.text("said.txt").split() == [live, "alone"]
    wheel(wheels, "extra", "said = 'together'\n")
    world.commit("a package more")
    world.push()
    goes_live(world)
    assert world.text("said.txt").split() == [live, "together"]
    assert world.json("rollback")["status"] == "deployed"
    assert world.text("said.txt").split() == [live, "alone"]
