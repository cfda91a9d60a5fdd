"""A host that is not as it should be: programs, disks and folders. Nothing live pays for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.telling import FILES, SITE, deployed, disk, fault, mended, picture, remount, run
from tests.world import PROGRAM, World

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")


def programs_without(world: World, name: str) -> str:
    """A PATH with every program but one."""
    folder = world.root / "programs"
    folder.mkdir()
    for above in ("/bin", "/usr/bin"):
        for program in os.listdir(above):
            if program != name and not (folder / program).is_symlink():
                (folder / program).symlink_to(f"{above}/{program}")
    return f"{PROGRAM.parent}:{folder}"


def test_without_git_every_verb_says_how_to_install_it(world: World) -> None:
    deployed(world)
    before, path = picture(world.live), programs_without(world, "git")
    for verb in ("deploy", "plan", "status"):
        assert "apt install git" in fault(world, verb, code=1, env={"PATH": path})
    assert "apt install git" in run(world, "doctor", env={"PATH": path}).stdout
    assert picture(world.live) == before
    mended(world)


def test_doctor_names_the_process_manager_that_is_not_there(world: World) -> None:
    world.project(SITE + 'runtime = "pm2"\nunit = "shop-site"\n', FILES)
    said = run(world, "doctor", env={"PATH": programs_without(world, "pm2")}).stdout
    assert "pm2 is not on the PATH of site" in said and "npm install -g pm2" in said
    tools = world.root / "tools"
    tools.mkdir()
    (tools / "pm2").symlink_to("/bin/true")
    assert "npm install" not in run(world, "doctor", env={"PATH": f"{tools}:{world.env['PATH']}"}).stdout


def test_a_git_that_is_too_old_is_named_with_its_version(world: World) -> None:
    deployed(world)
    before, folder = picture(world.live), world.root / "old"
    folder.mkdir()
    real = shutil.which("git")
    (folder / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *version*) echo git version 2.20.1;; *) exec {real} "$@";; esac\n'
    )
    (folder / "git").chmod(0o755)
    said = fault(world, "deploy", code=1, env={"PATH": f"{folder}:{world.env['PATH']}"})
    assert "2.20.1" in said and "2.34" in said
    assert picture(world.live) == before
    mended(world)


def test_without_setpriv_files_are_deployed_all_the_same(world: World) -> None:
    deployed(world)
    world.publish({"site/a.txt": "two\n"})
    path = programs_without(world, "setpriv")
    assert run(world, "deploy", env={"PATH": path}).code == 0
    assert world.text("site/a.txt") == "two\n"
    assert "setpriv" in run(world, "doctor", env={"PATH": path}).stdout


@as_root
@pytest.mark.root
def test_a_full_disk_under_the_live_folder_leaves_the_old_files_whole(world: World) -> None:
    with disk(world, world.live, "400k"):
        deployed(world)
        before = picture(world.live)
        world.publish({"site/a.txt": "x" * 300_000, "site/new.txt": "y" * 300_000})
        assert "df -h" in fault(world, "deploy", code=1)
        assert picture(world.live) == before
        assert not world.json("status")["blocked"]
        remount(world.live, "size=4m")
        mended(world)


@as_root
@pytest.mark.root
def test_a_read_only_live_folder_is_called_so(world: World) -> None:
    with disk(world, world.live, "4m"):
        deployed(world)
        before = picture(world.live)
        world.publish({"site/a.txt": "two\n"})
        remount(world.live, "ro")
        assert "read-only" in fault(world, "deploy", code=1)
        assert picture(world.live) == before
        remount(world.live, "rw")
        mended(world)


@as_root
@pytest.mark.root
def test_an_unmounted_live_folder_is_not_filled_below_its_mount(world: World) -> None:
    covered = world.live
    with disk(world, covered, "4m"):
        deployed(world)
    world.publish({"site/a.txt": "two\n"})
    for verb in ("deploy", "plan", "drift"):
        assert "findmnt" in fault(world, verb, code=3)
    assert not picture(covered)


def test_another_folder_in_its_place_is_refused_until_the_right_one_is_back(world: World) -> None:
    deployed(world)
    kept = world.root / "kept"
    (world.live / "site").rename(kept)
    for content in (None, "mine\n"):
        (world.live / "site").mkdir(exist_ok=True)
        if content:
            (world.live / "site/index.html").write_text(content)
        before = picture(world.live)
        for verb in ("deploy", "plan"):
            assert "not the folder" in fault(world, verb, code=3)
        assert picture(world.live) == before
    shutil.rmtree(world.live / "site")
    kept.rename(world.live / "site")
    mended(world)


def test_an_emptied_live_folder_is_not_filled_again_unasked(world: World) -> None:
    deployed(world)
    for path in (world.live / "site").iterdir():
        path.unlink()
    assert "a.txt" in fault(world, "deploy", code=3)
    assert not picture(world.live / "site").keys() & {"a.txt", "b.txt", "index.html"}
    assert world.deploy("--discard-drift")["ok"]
    mended(world)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_a_link_in_the_live_folders_place_is_left_alone(world: World, kind: str) -> None:
    deployed(world)
    kept, outside, place = world.root / "kept", world.root / "outside", world.live / "site"
    outside.mkdir()
    place.rename(kept)
    place.write_text("file") if kind == "file" else place.symlink_to(outside)
    said = fault(world, "deploy", code=3)
    assert "link" in said and "ls -ld" in said
    assert not picture(outside)
    place.unlink()
    kept.rename(place)
    mended(world)


def test_a_planted_link_is_never_followed(world: World) -> None:
    deployed(world)
    world.publish({"site/sub/f.txt": "one\n"})
    world.deploy()
    outside, planted = world.root / "outside", world.live / "site/sub"
    outside.mkdir()
    (outside / "f.txt").write_text("outside\n")
    shutil.rmtree(planted)
    planted.symlink_to(outside)
    world.publish({"site/sub/f.txt": "two\n"})
    before = picture(world.live)
    for words in (("deploy",), ("deploy", "--discard-drift")):
        assert "sub/f.txt" in fault(world, *words, code=3)
    assert picture(world.live) == before and (outside / "f.txt").read_text() == "outside\n"
    planted.unlink()
    planted.mkdir()
    (planted / "f.txt").write_text("one\n")
    mended(world)
    assert (outside / "f.txt").read_text() == "outside\n"


def test_a_working_directory_that_was_deleted_is_called_so(world: World) -> None:
    world.project(SITE, {"site/index.html": "one\n"})
    gone: Path = world.root / "gone"
    gone.mkdir()
    shell = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    for verb in ("deploy", "status", "check"):
        done = subprocess.run(["/bin/sh", "-c", shell, "sh", str(gone), str(PROGRAM), verb], env=world.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 2 and "not there any more" in done.stderr, done.stderr
        gone.mkdir()
    mended(world)


def test_what_only_homeport_can_read_comes_by_no_link_into_a_branch_an_object_or_a_log(world: World) -> None:
    """Whoever owns the live folder plants links to it: for a file, for a folder above files, within a new folder."""
    world.project(SITE, {**FILES, "site/lib/key": "ours\n"})
    world.deploy()
    private, site = world.root / "private", world.live / "site"
    private.mkdir(mode=0o700)
    (private / "key").write_text("canary\n")
    (site / "a.txt").unlink()
    (site / "a.txt").symlink_to(private / "key")
    shutil.rmtree(site / "lib")
    (site / "lib").symlink_to(private)
    (site / "new").mkdir()
    (site / "new/key").symlink_to(private / "key")
    (site / "new/all").symlink_to(private)
    said = ""
    for words in (["drift"], ["diff"], ["diff", "site/lib/key"], ["--json", "diff"], ["-v", "adopt"],
                  ["adopt", "lib/key"],
                  ["--json", "adopt"], ["rebuild", "site"], ["try"], ["plan"], ["deploy"], ["record"],
                  ["discard", "a.txt"], ["rescue", "list"], ["deploy", "--discard-drift"], ["doctor"]):  # fmt: skip
        ran = run(world, *words)
        said += ran.stdout + ran.stderr
    assert "a.txt" in said and "canary" not in said
    for git in (world.origin, world.state / "shop/repo.git"):
        every = ["git", "cat-file", "--batch", "--batch-all-objects"]
        assert b"canary" not in subprocess.run(every, cwd=git, capture_output=True, check=True).stdout, git
    for path, content in world.kept():
        assert b"canary" not in content, path
    assert (private / "key").read_text() == "canary\n"
    assert len(world.git("for-each-ref", "--format=%(refname)", "refs/heads", cwd=world.origin).split()) > 1, "adopted"
