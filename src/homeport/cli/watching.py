"""What `--watch` prints, until Ctrl-C."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from homeport.cli.options import Options

if TYPE_CHECKING:
    from homeport.flow.site import Site


def watch_drift(options: Options, site: Site, services: tuple[str, ...]) -> None:
    """One line for each path that begins to differ or ceases to. Ctrl-C ends it, and is no failure."""
    from homeport.flow.watching import watch_drift as watched

    try:
        for row in watched(site, services):
            if options.json:
                from homeport.cli.show.json import encode

                click.echo(encode(row))
            else:
                told(options, row)
            sys.stdout.flush()
    except KeyboardInterrupt:
        options.note("")


def told(options: Options, row: dict[str, Any]) -> None:
    """One line of `drift --watch`, from this machine or another."""
    from homeport.cli.show import results
    from homeport.cli.show.words import clock_time, text, wants_color

    if row["type"] == "drift.scan":
        click.echo(results.drift(row, color=wants_color(sys.stdout)).rstrip("\n"), color=True)
        folders = sum(row["watching"].values())
        options.note(f"watching {folders} folder{'' if folders == 1 else 's'} (Ctrl-C ends it)")
        return
    why = f" ({text(str(row['because']))})" if row["because"] else ""
    known = f", as in {row['foreign'][:12]}" if row["foreign"] else ""
    click.echo(
        f"{clock_time(row['at'], seconds=True)}  {text(row['service'])}  {row['state']}  {text(row['path'])}{why}{known}"
    )
