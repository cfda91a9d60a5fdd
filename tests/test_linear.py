"""Every regular expression of the program answers in linear time, whatever it is given: a log line, a name, a payload."""

from __future__ import annotations

import ast
import importlib
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import homeport
from homeport.model.patterns import Matcher

HOUSE = Path(homeport.__file__).parent
LENGTH = 8_000
"""Characters: what is linear needs a part of a millisecond for them, what is quadratic a hundred, anything worse does
not end."""
AT_MOST = 0.05
"""Seconds of this process's own time."""
PIECES = ("a", "0", " ", "/", ".", "-", "=", ":", '"', "\\", "*", "[", "<", "a.", "a-", "a/", "0.", "a=", ": ", "a b ",
          "{a", "\x1b[", "\x1b[0;", "%a", "${a", "\t", "../", "a@", "://a",
          "a / ", " (a", "a / b (c) ", "-----BEGIN ", "a\n")  # fmt: skip


MEGABYTE = 1 << 20
WHOLE_LINE = 3.0
"""Seconds of this process's own time for a line of a megabyte; what is quadratic needs half an hour."""

Found = dict[str, tuple[re.Pattern[str] | re.Pattern[bytes], set[str]]]


def patterns() -> Found:
    """Each literal expression of the program: where it stands -> itself, and how it is used (`match`, `search`, …)."""
    found: Found = {}
    for path in HOUSE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {id(node.value): node.targets[0].id for node in ast.walk(tree)
                 if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}  # fmt: skip
        used: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
                    and isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):  # fmt: skip
                continue
            literal, how = node.args[0], node.func.attr
            if how != "escape" and isinstance(literal, ast.Constant):
                given = {getattr(n, "attr", "") for a in node.args[1:] for n in ast.walk(a)}
                known = (getattr(re, name, None) for name in given)
                said = sum((flag for flag in known if isinstance(flag, re.RegexFlag)), re.RegexFlag(0))
                ways = {how} if how != "compile" else used.get(names.get(id(node), ""), set())
                ways = {"search" if way in ("sub", "subn", "split", "findall", "finditer") else way for way in ways}
                ways &= {"match", "fullmatch", "search"}
                found[f"{path.relative_to(HOUSE)}:{node.lineno}"] = (re.compile(literal.value, said), ways or {"search"})
    return found


def compiled() -> Found:
    """Those that a module puts together from pieces, and keeps."""
    found: Found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        name = ".".join(("homeport", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")
        if path.name == "__main__.py" or "demo_project" in path.parts or "preload" in path.parts:
            continue
        for key, value in vars(importlib.import_module(name)).items():
            if isinstance(value, re.Pattern):
                found[f"{name}.{key}"] = (value, {"match", "fullmatch", "search"})
    return found


FOUND = patterns()


def test_the_expressions_are_found() -> None:
    assert len(FOUND) > 60


def _seconds(pattern: re.Pattern[str] | re.Pattern[bytes], ways: set[str], text: str) -> float:
    began = time.process_time()
    for way in ways:
        getattr(pattern, way)(text if isinstance(pattern.pattern, str) else text.encode())
    return time.process_time() - began


def slowest(pattern: re.Pattern[str] | re.Pattern[bytes], ways: set[str]) -> tuple[float, str]:
    """Seconds for the worst of the texts, and which one it is."""
    worst = (0.0, "")
    for piece in PIECES:
        text = piece * (LENGTH // len(piece)) + "\x00!"
        took = _seconds(pattern, ways, text)
        worst = max(worst, (min(took, _seconds(pattern, ways, text)) if took > AT_MOST else took, repr(piece)))
        if worst[0] > AT_MOST:
            break
    return worst


def test_no_expression_needs_more_than_linear_time() -> None:
    slow = {where: (found, pattern.pattern, ways) for where, (pattern, ways) in FOUND.items()
            if (found := slowest(pattern, ways))[0] > AT_MOST}  # fmt: skip
    assert not slow


def test_an_expression_that_is_quadratic_would_be_found() -> None:
    assert slowest(re.compile(r"a+$"), {"search"})[0] > AT_MOST


def test_a_line_of_a_megabyte_takes_each_expression_no_longer_than_it_is_long() -> None:
    """The worst text for each, a megabyte of it, as an outside line may be; those that are put together from pieces too."""
    known = {pattern.pattern for pattern, _ in FOUND.values()}
    built = {where: found for where, found in compiled().items() if found[0].pattern not in known}
    assert len(built) >= 3, "spellings, durations, keys of authorized_keys"
    slow = {}
    for where, (pattern, ways) in {**FOUND, **built}.items():
        piece = ast.literal_eval(slowest(pattern, ways)[1] or "'a'")
        took = _seconds(pattern, ways, piece * (MEGABYTE // len(piece)) + "\x00!")
        if took > WHOLE_LINE:
            slow[where] = (took, piece, pattern.pattern)
    assert not slow


HOSTILE_GLOBS = ["*a" * 30 + "b", "**/a" * 30 + "/b", "*" * 60 + "b", "[a-z]*" * 30 + "!", "a*/" * 20 + "b",
                 "?*" * 30 + "b", "**/" * 40 + "*a*a*b", "[[:alpha:]]*" * 20 + "0", "*a*a*a*a*b/**"]  # fmt: skip


@pytest.mark.parametrize("glob", HOSTILE_GLOBS, ids=range(len(HOSTILE_GLOBS)))
def test_a_hostile_pattern_of_paths_costs_no_more_than_its_length_times_the_paths(glob: str) -> None:
    """`protect`, `paths`, `units`: from a commit, against names from a commit or a live folder."""
    began = time.process_time()
    for path in ("a" * 4000, "a/" * 2000 + "a", "a" * 255, ("a" * 200 + "/") * 20 + "c"):
        matcher = Matcher([glob])
        matcher.match(path)
        fnmatchcase(path, glob)
    assert time.process_time() - began < 5


def test_a_path_as_deep_as_the_kernel_takes_is_matched() -> None:
    """The folders above it were looked at by a function that calls itself: a thousand of them were too many."""
    deep = "a/" * 2040 + "secret.pem"
    assert Matcher(["*.pem"]).match(deep) and not Matcher(["*.key"]).match(deep)
    assert Matcher(["/" + "a/" * 1500]).match(deep)
