"""`homeport ssh-entry`: what an ssh key may do that is bound to a token. The forced command of authorized_keys."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from homeport.cli.options import Options, pass_options


@click.command("ssh-entry")
@click.option("--token", "name", metavar="NAME", required=True, help="The token whose rights the key has.")
@click.option("--key", "key", metavar="NAME", help="The key's table in host.toml, [keys.NAME]: its token counts.")
@pass_options
def ssh_entry(options: Options, name: str, key: str | None) -> None:
    """Run the verb that ssh was asked for, if the token's rights allow it; for authorized_keys.

    `homeport setup` writes the line; with --key, host.toml can change the token, or close the door.

    \b
    Example:
      restrict,command="homeport ssh-entry --token ci --key ci" ssh-ed25519 AAAA... ci
    """
    from homeport.cli.main import run
    from homeport.decide import entering

    words = entering.words_of(os.environ.get("SSH_ORIGINAL_COMMAND"))
    os.chdir("/")
    sys.argv = ["homeport", *words]
    raise click.exceptions.Exit(run(words, before=lambda given: _allow(given, name, key, options)))


def _allow(words: list[str], name: str, key: str | None, options: Options) -> None:
    """Raises Refused (codes `entry`, `no-key`, `no-token`, `no-right`) unless the token may do this; from then on this
    process acts as the token."""
    from homeport.decide import entering
    from homeport.flow.tokens import named, require
    from homeport.wiring import open_site
    from homeport.wiring_person import acting_as

    before, verb, given = _parsed(words)
    right = entering.right_for(verb)
    entering.check_options(verb, before["folder"], given, called=before["caller"] is not None)
    acting_as(None)
    with open_site("/", before["project"] or options.project, before["environment"] or options.environment,
                   before["host"]) as site:  # fmt: skip
        token = named(site, entering.token_of(name, key, site.host_config))
        require(token, right)
        for more in entering.further_rights(verb, given):
            require(token, more)
        if right == entering.DEPLOY:
            services = entering.services_in(verb, given, tuple(site.config.services))
            if verb == "cancel":
                services = _of_deploy(site, given.get("deploy"))
            entering.check_scope(token, site.config, site.environment, services)
        elif verb in entering.WHOLE:
            entering.check_scope(token, site.config, site.environment, ())
    acting_as(token)


def _of_deploy(site: Any, named: str | None) -> list[str]:
    row = site.store.deploy(named) if named else site.store.running() or site.store.waiting()
    return list(row.request.services) if row is not None else []


def _parsed(words: list[str]) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(options before the verb, verb, its own options and arguments), read by the very parser that will run them.

    Raises click's UsageError, and Exit after `--help` or `--version`.
    """
    from homeport.cli.main import cli

    context = cli.make_context("homeport", list(words))
    before, verb = dict(context.params), ""
    command: click.Command = cli
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            raise click.UsageError("which verb?", context)
        found, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        verb, command = f"{verb} {found}".strip(), inner
        context = inner.make_context(found, list(rest), parent=context)
    return before, verb, dict(context.params)
