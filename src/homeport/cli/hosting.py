"""The verb `hostfile`: files outside the repository, with history, validation and reload."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from homeport.cli.confirming import acting, confirm_option
from homeport.cli.options import Options, pass_options
from homeport.model.errors import Failed, UsageFault

if TYPE_CHECKING:
    from homeport.flow.hostediting import Source
    from homeport.flow.site import Site
    from homeport.model.edits import Person


@click.group()
def hostfile() -> None:
    """Files outside the repository (`[[hostfiles]]`): listed, compared, edited safely, kept in a history.

    \b
    Example:
      homeport hostfile list
      homeport hostfile edit /etc/nginx/nginx.conf --because "longer timeout"
    """


@hostfile.command("list")
@click.argument("path", required=False, metavar="[PATH]")
@pass_options
def hostfile_list(options: Options, path: str | None) -> None:
    """List the host files of this host and whether they are as recorded; with PATH, the history of that one.

    \b
    Example:
      homeport hostfile list
      homeport hostfile list /etc/nginx/nginx.conf
    """
    from homeport.cli.show import hostfiles as show
    from homeport.flow import hostediting, hostfiles

    with options.site() as site:
        hostediting.settle(site, _said(options))
        said = hostfiles.history_of(site, path) if path is not None else hostfiles.listing(site)
    options.tell(said, lambda _: show.history(said) if path is not None else show.listed(said))


@hostfile.command("diff")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@pass_options
def hostfile_diff(options: Options, paths: tuple[str, ...]) -> None:
    """Show what changed outside homeport. Exit code 3 when anything did. Secret content is never shown.

    \b
    Example:
      homeport hostfile diff
      homeport hostfile diff /etc/nginx/nginx.conf
    """
    from homeport.cli.show import results
    from homeport.flow import hostediting, hostfiles

    with options.site() as site:
        hostediting.settle(site, _said(options))
        said = hostfiles.diff_of(site, paths)
    if not said["equal"] or options.json:
        options.tell(said, lambda color: results.diff(said["diff"], color, escaped=sys.stdout.isatty()))
    if not said["equal"]:
        raise click.exceptions.Exit(3)


@hostfile.command("edit")
@click.argument("path", metavar="PATH")
@click.option("--from", "source", metavar="FILE", help="The new content, instead of an editor; - is standard input.")
@click.option("--version", "version", metavar="ID", help="The content of an earlier version (homeport hostfile list PATH).")
@click.option("--because", metavar="REASON", default="", help="Why; kept in the history, the audit and the note.")
@click.option("--no-note", is_flag=True, help="Write no session note under docs/operations/.")
@confirm_option
@pass_options
def hostfile_edit(options: Options, path: str, source: str | None, version: str | None, because: str, no_note: bool,
                  confirm: tuple[str, ...]) -> None:  # fmt: skip
    """Change a host file: the copy you edit is validated, put in place at once, and the service reloaded.

    When the reload fails, the old content comes back. Owner, mode, ACL and attributes stay. The editor is $VISUAL or
    $EDITOR. A note of the change is pushed on a branch of its own.

    \b
    Example:
      homeport hostfile edit /etc/nginx/nginx.conf --because "longer timeout"
      homeport hostfile edit /etc/nginx/nginx.conf --from new.conf --because "longer timeout"
    """
    from homeport.cli.show import hostfiles as show
    from homeport.flow import hostediting, hostnotes
    from homeport.wiring import person

    with options.site() as site:
        given = _source(options, site, path, source, version)
        try:
            said = acting(options, site, confirm, because,
                          lambda its: hostediting.edit(its, path, given, because, person(), _said(options)))  # fmt: skip
        except Failed as fault:
            raise _for_afar(options, site, path, fault) from fault
        if said["changed"] and not no_note:
            said["note"] = hostnotes.write_note(site, path, because, _author(options), person())
    options.tell(said, lambda _: show.edited(said))


@hostfile.command("record")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--because", metavar="REASON", default="", help="Why it was changed; kept in the history.")
@confirm_option
@pass_options
def hostfile_record(options: Options, paths: tuple[str, ...], because: str, confirm: tuple[str, ...]) -> None:
    """Take what was changed outside homeport into the history, as it lies there. Writes nothing.

    \b
    Example:
      homeport hostfile record /etc/nginx/nginx.conf --because "certbot renewed"
    """
    from homeport.cli.show import hostfiles as show
    from homeport.flow import hostediting
    from homeport.wiring import person

    with options.site() as site:
        said = acting(options, site, confirm, because, lambda its: hostediting.record(its, paths, because, person()))
    options.tell(said, lambda _: show.recorded(said))


def _for_afar(options: Options, site: Site, path: str, fault: Failed) -> Failed:
    """Whoever asked from another machine is told how to get the text that was kept here."""
    from homeport.decide.adopting import copied_from

    here = site.config.hosts.get(site.host)
    if options.call is None or here is None or not fault.where.endswith(".draft"):
        return fault
    copy = copied_from(here.ssh, fault.where, os.path.basename(path))
    edit = shlex.join(["homeport", "hostfile", "edit", path, "--from", os.path.basename(path)])
    return Failed(fault.what, where=f"{site.host}: {fault.where}", code=fault.code, next=f"{copy}, mend it, then: {edit}")


def _said(options: Options) -> Callable[[str, str], None]:
    """What validations and reloads print, as it comes."""
    from homeport.cli.show.words import text

    def on_line(_stream: str, line: str) -> None:
        options.note(f"  {text(line)}")

    return on_line


def _source(options: Options, site: Site, path: str, given: str | None, version: str | None) -> Source:
    """Where the new content comes from."""
    if given is not None and version is not None:
        raise UsageFault("--from and --version cannot both say what the content is", next="homeport hostfile edit --help",
                         code="usage")  # fmt: skip
    if version is not None:
        from homeport.flow.hostediting import version_named

        content = version_named(site, path, version)
        return lambda _held, _copy, _take: content
    from homeport.cli.contents import source_of

    return source_of(options, path, given)


def _author(options: Options) -> Person:
    from homeport.model.edits import Person
    from homeport.wiring import identity, person

    known: Any = identity(options.folder)
    return known or Person(name=person(), email=f"{person()}@localhost")
