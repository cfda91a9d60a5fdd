"""The documentation says what the program does: commands parse, links lead somewhere, examples load, codes are told."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest

from homeport.cli.anywhere import in_front
from homeport.cli.main import cli
from homeport.decide import checking
from homeport.decide.loading import load, load_host

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BASE = {
    "[project]": '[project]\nname = "shop"\n',
    "[environments.production]": '[environments.production]\nbranch = "main"\n',
    "[services.api]": '[services.api]\nsource = "api"\ntarget = "/opt/api"\n',
}
"""The smallest file; a fragment is appended to the tables that it does not bring itself."""
HOST_FILE = "# host.toml"
"""First line of an example that is a host file."""
AHEAD: set[str] = set()
"""Pages whose examples load, while a deploy still refuses them: take a page out once it is carried out."""
UNTOLD = {"demo"}
"""Codes that nobody has to look up."""


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """(line, language, text) of every fenced block, and of every indented one with language `indented`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        start = number
        if lines[number].startswith("```"):
            number += 1
            while not lines[number].startswith("```"):
                number += 1
            yield start + 2, lines[start][3:].strip(), "\n".join(lines[start + 1 : number])
        elif lines[number].startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            yield start + 1, "indented", "\n".join(line[4:] for line in lines[start:number]).rstrip()
            continue
        number += 1


def quoted_commands() -> list[tuple[str, str, bool]]:
    """(where, command, whole): `whole` for a line of a block, which a reader may type as it stands."""
    found = []
    for page in PAGES:
        for start, language, text in blocks(page):
            if language == "toml":
                continue
            for offset, line in enumerate(text.splitlines()):
                found += [(f"{page.name}:{start + offset}", one, True) for one in typed(line)]
        outside = page.read_text(encoding="utf-8")
        for match in re.finditer(r"(?<!`)`(homeport [^`]+)`", outside):
            line_number = outside.count("\n", 0, match.start()) + 1
            found += [(f"{page.name}:{line_number}", one, False) for one in typed(match[1])]
    return found


def typed(line: str) -> Iterator[str]:
    """The commands in a line: without prompt, remark, pipe and redirection."""
    remarks_off = re.split(r"\s{2,}(?![-\[<])|\s#\s|\s\(", line.strip().removeprefix("$ "))[0]
    for part in re.split(r"\s*(?:&&|\|\||;|\|)(?:\s+|$)", remarks_off):
        command = re.sub(r"^(\w+=\S+ )+|^ssh \S+ |^sudo (-u \S+ )?|^if ", "", re.split(r"\s[<>]", part)[0].strip())
        if command.startswith("homeport ") and not re.search(r"\.\.\.|…|\bVERB\b", command):
            yield command


def parse(argv: list[str]) -> None:
    """Parses as click would, without running anything. Raises click's own errors."""
    context = cli.make_context("homeport", [*chain(*in_front(cli, argv))])
    command: click.Command = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = command.make_context(name, list(rest), parent=context)
        rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs/make_reference.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("where", "command", "whole"), quoted_commands())
def test_a_quoted_command_exists_with_its_options(where: str, command: str, whole: bool) -> None:
    argv = [word.strip("[]") for word in shlex.split(command)[1:]]
    try:
        parse([word for word in argv if word])
    except click.exceptions.Exit as ended:
        assert ended.exit_code == 0, where
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError) as fault:
        assert not whole, f"{where}: {command}: {fault.format_message()}"
    except click.UsageError as fault:
        pytest.fail(f"{where}: {command}: {fault.format_message()}")


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    for wrong in (["deploi"], ["deploy", "--keep-drifts"], ["rescue", "lists"], ["logs", "-n", "many"]):
        with pytest.raises(click.UsageError):
            parse(wrong)
    assert len(quoted_commands()) > 60


def slug(heading: str) -> str:
    """The anchor that forges make of a heading."""
    plain = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    outside = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {slug(match[1]) for match in re.finditer(r"^#+ (.+)$", outside, re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for match in re.finditer(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            dead.append(match[1])
    assert not dead


def examples() -> list[tuple[str, str]]:
    """Every TOML example, fenced or indented."""
    found = []
    for page in PAGES:
        for line, language, text in blocks(page):
            if language == "toml" or (language == "indented" and re.match(r"\[+[a-z]", text)):
                found.append((f"{page.name}:{line}", text))
    return found


@pytest.mark.parametrize(("where", "text"), examples())
def test_an_example_loads_and_this_version_carries_it_out(where: str, text: str) -> None:
    if text.lstrip().startswith(HOST_FILE):
        assert load_host(text, where).name
        return
    tables = {line.strip().split("]")[0] + "]" for line in text.splitlines() if line.strip().startswith("[")}
    config = load("".join(part for header, part in BASE.items() if header not in tables) + text, where)
    refused = [note for note in checking.unsupported(config) if note.fatal]
    assert not refused or where.partition(":")[0] in AHEAD


def codes_in_the_source() -> set[str]:
    """The literal codes that errors are raised with."""
    found = set()
    for path in sorted((ROOT / "src/homeport").rglob("*.py")):
        if "supervisor" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and called(node.func) in RAISED:
                codes = (k.value for k in node.keywords if k.arg == "code")
                found |= {str(code.value) for code in codes if isinstance(code, ast.Constant)}
    return found


RAISED = {"Failed", "InfrastructureFault", "UsageFault", "ConfigFault", "StateFault", "Refused", "GateClosed", "Busy",
          "Cancelled", "ForgeFault"}  # fmt: skip


def called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


def told_codes() -> set[str]:
    return set(re.findall(r"^\| `([a-z0-9-]+)`", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.M))


def test_every_error_code_is_told_in_troubleshooting() -> None:
    assert codes_in_the_source() - told_codes() - UNTOLD == set()


def test_no_code_is_told_that_the_program_does_not_have() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/homeport").rglob("*.py"))
    assert {code for code in told_codes() if f'"{code}"' not in source} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_example_names_only(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    hosts = set(re.findall(r"(?:https?|ssh)://([a-z0-9.-]+)|\w@([a-z0-9-]+(?:\.[a-z0-9-]+)+)", text))
    allowed = re.compile(r"(.*\.)?example\.(com|org|net)|127\.0\.0\.1|localhost|keepachangelog\.com|.*\.invalid")
    assert not [name for pair in hosts for name in pair if name and not allowed.fullmatch(name)]


def functions_of_tests() -> dict[str, set[str]]:
    """The names of the test functions of each file, by its path below tests/."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        named = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
        found[str(path.relative_to(ROOT / "tests"))] = set(named)
    return found


def test_every_clause_of_the_way_back_names_tests_that_are_there() -> None:
    there = functions_of_tests()
    page = (ROOT / "docs/way-back.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(\S+\.py)` \| (.+) \|$", page, re.M)
    missing = [(file, name) for _, file, names in rows for name in re.findall(r"`(\w+)`", names)
               if name not in there.get(file, ())]  # fmt: skip
    assert not missing
    assert len(rows) > 70 and all("`test_" in names for _, _, names in rows)


def test_every_test_that_the_promises_name_is_there() -> None:
    there, page = functions_of_tests(), (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    files, names = {Path(file).name for file in there}, set().union(*there.values())
    told = {Path(word).name for word in re.findall(r"`([\w/.]*test_\w+(?:\.py)?)`", page)}
    assert {word for word in told if word not in (files if word.endswith(".py") else names)} == set()
    assert len(told) > 60
