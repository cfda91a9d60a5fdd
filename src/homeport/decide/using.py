"""What a service `uses` of the repository beside its own source: other services' sources, folders, patterns."""

from __future__ import annotations

from msgspec import Struct

from homeport.decide.layout import folder_of
from homeport.model.config import Config


class Used(Struct, frozen=True):
    folders: tuple[str, ...] = ()
    """Folders or files of the repository, by their path; empty stands for all of it."""
    patterns: tuple[str, ...] = ()


def used_by(config: Config, service: str) -> Used:
    """Everything a service uses, what the used services use included. A path with a slash and without wildcards
    is one folder or file; anything else is a gitignore pattern of the repository's root."""
    folders: dict[str, None] = {}
    patterns: dict[str, None] = {}
    seen, waiting = {service}, list(config.services[service].uses)
    while waiting:
        name = waiting.pop(0)
        if name in config.services:
            if name not in seen:
                seen.add(name)
                other = config.services[name]
                if other.source is not None:
                    folders[folder_of(other)] = None
                waiting += other.uses
        elif "/" in name.rstrip("/") and not any(c in name for c in "*?[\\"):
            folders[name.strip("/")] = None
        else:
            patterns[name] = None
    return Used(tuple(sorted(folders)), tuple(sorted(patterns)))
