"""Rescued bytes go back: into the live folder, or into a file of one's own."""

from __future__ import annotations

import os
from typing import Any

from homeport.decide import layout
from homeport.flow import guarding
from homeport.flow.site import Site
from homeport.model.errors import HomeportError, Refused, UsageFault
from homeport.model.paths import printable


def write_out(site: Site, id: str, to: str, by: str = "") -> dict[str, Any]:
    """Writes rescued bytes to a new file, for root and for an agent where the host's lists allow it.

    Raises Refused: code `exists` rather than write over another, `live-folder` for one below a target, which rules and
    `protect` guard, `no-lists` and `roots`.
    """
    rescue = site.rescues.find(id)
    path = os.path.abspath(to)
    folder = _folder(path, id)
    try:
        _refuse_place(site, folder, path, id)
        fd = os.open(os.path.basename(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    except FileExistsError as fault:
        raise Refused("there is a file already", where=path, next=f"homeport rescue restore {id} --to OTHER",
                      code="exists") from fault  # fmt: skip
    finally:
        os.close(folder)
    with os.fdopen(fd, "wb"):
        try:
            site.rescues.pour(rescue, fd)
        except HomeportError:
            os.unlink(path)
            raise
    site.store.audit(by, "rescue restore", f"{id} {printable(rescue.path)} to {printable(path)}")
    return {"path": path, "rescued": []}


def _folder(path: str, id: str) -> int:
    """The folder of a new file, held open so that it is the one that was asked about. Raises UsageFault."""
    try:
        return os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    except OSError as fault:
        raise UsageFault(f"there is no such folder: {fault.strerror}", where=printable(os.path.dirname(path)),
                         next=f"homeport rescue show {id} > FILE", code="usage") from fault  # fmt: skip


def _refuse_place(site: Site, folder: int, path: str, id: str) -> None:
    real = os.readlink(f"/proc/self/fd/{folder}") + "/"
    for target in layout.targets(site.config, site.environment).values():
        if real.startswith(os.path.realpath(target.path) + "/"):
            raise Refused(f"that is in the live folder of {target.name}", where=printable(path), code="live-folder",
                          next=f"homeport rescue restore {id}   (to where the bytes were)")  # fmt: skip
    if os.geteuid() == 0 or site.actor.kind != "person":
        site.permits.new_file(real, path, f"homeport rescue show {id} > FILE")


def put_back(site: Site, id: str, by: str = "") -> dict[str, Any]:
    """Puts rescued bytes where they were; what lies there now is rescued in turn. The path is drift afterwards.

    Raises Refused (code `no-target`) when the service has no live folder any more.
    """
    rescue = site.rescues.find(id)
    target = layout.targets(site.config, site.environment).get(rescue.service)
    if target is None:
        raise Refused(f"service {rescue.service} has no live folder here any more", where=printable(rescue.path),
                      next=f"homeport rescue restore {id} --to FILE", code="no-target")  # fmt: skip
    guarding.refuse_onlooker(site)
    guarding.check(site, guarding.writing(target, [rescue.place]), "rescue restore")
    with site.at_once():
        site.targets.meet(target, site.env.branch)
        result = site.targets.restore(target, rescue)
    site.store.audit(by, "rescue restore", f"{id} {printable(rescue.path)}")
    return {"path": os.path.join(target.path, rescue.path), "rescued": list(result.rescued)}
