"""What every verb shares: the options before the verb, opening the site, and how answers are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from homeport.flow.site import Site


@dataclass(kw_only=True)
class Options:
    """The options before the verb."""

    folder: str = "."
    project: str | None = None
    environment: str | None = None
    host: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def site(self, *, recover: bool = False) -> Site:
        """The environment that the options and the folder name. With `recover`, a deploy that a crash
        interrupted is ended first (DESIGN section 1)."""
        from homeport.wiring import open_site

        site = open_site(self.folder, self.project, self.environment, self.host)
        if recover:
            from homeport.flow.asking import recover_if_needed

            ended = recover_if_needed(site)
            if ended and not self.json and not self.quiet:
                self.note(f"an interrupted deploy was ended first: homeport show {ended}")
        return site

    def tell(self, said: Any, text: Callable[[bool], str]) -> None:
        """Prints an answer: one line of JSON, or (unless quiet) the text; `text` is given whether to colour."""
        from homeport.cli.show.words import encodable, wants_color

        if self.json:
            from homeport.cli.show.json import encode

            click.echo(encode(said))
        elif not self.quiet:
            click.echo(encodable(text(wants_color(sys.stdout)), sys.stdout).rstrip("\n"), color=True)

    def note(self, words: str) -> None:
        """A remark beside the answer, for a person."""
        if not self.json and not self.quiet:
            click.echo(words, err=True)


pass_options = click.make_pass_decorator(Options, ensure=True)


class Exit(click.exceptions.Exit):
    """Ends the program with an exit code (DESIGN section 9); nothing more is printed."""
