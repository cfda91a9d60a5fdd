"""`homeport`: options, the list of verbs, and how every error ends. A verb's own module is loaded when it is run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

import click

from homeport import __version__
from homeport.cli.options import Away, Options
from homeport.model.errors import Cancelled, Failed, HomeportError, InfrastructureFault, Unconfirmed, UsageFault

VERBS = {
    "init": "project", "check": "project", "schema": "project", "completion": "project", "demo": "project",
    "plan": "deploying", "deploy": "deploying", "rollback": "deploying", "rebuild": "deploying",
    "restart": "deploying", "migrate": "operating", "shell": "operating", "run": "operating", "cancel": "deploying",
    "status": "looking", "history": "looking", "show": "looking", "logs": "looking", "doctor": "doctoring",
    "setup": "settingup",
    "drift": "drifting", "diff": "drifting", "discard": "drifting", "record": "drifting", "rescue": "drifting",
    "try": "trying", "adopt": "adopting", "accept": "adopting", "edits": "adopting",
    "hostfile": "hosting", "rules": "ruling", "audit": "ruling",
    "notify": "notifying",
    "block": "guarding", "unblock": "guarding", "hold": "guarding", "unhold": "guarding", "db": "guarding",
    "token": "tokens", "ssh-entry": "entering", "serve": "serving", "supervise": "supervising",
    "converge": "serving", "mcp": "agents",
}  # fmt: skip
"""Each verb and the module that has it."""
HELP_OF = {
    "init": "Write a first homeport.toml.",
    "check": "Say what is wrong with homeport.toml.",
    "schema": "Print the JSON Schema of homeport.toml.",
    "completion": "Print a shell's completion script.",
    "demo": "Play the main job in a sandbox.",
    "plan": "Show what a deploy would do.",
    "deploy": "Bring the environment to a commit.",
    "try": "Make uncommitted work live.",
    "rollback": "Go back to an earlier deploy.",
    "rebuild": "Build and restart what was edited live.",
    "restart": "Restart services.",
    "migrate": "Run the migrations alone.",
    "shell": "Open a shell where a service runs.",
    "run": "Run a command where a service runs.",
    "cancel": "Stop and undo the running deploy.",
    "status": "Show what runs.",
    "history": "List deploys.",
    "show": "Show one deploy.",
    "logs": "Print what a deploy or service printed.",
    "doctor": "Check this host for homeport.",
    "setup": "Make a host ready.",
    "drift": "List what was edited on the host.",
    "diff": "Show the edits on the host.",
    "discard": "Put edited paths back.",
    "record": "Take what lies live as put there.",
    "rescue": "Bytes saved before they went.",
    "adopt": "Bring edits back into git.",
    "accept": "Let an edit stay for a while.",
    "edits": "List edits that are not settled.",
    "hostfile": "Files outside the repository.",
    "rules": "Show what may be done here, and why not.",
    "audit": "Show who changed what.",
    "notify": "Try the channels of messages.",
    "block": "Never deploy a commit.",
    "unblock": "Allow a blocked commit again.",
    "hold": "Pause deploys by triggers.",
    "unhold": "End the pause.",
    "token": "Make, list and revoke tokens.",
    "ssh-entry": "Let a key do what its token may.",
    "serve": "Listen: API, events, webhooks, timer.",
    "converge": "Deploy what is new, once.",
    "supervise": "Run the services of the built-in supervisor.",
    "mcp": "Serve the verbs to an agent as tools.",
    "db": "Check or copy the state database.",
}
"""For the list of verbs, so that listing loads none of them; each verb says more itself."""


WORDS = "homeport.words"
"""Where a context keeps the verb and what follows it."""


class Verbs(click.Group):
    """Loads a verb's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"homeport.cli.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(name, HELP_OF[name]) for name in VERBS])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        ctx.meta[WORDS] = tuple(args)
        if name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, 1)
            raise click.UsageError(f"there is no verb {name!r}" + (f"; did you mean {near[0]}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-C", "folder", metavar="DIR", default=".", help="Work as if started in DIR.")
@click.option("-p", "--project", metavar="PROJECT", help="The project, where no checkout says it.")
@click.option("-e", "--environment", metavar="ENV", help="The environment; needed when there are several.")
@click.option("--host", metavar="HOST", help="The host, when the environment has several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or lines while something runs.")
@click.option("-q", "--quiet", is_flag=True, help="Only the outcome.")
@click.option("-v", "--verbose", is_flag=True, help="Every line of builds and commands.")
@click.option("--caller", hidden=True, help="Who asks from another machine; homeport writes it itself.")
@click.version_option(__version__, message="homeport %(version)s")
@click.pass_context
def cli(ctx: click.Context, folder: str, project: str | None, environment: str | None, host: str | None,
        as_json: bool, quiet: bool, verbose: bool, caller: str | None) -> None:  # fmt: skip
    """Keeps a git repository and the servers that run it in step, in both directions.

    The options below may stand before the verb or after it.

    \b
    Example:
      homeport plan
      homeport deploy
      homeport drift
      homeport status -e staging --json
    """
    if caller is None:
        from homeport.cli.show import again

        again.remember(None if folder == "." else folder, project, environment, host)
    options = Options(folder=folder, project=project, environment=environment, host=host, json=as_json, quiet=quiet,
                      verbose=verbose, words=ctx.meta.get(WORDS, ()))  # fmt: skip
    if caller is not None:
        from homeport.cli.calling import WANT_RUNNER, Call, read_caller
        from homeport.wiring import own_name
        from homeport.wiring_ahead import runner_ahead
        from homeport.wiring_person import called_by, for_a_key

        options.call = Call(read_caller(caller))
        if options.words[:1] and options.words[0] in WANT_RUNNER and not for_a_key():
            tried = options.words[1:] if options.words[0] == "try" else None
            runner_ahead(tried)  # before this process listens, and before it works for somebody
        called_by(options.call.caller)
        options.call.begin(options.words, own_name())
        options.call.await_word(lambda: _load(options.words[0]))
    ctx.obj = options


def _load(verb: str) -> None:
    """What a verb takes that another machine will ask for."""
    from homeport.wiring_ahead import load_verb

    importlib.import_module(f"homeport.cli.{VERBS[verb]}")
    load_verb(verb)


def main(at_end: Callable[[], None] = lambda: None) -> None:
    """The program. Exit codes are those of DESIGN section 9; no traceback reaches a person.

    It ends as soon as everything is said: to take the interpreter apart would cost a tenth of a short command.
    """
    code = run(sys.argv[1:])
    at_end()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


def run(argv: list[str], before: Callable[[list[str]], None] | None = None) -> int:
    """Carries out one command line, after `before` had nothing against it as it will be parsed; the exit code. Errors
    are told, none is raised."""
    from homeport.cli.anywhere import in_front

    json = "--json" in argv
    try:
        options, words = in_front(cli, argv)
        json = "--json" in options or (json and words[:1] != [] and words[0] not in VERBS)
        if before is not None:
            before([*options, *words])
        return _carried_out([*options, *words])
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as fault:
        if os.environ.get("HOMEPORT_TRACEBACK") and not isinstance(fault, HomeportError | click.ClickException):
            raise
        known = _known(fault)
        return told(json, known, 130 if isinstance(fault, KeyboardInterrupt | click.Abort) else known.exit_code)


def _carried_out(argv: list[str]) -> int:
    try:
        code = cli.main(argv, prog_name="homeport", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Away as away:
        from homeport.cli.remoting import run_there

        try:
            return run_there(away.options, away.places)
        finally:
            away.options.let_go()


def _known(fault: BaseException) -> HomeportError:
    """Any fault as one of ours, so that a person always reads what, where and next."""
    if isinstance(fault, HomeportError):
        return fault
    if isinstance(fault, click.ClickException):
        context = getattr(fault, "ctx", None)
        path = context.command_path if context is not None else "homeport"
        return UsageFault(fault.format_message(), next=f"{path} --help", code="usage")
    if isinstance(fault, KeyboardInterrupt | click.Abort):
        return Cancelled("interrupted", next="homeport status", code="interrupted")
    if isinstance(fault, RecursionError):
        return UsageFault("the input is nested too deeply", next="homeport check", code="nested")
    if isinstance(fault, OSError) and not os.path.isdir("."):
        return UsageFault("the folder you are in is not there any more", next="cd, or homeport -C DIR", code="no-folder")
    if isinstance(fault, OSError):
        return InfrastructureFault(fault.strerror or str(fault), where=str(fault.filename or ""), next="homeport doctor",
                                   code="os")  # fmt: skip
    if isinstance(fault, MemoryError):
        return InfrastructureFault("out of memory", next="homeport doctor", code="memory")
    return Failed(f"homeport itself failed: {type(fault).__name__}: {fault}", code="internal",
                  next="run it again with HOMEPORT_TRACEBACK=1 and report what it prints")  # fmt: skip


def told(json: bool, fault: HomeportError, exit_code: int) -> int:
    """Prints an error; its exit code."""
    from homeport.cli.show.again import again
    from homeport.cli.show.results import error

    if json:
        from homeport.cli.show.json import encode

        said = {"type": "error", "code": fault.code, "what": fault.what, "where": fault.where, "next": again(fault.next)}
        wanted = {"unconfirmed": fault.asked} if isinstance(fault, Unconfirmed) else {}
        click.echo(encode({**said, "exitCode": exit_code, **wanted}))
        if "--caller" in sys.argv:
            return exit_code
    click.echo(error(fault).rstrip("\n"), err=True)
    return exit_code


if __name__ == "__main__":
    main()
