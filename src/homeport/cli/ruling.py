"""Verbs about what may be done and what was: rules, audit."""

from __future__ import annotations

import click

from homeport.cli.options import Options, pass_options


@click.command()
@click.option("--explain", metavar="ACTION[:MATCH]", help="Which rule decides about this, and why.")
@pass_options
def rules(options: Options, explain: str | None) -> None:
    """List the rules that are in force here: the host's own, and those of what is deployed.

    ACTION is deploy, try, rollback, restart, migrate, run, write, delete, discard, push or hostfile; MATCH a service,
    branch or path.

    \b
    Example:
      homeport rules
      homeport rules --explain write:api/auth/login.js
    """
    from homeport.cli.show import rules as show
    from homeport.flow import ruling

    with options.site() as site:
        said = ruling.explain(site, explain) if explain is not None else ruling.rules_of(site)
    options.tell(said, lambda _: show.explained(said) if explain is not None else show.listed(said))


@click.command()
@click.option("-n", "limit", metavar="NUMBER", type=click.IntRange(min=1), default=50, show_default=True,
              help="How many rows, newest first.")  # fmt: skip
@pass_options
def audit(options: Options, limit: int) -> None:
    """Show everything that changed anything: when, who, what, from where, and how it ended. Refused exceptions too.

    \b
    Example:
      homeport audit
      homeport --json audit -n 500
    """
    from homeport.cli.show import rules as show
    from homeport.flow import ruling

    with options.site() as site:
        said = ruling.audit_of(site, limit)
    options.tell(said, lambda _: show.audited(said))
