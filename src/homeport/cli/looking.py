"""Verbs that only look: status, history, show, logs."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from homeport.cli.options import Options, pass_options
from homeport.model.errors import UsageFault


@click.command()
@pass_options
def status(options: Options) -> None:
    """Show what runs, what was edited on the host, what is blocked and what is going on.

    \b
    Example:
      homeport status
    """
    from homeport.cli.show import results
    from homeport.flow.looking import status_of

    with options.site() as site:
        said = status_of(site)
    options.tell(said, lambda color: results.status(said, color=color))


@click.command()
@click.option("-n", "limit", type=click.IntRange(1, 10000), default=20, show_default=True, help="How many.")
@pass_options
def history(options: Options, limit: int) -> None:
    """List deploys, newest first.

    \b
    Example:
      homeport history -n 50
    """
    from homeport.cli.show import results
    from homeport.flow.looking import waiting_of

    with options.site() as site:
        rows, waiting = site.store.history(limit), waiting_of(site)
    options.tell({"deploys": msgspec.to_builtins(rows), "waiting": waiting},
                 lambda color: results.history(rows, waiting, color=color))  # fmt: skip


@click.command()
@click.argument("deploy")
@pass_options
def show(options: Options, deploy: str) -> None:
    """Show one deploy: what it did, stage by stage, and how it ended.

    \b
    Example:
      homeport show 20260102t101500-1a2b
    """
    from homeport.cli.show import results

    with options.site() as site:
        row = site.store.deploy(deploy)
        if row is None:
            raise UsageFault(f"there is no deploy {deploy}", where=f"environment {site.environment}",
                             next="homeport history", code="no-deploy")  # fmt: skip
        stages = site.store.stages(row.id)
    said = {**msgspec.to_builtins(row), "stages": [{"stage": s, "state": state, "at": at} for s, state, at in stages]}
    options.tell(said, lambda color: results.deploy(row, stages, color=color))


@click.command()
@click.argument("name", metavar="SERVICE|DEPLOY", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing as lines come.")
@click.option("-n", "lines", type=click.IntRange(0, 1_000_000), default=200, show_default=True,
              help="Lines of a service to begin with.")  # fmt: skip
@pass_options
def logs(options: Options, name: str | None, follow: bool, lines: int) -> None:
    """Print what a deploy printed (default: the newest), or what a service prints.

    \b
    Example:
      homeport logs api -f
      homeport logs 20260102t101500-1a2b
    """
    with options.site() as site:
        if name is not None and name in site.config.services:
            _service_logs(options, site, name, lines, follow)
            return
        row = site.store.deploy(name) if name else next(iter(site.store.history(1)), None)
        if row is None:
            what = f"there is no deploy or service {name}" if name else "nothing was deployed here yet"
            raise UsageFault(what, where=f"environment {site.environment}", next="homeport history",
                             code="no-deploy")  # fmt: skip
        if follow and row.state != "done":
            from homeport.cli.deploying import follow_to_end

            follow_to_end(options, site, row.id)
        if row.state == "done" and not os.path.exists(site.journal_path(row.id)):
            raise UsageFault(f"the lines of deploy {row.id} are not kept any more", where="host.toml: limits.journals",
                             next=f"homeport show {row.id}", code="no-logs")  # fmt: skip
        for text in _deploy_lines(options, site.journal_path(row.id)):
            click.echo(text)


def _deploy_lines(options: Options, path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            raw = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    if options.json:
        return [line.decode("utf-8", "replace") for line in raw if line]
    from homeport.cli.show.answers import log_line

    found = []
    for line in raw:
        try:
            shown = log_line(msgspec.json.decode(line))
        except msgspec.DecodeError:
            continue
        if shown is not None:
            found.append(shown)
    return found


def _service_logs(options: Options, site: object, name: str, lines: int, follow: bool) -> None:
    from homeport.cli.show.json import encode
    from homeport.flow.looking import service_log
    from homeport.model.paths import printable

    for text in service_log(site, name, lines, follow):  # type: ignore[arg-type]
        click.echo(encode({"service": name, "line": text}) if options.json else printable(text))
        sys.stdout.flush()
