"""Verbs about what was edited on the host: drift, diff, discard, record, rescue."""

from __future__ import annotations

import sys

import click
import msgspec

from homeport.cli.confirming import acting, confirm_options
from homeport.cli.options import Options, pass_options

LONGEST = 32 << 20
"""Bytes of a rescue that are held at once, and told as JSON."""


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--watch", is_flag=True, help="Go on, and tell each edit as it is made; ends with Ctrl-C.")
@pass_options
def drift(options: Options, services: tuple[str, ...], watch: bool) -> None:
    """List every path that is not as homeport put it there. Exit code 3 when there is any.

    With --watch an edit is told within a second, by inotify, without looking at everything again.

    \b
    Example:
      homeport drift
      homeport drift api
      homeport drift --watch
    """
    from homeport.cli.show import results
    from homeport.flow.looking import drift_of

    with options.site(recover=True) as site:
        if watch:
            from homeport.cli.watching import watch_drift
            from homeport.wiring_ahead import look_anew

            look_anew()
            watch_drift(options, site, services)
            return
        said = drift_of(site, services)
    options.tell(said, lambda color: results.drift(said, color=color))
    if not said["equal"]:
        raise click.exceptions.Exit(3)


@click.command()
@click.argument("words", nargs=-1, metavar="[SERVICE] [PATH]...")
@pass_options
def diff(options: Options, words: tuple[str, ...]) -> None:
    """Show the edits on the host as a unified diff. Exit code 3 when there is any.

    \b
    Example:
      homeport diff
      homeport diff api server.js
    """
    from homeport.cli.show import results
    from homeport.flow.looking import diff_of

    with options.site(recover=True) as site:
        service = words[0] if words and words[0] in site.config.services else None
        text = diff_of(site, service, words[1:] if service else words)
    if text or options.json:
        options.tell({"equal": not text, "diff": text},
                     lambda color: results.diff(text, color, escaped=sys.stdout.isatty()))  # fmt: skip
    if text:
        raise click.exceptions.Exit(3)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@confirm_options
@pass_options
def discard(options: Options, paths: tuple[str, ...], confirm: tuple[str, ...], because: str) -> None:
    """Put edited paths back to what homeport put there; their bytes are saved first (homeport rescue list).

    PATH is as in the repository, as in the live folder, or absolute.

    \b
    Example:
      homeport discard api/server.js
    """
    from homeport.cli.show import answers
    from homeport.flow.looking import discard_paths
    from homeport.wiring import person

    with options.site(recover=True) as site:
        said = acting(options, site, confirm, because, lambda its: discard_paths(its, paths, person()))
    options.tell(said, lambda _: answers.discarded(said))


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--anew", is_flag=True, help="Forget what was recorded, and meet the folder as for the first time.")
@pass_options
def record(options: Options, services: tuple[str, ...], anew: bool) -> None:
    """Take what another deployer put there as put there by homeport. Writes nothing into the live folder.

    \b
    Example:
      homeport record api
    """
    from homeport.cli.show import answers
    from homeport.flow.looking import meet_anew, record_services
    from homeport.wiring import person

    with options.site(recover=True) as site:
        said = meet_anew(site, services, person()) if anew else record_services(site, services, person())
    options.tell(said, lambda _: answers.recorded(said))


@click.group()
def rescue() -> None:
    """Bytes that were saved before something overwrote or deleted them.

    \b
    Example:
      homeport rescue list
      homeport rescue restore r-1a2b3c4d
    """


@rescue.command("list")
@pass_options
def rescue_list(options: Options) -> None:
    """List what was saved, newest first.

    \b
    Example:
      homeport rescue list
    """
    from homeport.cli.show import results

    with options.site() as site:
        rows = site.rescues.listing()
    options.tell({"rescues": msgspec.to_builtins(rows)}, lambda color: results.rescues(rows, color=color))


@rescue.command("show")
@click.argument("id")
@pass_options
def rescue_show(options: Options, id: str) -> None:
    """Print the saved bytes as they are.

    \b
    Example:
      homeport rescue show r-1a2b3c4d > server.js
    """
    with options.site() as site:
        found = site.rescues.find(id)
        if found.bytes > LONGEST and not options.json:
            sys.stdout.flush()
            site.rescues.pour(found, sys.stdout.fileno())
            return
        if found.bytes > LONGEST:
            from homeport.model.errors import Refused

            raise Refused(f"{found.bytes >> 20} MiB are too much for one line", where=found.path, code="too-large",
                          next=f"on that host: homeport rescue show {id} > FILE")  # fmt: skip
        content = site.rescues.read(found)
    if options.json:
        import base64

        said = {**msgspec.to_builtins(found), "base64": base64.b64encode(content).decode("ascii")}
        options.tell(said, lambda _: "")
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


@rescue.command("restore")
@click.argument("id")
@click.option("--to", metavar="FILE", help="Write a new file instead of putting the bytes back where they were.")
@confirm_options
@pass_options
def rescue_restore(options: Options, id: str, to: str | None, confirm: tuple[str, ...], because: str) -> None:
    """Put saved bytes back where they were; what lies there now is saved first. It is an edit on the host then.

    \b
    Example:
      homeport rescue restore r-1a2b3c4d
      homeport rescue restore r-1a2b3c4d --to /srv/server.js
    """
    from homeport.cli.show import answers
    from homeport.flow.rescuing import put_back, write_out
    from homeport.wiring import person

    with options.site(recover=True) as site:
        said = (write_out(site, id, to, person()) if to
                else acting(options, site, confirm, because, lambda its: put_back(its, id, person())))  # fmt: skip
    options.tell(said, lambda _: answers.restored(said))
