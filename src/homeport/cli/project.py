"""Verbs about a project's own file: init, check, schema; completion and demo."""

from __future__ import annotations

import os

import click

from homeport.cli.options import Options, pass_options
from homeport.model.errors import ConfigFault, Refused

READ_AT_MOST = 1 << 20
"""Bytes of one file that `init` looks into."""


@click.command()
@click.option("--name", metavar="NAME", help="The project's name; default: that of the folder.")
@click.option("--branch", metavar="BRANCH", default="main", show_default=True, help="What production follows.")
@click.option("--live", is_flag=True, help="Look also at what pm2, systemd and Compose run on this machine.")
@pass_options
def init(options: Options, name: str | None, branch: str, live: bool) -> None:
    """Write a first homeport.toml from what the repository holds: pm2 ecosystem files, unit files, Compose files,
    Procfiles, workspaces.

    With --live, on the server, also where each lives there, and what only the server knows.

    \b
    Example:
      homeport init --branch main
      homeport init --live
    """
    from homeport.decide import guessing
    from homeport.wiring import checkout_files, running_here

    folder = os.path.abspath(options.folder)
    path = os.path.join(folder, "homeport.toml")
    files, running = _texts(folder, checkout_files(folder)), running_here() if live else []
    text = guessing.first_config(name or os.path.basename(folder), branch, files, running)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as fault:
        raise Refused("there is a homeport.toml already", where=path, next="homeport check", code="exists") from fault
    options.tell({"path": path}, lambda _: f"wrote {path}\nlook through it, then: homeport check")


def _texts(folder: str, names: list[str]) -> dict[str, str]:
    """The small text files that tell something about a project; the others by name only."""
    from homeport.decide.guessing import telling

    found = {}
    for name in names:
        text = ""
        if telling(name):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) <= READ_AT_MOST:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
        found[name] = text
    return found


@click.command()
@pass_options
def check(options: Options) -> None:
    """Say what is wrong with homeport.toml: keys, paths of the commit, and what this version does not do.

    \b
    Example:
      homeport check
    """
    from homeport.decide import checking
    from homeport.wiring import checkout_files, find_config, read_config, read_host

    path = find_config(options.folder)
    if path is None:
        raise ConfigFault("no homeport.toml here or above", where=os.path.abspath(options.folder), next="homeport init",
                          code="no-config")  # fmt: skip
    config = read_config(path)
    notes = checking.unsupported(config)
    files = checkout_files(os.path.dirname(path))
    for environment in config.environments if files else ():
        notes += [n for n in checking.check_tree(config, environment, files) if n not in notes]
    read_host()  # it says what is wrong with host.toml
    if config.gate is None:
        notes.append(checking.Note(where="gate", message="there is no gate: every commit of the branch may be deployed"))
    fatal = sum(n.fatal for n in notes)
    rows = [{"where": n.where, "message": n.message, "fatal": n.fatal} for n in notes]
    said = {"ok": not fatal, "path": path, "notes": rows}
    lines = [f"{'error' if n.fatal else 'note '}  {n.where}: {n.message}" for n in notes]
    if not files:
        lines.append("note   there is no commit yet: paths were not compared with one")
    closing = f"{path}: {fatal} to mend" if fatal else f"{path} is right"
    options.tell(said, lambda _: "\n".join([*lines, closing]))
    if fatal:
        raise click.exceptions.Exit(2)


@click.command()
def schema() -> None:
    """Print the JSON Schema of homeport.toml, for editors.

    \b
    Example:
      homeport schema > homeport.schema.json
    """
    import json

    from homeport.decide.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      homeport completion bash > /etc/bash_completion.d/homeport
    """
    from click.shell_completion import get_completion_class

    from homeport.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "homeport", "_HOMEPORT_COMPLETE").source())


@click.command()
@click.argument("folder", required=False)
def demo(folder: str | None) -> None:
    """Play the main job on a real repository with real processes, in a sandbox that leaves nothing running.

    \b
    Example:
      homeport demo
      homeport demo ./sandbox      (keeps the folder to look around in)
    """
    from homeport.cli.demo import run

    raise click.exceptions.Exit(run(folder))
