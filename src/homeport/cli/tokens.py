"""The verb `token`: who may ask, over the API and over ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from homeport.cli.options import Options, pass_options

if TYPE_CHECKING:
    from homeport.model.tokens import Token


@click.group()
def token() -> None:
    """Tokens for programs, agents and forges: what each may ask of this environment.

    \b
    Example:
      homeport token create ci --right read --right deploy:all
      homeport token list
      homeport token revoke ci
    """


@token.command("create")
@click.argument("name")
@click.option("--right", "rights", metavar="RIGHT", multiple=True, required=True,
              help="read, deploy:SCOPE, deploy:*, try, adopt, hold or confirm; may be given several times.")  # fmt: skip
@click.option("--kind", type=click.Choice(["person", "agent", "forge"]), default="agent", show_default=True,
              help="Who holds it; only a person can confirm.")  # fmt: skip
@pass_options
def token_create(options: Options, name: str, rights: tuple[str, ...], kind: str) -> None:
    """Make a token and show it, this one time.

    \b
    Example:
      homeport token create builder --right read --right deploy:platform --kind agent
    """
    from homeport.cli.show import answers
    from homeport.flow import tokens
    from homeport.wiring import person

    with options.site() as site:
        shown, record = tokens.create(site, name, rights, kind, person())  # type: ignore[arg-type]
    said = {**_row(record), "token": shown}
    options.tell(said, lambda _: answers.new_token(said))


@token.command("list")
@pass_options
def token_list(options: Options) -> None:
    """List the tokens of this environment, revoked ones too; never the tokens themselves.

    \b
    Example:
      homeport token list
    """
    from homeport.cli.show import answers

    with options.site() as site:
        rows = site.tokens.all()
    said = {"tokens": [_row(row) for row in rows]}
    options.tell(said, lambda _: answers.tokens(said))


@token.command("revoke")
@click.argument("name")
@pass_options
def token_revoke(options: Options, name: str) -> None:
    """Let nobody in with this token any more.

    \b
    Example:
      homeport token revoke builder
    """
    from homeport.flow import tokens
    from homeport.wiring import person

    with options.site() as site:
        tokens.revoke(site, name, person())
    options.tell({"name": name, "revoked": True}, lambda _: f"{name} is revoked")


def _row(record: Token) -> dict[str, Any]:
    return {"name": record.name, "kind": record.kind, "rights": list(record.rights), "by": record.by, "at": record.at,
            "revoked": record.revoked}  # fmt: skip
