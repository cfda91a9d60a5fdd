"""The first homeport.toml from what lies in a repository."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.checking import unsupported
from homeport.decide.guessing import first_config, slug
from homeport.decide.loading import load
from homeport.model.config import Config
from homeport.model.running import Seen

ECOSYSTEM = """\
// apps: [{ name: 'commented' }]
module.exports = {
  apps: [
    { name: "shop-api", cwd: "/opt/shop/api", script: "server.js", env: { PORT: 3000 } },
    {
      script: './worker/main.js',
      name: 'Worker', /* name: 'old' */
    },
    { "name": "site", "cwd": "./web", "script": "npm", "args": "start" },
    { name: "all", script: "x.js" },
    { name: `${prefix}-x`, script: "x.js" },
  ],
};
"""


def first(files: dict[str, str], name: str = "shop") -> Config:
    config = load(first_config(name, "main", files))
    assert unsupported(config) == []
    return config


def test_apps_of_a_pm2_ecosystem() -> None:
    services = first({"ecosystem.config.js": ECOSYSTEM, "api/package.json": "{}", "api/server.js": ""}).services
    assert list(services) == ["shop-api", "worker", "site"]
    api, worker, site = services.values()
    assert (api.unit, api.runtime, api.target, api.source) == ("shop-api", "pm2", "/opt/shop/api", "api")
    assert (worker.unit, worker.target, worker.source) == ("Worker", None, "worker")
    assert (site.unit, site.source) == ("site", "web")


def test_a_procfile() -> None:
    procfile = 'web: gunicorn app:app --bind "0.0.0.0:$PORT"\nrelease: ./migrate\n# x: y\nworker: python w.py\n'
    services = first({"Procfile": procfile}).services
    assert list(services) == ["web", "worker"]
    assert services["web"].command == 'gunicorn app:app --bind "0.0.0.0:$PORT"'
    assert services["worker"].source == "."


SPELT = ('["packages/*"]', '{"packages": ["./packages/*"]}', "- 'packages/*'", '["packages/*"]#')


@pytest.mark.parametrize("workspaces", SPELT)
def test_workspaces_with_a_start_script(workspaces: str) -> None:
    pnpm = workspaces[0] == "-" or workspaces[-1] == "#"
    services = first({
        "package.json": "{}" if pnpm else f'{{"workspaces": {workspaces}}}',
        "pnpm-workspace.yaml": f"packages:\n  {workspaces}\n" if pnpm else "",
        "packages/api/package.json": '{"name": "@shop/api", "scripts": {"start": "node .", "build": "tsc"}}',
        "packages/lib/package.json": '{"name": "@shop/lib"}',
        "packages/a/b/package.json": '{"scripts": {"start": "x"}}',
    }).services  # fmt: skip
    assert [(n, s.source, s.command) for n, s in services.items()] == [("api", "packages/api", "npm start")]


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_a_python_folder(file: str) -> None:
    services = first({f"backend/{file}": ""}).services
    assert [(n, s.source, s.runtime) for n, s in services.items()] == [("backend", "backend", None)]


def test_a_compose_file_is_one_service_and_what_it_builds_is_none_of_its_own() -> None:
    compose = "version: '3'\nservices:\n  db:\n    image: postgres\n    volumes:\n      - x\n"
    compose += "  web:\n    build: ./web\n  api:\n    build:\n      context: api\nvolumes:\n  x:\n"
    package = '{"scripts": {"start": "node ."}}'
    files = {f"{folder}/package.json": package for folder in ("web", "api", "tool")}
    services = first({"compose.yaml": compose, **files}).services
    assert {n: (s.source, s.runtime, s.unit, s.target) for n, s in services.items()} == {
        "shop": (".", "compose", "db web api", "/opt/shop"), "tool": ("tool", "pm2", "tool", None),
    }  # fmt: skip


def test_unit_files_wherever_they_lie() -> None:
    unit = "[Unit]\nDescription=x\n[Service]\nWorkingDirectory=/opt/shop/api\nExecStart=/usr/bin/node server.js\n"
    files = {"ops/units/shop-api.service": unit, "ops/units/job@.service": unit, "ops/units/shop-worker.service":
             "[Service]\nExecStart=/opt/shop/worker/run\n", "ops/units/note.service": "not a unit", "api/server.js": "",
             "worker/run": ""}  # fmt: skip
    services = first(files).services
    assert {n: (s.source, s.runtime, s.unit, s.target) for n, s in services.items()} == {
        "shop-api": ("api", "systemd", "shop-api", "/opt/shop/api"),
        "shop-worker": ("worker", "systemd", "shop-worker", None),
    }  # fmt: skip


def test_what_runs_on_the_machine_says_where_things_live_and_what_the_repository_does_not_know() -> None:
    files = {"ecosystem.config.js": "apps: [{ name: 'api', script: './api/server.js' }]", "api/server.js": "",
             "web/package.json": '{"scripts": {"start": "x"}}', "compose.yaml": "services:\n  db:\n    image: x\n",
             "feed/run.py": ""}  # fmt: skip
    told = (("pm2", "api", "/srv/api"), ("systemd", "shop-web", "/srv/web"), ("compose", "db", "/srv/stack"),
            ("pm2", "feed", "/srv/feed"), ("pm2", "other\n[x]", "/srv/other"), ("pm2", "mine", "/home"))  # fmt: skip
    running = [Seen(runtime=runtime, unit=unit, folder=folder) for runtime, unit, folder in told]
    text = first_config("shop", "main", files, running)
    assert {n: (s.source, s.runtime, s.unit, s.target) for n, s in load(text).services.items()} == {
        "api": ("api", "pm2", "api", "/srv/api"), "web": ("web", "systemd", "shop-web", "/srv/web"),
        "shop": (".", "compose", "db", "/srv/stack"), "feed": ("feed", "pm2", "feed", "/srv/feed"),
    }  # fmt: skip
    assert "# pm2 also runs mine in /home: no folder of the repository is called so" in text


def test_nothing_found_leaves_an_example() -> None:
    text = first_config("My Shop", "feature/x", {})
    config = load(text)
    assert (config.project.name, config.environments["production"].branch) == ("my-shop", "feature/x")
    assert "# [services.my-shop]" in text
    example = "".join(line.removeprefix("# ") + "\n" for line in text.split("For example:\n")[1].splitlines())
    assert load(text + example).services["my-shop"].target == "/opt/my-shop"


@pytest.mark.parametrize(
    ("text", "name"),
    [("My Shop!", "my-shop"), ("", "app"), ("--", "app"), ("Ünï", "n"), ("x" * 99, "x" * 63), ("a.b", "a.b")],
)  # fmt: skip
def test_names_are_made_valid(text: str, name: str) -> None:
    assert slug(text) == name


NASTY = [
    {"ecosystem.config.js": 'name: "a\\"]\\n[evil]", cwd: "/opt/\\u0000", script: "../../x"'},
    {"ecosystem.config.js": "name: 'x', cwd: '../../..', script: '/abs/x.js'"},
    {"Procfile": "web: x\x00y\nall: x\n7: y\nA: b\na: c\n"},
    {"package.json": '{"scripts": {"start": "x"}, "workspaces": [1, "**"], "name": 3}'},
    {"package.json": "[" * 100_000},
    {"all/package.json": '{"scripts": {"start": "x"}}', "9/package.json": '{"scripts": {"start": "x"}}'},
    {".git/requirements.txt": "", "a\n[x]/requirements.txt": "", "\udcff/requirements.txt": ""},
    {"a\n[x]/compose.yaml": "services:\n  a:\n  b:\n"}, {"compose.yaml": "services:\n  a:\n    build: ../..\n"},
    {"x/a b.service": "[Service]\nExecStart=/x\nWorkingDirectory=/../x\x00\n", "-.service": "[Service]\nExecStart=x\n"},
    {"pnpm-workspace.yaml": "packages:\n  - '**'\n  - \"!a\"\n", "a/package.json": '{"scripts": {"start": "x"}}'},
]


@pytest.mark.parametrize("files", NASTY)
def test_whatever_a_repository_holds_the_result_loads(files: dict[str, str]) -> None:
    load(first_config("shop", "main", files))


@given(
    st.text(), st.text(),
    st.dictionaries(
        st.sampled_from(["Procfile", "ecosystem.config.js", "package.json", "compose.yaml", "a.service", "pyproject.toml"])
        | st.text(max_size=8).map(lambda folder: f"{folder}/requirements.txt"),
        st.text() | st.text(max_size=12).map(lambda t: f"{{ name: '{t}', cwd: '/{t}', script: '{t}' }}")
        | st.text(max_size=12).map(lambda t: f"web: {t}\n"),
    ),
)  # fmt: skip
def test_any_text_gives_a_file_that_loads(name: str, branch: str, files: dict[str, str]) -> None:
    load(first_config(name, branch, files))
