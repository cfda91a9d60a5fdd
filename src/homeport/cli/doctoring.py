"""`homeport doctor`: what this machine, and those of the environment, lack."""

from __future__ import annotations

import os
from typing import Any

import click

from homeport.cli.options import Away, Options, pass_options
from homeport.model.errors import HomeportError
from homeport.model.remote import Place


@click.command()
@pass_options
def doctor(options: Options) -> None:
    """Check what homeport needs, here and on the environment's machines, and say how to mend what is missing.

    Other deployers are found too: workflows, timers and cron tables, pm2's own.

    \b
    Example:
      homeport doctor
      homeport -e production doctor
    """
    from homeport.cli.show import results
    from homeport.flow.looking import doctor_of_host

    rows = doctor_of_host()
    try:
        rows += _here(options)
    except Away as away:
        for place in away.places:
            rows += _there(options, place)
    except HomeportError as fault:
        rows.append({"name": "configuration", "ok": False, "detail": str(fault), "next": fault.next or "homeport check"})
    ok = all(row["ok"] for row in rows)
    options.tell({"ok": ok, "folder": os.path.abspath(options.folder), "checks": rows},
                 lambda color: results.doctor(rows, color=color))  # fmt: skip
    if not ok:
        raise click.exceptions.Exit(1)


def _here(options: Options) -> list[dict[str, Any]]:
    from homeport.flow.doctoring import deployer_rows, manager_rows, setup_rows, watch_rows
    from homeport.flow.looking import doctor_of

    with options.site() as site:
        from homeport.wiring import find_config
        from homeport.wiring_hosts import schedules

        rows = doctor_of(site, find_config(options.folder) or f"of {site.project}, as this machine knows it")

        tables, read = schedules()
        return [*rows, *manager_rows(site), *setup_rows(site), *watch_rows(site), *deployer_rows(site, tables, read)]


def _there(options: Options, place: Place) -> list[dict[str, Any]]:
    """The connection, and what the machine says of itself."""
    from homeport.cli.remoting import ask_there

    try:
        said = ask_there(options, place, ["doctor"], lambda _: None)
    except HomeportError as fault:
        return [{"name": place.host, "ok": False, "detail": str(fault), "next": fault.next}]
    rows = [{"name": place.host, "ok": True, "detail": f"reached as {place.destination}", "next": ""}]
    return rows + [{**row, "name": f"{place.host}: {row['name']}"} for row in said["checks"]]
