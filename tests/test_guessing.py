"""The first homeport.toml from what lies in a repository."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.checking import unsupported
from homeport.decide.guessing import first_config, slug
from homeport.decide.loading import load
from homeport.model.config import Config

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


@pytest.mark.parametrize("workspaces", ['["packages/*"]', '{"packages": ["./packages/*"]}'])
def test_workspaces_with_a_start_script(workspaces: str) -> None:
    services = first({
        "package.json": f'{{"workspaces": {workspaces}}}',
        "packages/api/package.json": '{"name": "@shop/api", "scripts": {"start": "node .", "build": "tsc"}}',
        "packages/lib/package.json": '{"name": "@shop/lib"}',
        "packages/a/b/package.json": '{"scripts": {"start": "x"}}',
    }).services  # fmt: skip
    assert [(n, s.source, s.command) for n, s in services.items()] == [("api", "packages/api", "npm start")]


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_a_python_folder(file: str) -> None:
    services = first({f"backend/{file}": ""}).services
    assert [(n, s.source, s.runtime) for n, s in services.items()] == [("backend", "backend", None)]


def test_compose_is_only_hinted_at() -> None:
    compose = "version: '3'\nservices:\n"
    compose += "  db:\n    image: postgres\n    volumes:\n      - x\n  cache:\n    image: y\nvolumes:\n  x:\n"
    text = first_config("shop", "main", {"compose.yaml": compose})
    assert load(text).services == {}
    assert "# compose.yaml runs db, cache;" in text
    assert '# runtime = "compose"' in text


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
    {"a\n[x]/compose.yaml": "services:\n  a:\n  b:\n"},
]


@pytest.mark.parametrize("files", NASTY)
def test_whatever_a_repository_holds_the_result_loads(files: dict[str, str]) -> None:
    load(first_config("shop", "main", files))


@given(
    st.text(), st.text(),
    st.dictionaries(
        st.sampled_from(["Procfile", "ecosystem.config.js", "package.json", "compose.yaml", "requirements.txt"])
        | st.text(max_size=8).map(lambda folder: f"{folder}/requirements.txt"),
        st.text() | st.text(max_size=12).map(lambda t: f"{{ name: '{t}', cwd: '/{t}', script: '{t}' }}")
        | st.text(max_size=12).map(lambda t: f"web: {t}\n"),
    ),
)  # fmt: skip
def test_any_text_gives_a_file_that_loads(name: str, branch: str, files: dict[str, str]) -> None:
    load(first_config(name, branch, files))
