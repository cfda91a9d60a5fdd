"""Names the doors to other machines, and those that set a machine up; beside wiring.py, and loaded only for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from homeport.decide import layout, loading, placing
from homeport.doors.remote import SshHost
from homeport.doors.shell import LocalShell
from homeport.flow.site import Site
from homeport.model.bringing import BroughtOutputs, BuiltElsewhere
from homeport.model.remote import Place, SetupStep
from homeport.model.trying import WorkingTree
from homeport.wiring import (
    build_site,
    checkout_origin,
    host_file,
    host_name,
    own_name,
    owns_address,
    read_config,
    read_host,
    state_root,
)

if TYPE_CHECKING:
    from homeport.doors.builtoutputs import CheckoutOutputs
    from homeport.doors.git import Mirror
    from homeport.doors.hostsetup import HostSetup
    from homeport.flow.binding import KeyWish
    from homeport.flow.settingup import Wish


def places_of(path: str, environment: str | None, host: str | None) -> tuple[str, tuple[Place, ...]]:
    """(repository, the other machines to work on; none: this one) for a homeport.toml."""
    config = read_config(path)
    name, env = layout.environment_named(config, environment)
    host_config = read_host()
    places = placing.elsewhere(config, name, host_name(host_config), host_config is not None, host,
                               placing.owning(host_config, owns_address))  # fmt: skip
    return env.repo or config.project.repo or checkout_origin(os.path.dirname(path)), places


def setup_of(text: str, origin: str, environment: str | None, host: str | None, observe: bool | None,
             widen: bool, key: KeyWish | None = None) -> tuple[HostSetup, Wish, Callable[[], Site]]:  # fmt: skip
    """What `homeport setup` works with on this machine."""
    from homeport.doors.hostsetup import HostSetup
    from homeport.flow.settingup import Wish

    config = loading.load(text, "homeport.toml")
    name, env = layout.environment_named(config, environment)
    wish = Wish(config=config, environment=name, origin=origin, host=host or own_name(), observe=observe, widen=widen,
                key=key)  # fmt: skip
    machine = HostSetup(state_root(), config.project.name, host_file(), LocalShell())
    return machine, wish, lambda: build_site(config, name, env, origin, read_host())


def bring_program(place: Place, note: Callable[[str], None]) -> SetupStep:
    """The same homeport on that machine as here. Raises InfrastructureFault (code `install`)."""
    from homeport.doors.sending import bring

    return bring(ssh_host(place), place.host, note)


def sent_tree(ask: Callable[[str, Any], Any]) -> WorkingTree:
    """The working tree of the person who asked from another machine."""
    from homeport.doors.senttree import SentTree

    return SentTree(ask, LocalShell())


def built_outputs(folder: str, ask: Callable[[str, Any], Any] | None) -> BuiltElsewhere:
    """The checkout in which outputs were built: here, or with whoever asked from another machine."""
    from homeport.doors.builtoutputs import SentOutputs

    return SentOutputs(ask, LocalShell()) if ask is not None else outputs_here(folder)


def outputs_here(folder: str) -> CheckoutOutputs:
    """The checkout around a folder of this machine."""
    from homeport.doors.builtoutputs import CheckoutOutputs

    return CheckoutOutputs(folder, LocalShell())


def brought_outputs(site: Site) -> BroughtOutputs:
    """What was built elsewhere and lies in the mirror."""
    from homeport.doors.builtoutputs import OutputBox

    return OutputBox(cast("Mirror", site.git), site.environment)


def schedules() -> tuple[list[tuple[str, str]], Callable[[str], str]]:
    """(what this machine runs by the clock, how a script is read)."""
    from homeport.doors.schedules import read_small, scheduled

    return scheduled(), read_small


def ssh_host(place: Place) -> SshHost:
    """The way to another machine, over the person's own OpenSSH."""
    return SshHost(place.destination, LocalShell())
