"""The operator's verbs: migrate alone, a shell and single commands where a service runs."""

from __future__ import annotations

import sys

import click

from homeport.cli.confirming import acting, confirm_options
from homeport.cli.options import Exit, Options, pass_options
from homeport.model.errors import Refused, UsageFault


@click.command()
@confirm_options
@pass_options
def migrate(options: Options, confirm: tuple[str, ...], because: str) -> None:
    """Run the migrations of what runs now, without a deploy; recorded like one.

    \b
    Example:
      homeport migrate
    """
    from homeport.cli.deploying import ask_and_follow
    from homeport.model.deploys import Request
    from homeport.wiring import person

    with options.site() as site:
        ask_and_follow(options, site, Request(kind="migrate", requested_by=person()), confirm, because)


@click.command()
@click.argument("service")
@confirm_options
@pass_options
def shell(options: Options, service: str, confirm: tuple[str, ...], because: str) -> None:
    """Open a shell where a service runs: in its folder, with its environment, as its user; in its container.

    \b
    Example:
      homeport shell api
    """
    _inside(options, service, [], "shell", confirm, because)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-s", "--service", metavar="SERVICE", help="Where; needed when there are several that run.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@confirm_options
@pass_options
def run(options: Options, service: str | None, words: tuple[str, ...], confirm: tuple[str, ...], because: str) -> None:
    """Run a command where a service runs; its exit status is ours.

    \b
    Example:
      homeport run -- node scripts/reindex.js
      homeport run -s api -- env
    """
    _inside(options, service, list(words), "run", confirm, because)


def _inside(options: Options, named: str | None, words: list[str], verb: str, confirm: tuple[str, ...],
            because: str) -> None:  # fmt: skip
    from homeport.flow.guarding import check, command_deed
    from homeport.flow.looking import unit_for
    from homeport.wiring import actor, inside, person

    with options.site() as site:
        if actor().kind != "person":
            raise Refused(f"{verb} is for a person", where=actor().name, code="person-only",
                          next="write what is needed into homeport.toml as an action or a migration")  # fmt: skip
        runs = [name for name, service in site.config.services.items() if service.runtime is not None]
        if named is None and len(runs) != 1:
            raise UsageFault(f"which service? {', '.join(runs) or 'none runs here'}", where="-s SERVICE",
                             next="homeport run -s SERVICE -- COMMAND", code="no-service")  # fmt: skip
        name = named or runs[0]
        if name not in site.config.services:
            raise UsageFault(f"no service named {name} in environment {site.environment}", where="homeport.toml",
                             next="homeport status", code="no-service")  # fmt: skip
        deed = command_deed("run", name, site.config.services[name], False)
        acting(options, site, confirm, because, lambda its: check(its, [deed], verb))
        unit = unit_for(site, name)
        site.store.audit(person(), verb, f"{name}: {' '.join(words)}"[:500] if words else name)
        code = inside(site, unit, site.config.services[name].runtime or "", words, sys.stdin.isatty())
    raise Exit(code)
