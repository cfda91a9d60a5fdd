"""B1: every verb, with nothing and with junk, in the environments that scripts and old terminals give it."""

from __future__ import annotations

import subprocess

import pytest

from homeport.cli.main import VERBS
from tests.scenarios.telling import deployed, fault, picture, run
from tests.world import PROGRAM, World

LONG_RUNNING = {"demo", "serve", "supervise", "mcp", "watch"}
"""Verbs that do work of their own, or go on until they are stopped, when they are given nothing."""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example(world: World, verb: str) -> None:
    assert "Example:" in world.homeport(verb, "--help").stdout


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_of_a_verb_is_an_error_of_usage(world: World, verb: str) -> None:
    said = fault(world, verb, "--no-such-option", code=2)
    assert "no-such-option" in said and f"homeport {verb}" in said
    assert not picture(world.live)


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in LONG_RUNNING])
def test_a_verb_without_a_project_ends_calmly(world: World, verb: str) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    ran = run(world, verb, cwd=outside)
    assert ran.code in (0, 1, 2, 3), ran.stderr
    assert ran.stdout.strip() or ran.stderr.strip()
    assert "homeport itself failed" not in ran.stdout + ran.stderr
    assert not picture(world.live)


@pytest.mark.parametrize("env", [{"LANG": "C", "LC_ALL": "C"}, {"COLUMNS": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"},
                                 {"HOME": None}, {"PYTHONIOENCODING": "ascii"}], ids=str)  # fmt: skip
def test_an_odd_environment_changes_nothing_but_the_looks(world: World, env: dict[str, str | None]) -> None:
    sha = deployed(world)
    for verb in ("status", "history", "plan", "drift", "deploy"):
        ran = run(world, verb, env=env)
        assert ran.code == 0, ran.stdout + ran.stderr
        assert "\x1b[" not in ran.stdout
    assert run(world, "--json", "status", env=env).last["sha"] == sha


@pytest.mark.parametrize("verb", ["history", "status", "deploy", "schema"])
def test_a_reader_that_went_away_is_no_traceback(world: World, verb: str) -> None:
    deployed(world)
    done = subprocess.run(["/bin/sh", "-c", f'"$0" {verb} | head -c 0', str(PROGRAM)], env=world.env, cwd=world.clone,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr


def test_closed_standard_streams_are_no_traceback(world: World) -> None:
    deployed(world)
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(["/bin/sh", "-c", f'"$0" status {closed}', str(PROGRAM)], env=world.env, cwd=world.clone,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
