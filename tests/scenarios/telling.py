"""What a refused command must say, and what it must leave alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.world import PROGRAM, Ran, World, eventually

SITE = """
[services.site]
source = "site"
target = "{live}/site"
"""
FILES: dict[str, str | None] = {"site/index.html": "one\n", "site/a.txt": "a\n", "site/b.txt": "b\n"}


def run(world: World, *args: str, env: dict[str, str | None] | None = None, cwd: Path | None = None,
        timeout: float = 60) -> Ran:  # fmt: skip
    """The program with variables changed or (None) removed; every exit code is accepted, a traceback is not."""
    changed = {**world.env, **(env or {})}
    argv = [str(PROGRAM), *args]
    told = {k: v for k, v in changed.items() if v is not None}
    done = world.command(argv, cwd or world.clone, told, timeout)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return Ran(argv, done.returncode, done.stdout, done.stderr)


def fault(world: World, *args: str, code: int, env: dict[str, str | None] | None = None,
          cwd: Path | None = None) -> str:  # fmt: skip
    """Runs a command that must fail with this exit code, as JSON, and returns everything it said.

    An error is one object with what, where, next and exitCode; a deploy that was begun ends with `deploy.done`.
    """
    ran = run(world, "--json", *args, env=env, cwd=cwd)
    said = f"{args} ended with {ran.code}\n{ran.stdout}\n{ran.stderr}"
    assert ran.code == code, said
    last: dict[str, Any] = ran.last
    assert last["exitCode"] == code, said
    if last["type"] == "error":
        assert len(ran.lines) == 1, said
        assert last["what"] and last["next"] and "where" in last, said
        text = f"{last['what']} {last['where']} {last['next']}"
    else:
        assert last["type"] == "deploy.done" and not last["ok"], said
        assert last["errorSummary"] and last["next"], said
        text = f"{last['errorSummary']} {last['next']}"
    assert "\\x0a" not in text and "internal" not in str(last.get("code")) + str(last.get("errorCode")), said
    assert "homeport itself failed" not in text, said
    return text


def picture(folder: Path) -> dict[str, bytes | str]:
    """Every path below a folder with its bytes (of a link: where it leads)."""
    found: dict[str, bytes | str] = {}
    for above, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(above) / name
            relative = str(path.relative_to(folder))
            if path.is_symlink():
                found[relative] = f"-> {path.readlink()}"
            elif path.is_file():
                found[relative] = path.read_bytes()
            else:
                found[relative] = "folder"
    return found


@contextmanager
def disk(world: World, folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own under this folder, as long as it is needed; only for root."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        world.kill_homeport()
        gone = ["umount", str(folder)]
        eventually(lambda: subprocess.run(gone, capture_output=True).returncode == 0, f"{folder} is unmounted")


def remount(folder: Path, options: str) -> None:
    """Waits until nobody writes there: the runner of the deploy before may not have ended yet."""
    again = ["mount", "-o", f"remount,{options}", str(folder)]
    eventually(lambda: subprocess.run(again, capture_output=True).returncode == 0, f"{folder} is mounted {options}")


def deployed(world: World) -> str:
    """A world in which the site was deployed; the commit."""
    sha = world.project(SITE, FILES)
    assert world.deploy()["status"] == "deployed"
    return sha


def mended(world: World) -> None:
    """The next deploy works, and what is live is the commit."""
    world.write({"site/again.txt": "again\n"})
    if world.git("status", "--porcelain"):
        world.commit("mended")
    world.push()
    done = world.deploy()
    assert done["ok"], done
    for path in (world.clone / "site").rglob("*"):
        if path.is_file() and not path.is_symlink():
            live = world.live / "site" / path.relative_to(world.clone / "site")
            assert live.read_bytes() == path.read_bytes(), live
