"""Whose a folder is: project code that names no user runs as the owner of the folder it runs in, not as root (P8)."""

from __future__ import annotations

import os
import pwd


def owner_of(folder: str) -> pwd.struct_passwd | None:
    """The account that owns a folder, where homeport is root and that account is not; None where nothing is to change.

    An owner without an account on this machine (a container's) counts as none.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = os.stat(folder).st_uid
        return pwd.getpwuid(owner) if owner != 0 else None
    except (OSError, KeyError):
        return None


def name_of(folder: str) -> str | None:
    """As `owner_of`, the name only."""
    account = owner_of(folder)
    return None if account is None else account.pw_name
