"""What `homeport check` says beyond a file that loads."""

from __future__ import annotations

import pytest

from homeport.decide.checking import check_tree, unsupported
from homeport.decide.loading import load

HEAD = '[project]\nname = "shop"\n[environments.production]\nbranch = "main"\n'
API = HEAD + '[services.api]\nsource = "api"\ntarget = "/opt/api"\n'
FILES = ["README.md", "api/server.js", "api/conf/nginx.conf", "api/lib/a.js", "web/index.html", "shared/x.js"]

FATAL = [
    ("[services.b]\nsource = 'b'\ntarget = '/b'\ncheckout = true", "services.b.checkout",
     '`checkout` is for a live folder of the whole repository: `source` must be "."'),
    ("[services.b]\nruntime = 'pm2'\non_change = 'recreate'", "services.b.on_change",
     'this version has no on_change = "recreate" for runtime "pm2"; take it out to deploy with this version'),
    ("[services.b]\nsource = 'b'\ntarget = '/b'\nruntime = 'swarm'\non_change = 'reload'", "services.b.on_change",
     'this version has no on_change = "reload" for runtime "swarm"; take it out to deploy with this version'),
    ("[services.b]\non_change = 'rebuild'", "services.b.on_change", None),
    ("[services.b]\nlisten = '127.0.0.1:1'", "services.b.listen", None),
    ("[services.b]\nhandoff = 'fd'", "services.b.handoff", None),
    ("[services.b]\nruntime = 'pm2'\nlisten = '3000'\nhandoff = 'shim'", "services.b.handoff", None),
    ("[services.b]\nruntime = 'pm2'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'\nready = { notify = true }",
     "services.b.ready.notify", None),
    ("[services.b]\nruntime = 'pm2'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'\nready = { tcp = '127.0.0.1:3000' }",
     "services.b.ready.tcp", None),
    ("[services.b]\nruntime = 'systemd'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'\n"
     "ready = { http = 'http://127.0.0.1:3000/' }", "services.b.ready.http", None),
    ("[services.b]\nruntime = 'pm2'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'\n[services.c]\nruntime = 'pm2'\n"
     "unit = 'b.b'", "services.c", None),
    ("[services.b]\nruntime = 'pm2'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'\non_change = 'reload'",
     "services.b.on_change", None),
    ("[services.b]\nruntime = 'command'\ncommand = 'x'\nlisten = '3000'\nhandoff = 'port'", "services.b.handoff", None),
    ("[services.b]\nreplicas = 2", "services.b.replicas", None),
    ("[services.b]\nready = { notify = true }", "services.b.ready", None),
    ("[services.b]\nsource = 'b'\ntarget = '/b'\nbuild = { run = 'x', where = 'live', git = true }", "services.b.build.git",
     '`git` is for builds beside the live folder; with `where = "live"` use `checkout`'),
    ("[services.b]\nchecks = [{ containers = 1 }]", "services.b.checks[0].containers", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "message"), FATAL, ids=[f"{where}" for _, where, _ in FATAL])
def test_a_deploy_must_refuse_what_this_version_would_leave_out(text: str, where: str, message: str | None) -> None:
    first, *others = unsupported(load(HEAD + text))
    assert first.fatal
    assert first.where == where
    assert message is None or first.message == message
    assert not any(note.fatal for note in others)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[scopes.a]\nservices = []\nbuild = ['make']", "scopes.a.build"),  # no service leaves its build to it
    ],
)
def test_what_only_has_no_effect_yet_does_not_stop_a_deploy(text: str, where: str) -> None:
    (note,) = unsupported(load(HEAD + text))
    assert (note.where, note.fatal) == (where, False)
    assert note.message.endswith("it has no effect yet")


def test_what_this_version_can_do_has_no_notes() -> None:
    text = (
        API + 'runtime = "pm2"\nprotect = ["d/"]\nin_place = ["x"]\nvalidate = "true"\non_change = "reload"\n'
        'checks = [{ http = "http://127.0.0.1:1" }, { tcp = "127.0.0.1:1" }, { command = "x" }, { process = true },'
        ' { version = "x" }]\nbuild = { run = "make", outputs = ["dist"], inherit = [".env"] }\n'
        "[services.job]\nruntime = 'command'\ncommand = 'x'\non_change = 'none'\n[services.none]\n"
        "[[rules]]\nid = 'r'\naction = 'deploy'\n"
        "[[actions]]\npaths = ['x']\nrun = 'y'\nwait = 'z'\n[migrate]\nrun = 'x'\nservice = 'api'\n"
        "[environments.staging]\nbranch = 'next'\nobserve = true\non_drift = 'keep'\nurl = 'https://example.com'\n"
    )
    assert unsupported(load(text)) == []


def notes(text: str, files: list[str] = FILES) -> list[tuple[str, str, bool]]:
    return [(n.where, n.message, n.fatal) for n in check_tree(load(text), "production", files)]


def test_a_rule_that_guards_nothing_is_told() -> None:
    rules = [("restart", "apy"), ("restart", "ap*"), ("write", "api/lob/"), ("write", "/etc/nginx/"), ("try", "*.js"),
             ("push", "x")]  # fmt: skip
    text = API + "".join(f'[[rules]]\nid = "r{n}"\naction = "{action}"\nmatch = "{match}"\n'
                         for n, (action, match) in enumerate(rules))  # fmt: skip
    assert notes(text) == [
        ("rules[0].match", "`apy` is no service and no unit; did you mean `api`?", False),
        ("rules[2].match[0]", "`api/lob/` matches no file in the repository", False),
    ]


def test_a_configuration_that_fits_its_files() -> None:
    text = API + 'watch = ["*.html", "lib/"]\nignore = ["conf/"]\nuses = ["shared"]\nin_place = ["nginx.conf"]\n'
    assert notes(text) == []
    assert notes(text.replace('"api"', '"."')) == []


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (API.replace('"api"', '"apy"'),
         ("services.api.source", "`apy` is not a folder of the repository; did you mean `api`?", True)),
        (API.replace('"api"', '"README.md"'),
         ("services.api.source", "`README.md` is a file, not a folder", True)),
        (API + 'watch = ["web/*.htm"]\n',
         ("services.api.watch[0]", "`web/*.htm` matches no file in the repository", False)),
        (API + 'in_place = ["a", "lob/"]\n',
         ("services.api.in_place[0]", "`a` matches no file below api/", False)),
        (API + 'ignore = ["nothing"]\n',
         ("services.api.ignore[0]", "`nothing` matches no file below api/", False)),
        (API + 'mutable = ["config/"]\n',
         ("services.api.mutable[0]", "`config/` matches no file below api/; did you mean `conf`?", False)),
        (API + 'uses = ["apj"]\n',
         ("services.api.uses[0]", "`apj` is neither a service nor a path of the repository; did you mean `api`?",
          False)),
        (API + 'build = { run = "make", outputs = ["lib/"] }\n',
         ("services.api.build.outputs[0]",
          "`lib/` is a build output, but git tracks `lib/a.js`; git rm --cached it", True)),
        (API + '[services.web]\nsource = "web"\ntarget = "/opt/api"\n',
         ("services.web.target", "/opt/api is the target of api", True)),
        (API + '[services.web]\nsource = "web"\ntarget = "/opt/api/web"\n',
         ("services.web.target", "/opt/api/web lies inside /opt/api, the target of api", True)),
        (API.replace('name = "shop"', 'name = "shop"\ntarget = "/opt"'),
         ("services.api.target", "/opt/api lies inside /opt, the target of the project", True)),
        (API + '[services.web]\nsource = "web"\nruntime = "pm2"\n',
         ("services.web.target", "no live folder is named, so none of its files is put live", False)),
        (API + "[[actions]]\npaths = ['nginx/']\nrun = 'x'\n",
         ("actions[0].paths[0]", "`nginx/` matches no file in the repository", False)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(text: str, note: tuple[str, str, bool]) -> None:
    assert notes(text)[0] == note


def test_two_services_of_different_environments_may_have_one_target() -> None:
    other = '[environments.staging]\nbranch = "next"\n[services.b]\nsource = "web"\ntarget = "/opt/api"\n'
    both = API + other
    assert [where for where, _, _ in notes(both)] == ["services.b.target"]
    assert notes(both + 'environments = ["staging"]\n') == []


def test_a_name_that_only_begins_alike_is_not_inside() -> None:
    assert notes(API + '[services.web]\nsource = "web"\ntarget = "/opt/api-2"\n') == []


def test_the_outer_target_is_found_past_its_neighbours() -> None:
    text = API + "".join(
        f'[services.{name}]\nsource = "web"\ntarget = "{path}"\n'
        for name, path in (("b", "/opt/api-b"), ("c", "/opt/api/c"), ("d", "/opt/api/d"))
    )
    assert [where for where, _, _ in notes(text)] == ["services.c.target", "services.d.target"]
