"""The verb that tries the channels of messages: notify test."""

from __future__ import annotations

import click

from homeport.cli.options import Exit, Options, pass_options


@click.group()
def notify() -> None:
    """Messages about deploys: try the channels that `[notify]` names.

    \b
    Example:
      homeport notify test
    """


@notify.command()
@pass_options
def test(options: Options) -> None:
    """Send a message to every channel and say which did not take it.

    \b
    Example:
      homeport notify test
    """
    from homeport.flow.notifying import test as send_everywhere
    from homeport.model.errors import UsageFault

    with options.site() as site:
        found = send_everywhere(site)
        waiting = site.outbox.waiting()
    if not found:
        raise UsageFault("homeport.toml names no channel", where="notify.urls", next="homeport check", code="no-channel")
    rows = [{"channel": channel, "ok": not wrong, "detail": wrong} for channel, wrong in found]
    lines = [f"{channel}: {wrong or 'it took the message'}" for channel, wrong in found]
    if waiting:
        lines.append(f"{waiting} earlier messages still wait")
    options.tell({"channels": rows, "waiting": waiting}, lambda _: "\n".join(lines))
    if any(wrong for _, wrong in found):
        raise Exit(1)
