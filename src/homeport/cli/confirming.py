"""Exceptions from rules at the command line: `--confirm RULE`, or a question at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from homeport.model.errors import Refused, Unconfirmed

if TYPE_CHECKING:
    from homeport.cli.options import Options
    from homeport.flow.site import Site

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def confirm_options(command: Command) -> Command:
    """`--confirm RULE` and `--because REASON`."""
    command = click.option("--because", metavar="REASON", default="",
                           help="Why the exception; --confirm needs it, the audit keeps it.")(command)  # fmt: skip
    return confirm_option(command)


def confirm_option(command: Command) -> Command:
    """`--confirm RULE`, for a verb that has a `--because` of its own."""
    return click.option("--confirm", metavar="RULE", multiple=True,
                        help="Allow an exception from this rule, as a person.")(command)  # fmt: skip


def acting(options: Options, site: Site, confirm: Sequence[str], because: str, act: Callable[[Site], T]) -> T:
    """Does it with the exceptions given; at a terminal the missing ones are asked for.

    Raises Unconfirmed where nobody can be asked, Refused (code `not-confirmed`) when the person says no.
    """
    from homeport.flow.guarding import allowing

    site = allowing(site, confirm, because)
    while True:
        try:
            return act(site)
        except Unconfirmed as fault:
            if not can_ask(options, site):
                raise
            site = asked(site, fault.asked, because)


def can_ask(options: Options, site: Site) -> bool:
    """Whether a person sits at this terminal."""
    here = sys.stdin.isatty() and sys.stderr.isatty() and not options.json
    return here and site.actor.kind == "person" and site.actor.confirms


def asked(site: Site, wanted: Sequence[tuple[str, str]], because: str) -> Site:
    """The site with what the person allowed. Raises Refused (code `not-confirmed`)."""
    from homeport.flow.guarding import allowing

    for rule, message in wanted:
        site = allowing(site, [rule], _word_for(rule, message, site.actor.name, because))
    return site


def person_here(options: Options) -> bool:
    """Whether somebody at this terminal can answer for a host that asks."""
    from homeport.wiring import actor

    here = sys.stdin.isatty() and sys.stderr.isatty() and not options.json
    return here and actor().kind == "person"


def asked_for(words: Sequence[str], wanted: Sequence[tuple[str, str]]) -> list[str]:
    """The words of a verb for another machine, with what the person at this one allowed.

    Raises Refused (code `not-confirmed`).
    """
    from homeport.wiring import person

    at = 2 if words[0] in ("hostfile", "rescue") else 1
    has_reason = any(word == "--because" or word.startswith("--because=") for word in words)
    flags: list[str] = []
    for rule, message in wanted:
        why = _word_for(rule, message, person(), "given" if has_reason else "")
        flags += ["--confirm", rule, *([] if has_reason or "--because" in flags else ["--because", why])]
    return [*words[:at], *flags, *words[at:]]


def _word_for(rule: str, message: str, name: str, because: str) -> str:
    """Asks the person to type the rule's name; why it is allowed. Raises Refused (code `not-confirmed`)."""
    from homeport.cli.show.words import text

    click.echo(f"\n{text(message)}\nAllowing it is kept in the audit, as by {text(name)}.", err=True)
    said = click.prompt(f"Type {text(rule)} to allow it", default="", show_default=False, err=True)
    if said.strip() != rule:
        raise Refused("not allowed; nothing was changed", where=f"rule {rule}", code="not-confirmed",
                      next=f"homeport rules   (what {rule} is about)")  # fmt: skip
    why = because or str(click.prompt("Why", default="", show_default=False, err=True)).strip()
    if not why:
        raise Refused("not allowed without a reason; nothing was changed", where=f"rule {rule}", code="not-confirmed",
                      next=f'the same command with: --confirm {rule} --because "..."')  # fmt: skip
    return why
