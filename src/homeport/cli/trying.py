"""The verb `try`: uncommitted work goes live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from homeport.cli.confirming import confirm_options
from homeport.cli.deploying import ask_and_follow, drift_options
from homeport.cli.options import Options, pass_options

if TYPE_CHECKING:
    from homeport.flow.site import Site
    from homeport.flow.trying import Confirm
    from homeport.model.deploys import Request
    from homeport.model.edits import Person
    from homeport.model.trying import WorkingTree


@click.command("try")
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--yes", is_flag=True, help="Also when the checkout lacks commits that are deployed: they are taken away.")
@drift_options[0]
@drift_options[1]
@click.option("--allow-mass-delete", is_flag=True, help="Also when most files of a target would go.")
@confirm_options
@pass_options
def try_now(options: Options, services: tuple[str, ...], yes: bool, on_drift: str | None, allow_mass_delete: bool,
            confirm: tuple[str, ...], because: str) -> None:  # fmt: skip
    """Make the working tree live as it is, uncommitted and untracked files included: all services, or those named.

    Only where the environment has `try = true`. The checkout is only read. What git ignores and what is protected
    stays out.

    \b
    Example:
      homeport try
      homeport -e staging try api
    """
    from homeport.wiring import working_tree

    with options.site(recover=True) as site:
        known(site, services)
        tree = working_tree(options.folder)
        try:
            request = asked(options, site, tree, services, yes)
        finally:
            tree.close()
        request = replace(request, on_drift=on_drift, allow_mass_delete=allow_mass_delete)
        ask_and_follow(options, site, request, confirm, because)


def asked(options: Options, site: Site, tree: WorkingTree, services: tuple[str, ...], yes: bool) -> Request:
    """The working tree in the mirror, and the request to deploy it."""
    from homeport.flow import trying
    from homeport.wiring import person

    return trying.request_of(site, tree, services, author(options), person(), confirming(options, yes))


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
