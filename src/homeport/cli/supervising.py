"""The verb `supervise`: runs the built-in supervisor in the foreground."""

from __future__ import annotations

import os

import click

from homeport.cli.options import Options, pass_options


@click.command()
@click.option("--socket", metavar="PATH", help="Listen there too; always on supervisor.sock of the state folder.")
@click.option("--dev", is_flag=True, help="Run this checkout's services in place and show what they print.")
@click.option("--ephemeral", is_flag=True, help="As PID 1: the state may end with the container.")
@pass_options
def supervise(options: Options, socket: str | None, dev: bool, ephemeral: bool) -> None:
    """Run the services of this environment whose runtime is `supervisor`, until told to stop.

    It starts what is deployed, finds again what an earlier one left running, and ends an interrupted deploy.

    \b
    Example:
      homeport -e production supervise
      homeport supervise --dev
    """
    from homeport.decide import layout
    from homeport.flow import supervising
    from homeport.wiring import become_supervisor, site_of_checkout, state_root

    if dev:
        site, folder = site_of_checkout(options.folder, options.environment)
        state, runner = os.path.join(site.state, "dev"), []
        units = supervising.units_of_folder(site, folder, os.environ.get("PATH", os.defpath))
    else:
        site = options.site()
        state, runner = site.state, [state_root(), site.project, site.environment]
        units = supervising.deployed_units(site)
    scopes = layout.unit_scopes(site.config, site.environment)
    needed = runner if not dev and supervising.interrupted(site) else []
    site.close()
    become_supervisor(state, units, scopes, socket=socket, dev=dev, ephemeral=ephemeral, runner=needed)
