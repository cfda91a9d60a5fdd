"""Scopes: named sets of services (C3), and who may deploy what with a token that is bound to one."""

from __future__ import annotations

from collections.abc import Collection

from homeport.decide import layout
from homeport.model.config import Config
from homeport.model.errors import UsageFault

ALL = "all"
"""The scope of every service, unless the project defines one of that name itself."""


def services_of_scope(config: Config, environment: str, scope: str) -> tuple[str, ...]:
    """The services of a scope in their declared order; empty for all of them.

    Raises UsageFault (code `no-scope`) for a scope that there is not, or that has nothing in this environment.
    """
    known = layout.services_of(config, environment)
    if scope not in config.scopes:
        if scope == ALL:
            return ()
        names = ", ".join(sorted({*config.scopes, ALL}))
        raise UsageFault(f"there is no scope {scope[:80]!r}; there is {names}", where="homeport.toml: scopes",
                         next="name one of them", code="no-scope")  # fmt: skip
    found = tuple(name for name in known if name in config.scopes[scope].services)
    if not found:
        raise UsageFault(f"scope {scope} has no service in environment {environment}", where=f"scopes.{scope}",
                         next="homeport check", code="no-scope")  # fmt: skip
    return found


def rights_for(config: Config, environment: str, services: Collection[str]) -> list[str]:
    """The rights of which any one is enough to deploy these services; empty `services` are all of them."""
    enough = ["deploy:*"]
    for name in sorted({*config.scopes, ALL}):
        try:
            held = services_of_scope(config, environment, name)
        except UsageFault:
            continue
        if not held or (services and set(services) <= set(held)):
            enough.append(f"deploy:{name}")
    return enough
