"""Verbs that guard: block, unblock, and the state database."""

from __future__ import annotations

import click

from homeport.cli.options import Options, pass_options
from homeport.model.errors import StateFault, UsageFault


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
    from homeport.cli.show import answers
    from homeport.flow.blocking import block as keep_out
    from homeport.wiring import person

    with options.site() as site:
        full = keep_out(site, sha, because, person())
    said = {"sha": full, "blocked": True, "because": because}
    options.tell(said, lambda _: answers.blocked(said))


@click.command()
@click.argument("sha")
@pass_options
def unblock(options: Options, sha: str) -> None:
    """Allow a blocked commit again.

    \b
    Example:
      homeport unblock 1a2b3c4
    """
    from homeport.cli.show import answers
    from homeport.flow.blocking import unblock as let_in
    from homeport.wiring import person

    with options.site() as site:
        full = let_in(site, sha, person())
    said = {"sha": full, "blocked": False}
    options.tell(said, lambda _: answers.blocked(said))


@click.command()
@click.option("--because", metavar="REASON", required=True, help="Shown to whoever asks.")
@click.option("--for", "lasting", metavar="TIME", help="How long, such as 30m or 2h; default: the environment's hold_ttl.")
@pass_options
def hold(options: Options, because: str, lasting: str | None) -> None:
    """Pause deploys by triggers; a person's own deploy still runs.

    \b
    Example:
      homeport hold --because "moving the database" --for 2h
    """
    from homeport.cli.show import answers
    from homeport.decide import durations
    from homeport.flow.blocking import hold as pause
    from homeport.wiring import person

    try:
        seconds = None if lasting is None else float(durations.parse(int(lasting) if lasting.isdecimal() else lasting))
    except ValueError as fault:
        raise UsageFault(
            f"--for {lasting}: expected {durations.EXPECTED}", next="homeport hold --help", code="usage"
        ) from fault
    with options.site() as site:
        made = pause(site, because, person(), seconds)
    said = {"hold": {"because": made.because, "by": made.by, "until": made.until}}
    options.tell(said, lambda _: answers.held(said))


@click.command()
@pass_options
def unhold(options: Options) -> None:
    """End the pause.

    \b
    Example:
      homeport unhold
    """
    from homeport.cli.show import answers
    from homeport.flow.blocking import unhold as go_on
    from homeport.wiring import person

    with options.site() as site:
        ended = go_on(site, person())
    said = {"hold": None, "ended": ended}
    options.tell(said, lambda _: answers.held(said))


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
        raise StateFault("; ".join(problems), where=where, next="restore an older copy",
                         code="corrupt")  # fmt: skip
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
    from homeport.wiring import person

    with options.site() as site:
        site.store.backup(path)
        site.store.audit(person(), "db backup", path)
    options.tell({"path": path}, lambda _: f"copied to {path}")
