"""E11: outputs that a laptop or a CI machine built travel to the host, checked, and are deployed with the same record."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.fleet import PROJECT, Fleet, introduce
from tests.world import PROGRAM, World

BUILD = """
[services.site.build]
run = ["sh", "-c", "echo this host builds nothing; exit 1"]
outputs = ["dist", "one.bin"]
"""


def built(clone: Path, text: str) -> None:
    """What a build leaves in a checkout: not only plain names and files."""
    dist = clone / "site/dist"
    (dist / "sub").mkdir(parents=True, exist_ok=True)
    (dist / "index.html").write_text(f"{text}\r\n")
    (dist / "sub/run").write_text("#!/bin/sh\n")
    (dist / "sub/run").chmod(0o755)
    (dist / "a\nb").write_text("odd name\n")
    Path(os.fsdecode(os.fsencode(dist) + b"/\xff")).write_bytes(bytes(range(256)))
    (dist / "newest").unlink(missing_ok=True)
    (dist / "newest").symlink_to("index.html")
    (clone / "site/one.bin").write_bytes(b"\0" * 100_000)


def published(fleet: Fleet, files: dict[str, str | None]) -> str:
    text = PROJECT.format(prod=fleet.prod.live / "site", stage=fleet.stage.live / "site")
    text = text.replace('environments = ["production"]\n', f'environments = ["production"]\n{BUILD}', 1)
    attributes = "* text=auto eol=lf\n*.bin filter=never\n"
    ignored = "dist/\none.bin\n"
    return fleet.laptop.publish({"homeport.toml": text, ".gitattributes": attributes, "site/.gitignore": ignored, **files})


def test_outputs_travel_from_the_laptop_and_are_deployed_as_if_built_there(fleet: Fleet) -> None:
    clone, live = fleet.laptop.clone, fleet.prod.live / "site"
    first = published(fleet, {"site/src.txt": "one\n"})
    introduce(fleet, fleet.prod)
    built(clone, "one")
    before = fleet.laptop.git("status", "--porcelain", "--ignored")
    said = fleet.homeport("--json", "-e", "production", "deploy", "--built", "site")
    assert (said.last["status"], said.last["sha"]) == ("deployed", first)
    assert any(one.get("code") == "brought" and "laptop" not in one["message"] for one in said.lines)
    assert (live / "dist/index.html").read_bytes() == b"one\r\n", "no line end is mended"
    assert os.access(live / "dist/sub/run", os.X_OK) and (live / "dist/newest").readlink() == Path("index.html")
    assert (live / "dist/a\nb").read_text() == "odd name\n" and b"\xff" in os.listdir(os.fsencode(live / "dist"))
    assert (live / "one.bin").stat().st_size == 100_000
    assert fleet.laptop.git("status", "--porcelain", "--ignored") == before, "the checkout is only read"

    published(fleet, {"site/src.txt": "two\n"})
    built(clone, "two")
    (clone / "site/src.txt").write_text("edited\n")
    refused = fleet.homeport("-e", "production", "deploy", "--built", "site", ok=(3,))
    assert "site/src.txt is not as in" in refused.stderr and (live / "dist/index.html").read_bytes() == b"one\r\n"
    fleet.laptop.git("checkout", "-q", ".")
    fleet.homeport("-e", "production", "deploy", "--built", "site")
    assert (live / "dist/index.html").read_bytes() == b"two\r\n"
    assert fleet.homeport("--json", "-e", "production", "drift").last["equal"]
    fleet.homeport("-e", "production", "rollback")
    assert (live / "dist/index.html").read_bytes() == b"one\r\n", "kept like any outputs, back without a build"
    newest = fleet.homeport("--json", "-e", "production", "history").last["deploys"][1]
    assert len(newest["request"]["built"]) == 40 and newest["services"] == ["site"]


def test_what_was_not_built_from_that_commit_is_refused_and_nothing_changes(world: World) -> None:
    sha = world.project(f'\n[services.site]\nsource = "site"\ntarget = "{{live}}/site"\n{BUILD}',
                        {"site/src.txt": "one\n", "site/.gitignore": "dist/\none.bin\n"})  # fmt: skip
    clone = world.clone

    def refused(code: str, *words: str) -> str:
        said = world.deploy("--built", *words, ok=(2, 3))
        assert said["code"] == code and not (world.live / "site").exists(), said
        return str(said["what"])

    refused("no-output", "site")
    built(clone, "one")
    (clone / "site/new.txt").write_text("not committed\n")
    assert "site/new.txt" in refused("not-built-from", "site")
    (clone / "site/new.txt").unlink()
    (clone / "site/src.txt").write_text("edited\n")
    assert "site/src.txt" in refused("not-built-from", "site")
    world.git("commit", "-qam", "not pushed")
    refused("unreachable", "site")
    refused("not-built-from", "site", "--ref", sha)
    world.git("reset", "-q", "--hard", sha)
    os.mkfifo(clone / "site/dist/pipe")
    assert "site/dist/pipe" in refused("oddity", "site")
    (clone / "site/dist/pipe").unlink()
    refused("no-service", "sight")

    world.json("token", "create", "ci", "--right", "read", "--right", "deploy:*")
    asked = subprocess.run(
        [str(PROGRAM), "-p", "shop", "-e", "production", "ssh-entry", "--token", "ci"], capture_output=True, text=True,
        env={**world.env, "SSH_ORIGINAL_COMMAND": "homeport --json deploy --built site"}, cwd=world.home,
    )  # fmt: skip
    assert asked.returncode == 3 and "no right to try" in asked.stdout, "outputs of one's own are code in no commit"
    assert world.deploy("--built", "site")["status"] == "deployed"


def test_on_the_machine_itself_and_in_a_live_checkout_each_service_gets_its_own(world: World) -> None:
    build = 'build = { run = ["sh", "-c", "exit 1"], outputs = ["dist"] }'
    services = f'\n[services.one]\nsource = "one"\n{build}\n\n[services.two]\nsource = "two"\n{build}\n'
    world.publish({
        "homeport.toml": f'[project]\nname = "shop"\ntarget = "{world.live}/all"\n'
                         f'[environments.production]\nbranch = "main"\n{services}',
        "one/a": "1\n", "two/a": "2\n", ".gitignore": "dist/\n",
    })  # fmt: skip
    for name in ("one", "two"):
        (world.clone / name / "dist").mkdir()
        (world.clone / name / "dist/out").write_text(f"{name}\n")
    failed = world.deploy("--built", "one", ok=(1,))
    assert "build of two" in failed["errorSummary"]
    world.json("unblock", world.git("rev-parse", "HEAD"), ok=None)
    assert world.deploy("--built", "one", "--built", "two")["status"] == "deployed"
    assert (world.text("all/one/dist/out"), world.text("all/two/dist/out")) == ("one\n", "two\n")
    again = world.homeport("--json", "deploy", "--built", "one")
    assert again.last["status"] == "unchanged"
