"""The options before the verb may stand after it too: `homeport status --json`, `homeport deploy -e staging`.

They are moved to the front before anything is parsed, so that a command line has one shape for everything behind this:
the parser, another machine, a key that is bound to a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

OF_HOMEPORT_ITSELF = frozenset({"--caller", "--version", "--help", "-h"})
"""Not moved: what homeport writes itself, and what a verb has too."""


def in_front(cli: click.Group, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(options of `cli`, the verb and what is its own). What follows `--` is left alone, so is what a verb calls the
    same, and the value of a verb's own option. What no parser takes stays where it is. Raises click's UsageError for an
    option that lacks its value."""
    shared = {name: option for name, option in _options(cli).items() if name not in OF_HOMEPORT_ITSELF}
    start = _verb_at(cli, argv)
    before, rest = list(argv[:start]), list(argv[start:])
    command = cli.get_command(click.Context(cli), rest[0]) if rest else None
    if command is None:
        return before, rest
    kept, words = [rest[0]], iter(rest[1:])
    for word in words:
        own = _options(command)
        name = _name(word)
        if word == "--" or (word[:1] != "-" and command.context_settings.get("allow_interspersed_args") is False):
            return before, [*kept, word, *words]
        into = before if name in shared and name not in own else kept
        into.append(word)
        if _wants_value(word, own.get(name) or shared.get(name)):
            value = next(words, None)
            if value is None and into is before:
                raise click.UsageError(f"Option {word!r} requires an argument.")
            into.extend([] if value is None else [value])
        elif isinstance(command, click.Group) and word[:1] != "-":
            command = command.get_command(click.Context(command), word) or command
    return before, kept


def _verb_at(cli: click.Group, argv: Sequence[str]) -> int:
    own, number = _options(cli), 0
    while number < len(argv) and argv[number][:1] == "-" and argv[number] != "--":
        number += 2 if _wants_value(argv[number], own.get(_name(argv[number]))) else 1
    return min(number, len(argv))


def _options(command: click.Command) -> dict[str, click.Option]:
    return {name: option for option in command.params if isinstance(option, click.Option) for name in option.opts}


def _name(word: str) -> str:
    """`--ref` of `--ref=v1`, `-e` of `-estaging`."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _wants_value(word: str, option: click.Option | None) -> bool:
    """Its value is the next word."""
    return option is not None and not (option.is_flag or option.count) and word == _name(word)
