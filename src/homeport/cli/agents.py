"""`homeport mcp`: the verbs as tools for an agent."""

from __future__ import annotations

import click

from homeport.cli.options import Options, pass_options
from homeport.model.errors import InfrastructureFault


@click.command()
@click.option("--token", "name", metavar="NAME", help="Act as this token of this host, with its rights and no more.")
@pass_options
def mcp(options: Options, name: str | None) -> None:
    """Serve the verbs to an agent as tools of the Model Context Protocol, over standard input and output.

    Without --token the agent works in this checkout as whoever started it, but confirms nothing. With --token, on the
    host itself, it may do what the token's rights allow.

    \b
    Example:
      homeport mcp
      homeport -e production mcp --token builder
    """
    try:
        from homeport.mcp.serving import serve
    except ModuleNotFoundError as fault:
        if fault.name is None or fault.name.partition(".")[0] == "homeport":
            raise
        raise InfrastructureFault("the library of the Model Context Protocol is not installed", where=fault.name,
                                  next='pip install "homeport[mcp]"', code="no-mcp") from fault  # fmt: skip
    from homeport.wiring_itself import asked_for

    given = {"--project": options.project, "--environment": options.environment, "--host": options.host}
    before = [f"{option}={value}" for option, value in given.items() if value is not None]
    entry = None
    if name is not None:
        with options.site() as site:
            from homeport.flow.tokens import named

            named(site, name)
        entry = [*before, "ssh-entry", "--token", name]
    elif options.folder != ".":
        before = ["-C", options.folder, *before]
    serve(lambda words: asked_for(words, entry), before, bound=options.environment is not None, checkout=entry is None)
