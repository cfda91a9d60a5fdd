"""A10 B5 B6 B7 B8: what was edited on the host comes back as one commit on a branch of its own, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.world import World, eventually

SITE = """
[services.site]
source = "site"
target = "{live}/site"
"""
FILES: dict[str, str | None] = {
    "site/index.html": "one\n" + "".join(f"line {n}\n" for n in range(30)) + "last\n",
    "site/other.txt": "other\n",
    "site/third.txt": "3\n",
    "README.md": "read me\n",
}


@pytest.fixture
def deployed(world: World) -> World:
    world.project(SITE, FILES)
    world.deploy()
    return world


def edit(world: World, name: str, text: str) -> None:
    (world.live / "site" / name).write_text(text)


def counts(world: World, branch: str) -> str:
    return world.git("rev-list", "--left-right", "--count", f"main...{branch}", cwd=world.origin)


def touched(world: World, branch: str) -> list[str]:
    return world.git("diff-tree", "-r", "--no-renames", "--name-status", "main", branch, cwd=world.origin).splitlines()


def branches(world: World) -> list[str]:
    return world.git("for-each-ref", "--format=%(refname:short)", "refs/heads", cwd=world.origin).splitlines()


def test_an_edit_becomes_one_commit_on_a_new_branch(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt")
    assert (said["paths"], said["skipped"], said["pushed"], said["request"]) == (["site/other.txt"], [], True, None)
    assert said["base"] == deployed.git("rev-parse", "main", cwd=deployed.origin)
    assert said["commit"] == deployed.git("rev-parse", said["branch"], cwd=deployed.origin)
    assert counts(deployed, said["branch"]).split() == ["0", "1"]
    assert touched(deployed, said["branch"]) == ["M\tsite/other.txt"]
    assert deployed.git("show", f"{said['branch']}:site/other.txt", cwd=deployed.origin) == "by hand"


def test_the_commit_is_the_persons_and_says_where_it_comes_from(deployed: World) -> None:
    sha = deployed.git("rev-parse", "main", cwd=deployed.origin)
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt", "--message", "Say other things\n\nIt was late.")
    shown = deployed.git("log", "-1", "--format=%an <%ae>%n%cn <%ce>%n%B", said["commit"], cwd=deployed.origin)
    assert shown.splitlines()[:5] == [
        "Ada Example <ada@example.com>", "Ada Example <ada@example.com>", "Say other things", "", "It was late.",
    ]  # fmt: skip
    trailers = deployed.git("log", "-1", "--format=%(trailers:only)", said["commit"], cwd=deployed.origin)
    assert trailers.splitlines() == [
        "Homeport-Host: host-1", "Homeport-Environment: production", f"Homeport-Deployed: {sha}",
    ]  # fmt: skip


def test_modes_links_binaries_line_ends_deletions_and_new_files_come_back_exactly(deployed: World) -> None:
    live = deployed.live / "site"
    (live / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    (live / "picture.bin").write_bytes(bytes(range(256)))
    (live / "third.txt").unlink()
    (live / "other.txt").chmod(0o755)
    (live / "deep/er").mkdir(parents=True)
    (live / "deep/er/new.txt").write_text("new\n")
    (live / "link").symlink_to("/etc/hostname")
    (live / os.fsdecode(b"caf\xe9.txt")).write_text("bytes in its name\n")
    said = deployed.json("adopt")
    raw = deployed.git("ls-tree", "-r", said["branch"], "site", cwd=deployed.origin)
    modes = {line.split("\t")[1]: line.split(" ")[0] for line in raw.splitlines()}
    assert modes["site/other.txt"] == "100755"
    assert modes["site/link"] == "120000"
    assert modes["site/deep/er/new.txt"] == "100644"
    assert '"site/caf\\351.txt"' in modes
    assert "site/third.txt" not in modes
    assert deployed.git("cat-file", "blob", f"{said['branch']}:site/link", cwd=deployed.origin) == "/etc/hostname"
    out = deployed.clone.parent / "out"
    deployed.git("-c", "core.autocrlf=false", "clone", "-q", "-b", said["branch"], str(deployed.origin), str(out))
    assert (out / "site/crlf.txt").read_bytes() == b"a\r\nb\r\n"
    assert (out / "site/picture.bin").read_bytes() == bytes(range(256))


def test_a_base_that_moved_on_is_merged_with_the_edit(deployed: World) -> None:
    edit(deployed, "index.html", FILES["site/index.html"].replace("last\n", "last by hand\n"))  # type: ignore[union-attr]
    deployed.publish({"site/index.html": FILES["site/index.html"].replace("one\n", "first from git\n"),  # type: ignore[union-attr]
                      "README.md": "newer\n"})  # fmt: skip
    said = deployed.json("adopt")
    assert said["base"] == deployed.git("rev-parse", "main", cwd=deployed.origin)
    assert (counts(deployed, said["branch"]).split(), touched(deployed, said["branch"])) == (
        ["0", "1"], ["M\tsite/index.html"],
    )  # fmt: skip
    merged = deployed.git("show", f"{said['branch']}:site/index.html", cwd=deployed.origin)
    assert merged.startswith("first from git\n") and merged.endswith("last by hand")
    assert deployed.git("show", f"{said['branch']}:README.md", cwd=deployed.origin) == "newer"


def test_a_merged_edit_whose_file_moved_on_deploys_and_is_closed(deployed: World) -> None:
    edit(deployed, "index.html", FILES["site/index.html"].replace("last\n", "last by hand\n"))  # type: ignore[union-attr]
    deployed.publish({"site/index.html": FILES["site/index.html"].replace("one\n", "first from git\n")})  # type: ignore[union-attr]
    said = deployed.json("adopt")
    squash(deployed, said["branch"])
    assert deployed.deploy()["status"] == "deployed"
    assert deployed.text("site/index.html").startswith("first from git\n")
    assert deployed.text("site/index.html").endswith("last by hand\n")
    assert deployed.json("edits")["edits"] == []
    assert deployed.json("drift")["equal"] is True


def squash(world: World, branch: str) -> None:
    """What a forge does: one new commit on main with the branch's content; the branch is deleted."""
    world.git("fetch", "-q", "--prune", "origin")
    world.git("reset", "-q", "--hard", "origin/main")
    world.git("merge", "-q", "--squash", f"origin/{branch}")
    world.git("commit", "-q", "-m", "squashed")
    world.push()
    world.git("push", "-q", "origin", "--delete", branch)


def test_a_conflict_pushes_nothing_keeps_both_versions_and_says_how_to_go_on(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    deployed.publish({"site/other.txt": "from git\n"})
    before = branches(deployed)
    ran = deployed.homeport("--json", "adopt", ok=(3,))
    assert ran.last["code"] == "conflict"
    assert "site/other.txt" in ran.last["what"]
    assert branches(deployed) == before
    assert deployed.text("site/other.txt") == "by hand\n"
    mirror = deployed.state / "shop/repo.git"
    refs = deployed.git("for-each-ref", "--format=%(refname)", "refs/homeport/adopt", cwd=mirror).splitlines()
    (live,) = [ref for ref in refs if ref.endswith("/live")]
    (branch,) = [ref for ref in refs if ref.endswith("/branch")]
    assert deployed.git("show", f"{live}:site/other.txt", cwd=mirror) == "by hand"
    assert deployed.git("show", f"{branch}:site/other.txt", cwd=mirror) == "from git"
    assert live in ran.last["next"]


def test_what_a_conflict_advises_works_and_closes_the_edit(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    deployed.publish({"site/other.txt": "from git\n"})
    advice = deployed.json("adopt", ok=(3,))["next"]
    words = advice.split("git fetch ")[1].split(" && ")[0].split()
    deployed.git("fetch", "-q", *words)
    deployed.git("merge", "-q", "-X", "ours", "FETCH_HEAD")
    deployed.write({"site/other.txt": "both\n"})
    deployed.commit("both")
    deployed.push()
    assert deployed.deploy()["status"] == "deployed"
    assert deployed.text("site/other.txt") == "both\n"
    assert deployed.json("edits")["edits"] == []
    assert [row["because"] for row in deployed.json("rescue", "list")["rescues"]] == ["adopted"]


def test_a_conflict_that_is_told_twice_is_settled_by_either_answer_or_by_the_branch_that_was_there(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    first = deployed.json("adopt", "--branch", "fix/other")
    deployed.publish({"site/other.txt": "from git\n"})
    told = [deployed.json("adopt", "other.txt", "--branch", "again", ok=(3,))["next"] for _ in range(2)]
    assert told[0] == told[1], "the same commit, however often it is asked for"
    deployed.git("fetch", "-q", "origin", "fix/other")
    deployed.git("merge", "-q", "-s", "ours", "-m", "both", first["commit"])
    deployed.push()
    assert deployed.deploy()["status"] == "deployed", "the branch that was adopted first is part of what is deployed"
    assert (deployed.text("site/other.txt"), deployed.json("edits")["edits"]) == ("from git\n", [])


def test_the_persons_checkout_is_not_touched(deployed: World) -> None:
    deployed.git("checkout", "-q", "-b", "my-own-work")
    (deployed.clone / "site/index.html").write_text("half done\n")
    (deployed.clone / "notes.txt").write_text("mine\n")
    before = (deployed.git("status", "--porcelain=v2", "--branch"), deployed.git("for-each-ref"),
              (deployed.clone / ".git/index").read_bytes())  # fmt: skip
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt")
    after = (deployed.git("status", "--porcelain=v2", "--branch"), deployed.git("for-each-ref"),
             (deployed.clone / ".git/index").read_bytes())  # fmt: skip
    assert after == before
    assert touched(deployed, said["branch"]) == ["M\tsite/other.txt"]


def test_a_host_without_any_checkout_adopts(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    deployed.clone.rename(deployed.root / "elsewhere")
    deployed.clone.mkdir()
    refused = deployed.homeport("--json", "-p", "shop", "adopt", ok=(2,))
    assert refused.last["code"] == "no-identity"
    assert "GIT_AUTHOR_NAME" in refused.last["next"]
    who = {"GIT_AUTHOR_NAME": "Grace Example", "GIT_AUTHOR_EMAIL": "grace@example.com"}
    said = deployed.homeport("--json", "-p", "shop", "adopt", env=who).last
    author = deployed.git("log", "-1", "--format=%an %ce", said["commit"], cwd=deployed.origin)
    assert author == "Grace Example grace@example.com"


def test_only_named_paths_are_adopted(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    edit(deployed, "third.txt", "by hand too\n")
    edit(deployed, "index.html", "and this\n")
    said = deployed.json("adopt", "site", "third.txt")
    assert touched(deployed, said["branch"]) == ["M\tsite/third.txt"]
    said = deployed.json("adopt", "site/other.txt", str(deployed.live / "site/index.html"), "--branch", "fix/two")
    assert said["branch"] == "fix/two"
    assert touched(deployed, "fix/two") == ["M\tsite/index.html", "M\tsite/other.txt"]


def test_a_path_without_drift_is_named(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    ran = deployed.homeport("--json", "adopt", "site/index.html", "site/other.txt", ok=(3,))
    assert (ran.last["code"], ran.last["what"]) == ("no-drift", "no drift at site/index.html")
    assert branches(deployed) == ["main"]


def test_nothing_to_adopt_is_no_error(deployed: World) -> None:
    said = deployed.json("adopt")
    assert (said["branch"], said["commit"], said["paths"], said["pushed"]) == (None, None, [], False)


def test_protected_files_are_never_adopted(deployed: World) -> None:
    (deployed.live / "site/.env").write_text("TOKEN=hidden\n")
    edit(deployed, "other.txt", "by hand\n")
    said = deployed.json("adopt")
    assert touched(deployed, said["branch"]) == ["M\tsite/other.txt"]
    ran = deployed.homeport("--json", "adopt", "site/.env", ok=(3,))
    assert ran.last["code"] == "protected"
    assert "hidden" not in ran.stdout + ran.stderr


SECRET = "AKIA" + "IOSFODNN7QXAMPL3"


def test_a_likely_secret_is_refused_unless_its_path_is_named(deployed: World) -> None:
    edit(deployed, "other.txt", "other\nkey = '" + SECRET + "'\n")
    edit(deployed, "third.txt", "harmless\n")
    (deployed.live / "site/words.txt").write_text("the horse\nplain words of the shop\n")
    deployed.more["SHOP_PASSWORD"] = "plain words of the shop"
    ran = deployed.homeport("--json", "adopt", ok=(3,))
    assert ran.last["code"] == "secret"
    assert "site/other.txt line 2" in ran.last["what"]
    assert "site/words.txt line 2: a secret of this machine" in ran.last["what"], "no detector could know that it is one"
    (deployed.live / "site/words.txt").unlink()
    assert SECRET not in ran.stdout + ran.stderr
    assert branches(deployed) == ["main"]
    deployed.json("adopt", "--allow-secret", "site/third.txt", ok=(3,))
    said = deployed.json("adopt", "--allow-secret", "site/other.txt")
    assert said["paths"] == ["site/other.txt", "site/third.txt"]


def test_a_secret_that_git_knows_already_does_not_refuse(world: World) -> None:
    world.project(SITE, {**FILES, "site/other.txt": "key = '" + SECRET + "'\n"})
    world.deploy()
    edit(world, "other.txt", "key = '" + SECRET + "'\nmore\n")
    assert world.json("adopt")["paths"] == ["site/other.txt"]


def test_what_another_deployer_wrote_is_left_out(deployed: World) -> None:
    deployed.publish({"site/other.txt": "second\n"})
    deployed.deploy()
    edit(deployed, "other.txt", "other\n")
    edit(deployed, "third.txt", "by hand\n")
    with (deployed.live / "site/new.txt").open("w") as half:
        half.write("half of ")
        half.flush()
        said = deployed.json("adopt", "site/new.txt", ok=(3,))
    assert (said["code"], f"(process {os.getpid()}) has it open for writing" in said["what"]) == ("not-adoptable", True)
    (deployed.live / "site/new.txt").unlink()
    said = deployed.json("adopt")
    assert said["paths"] == ["site/third.txt"]
    ((path, because),) = [(row["path"], row["because"]) for row in said["skipped"]]
    assert path == "site/other.txt" and "another deployer" in because
    said = deployed.json("adopt", "--foreign", "site/other.txt")
    assert said["paths"] == ["site/other.txt"]


def test_a_branch_that_exists_is_never_pushed_over(deployed: World) -> None:
    deployed.git("push", "-q", "origin", "HEAD:refs/heads/taken")
    before = deployed.git("rev-parse", "taken", cwd=deployed.origin)
    edit(deployed, "other.txt", "by hand\n")
    assert deployed.json("adopt", "--branch", "taken", ok=(3,))["code"] == "branch-exists"
    assert deployed.git("rev-parse", "taken", cwd=deployed.origin) == before
    assert deployed.json("edits")["edits"][0]["state"] == "open"


@pytest.mark.parametrize("name", ["main", "-x", "a..b", "refs/heads/x", "a b", ""])
def test_a_branch_that_cannot_be_one_or_is_the_base_is_refused(deployed: World, name: str) -> None:
    edit(deployed, "other.txt", "by hand\n")
    assert deployed.json("adopt", f"--branch={name}", ok=(3,))["code"] == "branch"
    assert branches(deployed) == ["main"]


def test_an_origin_that_refuses_the_push_is_told_and_nothing_is_recorded(deployed: World) -> None:
    hook = deployed.origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    edit(deployed, "other.txt", "by hand\n")
    ran = deployed.homeport("--json", "adopt", ok=(1,))
    assert ran.last["code"] == "push" and "not today" in ran.last["what"]
    assert deployed.json("edits")["edits"][0]["state"] == "open"


def test_adopting_twice_makes_one_branch_and_a_plan_says_what_is_to_be_merged(deployed: World) -> None:
    edit(deployed, "other.txt", "by hand\n")
    first = deployed.json("adopt")
    again = deployed.json("adopt")
    assert (again["branch"], again["commit"], again["paths"]) == (first["branch"], first["commit"], first["paths"])
    assert branches(deployed) == [first["branch"], "main"]
    assert f"merge branch {first['branch']}, then: " in deployed.json("plan")["refusals"][0]["next"]
    edit(deployed, "other.txt", "by hand, again\n")
    assert "merge" not in deployed.json("plan")["refusals"][0]["next"]
    assert deployed.json("adopt")["branch"] != first["branch"]


def killed_while_it_pushes(world: World, then: str) -> Path:
    """Adopts an edit and is killed when the origin has begun to take the push; the hook, which ends with these words."""
    started, hook = world.root / "started", world.origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {started}\n{then}\n")
    hook.chmod(0o755)
    edit(world, "other.txt", "by hand\n")
    child = world.start("adopt")
    eventually(started.exists, "the push has begun")
    child.kill()
    child.communicate()
    return hook


def test_killed_while_it_pushes_it_goes_on_with_the_same_branch(deployed: World) -> None:
    go = deployed.root / "go"
    killed_while_it_pushes(deployed, f"while [ ! -e {go} ]; do sleep 0.05; done")
    go.touch()
    eventually(lambda: len(branches(deployed)) == 2, "the push that was under way has ended")
    said = deployed.json("adopt")
    assert branches(deployed) == [said["branch"], "main"]
    assert said["commit"] == deployed.git("rev-parse", said["branch"], cwd=deployed.origin)


def test_killed_before_it_pushes_it_begins_anew(deployed: World) -> None:
    killed_while_it_pushes(deployed, "sleep 1; exit 1").unlink()
    said = deployed.json("adopt")
    assert said["paths"] == ["site/other.txt"]
    assert counts(deployed, said["branch"]).split() == ["0", "1"]


def test_two_services_come_back_in_one_commit(world: World) -> None:
    world.project(SITE + SITE.replace("site", "shop"), {**FILES, "shop/a.txt": "a\n"})
    world.deploy()
    edit(world, "other.txt", "by hand\n")
    (world.live / "shop/a.txt").write_text("b\n")
    said = world.json("adopt")
    assert said["paths"] == ["shop/a.txt", "site/other.txt"]
    assert counts(world, said["branch"]).split() == ["0", "1"]


def test_a_file_that_became_a_folder_comes_back(deployed: World) -> None:
    live = deployed.live / "site"
    (live / "third.txt").unlink()
    (live / "third.txt").mkdir()
    (live / "third.txt/inside.txt").write_text("in\n")
    said = deployed.json("adopt", ok=None)
    assert "site/third.txt/inside.txt" in said["paths"]
    assert touched(deployed, said["branch"]) == ["D\tsite/third.txt", "A\tsite/third.txt/inside.txt"]


def test_a_deploy_that_runs_is_not_adopted_from(deployed: World) -> None:
    import fcntl

    edit(deployed, "other.txt", "by hand\n")
    with Path(deployed.state / "shop/production/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert deployed.json("adopt", ok=(5,))["code"] == "busy"
    assert branches(deployed) == ["main"]


def test_what_is_in_a_new_folder_takes_the_file_away_that_was_there(deployed: World) -> None:
    live = deployed.live / "site"
    (live / "third.txt").unlink()
    (live / "third.txt").mkdir()
    (live / "third.txt/inside.txt").write_text("in\n")
    edit(deployed, "other.txt", "not this\n")
    said = deployed.json("adopt", "site/third.txt/inside.txt")
    assert touched(deployed, said["branch"]) == ["D\tsite/third.txt", "A\tsite/third.txt/inside.txt"]


def test_a_folder_that_became_a_link_comes_back_as_a_link(world: World) -> None:
    world.project(SITE, {**FILES, "site/lib/a.txt": "a\n"})
    world.deploy()
    (world.live / "site/lib/a.txt").unlink()
    (world.live / "site/lib").rmdir()
    outside = world.root / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("not ours\n")
    (world.live / "site/lib").symlink_to(outside)
    said = world.json("adopt")
    assert touched(world, said["branch"]) == ["A\tsite/lib", "D\tsite/lib/a.txt"]
    assert world.git("cat-file", "blob", f"{said['branch']}:site/lib", cwd=world.origin) == str(outside)


def test_a_file_that_was_moved_in_git_and_edited_here_is_a_conflict_not_a_guess(deployed: World) -> None:
    edit(deployed, "index.html", str(FILES["site/index.html"]) + "by hand\n")
    deployed.publish({"site/index.html": None, "site/start.html": FILES["site/index.html"]})
    assert deployed.json("adopt", ok=(3,))["code"] == "conflict"
    assert branches(deployed) == ["main"]


def test_a_file_that_was_moved_here_and_edited_in_git_is_a_conflict_not_a_guess(deployed: World) -> None:
    (deployed.live / "site/index.html").rename(deployed.live / "site/start.html")
    deployed.publish({"site/index.html": str(FILES["site/index.html"]) + "from git\n"})
    assert deployed.json("adopt", ok=(3,))["code"] == "conflict"
    said = deployed.json("adopt", "site/start.html")
    assert touched(deployed, said["branch"]) == ["A\tsite/start.html"]


def test_a_new_file_that_is_a_folder_in_git_by_now_is_a_conflict(deployed: World) -> None:
    edit(deployed, "lib", "a file\n")
    deployed.publish({"site/lib/a.txt": "in a folder\n"})
    assert deployed.json("adopt", ok=(3,))["code"] == "conflict"
    assert branches(deployed) == ["main"]
