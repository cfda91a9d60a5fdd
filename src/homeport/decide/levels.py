"""Which services may be dealt with at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from homeport.model.config import Config


def levels(config: Config, services: Sequence[str]) -> list[list[str]]:
    """These services in groups: each comes in a later group than those it names in `after`.

    Within a group the given order is kept. Names outside `services` do not count; a circle (refused when the
    file is loaded) ends up in one last group.
    """
    left = list(services)
    groups: list[list[str]] = []
    while left:
        free = [n for n in left if not any(a in left for a in config.services[n].after)] or left
        groups.append(free)
        left = [n for n in left if n not in free]
    return groups
