"""Verbs that change what runs: plan, deploy, rollback, rebuild, restart, cancel."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from homeport.cli.confirming import Command, confirm_options
from homeport.cli.options import Options, pass_options
from homeport.model.deploys import Kind, Request
from homeport.model.errors import Refused, UsageFault

if TYPE_CHECKING:
    from homeport.flow.site import Site

def drift_options(command: Command) -> Command:
    """What this one run does with what lies live: `--keep-drift`, `--discard-drift`, `--allow-mass-delete`."""
    for option in (
        click.option("--allow-mass-delete", is_flag=True, help="Also when most files of a target would go."),
        click.option("--discard-drift", "on_drift", flag_value="discard",
                     help="Put edits back; their bytes are saved first."),
        click.option("--keep-drift", "on_drift", flag_value="keep", help="Leave edits on the host as they are."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("words", nargs=-1, metavar="[REF] [SERVICE]...")
@click.option("--ref", help="The commit, branch or tag, when its name is also a service's.")
@drift_options
@pass_options
def plan(options: Options, words: tuple[str, ...], ref: str | None, on_drift: str | None, allow_mass_delete: bool) -> None:
    """Show what a deploy would do and what it would refuse; changes nothing.

    \b
    Example:
      homeport plan
      homeport -e production plan v1.4.0 api
    """
    from homeport.cli.show import results
    from homeport.flow.planning import make_plan

    with options.site() as site:
        named, services = _split(site, words, ref)
        made = make_plan(site, _request("commit", named, services, on_drift, allow_mass_delete))
    options.tell(msgspec.to_builtins(made), lambda color: results.plan(made, color=color, words=options.words[1:]))


@click.command()
@click.argument("words", nargs=-1, metavar="[REF] [SERVICE]...")
@click.option("--ref", help="The commit, branch or tag, when its name is also a service's.")
@drift_options
@click.option("--over-try", is_flag=True, help="End live tries that the commit does not contain; they stay in the mirror.")
@click.option("--request-id", metavar="ID", help="Your own name for this request: asking again finds the same deploy.")
@click.option("--built", multiple=True, metavar="SERVICE", help="Bring its build outputs from this checkout, in place of a "
              "build on the host; deploys the commit that is checked out.")  # fmt: skip
@confirm_options
@pass_options
def deploy(options: Options, words: tuple[str, ...], ref: str | None, on_drift: str | None, allow_mass_delete: bool,
           over_try: bool, request_id: str | None, built: tuple[str, ...], confirm: tuple[str, ...],
           because: str) -> None:  # fmt: skip
    """Bring the environment to a commit (default: the tip of its branch), all services or those named.

    \b
    Example:
      homeport deploy
      homeport -e production deploy v1.4.0
      homeport deploy api web --keep-drift
      homeport -e production deploy --built site
    """
    with options.site(deploys=True) as site:
        named, services = _split(site, words, ref)
        request = _request("commit", named, services, on_drift, allow_mass_delete, request_id)
        if over_try:
            ended = sorted({r.sha for r in site.store.services().values() if r.tried is not None and r.sha is not None})
            request = msgspec.structs.replace(request, over=tuple(ended))
        if built:
            request = _with_built(options, site, request, built)
        ask_and_follow(options, site, request, confirm, because)


def _with_built(options: Options, site: Site, request: Request, services: tuple[str, ...]) -> Request:
    from homeport.flow.bringing import with_built
    from homeport.wiring_hosts import brought_outputs, built_outputs

    source = built_outputs(options.folder, options.call.asked_for_tree if options.call is not None else None)
    try:
        return with_built(site, source, brought_outputs(site), request, services)
    finally:
        source.close()


@click.command()
@click.argument("to", required=False, metavar="[DEPLOY|SHA]")
@drift_options
@confirm_options
@pass_options
def rollback(options: Options, to: str | None, on_drift: str | None, allow_mass_delete: bool, confirm: tuple[str, ...],
             because: str) -> None:  # fmt: skip
    """Go back: to the success before, to what a deploy left, or to a commit. The commit that is left is blocked.

    \b
    Example:
      homeport rollback
      homeport rollback 20260102t101500-1a2b
    """
    from homeport.flow.blocking import commit_named

    with options.site(deploys=True) as site:
        request = _request("rollback", None, (), on_drift, allow_mass_delete)
        if to is not None:
            found = site.store.deploy(to)
            if found is not None:
                request = msgspec.structs.replace(request, from_deploy=found.id)
            elif re.match(r"\d{8}t\d{6}", to):
                raise Refused(f"there is no deploy {to}", where=f"environment {site.environment}",
                              next="homeport history", code="no-deploy")  # fmt: skip
            else:
                request = msgspec.structs.replace(request, sha=commit_named(site, to))
        ask_and_follow(options, site, request, confirm, because)


@click.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@confirm_options
@pass_options
def rebuild(options: Options, services: tuple[str, ...], confirm: tuple[str, ...], because: str) -> None:
    """Build and restart what was edited on the host, as it lies there; the edit stays drift.

    \b
    Example:
      homeport rebuild api
    """
    with options.site(deploys=True) as site:
        _known(site, services)
        ask_and_follow(options, site, _request("live", None, services), confirm, because)


@click.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@confirm_options
@pass_options
def restart(options: Options, services: tuple[str, ...], confirm: tuple[str, ...], because: str) -> None:
    """Restart services and verify them, as any deploy would. `all` is every service, and the supervisor itself.

    \b
    Example:
      homeport restart api
      homeport restart all
    """
    with options.site(deploys=True) as site:
        everything = services == ("all",) and "all" not in site.config.services
        if not everything:
            _known(site, services)
        request = _request("restart", None, () if everything else services)
        from homeport.flow.supervising import restarts_itself

        request = msgspec.structs.replace(request, force=True, itself=everything and restarts_itself(site))
        ask_and_follow(options, site, request, confirm, because)


@click.command()
@click.argument("deploy", required=False)
@pass_options
def cancel(options: Options, deploy: str | None) -> None:
    """Stop the running deploy (or the one named) and undo what it did.

    \b
    Example:
      homeport cancel
    """
    from homeport.flow import asking
    from homeport.wiring import person

    with options.site() as site:
        row = site.store.deploy(deploy) if deploy else site.store.running() or site.store.waiting()
        if row is None or not asking.cancel(site, row.id, person()):
            raise Refused("nothing runs that could be cancelled", where=deploy or f"environment {site.environment}",
                          next="homeport history", code="not-running")  # fmt: skip
        follow_to_end(options, site, row.id, exit_code=0)


def ask_and_follow(options: Options, site: Site, request: Request, confirm: tuple[str, ...] = (),
                   because: str = "") -> None:  # fmt: skip
    """Asks for a deploy, shows it, and ends with its exit code. What rules want confirmed is asked for at a terminal,
    and the deploy asked for once more."""
    from homeport.cli import confirming
    from homeport.flow import asking, guarding

    site = guarding.allowing(site, confirm, because)
    while True:
        deploy = asking.ask(site, request)
        try:
            follow_to_end(options, site, deploy)
        except click.exceptions.Exit:
            row = site.store.deploy(deploy)
            if row is None or not row.unconfirmed or not confirming.can_ask(options, site):
                raise
            site = confirming.asked(site, row.unconfirmed, because)
            request = msgspec.structs.replace(request, request_id=None)


def follow_to_end(options: Options, site: Site, deploy: str, exit_code: int | None = None) -> None:
    """Shows a deploy until its outcome. Ctrl-C asks it to cancel and waits for the undo; again: leaves it running."""
    from homeport.cli.calling import tell
    from homeport.cli.show.events import Shown
    from homeport.flow import asking
    from homeport.wiring import person

    shown = Shown(options.json, options.quiet, options.verbose, sys.stdout, sys.stderr)
    asked = {"times": 0, "told": 0}
    if options.call is not None:
        tell({"type": "asked", "deployId": deploy})

    def interrupted(number: int, frame: object) -> None:
        del number, frame
        asked["times"] += 1
        if asked["times"] > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    def tick() -> None:
        if options.call is not None and options.call.gone:
            raise click.exceptions.Exit(1)
        if asked["times"] and not asked["told"]:
            asked["told"] = 1
            asking.cancel(site, deploy, person())
            shown.say("cancelling, and waiting for the undo (Ctrl-C again leaves it running)")

    try:
        for line in asking.follow(site, deploy, tick=tick):
            shown.feed(line)
    except KeyboardInterrupt:
        shown.close()
        from homeport.cli.show.again import again

        said = f"homeport: the deploy goes on without this terminal\n  next: {again(f'homeport logs -f {deploy}')}"
        click.echo(f"\n{said}", err=True)
        raise click.exceptions.Exit(6) from None
    finally:
        shown.close()
        signal.signal(signal.SIGINT, before)
    done = shown.done
    raise click.exceptions.Exit(exit_code if exit_code is not None else done.exit_code if done is not None else 1)


def _request(kind: Kind, ref: str | None, services: tuple[str, ...], on_drift: str | None = None,
             allow_mass_delete: bool = False, request_id: str | None = None) -> Request:  # fmt: skip
    from homeport.wiring import person

    return Request(kind=kind, ref=ref, services=services, run=own_run(), on_drift=on_drift,  # type: ignore[arg-type]
                   allow_mass_delete=allow_mass_delete, requested_by=person(), request_id=request_id)  # fmt: skip


def own_run() -> str | None:
    """The CI run that this command is part of, as its forge numbers it."""
    from homeport.wiring_person import caller

    asking = caller()
    if asking is not None:
        return asking.run
    if os.environ.get("GITEA_ACTIONS") == "true":
        return os.environ.get("GITHUB_RUN_NUMBER")
    return os.environ.get("GITHUB_RUN_ID") or os.environ.get("CI_PIPELINE_ID")


def _split(site: Site, words: tuple[str, ...], ref: str | None) -> tuple[str | None, tuple[str, ...]]:
    """(reference, services): the first word is a service when one is called so, else the reference."""
    services = list(words)
    if ref is None and services and services[0] not in site.config.services:
        ref = services.pop(0)
    _known(site, services)
    if ref is not None:
        _spoken(ref)
    return ref, tuple(services)


def _known(site: Site, services: tuple[str, ...] | list[str]) -> None:
    unknown = [name for name in services if name not in site.config.services]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], site.config.services, 1)
        raise UsageFault(f"no service named {', '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""),
                         where=f"environment {site.environment}", next="homeport status", code="no-service")  # fmt: skip


def _spoken(ref: str) -> None:
    """Raises UsageFault for what git itself would never take as a name (git-check-ref-format(1))."""
    strange = any(c in " ~^:?*[\\" or ord(c) < 32 or ord(c) == 127 for c in ref)
    if not ref or strange or ref.startswith("-") or ".." in ref or "@{" in ref:
        raise UsageFault(f"{ref[:80]!r} cannot be a branch, tag or commit", next="name a branch, a tag or a commit",
                         code="bad-ref")  # fmt: skip
