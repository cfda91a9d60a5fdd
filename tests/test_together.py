"""Builds of a whole scope: who takes part, which files are there, and what makes a new key."""

from __future__ import annotations

import pytest

from homeport.decide import together
from homeport.decide.loading import load
from homeport.model.errors import ConfigFault
from homeport.model.live import Entry

TOP = '[project]\nname = "shop"\n[environments.production]\nbranch = "main"\n'
SHOP = TOP + """
[scopes.platform]
services = ["back", "front", "site"]
build = "make"
[services.back]
source = "apps/back"
target = "/srv/back"
path = ["/opt/node/bin"]
uses = ["shared/words"]
build = { outputs = ["dist"], env = { MODE = "fast" }, timeout = "5m" }
[services.front]
source = "apps/front"
target = "/srv/front"
watch = ["theme/*.css"]
build = { outputs = ["dist"] }
[services.site]
source = "site"
target = "/srv/site"
build = { run = "make", outputs = ["out"] }
"""


def tree(*paths: str, of: str = "1") -> dict[str, Entry]:
    return {path: Entry(mode="100644", oid=of * 40) for path in paths}


EVERYTHING = tree(
    "package.json", ".npmrc", "homeport.toml", "README.md", ".gitignore", "apps/back/a.js", "apps/backup/b.js",
    "apps/front/c.js", "shared/words/d.js", "shared/other/e.js", "theme/f.css", "theme/g.js", "site/h.html",
)  # fmt: skip


def test_who_takes_part_and_which_files_are_there() -> None:
    config = load(SHOP.encode(), "homeport.toml")
    assert [together.scope_of(config, name) for name in ("back", "front", "site")] == ["platform", "platform", None]
    assert together.members(config, "production", "platform") == ["back", "front"]
    assert sorted(together.files(config, "platform", EVERYTHING)) == [
        ".npmrc", "apps/back/a.js", "apps/front/c.js", "package.json", "shared/words/d.js", "theme/f.css"]  # fmt: skip
    assert together.environment(config, "platform") == {"MODE": "fast"}
    assert together.builder(config, "platform").path == ["/opt/node/bin"]
    assert together.longest(config, "platform") == 1800.0


@pytest.mark.parametrize(("change", "new"), [
    ({"package.json": "2"}, True), ({".npmrc": "2"}, True), ({"homeport.toml": "2", "README.md": "2"}, False),
    ({"apps/front/c.js": "2", "site/h.html": "2"}, False), ({"yarn.lock": "2"}, True),
])  # fmt: skip
def test_files_at_the_top_make_a_new_key_and_those_that_only_tell_do_not(change: dict[str, str], new: bool) -> None:
    config = load(SHOP.encode(), "homeport.toml")
    changed = EVERYTHING | {path: Entry(mode="100644", oid=oid * 40) for path, oid in change.items()}
    assert (together.mark(config, "back", EVERYTHING) != together.mark(config, "back", changed)) is new
    assert together.mark(config, "site", changed) == ()


def test_another_command_or_variable_makes_a_new_key() -> None:
    texts = (SHOP, SHOP.replace('build = "make"', 'build = "make all"', 1), SHOP.replace("fast", "slow"))
    assert len({together.mark(load(text, "homeport.toml"), "front", EVERYTHING) for text in texts}) == 3


@pytest.mark.parametrize(("old", "new", "said"), [
    ("[scopes.platform]", "[scopes.other]\nservices = ['back']\nbuild = 'x'\n[scopes.platform]", "more than one scope"),
    ('build = "make"\n', "", "no scope with this service has a `build`"),
    ('outputs = ["dist"] }\n[services.site]', 'outputs = ["dist"], where = "live" }\n[services.site]', "beside the live"),
    ('watch = ["theme/*.css"]', 'runtime = "compose"', "images are built for each service"),
    ('watch = ["theme/*.css"]', 'user = "www"', "all need the same `user`"),
    ('build = { outputs = ["dist"] }', 'build = { outputs = ["dist"], env = { MODE = "slow" } }', "has another value"),
])  # fmt: skip
def test_what_cannot_be_built_together_is_refused(old: str, new: str, said: str) -> None:
    assert old in SHOP
    with pytest.raises(ConfigFault) as fault:
        load(SHOP.replace(old, new, 1).encode(), "homeport.toml")
    assert said in str(fault.value)

