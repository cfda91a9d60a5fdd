"""The claim: a small marker file that says whose live folder this is."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import msgspec
from msgspec import Struct

from homeport.doors.look import read_in
from homeport.model.errors import InfrastructureFault, Refused

CLAIM = ".homeport"
_LONGEST = 4096


class Claim(Struct, frozen=True, kw_only=True):
    project: str
    environment: str
    service: str
    state: str
    """The state folder that owns the record."""


def read_claim(root: int) -> Claim | None:
    """The claim in a live folder; None when there is none, or it is not one of ours to read."""
    found = read_in(root, CLAIM)
    if found is None or found[0] == "120000" or len(found[1]) > _LONGEST:
        return None
    try:
        said = json.loads(found[1])
        return Claim(**{name: str(said[name]) for name in ("project", "environment", "service", "state")})
    except (ValueError, TypeError, KeyError):
        return None


def refuse_foreign_claim(root: int, path: str, ours: Claim) -> bool:
    """True when our own claim is there, False when there is none.

    Raises Refused (code `claimed`) when the folder belongs to another state folder, project or service.
    """
    there = read_claim(root)
    if there is None:
        return False
    if there != ours:
        raise Refused(
            f"this folder belongs to service {there.service} of {there.project}/{there.environment}, "
            f"recorded in {there.state}",
            where=path, next=_elsewhere(path, there, ours), code="claimed",
        )  # fmt: skip
    return True


def _elsewhere(path: str, there: Claim, ours: Claim) -> str:
    """What helps: the same service under another state folder, or two services that want one folder."""
    gone = f"or, if {there.state} is gone for good: rm {os.path.join(path, CLAIM)}, then homeport plan"
    if msgspec.structs.replace(there, state=ours.state) == ours:
        return f"HOMEPORT_STATE={os.path.dirname(os.path.dirname(there.state))} homeport deploy; {gone}"
    if msgspec.structs.replace(there, service=ours.service) == ours:
        return f"if {there.service} is called {ours.service} now: homeport deploy (it goes on with the record); " \
               f"else give {ours.service} another target in homeport.toml"
    return f"give {ours.service} another target in homeport.toml; {gone}"


def write_claim(root: int, path: str, ours: Claim) -> None:
    """Puts the claim into the folder in one step. Raises Refused (code `unowned`) or InfrastructureFault."""
    text = json.dumps({name: getattr(ours, name) for name in ours.__struct_fields__}, indent=1) + "\n"
    temporary = f"{CLAIM}.{os.getpid()}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=root)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=root)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        os.rename(temporary, CLAIM, src_dir_fd=root, dst_dir_fd=root)
        os.fsync(root)
    except PermissionError as fault:
        raise Refused("homeport may not write into this live folder", where=path, next=f"ls -ld {path}",
                      code="unowned") from fault  # fmt: skip
    except OSError as fault:
        raise InfrastructureFault(f"the live folder cannot be claimed: {fault.strerror}", where=path,
                                  next="df -h", code="claim") from fault  # fmt: skip
