"""Verbs that guard: block, unblock, and the state database."""

from __future__ import annotations

import click

from homeport.cli.options import Options, pass_options
from homeport.model.errors import StateFault


@click.command()
@click.argument("sha")
@click.option("--because", metavar="REASON", default="blocked by hand", show_default=True, help="Shown to whoever asks.")
@pass_options
def block(options: Options, sha: str, because: str) -> None:
    """Let no trigger and no person deploy this commit, until it is unblocked.

    \b
    Example:
      homeport block 1a2b3c4 --because "breaks logins"
    """
    from homeport.flow.blocking import block as keep_out
    from homeport.wiring import person

    with options.site() as site:
        full = keep_out(site, sha, because, person())
    options.tell({"sha": full, "blocked": True}, lambda _: f"{full[:12]} is blocked: {because}")


@click.command()
@click.argument("sha")
@pass_options
def unblock(options: Options, sha: str) -> None:
    """Allow a blocked commit again.

    \b
    Example:
      homeport unblock 1a2b3c4
    """
    from homeport.flow.blocking import unblock as let_in
    from homeport.wiring import person

    with options.site() as site:
        full = let_in(site, sha, person())
    options.tell({"sha": full, "blocked": False}, lambda _: f"{full[:12]} may be deployed again")


@click.group()
def db() -> None:
    """The state database: deploys, records, blocks, rescues.

    \b
    Example:
      homeport db check
      homeport db backup /root/homeport.db
    """


@db.command("check")
@pass_options
def db_check(options: Options) -> None:
    """Look through the whole database. Exit code 2 when something is wrong.

    \b
    Example:
      homeport db check
    """
    with options.site() as site:
        problems = site.store.check()
        where = f"{site.state}/homeport.db"
    if problems:
        raise StateFault("; ".join(problems), where=where, next="homeport db backup, then restore an older copy", code="corrupt")
    options.tell({"ok": True, "path": where}, lambda _: f"{where} is sound")


@db.command("backup")
@click.argument("path")
@pass_options
def db_backup(options: Options, path: str) -> None:
    """Copy the database to a new file, also while a deploy runs.

    \b
    Example:
      homeport db backup /root/homeport.db
    """
    with options.site() as site:
        site.store.backup(path)
    options.tell({"path": path}, lambda _: f"copied to {path}")
