"""What every verb shares: the options before the verb, opening the site, and how answers are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from homeport.model.errors import HomeportError
from homeport.model.remote import Elsewhere, Place

if TYPE_CHECKING:
    from homeport.cli.calling import Call
    from homeport.flow.site import Site
    from homeport.model.abreast import Turn
    from homeport.model.trying import WorkingTree


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
    words: tuple[str, ...] = ()
    """The verb and what follows it."""
    interrupted: bool = False
    """Ctrl-C was pressed while a host worked for us."""
    call: Call | None = None
    """The connection to whoever asked from another machine."""
    tree: Turn[WorkingTree] | None = None
    """The working tree around the folder, looked at meanwhile; whoever takes it closes it."""

    def site(self, *, recover: bool = False, deploys: bool = False, tries: bool = False) -> Site:
        """The environment that the options and the folder name. With `recover`, a deploy that a crash
        interrupted is ended first (DESIGN section 1); with `deploys`, a runner gets ready meanwhile; with `tries`,
        the working tree is looked at, too. Raises Away when
        the environment is on other machines."""
        from homeport.wiring import open_site
        from homeport.wiring_ahead import goes_away, look_anew, no_runner, runner_ahead

        if deploys and self.call is None and not goes_away():
            runner_ahead(self.words[1:] if tries else None)
        if tries and self.call is None:
            from homeport.wiring_ahead import tree_ahead
            from homeport.wiring_person import identity_ahead

            identity_ahead(self.folder)
            self.tree = tree_ahead(self.folder)
        try:
            site = open_site(self.folder, self.project, self.environment, self.host)
        except Elsewhere as there:
            no_runner()
            raise Away(self, there.places) from None
        if site.store.looks_only:
            self.note(f"the disk of the state takes no writes, so nothing can be deployed: df -h {site.state}")
        elif recover:
            from homeport.flow.asking import recover_if_needed

            ended = recover_if_needed(site)
            if ended:
                look_anew()
                self.note(f"an interrupted deploy was ended first: homeport show {ended}")
        return site

    def let_go(self) -> None:
        """Closes the working tree that was looked at for nothing."""
        turn, self.tree = self.tree, None
        if turn is not None:
            with suppress(HomeportError):
                turn.result().close()

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
        if self.call is not None:
            from homeport.cli.calling import tell

            tell({"type": "note", "text": words})
        elif not self.json and not self.quiet:
            from homeport.cli.show.again import again

            click.echo(again(words), err=True)


pass_options = click.make_pass_decorator(Options, ensure=True)


class Exit(click.exceptions.Exit):
    """Ends the program with an exit code (DESIGN section 9); nothing more is printed."""


class Away(Exception):
    """The verb belongs on other machines: what it was asked with, and where."""

    def __init__(self, options: Options, places: tuple[Place, ...]) -> None:
        super().__init__(options, places)
        self.options = options
        self.places = places
