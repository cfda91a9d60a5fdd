"""The house keeps its walls: imports run downward only, one file starts processes, files stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import homeport

HOUSE = Path(homeport.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
MAY_IMPORT = {
    "model": {"model"},
    "decide": {"model", "decide"},
    "doors": {"model", "doors"},
    "supervisor": {"model", "supervisor"},
    "flow": {"model", "decide", "flow"},
    "cli": {"model", "decide", "flow", "cli", "mcp", "wiring", "wiring_itself", "wiring_ahead", "wiring_daemon",
            "wiring_hosts", "wiring_person"},
    "daemon": {"model", "decide", "flow", "daemon", "wiring", "wiring_daemon", "wiring_hosts", "wiring_person"},
    "runner": {"model", "flow", "wiring", "wiring_ahead"},
    "mcp": {"model", "decide", "flow", "mcp"},
}
"""`flow` sees doors through the Protocols of model/ports.py, so no door is on its list."""
LONGEST_FILE = 420


def floor(path: Path) -> str:
    """The floor of a file: its first folder, or its own name for those that lie at the top."""
    first = path.relative_to(HOUSE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by full name."""
    package = ["homeport", *path.relative_to(HOUSE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{module}.{name.name}" for name in node.names} | {module}
    return found


def floors_of(modules: set[str]) -> set[str]:
    parts = (name.split(".") for name in modules if name.startswith("homeport."))
    return {part[1] for part in parts} - {"__version__"}


def named(path: Path) -> str:
    return str(path.relative_to(HOUSE))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_run_downward_only(path: Path) -> None:
    allowed = MAY_IMPORT.get(floor(path))
    if allowed is None:
        above = ("wiring", "wiring_daemon", "wiring_hosts", "wiring_person", "wiring_runtimes", "wiring_later",
                 "wiring_ahead", "wiring_itself", "__init__", "__main__")
        assert floor(path) in above, f"{named(path)} lies on no known floor"
        return
    wrong = floors_of(imported(path)) - allowed
    assert not wrong, f"{named(path)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_only_the_shell_door_starts_processes(path: Path) -> None:
    if named(path) in ("doors/shell.py", "doors/early.py", "supervisor/spawning.py"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    starts = {
        name for name in imported(path) if name.split(".")[0] in ("subprocess", "multiprocessing", "pty")
    }
    forbidden = ("system", "popen", "fork", "posix_spawn", "posix_spawnp", "spawnv", "spawnve", "forkpty")
    starts |= {
        f"os.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in forbidden
        and isinstance(node.value, ast.Name) and node.value.id == "os"
    }  # fmt: skip
    assert not starts, f"{named(path)} uses {sorted(starts)}; doors/shell.py is the one door for that"


@pytest.mark.parametrize("path", [path for path in FILES if floor(path) in ("model", "decide", "doors", "flow")], ids=named)
def test_what_a_deploy_does_side_by_side_is_done_where_no_thread_starts_too(path: Path) -> None:
    """`Thread.start` and every pool wait for ever for a thread that dies as it starts; model/abreast.py does not."""
    if named(path) == "doors/shell.py":  # a talk with another machine, which no runner has
        return
    wrong = {name for name in imported(path) if name.startswith("concurrent.futures") or name == "threading.Thread"}
    wrong |= {f"threading.{node.attr}" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
              if isinstance(node, ast.Attribute) and node.attr in ("Thread", "Timer")}  # fmt: skip
    assert not wrong, f"{named(path)} uses {sorted(wrong)}; see model/abreast.py"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE, f"{named(path)} has {lines} lines, more than {LONGEST_FILE}"


def test_no_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}
    assert not [
        named(path) for path in FILES if path.stem in drawers or drawers & set(path.parent.parts[-1:])
    ]
