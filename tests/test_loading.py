"""homeport.toml: what loads, what does not, and the exact words for it."""

from __future__ import annotations

import tomllib
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide import durations
from homeport.decide.loading import load, load_host
from homeport.decide.locate import dotted, line_at, lines_of
from homeport.decide.schema import json_schema
from homeport.model.config import Config, Seconds
from homeport.model.errors import ConfigFault

SMALL = """\
[project]
name = "shop"

[environments.production]
branch = "main"

[services.api]
source  = "api"
target  = "/opt/api"
runtime = "pm2"
unit    = "api"
"""

FULL = """\
[project]
name = "shop"
repo = "git@example.com:shop/shop.git"
target = "/srv/shop"
protect = ["uploads/"]
unprotect = ["*.bak*"]
mutable = ["package-lock.json"]
jobs = 4
keep = 3

[forge]
kind = "gitea"
url = "https://git.example.com"
repo = "shop/shop"
token = { env = "FORGE_TOKEN" }
webhook_secret = [{ file = "/etc/homeport/hook" }, { env = "OLD_HOOK" }]

[environments.production]
branch = "main"
hosts = ["one"]
url = "https://shop.example.com"
on_drift = "refuse"
observe = false
edit_warning = "24h"
strategy = "canary"
hold_ttl = "4h"
converge = "15m"
repo = "https://git.example.com/shop.git"
checks = [{ http = "https://shop.example.com/health", status = [200, 204] }]

[environments.staging]
branch = "release/next"
try = true
on_drift = "keep"

[hosts.one]
ssh = "deploy@one.example.com:2222"
addresses = ["192.0.2.1"]

[services.db]
source = "db"

[services.api]
source = "api"
target = "/opt/api"
watch = ["config/*.yaml"]
ignore = ["*.md"]
uses = ["db", "shared/"]
protect = ["data/"]
unprotect = ["*.pem"]
mutable = ["counters.json"]
in_place = ["nginx.conf"]
checkout = true
owner = "www:www-data"
user = "www"
home = "/home/www"
path = ["/usr/local/bin"]
runtime = "supervisor"
unit = "shop-api"
command = ["node", "server.js"]
cwd = "src"
env = { PORT = "3000" }
env_file = ".env"
listen = ["127.0.0.1:3000"]
handoff = "fd"
replicas = 2
signal = "SIGINT"
stop_timeout = "15s"
drain = 2.5
on_change = "reload"
validate = "node --check server.js"
after = ["db"]
environments = ["production"]

[services.api.build]
run = "npm ci && npm run build"
outputs = ["dist", "node_modules/"]
inherit = [".env"]
env = { NODE_ENV = "production" }
git = true
timeout = "20m"
where = "live"

[services.api.ready]
http = "http://127.0.0.1:3000/ready"
timeout = "250ms"

[[services.api.checks]]
tcp = "127.0.0.1:3000"
name = "port"
timeout = "1s"
within = "1m"
every = "100ms"
stable = "2s"
required = false

[[services.api.checks]]
command = "true"

[[services.api.checks]]
process = true

[[services.api.checks]]
containers = 2

[[services.api.checks]]
version = ["cat", "version"]

[[services.api.checks]]
http = "http://127.0.0.1:3000/"
status = 200
contains = "ok"

[[actions]]
paths = ["nginx/**"]
run = ["true"]
validate = "true"
wait = "true"
timeout = "1m"
user = "www"

[[actions]]
paths = ["api.yaml"]
service = "api"
on_change = "restart"

[scopes.platform]
services = ["api", "db"]
build = "true"

[migrate]
run = ["true"]
service = "api"
user = "www"
timeout = "10m"
undo = "true"
lock = { env = "DATABASE_URL" }

[checks.unit]
run = "npm test"
paths = ["api/"]
timeout = "5m"
cron = "0 3 * * *"
required = true
user = "www"

[gate]
workflows = ["test"]
except = ["nightly"]
checks = ["unit"]
settle = "30s"
timeout = "1h"

[[rules]]
id = "no-friday"
action = "deploy"
match = ["api/**"]
effect = "confirm"
environments = ["production"]
because = "it is Friday"

[[hostfiles]]
path = "/etc/nginx/nginx.conf"
purpose = "the proxy"
hosts = ["one"]
validate = ["nginx", "-t"]
reload = "true"
secret = false

[notify]
urls = [{ env = "CHAT_URL" }, "json://example.com"]
on = ["failure", "full"]
quiet_paths = ["docs/"]
"""


def fault_of(text: str) -> ConfigFault:
    with pytest.raises(ConfigFault) as caught:
        load(text)
    return caught.value


def with_service(line: str, head: str = "") -> str:
    return f'{head}[project]\nname = "shop"\n[environments.production]\nbranch = "main"\n[services.api]\n{line}\n'


def test_the_smallest_useful_file_loads_with_defaults() -> None:
    config = load(SMALL)
    api = config.services["api"]
    assert (config.project.name, config.project.jobs, config.project.keep) == ("shop", 2, 5)
    assert (api.source, api.target, api.runtime, api.unit) == ("api", "/opt/api", "pm2", "api")
    assert config.environments["production"].converge == 900


def test_the_whole_shape_loads() -> None:
    config = load(FULL)
    api = config.services["api"]
    assert api.drain == 2.5
    assert isinstance(api.drain, Seconds)
    assert api.ready is not None
    assert api.ready.timeout == 0.25
    assert [c.within for c in api.checks] == [60, 30, 30, 30, 30, 30]
    assert config.environments["staging"].try_ is True
    assert config.gate is not None
    assert config.gate.except_ == ["nightly"]


EXACT = [
    (
        SMALL.replace("source ", "sorce "), "homeport.toml:8: services.api.sorce",
        "unknown key `sorce`; did you mean `source`?",
    ),
    (
        SMALL + "zzz = 1\n", "homeport.toml:12: services.api.zzz", None,
    ),
    (
        SMALL.replace("[services.api]", "[service.api]"), "homeport.toml:7: service",
        "unknown key `service`; did you mean `services`?",
    ),
    (
        with_service("source = 7"), "homeport.toml:6: services.api.source", "must be a string, not a whole number",
    ),
    (
        with_service("checkout = 'yes'"), "homeport.toml:6: services.api.checkout",
        "must be true or false, not a string",
    ),
    (
        with_service("watch = [\n 'a',\n 3]"), "homeport.toml:8: services.api.watch[1]",
        "must be a string, not a whole number",
    ),
    (
        with_service("runtime = 'pm3'"), "homeport.toml:6: services.api.runtime",
        'must be one of "command", "compose", "pm2", "supervisor", "swarm", "systemd", not "pm3"; did you mean "pm2"?',
    ),
    (
        with_service("drain = '5 minutes'"), "homeport.toml:6: services.api.drain",
        'must be a duration such as "250ms", "30s", "15m", "4h", "7d", or a number of seconds, not "5 minutes"',
    ),
    (
        with_service("checks = [{ tcp = '127.0.0.1:1', every = -1 }]"), "homeport.toml:6: services.api.checks[0].every",
        'must be a duration such as "250ms", "30s", "15m", "4h", "7d", or a number of seconds, not -1',
    ),
    (
        with_service("checks = [{ tcp = '127.0.0.1:1', every = 0 }]"), "homeport.toml:6: services.api.checks[0].every",
        "must be longer than 0s",
    ),
    (
        with_service("[[services.api.checks]]\ntcp = '127.0.0.1:1'\nprocess = true"),
        "homeport.toml:6: services.api.checks[0]",
        "needs exactly one of `http`, `tcp`, `command`, `process`, `containers`, `version`; it has `tcp` and `process`",
    ),
    (
        with_service("checks = [{ name = 'x' }]"), "homeport.toml:6: services.api.checks[0]",
        "needs exactly one of `http`, `tcp`, `command`, `process`, `containers`, `version`; it has none",
    ),
    (
        with_service("source = 'api'\ntarget = '/opt//api/'"), "homeport.toml:7: services.api.target",
        "`/opt//api/` must be written as `/opt/api`",
    ),
    (
        with_service("source = '../api'"), "homeport.toml:6: services.api.source",
        "`../api` must be a relative path without `..`",
    ),
    (
        with_service("target = '/opt/api'"), "homeport.toml:5: services.api",
        'a service with a target needs `source`, the folder that goes there ("." for all of it)',
    ),
    (
        SMALL.replace('"main"', '"--upload-pack=x"'), "homeport.toml:5: environments.production.branch",
        "`--upload-pack=x` is not a branch name",
    ),
    (
        SMALL + 'environments = ["prodution"]\n', "homeport.toml:12: services.api.environments[0]",
        "unknown environment `prodution`; did you mean `production`?",
    ),
    (
        with_service("after = ['b']\n[services.b]\nafter = ['c']\n[services.c]\nafter = ['api']"),
        "homeport.toml:10: services.c.after", "`after` goes in a circle: api -> b -> c -> api",
    ),
    (
        with_service("after = ['api']"), "homeport.toml:6: services.api.after[0]",
        "unknown service `api`; a service cannot come after itself",
    ),
    (
        with_service("runtime = 'command'"), "homeport.toml:5: services.api", 'runtime "command" needs `command`',
    ),
    (
        with_service("protect = ['data/']"), "homeport.toml:6: services.api.protect",
        "`protect` needs a live folder: give the service a `target`",
    ),
    (
        SMALL + '[services."Big One"]\n', 'homeport.toml:12: services."Big One"',
        "`Big One` is not a name: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit",
    ),
    (
        '[project]\nname = "shop"\n[environments.production]\n', "homeport.toml:3: environments.production",
        "[environments.production] lacks the key `branch` (a string)",
    ),
    (
        '[project]\nname = "shop"\n', "homeport.toml:1", "the file lacks the key `environments` (a table)",
    ),
    (
        '[project]\nname = "shop"\nname = "two"\n', "homeport.toml:3", "not valid TOML: Cannot overwrite a value",
    ),
    (
        "[project]\nname = \n", "homeport.toml:2", "not valid TOML: Invalid value",
    ),
    (
        SMALL.replace('unit    = "api"', 'unit = "all"'), "homeport.toml:11: services.api.unit",
        "pm2 takes `all` for something else than a name; give the process another `unit`",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "what"), EXACT, ids=[where for _, where, _ in EXACT])
def test_an_error_names_file_line_key_and_what_is_wrong(text: str, where: str, what: str | None) -> None:
    fault = fault_of(text)
    assert fault.where == where
    assert what is None or fault.what == what
    assert fault.exit_code == 2
    assert fault.next == "correct the file, then run: homeport check"


def test_an_unknown_key_that_resembles_nothing_lists_the_known_ones() -> None:
    fault = fault_of('[project]\nname = "shop"\nzzzz = 1\n[environments.production]\nbranch = "main"\n')
    assert fault.what == (
        "unknown key `zzzz`; known here: jobs, keep, mutable, name, protect, repo, target, unprotect"
    )  # fmt: skip


REFUSED = [
    "source = '/abs'", "source = 'a/../b'", "source = 'a//b'", "source = '.git/hooks'",
    "source = 'a'\ntarget = 'relative'", "source = 'a'\ntarget = '/'", "source = 'a'\ntarget = '/opt/../etc'",
    "source = 'a'\ntarget = '//opt/a'", 'source = "a\\u0000b"', "watch = ['']", "watch = ['!x']", "watch = ['../x']",
    "uses = ['/../x']", "uses = ['api']", "after = ['nobody']", "signal = 'TERM'", "replicas = 0", "replicas = true",
    "user = '-u root'", "user = ''", "home = 'home'", "path = ['bin']", "cwd = '../x'", "cwd = '/srv/x'",
    "env_file = '../.env'", "env = { 'A=B' = 'x' }", 'env = { A = "\\u0000" }', "env = { A = 1 }", "command = ''",
    "command = []", "command = ['']", "unit = 'x'", "runtime = 'pm2'\nunit = '0'", "runtime = 'pm2'\nunit = '--x'",
    "runtime = 'supervisor'\ncommand = 'x'\nhandoff = 'fd'",
    "runtime = 'supervisor'\ncommand = 'x'\nhandoff = 'port'\nlisten = ['3000', '3001']",
    "checks = [{ http = 'ftp://x' }]", "checks = [{ http = '/health' }]", "checks = [{ tcp = 'x:70000' }]",
    "checks = [{ tcp = '--x' }]", "checks = [{ process = false }]", "checks = [{ tcp = 'a:1', status = 200 }]",
    "checks = [{ http = 'http://a', status = 20 }]", "checks = [{ http = 'http://a', timeout = nan }]",
    "checks = [{ http = 'http://a', timeout = inf }]", "drain = '1e3s'", "drain = '9999999d'", "drain = true",
    "drain = 1979-05-27", "owner = 'a'", "build = { run = 'make' }", "checks = { }", "environments = ['nowhere']",
    "source = 'a'\ntarget = '/opt/a'\nbuild = { run = 'make', outputs = ['../x'] }",
    "source = 'a'\ntarget = '/opt/a'\nbuild = { run = 'make', outputs = ['.'] }",
    "source = 'a'\ntarget = '/opt/a'\nbuild = { run = '' }",
    "source = 'a'\ntarget = '/opt/a'\nbuild = { run = 'make', timeout = 0 }",
    "[[actions]]\npaths = ['x']", "[[actions]]\npaths = []\nrun = 'x'", "[[actions]]\npaths = ['x']\nservice = 'y'",
    "[[actions]]\npaths = ['x']\nrun = 'x'\nservice = 'api'", "[[actions]]\npaths = ['x']\nrun = 'x'\non_change = 'none'",
    "[scopes.a]\nservices = ['b']", "[migrate]\nrun = 'x'\nservice = 'b'", "[migrate]\nrun = 'x'\nservice = 'api'",
    "[forge]\nkind = 'github'\ntoken = { }", "[forge]\nkind = 'github'\ntoken = { env = 'A', file = '/b' }",
    "[forge]\nkind = 'github'\ntoken = 'ghp_x'", "[forge]\nkind = 'gitea'",
    "[[rules]]\nid = 'a'\naction = 'deploy'\n[[rules]]\nid = 'a'\naction = 'deploy'",
    "[hosts.a]\nssh = '-oProxyCommand=x'", "[[hostfiles]]\npath = 'etc/x'\npurpose = 'x'",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_would_go_wrong_later_is_refused_now(line: str) -> None:
    fault = fault_of(with_service(line))
    assert fault.where.startswith("homeport.toml:")
    assert fault.where.partition(": ")[2], fault.where
    assert int(fault.where.split(":")[1]) >= 5, f"{fault.where}: {fault.what}"


@pytest.mark.parametrize(
    "branch", ["-x", "", "a..b", "a b", "a~1", "/a", "a/", "a.lock", "a/.b", "@", "HEAD", "a@{1}", "refs/heads/a", "a."]
)
def test_a_branch_that_git_or_a_command_line_would_misread_is_refused(branch: str) -> None:
    assert "environments.production.branch" in fault_of(SMALL.replace('"main"', f'"{branch}"')).where


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "\x00", "[project", 'a = "'])
def test_hostile_text_is_a_configuration_error(text: str) -> None:
    assert "not valid TOML" in fault_of(text).what


def test_control_characters_of_the_file_never_reach_the_terminal() -> None:
    fault = fault_of('[project]\nname = "shop"\n"\\u001b[2J" = 1\n')
    assert "\x1b" not in fault.what + fault.where
    assert r"\x1b[2J" in fault.what


def test_services_that_share_the_projects_target_may_protect_and_own_but_not_unprotect() -> None:
    head = '[project]\nname = "shop"\ntarget = "/srv/shop"\n[environments.e]\nbranch = "main"\n[services.api]\n'
    assert load(f"{head}source = 'api'\nprotect = ['data/']\n").services["api"].protect == ["data/"]
    assert load(f"{head}source = 'api'\nowner = 'www'\n").services["api"].owner == "www"
    assert fault_of(f"{head}unprotect = ['.env']\n").what == (
        "`unprotect` needs a `target` of the service's own; this one shares [project] target"
    )


def test_a_long_row_of_services_does_not_exhaust_the_stack() -> None:
    rows = "".join(f"[services.s{n}]\nafter = ['s{n + 1}']\n" for n in range(3000)) + "[services.s3000]\n"
    assert len(load(with_service("", "") + rows).services) == 3002


def test_the_host_file() -> None:
    host = load_host(
        'name = "prod-1"\nenvironments = ["production"]\nroots = ["/opt", "/srv"]\nusers = ["www"]\n'
        'units = ["shop-*"]\n[listen]\naddress = "127.0.0.1:1"\n[secrets.db]\nfile = "/etc/db"\n[keys.ci]\ntoken = "x"\n'
    )
    assert host.roots == ["/opt", "/srv"]
    assert host.secrets["db"].file == "/etc/db"
    for text, where in (
        ('name = "a"\nroots = ["opt"]\n', "/etc/homeport/host.toml:2: roots[0]"),
        ('name = "a"\nroot = ["/opt"]\n', "/etc/homeport/host.toml:2: root"),
        ('name = "a"\n[secrets.db]\n', "/etc/homeport/host.toml:2: secrets.db"),
    ):
        with pytest.raises(ConfigFault) as caught:
            load_host(text)
        assert caught.value.where == where


# durations


@given(st.integers(min_value=0, max_value=durations.LONGEST * 1000))
def test_a_duration_survives_being_written_and_read(milliseconds: int) -> None:
    written = durations.text(Seconds(milliseconds / 1000))
    assert round(durations.parse(written) * 1000) == milliseconds


@given(st.text())
def test_any_other_text_is_no_duration_or_a_finite_one(text: str) -> None:
    try:
        seconds = durations.parse(text)
    except ValueError:
        return
    assert 0 <= seconds <= durations.LONGEST


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("15m", 900), ("4h", 14400), ("7d", 604800), ("1.5h", 5400), (3, 3), (0.5, 0.5),
     ("0s", 0)],
)  # fmt: skip
def test_durations(written: str | float, seconds: float) -> None:
    assert durations.parse(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "5", "s", "-1s", "1 s", "1S", "1w", "٣s", "1s\n", "1_0s", -1, 1e300, True, None, []]
)
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError):
        durations.parse(written)


# line numbers


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in _paths(item, (*path, key)))]


TRICKY = '''\
a."b.c".'d' = 1 # x = 2
text = """
[not.a.table]
k = "v" \\""" still
"""""
raw = \'\'\'
x = \'[1]\'\'\'\'
list = [ # comment ]
  "one", # two ]
  [1, 2,
   3], { x = "}", y = [
     "#" ] } ]
[[t]]
n = 1
[[t.u]]
m = 1
[[t]]
[t.sub]
k = 1
[[t.u]]
m = 2
"q\\u0041" = 1979-05-27 07:32:00
'''


@pytest.mark.parametrize("text", [SMALL, FULL, TRICKY, TRICKY.replace("\n", "\r\n")])
def test_every_value_of_a_file_has_its_line(text: str) -> None:
    lines = lines_of(text)
    rows = text.splitlines()
    for path in _paths(tomllib.loads(text)):
        named = [part for part in path if isinstance(part, str)]
        if not path or path not in lines:
            assert any(known[: len(path)] == path for known in lines), dotted(path)
        elif isinstance(path[-1], str) and named[-1] != "qA":
            assert named[-1] in rows[lines[path] - 1], dotted(path)


def test_lines_in_tricky_places() -> None:
    lines = lines_of(TRICKY)
    assert lines["a", "b.c", "d"] == 1
    assert lines[("raw",)] == 6
    assert lines["list", 1, 2] == 11
    assert lines["list", 2, "y", 0] == 12
    assert (lines["t", 0, "u", 0, "m"], lines["t", 1, "sub", "k"], lines["t", 1, "u", 0, "m"]) == (16, 19, 21)
    assert lines["t", 1, "u", 0, "qA"] == 22
    assert line_at(lines, ("t", 1, "nothing")) == 17
    assert line_at(lines, ("nothing",)) == 1


# the published schema


def _valid(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(json_schema())
    return validator.is_valid(tomllib.loads(text))


def test_the_schema_is_one_and_takes_what_loads() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert _valid(SMALL)
    assert _valid(FULL)


@pytest.mark.parametrize(
    "line",
    ["sorce = 'x'", "source = 7", "runtime = 'pm3'", "drain = '5 minutes'", "checks = [{ }]", "drain = -1",
     "checks = [{ tcp = 'a:1', process = true }]", "[services.Big]", "[[actions]]\npaths = ['x']"],
)  # fmt: skip
def test_the_schema_refuses_what_does_not_load(line: str) -> None:
    assert not _valid(with_service(line))
    fault_of(with_service(line))


def test_the_schema_names_every_key_with_its_default() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Config.__struct_fields__)
    assert schema["$defs"]["Environment"]["properties"]["converge"]["default"] == "15m"
    assert schema["$defs"]["Environment"]["properties"]["try"] == {"type": "boolean", "default": False}
    assert schema["$defs"]["Service"]["additionalProperties"] is False
