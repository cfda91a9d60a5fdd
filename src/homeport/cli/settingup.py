"""`homeport setup`: makes a machine ready, this one or those of the environment, over ssh."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from homeport import __version__
from homeport.cli.options import Options, pass_options
from homeport.model.errors import ConfigFault, InfrastructureFault
from homeport.model.remote import Place, SetupStep


@click.command()
@click.option("-e", "--environment", metavar="ENV", help="As before the verb.")
@click.option("--host", metavar="HOST", help="As before the verb.")
@click.option("--observe/--no-observe", default=None, help="Only look and report there; or end that.")
@click.option("--widen", is_flag=True, help="Add what is needed to the lists of a host file that is there.")
@pass_options
def setup(options: Options, environment: str | None, host: str | None, observe: bool | None, widen: bool) -> None:
    """Make a machine ready: program, state folder, host file, deploy key, first fetch, claims. Run it at any time.

    \b
    Example:
      homeport -e production setup
      homeport setup --host web-1 --observe
      sudo homeport setup --widen
    """
    options.environment, options.host = environment or options.environment, host or options.host
    if options.call is not None:
        told = options.call.ask("project", project=True)
        _end(options, _here(options, told["config"], told["origin"], observe, widen))
        return
    from homeport.wiring import find_config
    from homeport.wiring_hosts import places_of

    path = find_config(options.folder)
    if path is None:
        raise ConfigFault("no homeport.toml here or above", where=os.path.abspath(options.folder), next="homeport init",
                          code="no-config")  # fmt: skip
    with open(path, encoding="utf-8") as file:
        text = file.read()
    origin, places = places_of(path, options.environment, options.host)
    if not places:
        _end(options, _here(options, text, origin, observe, widen))
        return
    words = ["setup", *(["--observe"] if observe else ["--no-observe"] if observe is False else []),
             *(["--widen"] if widen else [])]  # fmt: skip
    answers = [_there(options, place, words, {"config": text, "origin": origin}) for place in places]
    for said in answers:
        options.tell(said, lambda color, its=said: _words(its, color))  # type: ignore[misc]
    if not all(said["ok"] for said in answers):
        raise click.exceptions.Exit(1)


def _here(options: Options, text: str, origin: str, observe: bool | None, widen: bool) -> dict[str, Any]:
    from homeport.flow.settingup import set_up
    from homeport.wiring_hosts import setup_of

    machine, wish, open_site = setup_of(text, origin, options.environment, options.host, observe, widen)
    steps = [SetupStep(name="program", ok=True, done=f"homeport {__version__}")] if options.call is None else []
    steps += list(set_up(machine, wish, open_site))
    return _answer(wish.host, wish.environment, steps)


def _answer(host: str, environment: str, steps: list[SetupStep]) -> dict[str, Any]:
    return {"ok": all(step.ok for step in steps), "host": host, "environment": environment,
            "steps": msgspec.to_builtins(steps)}  # fmt: skip


def _end(options: Options, said: dict[str, Any]) -> None:
    options.tell(said, lambda color: _words(said, color))
    if not said["ok"]:
        raise click.exceptions.Exit(1)


def _words(said: dict[str, Any], color: bool) -> str:
    from homeport.cli.show.results import setup as shown

    return shown(said, color=color)


def _there(options: Options, place: Place, words: list[str], project: dict[str, str]) -> dict[str, Any]:
    """Sets one machine up over ssh: the program from here, all else by the program there."""
    from homeport.cli.remoting import ask_there
    from homeport.wiring_hosts import bring_program, ssh_host

    ssh_host(place).connect()
    steps = [SetupStep(name="connection", ok=True, done=place.destination)]
    try:
        steps.append(bring_program(place, options.note))
    except InfrastructureFault as fault:
        if fault.code != "install":
            raise
        steps.append(SetupStep(name="program", ok=False, done=str(fault), next=fault.next))
        return _answer(place.host, place.environment, steps)
    said = ask_there(options, place, words, lambda _: project)
    said["steps"] = [*msgspec.to_builtins(steps), *said["steps"]]
    return said
