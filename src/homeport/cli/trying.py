"""The verb `try`: uncommitted work goes live."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from homeport.cli.confirming import confirm_options
from homeport.cli.deploying import ask_and_follow, drift_options
from homeport.cli.options import Away, Options, pass_options
from homeport.model.deploys import EXIT_CODES
from homeport.model.errors import Refused

if TYPE_CHECKING:
    from homeport.flow.site import Site
    from homeport.flow.trying import Confirm
    from homeport.model.edits import Person
    from homeport.model.trying import WorkingTree


@click.command("try")
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--yes", is_flag=True, help="Also when the checkout lacks commits that are deployed: they are taken away.")
@click.option("--watch", is_flag=True, help="Go on, and try again at every save; ends with Ctrl-C.")
@drift_options
@confirm_options
@pass_options
def try_now(options: Options, services: tuple[str, ...], yes: bool, watch: bool, on_drift: str | None,
            allow_mass_delete: bool, confirm: tuple[str, ...], because: str) -> None:  # fmt: skip
    """Make the working tree live as it is, uncommitted and untracked files included: all services, or those named.

    Only where the environment has `try = true`. The checkout is only read. What git ignores and what is protected
    stays out. With --watch every save goes live, one try at a time, the newest state each time.

    \b
    Example:
      homeport try
      homeport -e staging try api
      homeport try api --watch
    """
    wish = Wish(services=services, yes=yes, on_drift=on_drift, allow_mass_delete=allow_mass_delete, confirm=confirm,
                because=because)  # fmt: skip
    try:
        with options.site(recover=True, deploys=True, tries=True) as site:
            _tried(options, site, wish, watch)
    except Away:
        raise
    except BaseException:
        options.let_go()
        raise


def _tried(options: Options, site: Site, wish: Wish, watch: bool) -> None:
    known(site, wish.services)
    # it loads while the working tree is read
    site.ready_runner()
    if options.call is not None:
        from homeport.wiring_hosts import sent_tree

        tree = sent_tree(options.call.asked_for_tree)
    else:
        assert options.tree is not None
        tree, options.tree = options.tree.result(), None
    try:
        if watch:
            _watch(options, site, tree, wish)
        else:
            _ask(options, site, tree, wish)
    finally:
        tree.close()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How the person wants it."""

    services: tuple[str, ...] = ()
    yes: bool = False
    on_drift: str | None = None
    allow_mass_delete: bool = False
    confirm: tuple[str, ...] = ()
    because: str = ""


def _ask(options: Options, site: Site, tree: WorkingTree, wish: Wish) -> None:
    """The working tree into the mirror and live; ends with the exit code of the deploy."""
    from homeport.flow import trying
    from homeport.wiring import person

    request = trying.request_of(site, tree, wish.services, author(options), person(), confirming(options, wish.yes))
    request = replace(request, on_drift=wish.on_drift, allow_mass_delete=wish.allow_mass_delete)
    ask_and_follow(options, site, request, wish.confirm, wish.because)


def _watch(options: Options, site: Site, tree: WorkingTree, wish: Wish) -> None:
    """A try now and one at every save. A try that fails or is refused is told, and the next save is tried again."""
    from homeport.flow import trying

    watch = tree.watch()
    try:
        _once(options, site, tree, wish, None)
        site.ready_runner()
        options.note(f"watching {watch.folders} folders (Ctrl-C ends it)")
        for saved in trying.saves(tree, watch):
            _once(options, site, tree, wish, saved)
            site.ready_runner()
    except KeyboardInterrupt:
        options.note("")
    finally:
        watch.close()


def _once(options: Options, site: Site, tree: WorkingTree, wish: Wish, saved: float | None) -> None:
    from homeport.cli.show.results import error

    try:
        _ask(options, site, tree, wish)
    except click.exceptions.Exit as ended:
        if ended.exit_code == EXIT_CODES["cancelled"]:
            raise
        if ended.exit_code == 0 and saved is not None:
            _told(options, site, time.time() - saved)
    except Refused as fault:
        if saved is None:
            raise
        click.echo(error(fault).rstrip("\n"), err=True)


def _told(options: Options, site: Site, seconds: float) -> None:
    """From save to verified."""
    if not options.json:
        options.note(f"live and verified {seconds:.2f} s after the save")
        return
    from homeport.cli.show.json import encode

    newest = next(iter(site.store.history(1)), None)
    click.echo(encode({"type": "try.live", "deployId": newest.id if newest else None,
                       "saveToVerifiedMs": int(seconds * 1000)}))  # fmt: skip
    sys.stdout.flush()


def author(options: Options) -> Person:
    """Whose working tree it is; a commit needs a name, and a try does not insist on one."""
    from homeport.model.edits import Person
    from homeport.wiring import identity, person

    return identity(options.folder) or Person(name=person(), email=f"{person()}@localhost")


def confirming(options: Options, yes: bool) -> Confirm | None:
    """How a person is asked; None where nobody is there to answer."""
    from homeport.cli.questions import can_ask, choose

    if yes:
        return lambda _: True
    if not can_ask(options):
        return None

    def ask(told: str) -> bool:
        options.note(told)
        return choose(options, "go on?", "yn", "y: take it away, n: leave everything as it is") == "y"

    return ask


def known(site: Site, services: tuple[str, ...]) -> None:
    """Raises UsageFault (code `no-service`) for a service that is not in the configuration."""
    from homeport.cli.deploying import _known

    _known(site, services)


globals()["try"] = try_now
