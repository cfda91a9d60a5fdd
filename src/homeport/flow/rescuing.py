"""Rescued bytes go back: into the live folder, or into a file of one's own."""

from __future__ import annotations

import os
from typing import Any

from homeport.decide import layout
from homeport.flow import guarding
from homeport.flow.site import Site
from homeport.model.errors import Refused
from homeport.model.paths import printable


def write_out(site: Site, id: str, to: str, by: str = "") -> dict[str, Any]:
    """Writes rescued bytes to a new file. Raises Refused (code `exists`) rather than write over another."""
    rescue = site.rescues.find(id)
    content = site.rescues.read(rescue)
    path = os.path.abspath(to)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as fault:
        raise Refused("there is a file already", where=path, next=f"homeport rescue restore {id} --to OTHER",
                      code="exists") from fault  # fmt: skip
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    site.store.audit(by, "rescue restore", f"{id} {printable(rescue.path)} to {printable(path)}")
    return {"path": path, "rescued": []}


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
