"""Verbs of what goes on by itself: serve (the daemon) and converge (one tick without it)."""

from __future__ import annotations

import os
import sys

import click

from homeport.cli.options import Options, pass_options


@click.command()
@click.option("--socket", "path", metavar="PATH", help="Where to listen; default: .homeport.sock in the state folder.")
@pass_options
def serve(options: Options, path: str | None) -> None:
    """Listen on a Unix socket (and on TCP when host.toml says so): API, events, webhooks, and the timer.

    Serves the environment that the options name, or with neither checkout nor options all that this host knows. It may
    be stopped or killed at any moment: deploys go on without it.

    \b
    Example:
      homeport serve
      homeport -p shop -e production serve --socket /run/homeport.sock
    """
    from homeport.wiring import find_config
    from homeport.wiring_daemon import known_environments

    named = options.project is not None or options.environment is not None or find_config(options.folder) is not None
    if named:
        with options.site() as site:
            names = [site.project, site.environment]
    else:
        names = [word for pair in known_environments() for word in pair]
    place = ["--socket", os.path.abspath(path)] if path else []
    os.execv(sys.executable, [sys.executable, "-m", "homeport.daemon", *place, *names])  # noqa: S606  # ourselves


@click.command()
@click.option("--no-wait", is_flag=True, help="Ask, and do not wait for the end.")
@pass_options
def converge(options: Options, no_wait: bool) -> None:
    """One look at the branch, for cron or a systemd timer: deploys what is new, unless it is held, blocked or running.

    \b
    Example:
      homeport converge
      homeport -e production converge --no-wait
    """
    from homeport.cli.show import answers
    from homeport.flow.converge import tick

    with options.site() as site:
        said = tick(site, "converge")
        if said["deployId"] is not None and not no_wait:
            from homeport.cli.deploying import follow_to_end

            follow_to_end(options, site, said["deployId"])
    options.tell(said, lambda _: answers.converged(said))
