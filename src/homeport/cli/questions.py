"""Questions to the person: at this terminal, or at that of whoever asked from another machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from homeport.cli.show.results import diff

if TYPE_CHECKING:
    from homeport.cli.options import Options


def can_ask(options: Options) -> bool:
    """A caller's own side has looked already whether somebody is there."""
    return options.call is not None or (sys.stdin.isatty() and sys.stderr.isatty())


def choose(options: Options, question: str, choices: str, meaning: str, shown: str = "") -> str:
    """One letter of `choices`; the last one when the input ends. `shown` is a diff to look at first."""
    if options.call is not None:
        said = options.call.ask(question, choices=choices, meaning=meaning, shown=shown)
        return said if isinstance(said, str) and said in tuple(choices) else choices[-1]
    return prompted(question, choices, meaning, shown)


def prompted(question: str, choices: str, meaning: str, shown: str = "") -> str:
    """Asks at this terminal until the answer is one of the letters."""
    if shown:
        click.echo(diff(shown, escaped=True), err=True)
    while True:
        click.echo(f"{question} [{','.join(choices)}] ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return choices[-1]
        said = line.strip().lower()[:1]
        if said and said in choices:
            return said
        click.echo(meaning, err=True)


def answered(said: dict[str, Any]) -> str:
    """The person's answer to a question of a host; what the host wrote is escaped."""
    from homeport.cli.show.words import text

    choices = "".join(c for c in str(said.get("choices", "")) if c.isalpha()) or "yn"
    return prompted(text(str(said.get("text", ""))), choices, text(str(said.get("meaning", ""))),
                    str(said.get("shown", "")))  # fmt: skip
