"""D4: what an origin or a commit may bring that must not reach a live folder, and that the next good commit mends."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess

import pytest

from tests.scenarios.telling import FILES, SITE, deployed, fault, mended, picture, run
from tests.world import World


def config_of(world: World) -> bytes:
    return (world.clone / "homeport.toml").read_bytes()


def push_config(world: World, content: bytes) -> None:
    """Puts this homeport.toml on the branch; the checkout keeps the good one."""
    good = config_of(world)
    (world.clone / "homeport.toml").write_bytes(content)
    world.commit("a configuration")
    world.push()
    (world.clone / "homeport.toml").write_bytes(good)


BAD = {
    "unknown key": (lambda good: good + b"colour = 1\n", "unknown key `colour`"),
    "wrong type": (lambda good: good.replace(b'source = "site"', b"source = 7"), "must be a string"),
    "wrong type of a list": (lambda good: good + b"protect = 'x'\n", "must be a list"),
    "not TOML": (lambda good: good + b"[services\n", "not valid TOML"),
    "two of a key": (lambda good: good + b'source = "site"\n', "not valid TOML"),
    "byte order mark": (lambda good: b"\xef\xbb\xbf" + good, "byte order mark"),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), "UTF-16"),
    "Latin-1": (lambda good: good + b"# caf\xe9\n", "0xe9 is not UTF-8"),
    "NUL": (lambda good: good + b"# \0\n", "invalid character"),
    "nested lists": (lambda good: good + b"x = " + b"[" * 5000 + b"]" * 5000 + b"\n", "nested too deeply"),
    "nested keys": (lambda good: good + b".".join([b"a"] * 3000) + b" = 1\n", "unknown key `a`"),
    "huge": (lambda good: good + b"# much\n" * 300_000, "longer than 1 MB"),
    "empty": (lambda good: b"", "lacks the key `project`"),
    "other environment": (lambda good: good.replace(b"environments.production", b"environments.testing"), "production"),
    "other branch": (lambda good: good.replace(b'branch = "main"', b'branch = "other"'), "follows main here"),
}  # fmt: skip


def test_a_bad_configuration_of_the_commit_is_refused_though_the_checkout_has_a_good_one(world: World) -> None:
    deployed(world)
    good, before = config_of(world), picture(world.live)
    for number, (name, (change, words)) in enumerate(BAD.items()):
        push_config(world, change(good))
        said = fault(world, "plan" if number % 3 else "deploy", code=2)
        assert words in said and "homeport.toml" in said, (name, said)
        assert world.git("rev-parse", "HEAD")[:12] in said, (name, said)
    assert picture(world.live) == before
    assert world.json("status")["services"][0]["drift"] == 0
    world.write({"homeport.toml": good.decode()})
    world.commit("mended")
    mended(world)


def test_a_commit_without_a_configuration_names_the_way_out(world: World) -> None:
    deployed(world)
    good, before = config_of(world), picture(world.live)
    world.publish({"homeport.toml": None})
    (world.clone / "homeport.toml").write_bytes(good)
    assert "no homeport.toml" in fault(world, "deploy", code=2)
    assert picture(world.live) == before
    mended(world)


def test_a_configuration_with_very_many_services_is_read_in_linear_time(world: World) -> None:
    """Every service used to be compared with a list of all the others."""
    services = b"".join(b"[services.s%d]\nsource = 'site'\n" % number for number in range(4000))
    deployed(world)
    (world.clone / "homeport.toml").write_bytes(config_of(world) + services)
    run(world, "check", timeout=25)


def test_what_cannot_be_a_reference_is_not_handed_to_git(world: World) -> None:
    """An empty one is an unset variable in somebody's script: it must not become the tip of the branch."""
    deployed(world)
    world.publish({"site/a.txt": "two\n"})
    before = picture(world.live)
    for words in (("--", "-x"), ("--ref", "-x"), ("--ref=--upload-pack=touch x",), ("",), ("a..b",), ("main@{1}",),
                  ("HEAD~1",), ("a b",), ("x\ny",)):  # fmt: skip
        for verb in ("deploy", "plan"):
            assert "cannot be a branch, tag or commit" in fault(world, verb, *words, code=2), words
    assert picture(world.live) == before
    mended(world)


def test_a_commit_that_the_branch_does_not_reach_is_refused_by_every_name(world: World) -> None:
    deployed(world)
    before = picture(world.live)
    world.git("checkout", "-q", "-b", "side")
    world.write({"site/a.txt": "side\n"})
    side = world.commit("beside")
    world.git("tag", "v9")
    world.git("push", "-q", "origin", "side", "v9")
    world.git("checkout", "-q", "main")
    for name in ("side", "v9", side, side[:10]):
        assert "not on branch main" in fault(world, "deploy", name, code=3)
        assert "not on branch main" in fault(world, "plan", name, code=3)
    assert "not on branch main" in fault(world, "rollback", side, code=3)
    assert "no branch, tag or commit" in fault(world, "deploy", "f" * 40, code=3)
    said = world.homeport("deploy", "sote", ok=(3,))
    assert "did you mean the service site?" in said.stdout + said.stderr
    assert "homeport plan site" in said.stdout + said.stderr
    assert picture(world.live) == before
    mended(world)


def commit_with(world: World, *entries: bytes) -> None:
    """Pushes a commit whose folder site/ has these entries of `git mktree` besides its own."""

    def git(*args: str, input: bytes = b"") -> bytes:
        done = subprocess.run(["git", *args], cwd=world.clone, input=input, capture_output=True, check=True)
        return done.stdout

    site = git("mktree", "-z", "--missing", input=git("ls-tree", "-z", "HEAD:site") + b"".join(entries)).strip()
    rows = [row for row in git("ls-tree", "-z", "HEAD").split(b"\0") if row and not row.endswith(b"\tsite")]
    tree = git("mktree", "-z", input=b"\0".join([*rows, b"040000 tree " + site + b"\tsite"]) + b"\0").decode().strip()
    commit = world.git("commit-tree", tree, "-p", "HEAD", "-m", "odd")
    world.git("push", "-q", "origin", f"{commit}:refs/heads/main")


HOSTILE = [b".git", b".GIT", b"git~1", b".g\xe2\x80\x8cit", b"..", b".git .", b"a\\..\\b"]


def test_a_hostile_name_in_a_tree_reaches_nothing(world: World) -> None:
    sha = deployed(world)
    before = picture(world.root / "live")
    blob = world.git("rev-parse", "HEAD:site/a.txt").encode()
    for number, name in enumerate(HOSTILE):
        commit_with(world, b"100644 blob " + blob + b"\t" + name + b"\0")
        fault(world, "plan" if number % 3 else "deploy", code=3)
        assert picture(world.live) == before, name
        world.git("push", "-q", "-f", "origin", f"{sha}:refs/heads/main")
    mended(world)


def test_a_path_through_more_folders_than_anybody_makes_is_refused_by_name(world: World) -> None:
    """It ended in an error of homeport itself: functions that look at the folders above a path called themselves."""
    deployed(world)
    before = picture(world.live)
    told = ("commit refs/heads/deep\ncommitter A <a@example.com> 0 +0000\ndata 0\nfrom refs/heads/main\n"
            f"M 100644 {world.git('rev-parse', 'HEAD:site/a.txt')} site/deep/{'d/' * 1200}a.txt\n")  # fmt: skip
    subprocess.run(["git", "fast-import", "--quiet"], cwd=world.clone, input=told, text=True, check=True)
    world.git("push", "-q", "origin", "deep:main")
    for verb in ("plan", "deploy"):
        said = fault(world, verb, code=3)
        assert "more than 400 folders" in said and "deep/d/d" in said and len(said) < 1000
    assert picture(world.live) == before
    world.git("push", "-q", "-f", "origin", "HEAD:main")
    mended(world)


ODD = [b"new\nline", b"\xff\xfe", b"-rf", b"$(touch x)", b"%s{0}", b"'\"", b" ", b"caf\xc3\xa9"]


def test_odd_but_harmless_names_are_deployed_as_they_are(world: World) -> None:
    deployed(world)
    blob = world.git("rev-parse", "HEAD:site/a.txt").encode()
    commit_with(world, *(b"100644 blob " + blob + b"\t" + name + b"\0" for name in ODD))
    assert world.deploy()["status"] == "deployed"
    live = {name: bytes(world.live / "site") + b"/" + name for name in ODD}
    for path in live.values():
        with open(path, "rb") as file:
            assert file.read() == b"a\n"
    assert world.json("drift")["equal"]
    for path in live.values():
        with open(path, "wb") as file:
            file.write(b"by hand\n")
    assert world.deploy(ok=(3,))["status"] == "refused"
    assert len(world.json("drift", ok=(3,))["services"][0]["paths"]) == len(ODD)
    assert world.homeport("drift", ok=(3,)).stdout and world.homeport("diff", ok=None).stdout
    assert world.deploy("--discard-drift")["ok"]
    for path in live.values():
        with open(path, "rb") as file:
            assert file.read() == b"a\n"
    assert not list(world.root.rglob("x"))


def test_a_commit_that_brings_our_own_marker_does_not_replace_it(world: World) -> None:
    deployed(world)
    marker = world.text("site/.homeport")
    world.publish({"site/.homeport": "{}\n", "site/a.txt": "two\n"})
    world.deploy(ok=None)
    assert world.text("site/.homeport") == marker
    world.publish({"site/.homeport": None})
    mended(world)


def test_submodules_and_lfs_pointers_are_refused_by_name(world: World) -> None:
    sha = deployed(world)
    before = picture(world.live)
    commit_with(world, b"160000 commit " + sha.encode() + b"\tvendored\0")
    for verb in ("deploy", "plan"):
        said = fault(world, verb, code=3)
        assert "submodule" in said and "vendored" in said
    world.git("push", "-q", "-f", "origin", f"{sha}:refs/heads/main")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    world.publish({".gitattributes": "*.bin filter=lfs -text\n", "site/large.bin": pointer})
    for verb in ("deploy", "plan"):
        said = fault(world, verb, code=3)
        assert "LFS" in said and "large.bin" in said
    assert picture(world.live) == before
    world.publish({".gitattributes": None, "site/large.bin": None})
    mended(world)


@pytest.mark.parametrize("branch", ["feature/$(touch${IFS}x)", "a;b", "né", "a'b\"c", "%2e%2e", "release-1.0"])
def test_a_branch_with_a_strange_name_is_followed(world: World, branch: str) -> None:
    text = f"[project]\nname = 'shop'\n\n[environments.production]\nbranch = '''{branch}'''\n"
    world.write({"homeport.toml": text + SITE.replace("{live}", str(world.live)), **FILES})
    sha = world.commit()
    world.git("push", "-q", "origin", f"HEAD:refs/heads/{branch}")
    assert world.deploy()["sha"] == sha
    assert world.json("status")["sha"] == sha
    assert world.homeport("doctor").code == 0
    assert not list(world.root.rglob("x"))


def test_a_branch_that_git_would_not_take_is_an_error_of_the_file(world: World) -> None:
    deployed(world)
    good = config_of(world)
    for branch in ("-x", "a..b", "", "a b", "refs/heads/../x", "main.lock", "@{u}"):
        (world.clone / "homeport.toml").write_bytes(good.replace(b'"main"', f'"{branch}"'.encode()))
        said = fault(world, "deploy", code=2)
        assert "homeport.toml" in said and "branch" in said, branch
    (world.clone / "homeport.toml").write_bytes(good.replace(b'"main"', b'"not-pushed"'))
    assert "git push origin HEAD:not-pushed" in fault(world, "plan", code=3)
    (world.clone / "homeport.toml").write_bytes(good)
    mended(world)


def test_the_branch_is_not_at_the_origin(world: World) -> None:
    deployed(world)
    good, before = config_of(world), picture(world.live)
    (world.clone / "homeport.toml").write_bytes(good.replace(b'"main"', b'"gone"'))
    assert "gone" in fault(world, "deploy", code=3)
    assert picture(world.live) == before
    (world.clone / "homeport.toml").write_bytes(good)
    mended(world)


def origin_gone(world: World) -> str:
    world.origin.rename(world.root / "elsewhere.git")
    return "not there"


def origin_no_repository(world: World) -> str:
    world.origin.rename(world.root / "elsewhere.git")
    world.origin.mkdir()
    return "not appear to be a git repository"


def origin_refuses(world: World) -> str:
    world.git("remote", "set-url", "origin", f"ssh://git:secret@127.0.0.1:{world.free_port()}/shop.git")
    return "cannot be fetched"


def origin_refuses_https(world: World) -> str:
    world.git("remote", "set-url", "origin", f"https://ada:secret@127.0.0.1:{world.free_port()}/shop.git")
    return "cannot be fetched"


def mend_origin(world: World) -> None:
    world.git("remote", "set-url", "origin", str(world.origin))
    if (world.root / "elsewhere.git").exists():
        if world.origin.exists():
            world.origin.rmdir()
        (world.root / "elsewhere.git").rename(world.origin)


@pytest.mark.parametrize("harm", [origin_gone, origin_no_repository, origin_refuses, origin_refuses_https])
def test_an_origin_that_cannot_be_fetched_is_infrastructure(world: World, harm: object) -> None:
    sha = deployed(world)
    before = picture(world.live)
    words = harm(world)  # type: ignore[operator]
    for verb in ("deploy", "plan"):
        said = fault(world, verb, code=1)
        assert words in said and "git ls-remote" in said and "secret" not in said
        assert "Please make sure" not in said
    assert picture(world.live) == before
    assert world.json("status")["sha"] == sha
    assert "origin" in world.homeport("doctor", ok=(1,)).stdout
    mend_origin(world)
    assert not world.json("status")["blocked"]
    mended(world)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.git", "git://127.0.0.1/x.git", "ext::sh -c 'touch x'"])
def test_an_address_that_homeport_does_not_use_is_an_error_of_usage(world: World, address: str) -> None:
    deployed(world)
    before = picture(world.live)
    world.git("config", "remote.origin.url", address)
    said = fault(world, "deploy", code=2)
    assert "ssh" in said or "https" in said
    assert picture(world.live) == before and not list(world.root.rglob("x"))
    mend_origin(world)
    mended(world)


def test_a_checkout_without_an_origin_says_how_to_name_one(world: World) -> None:
    deployed(world)
    world.git("remote", "remove", "origin")
    assert "git remote add origin" in fault(world, "deploy", code=2)
    world.git("remote", "add", "origin", str(world.origin))
    mended(world)


def test_two_projects_of_one_name_do_not_share_a_state(world: World) -> None:
    """The second used to fetch into the first one's mirror, drop its branches and deploy over its services."""
    sha = deployed(world)
    before = picture(world.live)
    other, work = world.root / "other.git", world.root / "other"
    world.git("init", "-q", "--bare", "-b", "main", str(other), cwd=world.root)
    world.git("clone", "-q", str(other), str(work), cwd=world.root)
    (work / "homeport.toml").write_bytes(config_of(world))
    (work / "site").mkdir()
    (work / "site/index.html").write_text("another shop\n")
    world.git("checkout", "-q", "-B", "main", cwd=work)
    world.git("add", "-A", cwd=work)
    world.git("-c", "user.name=B", "-c", "user.email=b@example.com", "commit", "-qm", "one", cwd=work)
    world.git("push", "-q", "origin", "main", cwd=work)
    for verb in ("deploy", "plan", "status", "history"):
        said = fault(world, verb, code=2, cwd=work)
        assert str(world.origin) in said and str(other) in said
    with contextlib.closing(sqlite3.connect(world.state / "shop/production/homeport.db")) as state, state:
        assert state.execute("SELECT value FROM meta WHERE key = 'repo'").fetchone() == (str(world.origin),)
    state.close()
    assert picture(world.live) == before
    assert world.json("status")["sha"] == sha
    mended(world)


def test_an_origin_that_moved_is_followed(world: World) -> None:
    deployed(world)
    world.origin.rename(world.root / "moved.git")
    world.git("remote", "set-url", "origin", str(world.root / "moved.git"))
    mended(world)


def test_a_shallow_origin_is_refused_by_name_before_anything_is_touched(world: World) -> None:
    world.project(SITE, FILES)
    world.publish({"site/a.txt": "two\n"})
    shallow = world.root / "shallow.git"
    world.git("clone", "-q", "--bare", "--depth", "1", f"file://{world.origin}", str(shallow), cwd=world.root)
    world.git("remote", "set-url", "origin", str(shallow))
    assert "shallow" in fault(world, "deploy", code=1)
    assert not picture(world.live)
    mend_origin(world)
    mended(world)


def test_no_hook_filter_or_driver_that_lies_about_is_run(world: World) -> None:
    """Hooks in the mirror and in a live folder that looks like a checkout; drivers that the commit's attributes name; what
    git would run for the person's own settings, and for variables of whoever calls."""
    deployed(world)
    ran = world.root / "ran"
    for hooks in (world.state / "shop/repo.git/hooks", world.live / "site/.git/hooks"):
        hooks.mkdir(parents=True, exist_ok=True)
        for name in ("reference-transaction", "post-index-change", "post-checkout", "update", "fsmonitor-watchman"):
            (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
            (hooks / name).chmod(0o755)
    drivers = f'[core]\nfsmonitor = touch {ran}\n[filter "x"]\nclean = touch {ran}\nsmudge = touch {ran}\nrequired\n'
    (world.live / "site/.git/config").write_text(drivers)
    world.publish({"site/a.txt": "two\n", "site/.gitattributes": "* filter=x diff=x merge=x\n"})
    assert world.deploy()["status"] == "deployed"
    for verb in ("drift", "diff", "status", "plan"):
        world.homeport(verb, ok=None)
    assert not ran.exists()
    shouts = world.root / "shouts"
    shouts.write_text(f"#!/bin/sh\ntouch {ran}\n")
    shouts.chmod(0o755)
    (world.home / ".gitconfig").write_text(f"[core]\n\thooksPath = {world.live}/site/.git/hooks\n\tfsmonitor = {shouts}\n"
                                           f"[diff]\n\texternal = {shouts}\n[filter \"x\"]\n\tclean = {shouts}\n")
    names = ("EXTERNAL_DIFF", "PAGER", "EDITOR", "ASKPASS", "PROXY_COMMAND", "SEQUENCE_EDITOR")
    env = {**{f"GIT_{name}": str(shouts) for name in names}, "PAGER": str(shouts), "GIT_DIR": "/nowhere",
           "GIT_INDEX_FILE": "/nowhere", "GIT_WORK_TREE": "/nowhere", "GIT_OBJECT_DIRECTORY": "/nowhere",
           "GIT_TEMPLATE_DIR": str(world.live / "site/.git"), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor",
           "GIT_CONFIG_VALUE_0": str(shouts), "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor'='{shouts}'"}  # fmt: skip
    world.publish({"site/a.txt": "three\n"})
    (world.live / "site/index.html").write_text("by hand\n")
    for words in (["deploy", "--keep-drift"], ["drift"], ["diff"], ["status"], ["plan"], ["discard", "index.html"]):
        run(world, *words, env=env)
        assert not ran.exists(), words
    assert world.text("site/a.txt") == "three\n" and world.text("site/index.html") == FILES["site/index.html"]
