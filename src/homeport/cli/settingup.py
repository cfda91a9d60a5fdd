"""`homeport setup`: makes a machine ready, this one or those of the environment, over ssh."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from homeport import __version__
from homeport.cli.options import Options, pass_options
from homeport.model.errors import ConfigFault, InfrastructureFault, UsageFault
from homeport.model.remote import Place, SetupStep


@click.command()
@click.option("-e", "--environment", metavar="ENV", help="As before the verb.")
@click.option("--host", metavar="HOST", help="As before the verb.")
@click.option("--observe/--no-observe", default=None, help="Only look and report there; or end that.")
@click.option("--widen", is_flag=True, help="Add what is needed to the lists of a host file that is there.")
@click.option("--key", "key", metavar="FILE", help="A public ssh key that is to do what a token may, and no more.")
@click.option("--token", "token", metavar="NAME", help="The token it is bound to (homeport token create).")
@pass_options
def setup(options: Options, environment: str | None, host: str | None, observe: bool | None, widen: bool,
          key: str | None, token: str | None) -> None:  # fmt: skip
    """Make a machine ready: program, state folder, host file, deploy key, first fetch, claims. Run it at any time.

    \b
    Example:
      homeport -e production setup
      homeport setup --host web-1 --observe
      sudo homeport setup --widen
      homeport -e production setup --key ci.pub --token ci
    """
    if (key is None) != (token is None):
        raise UsageFault("--key and --token go together", next="homeport setup --key FILE.pub --token NAME", code="usage")
    options.environment, options.host = environment or options.environment, host or options.host
    if options.call is not None:
        told = options.call.ask("project", project=True)
        bound = (told["key"], token) if told.get("key") and token else None
        _end(options, _here(options, told["config"], told["origin"], observe, widen, bound))
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
    bound = (_public_key(key), token) if key is not None and token is not None else None
    if not places:
        _end(options, _here(options, text, origin, observe, widen, bound))
        return
    words = ["setup", *(["--observe"] if observe else ["--no-observe"] if observe is False else []),
             *(["--widen"] if widen else []), *(["--key", "-", "--token", bound[1]] if bound else [])]  # fmt: skip
    project = {"config": text, "origin": origin, "key": bound[0] if bound else ""}
    answers = [_there(options, place, words, project) for place in places]
    for said in answers:
        options.tell(said, lambda color, its=said: _words(its, color))  # type: ignore[misc]
    if not all(said["ok"] for said in answers):
        raise click.exceptions.Exit(1)


def _public_key(given: str) -> str:
    """The key of a file. Raises UsageFault (codes `usage`, `public-key`)."""
    from homeport.cli.contents import read
    from homeport.decide.authorizing import public_key

    return public_key(read(given).decode("utf-8", "replace"))


def _here(options: Options, text: str, origin: str, observe: bool | None, widen: bool,
          bound: tuple[str, str] | None) -> dict[str, Any]:  # fmt: skip
    from homeport.decide.authorizing import public_key
    from homeport.flow.binding import KeyWish
    from homeport.flow.settingup import set_up
    from homeport.wiring_hosts import setup_of

    key = KeyWish(public=public_key(bound[0]), token=bound[1]) if bound else None
    machine, wish, open_site = setup_of(text, origin, options.environment, options.host, observe, widen, key)
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
