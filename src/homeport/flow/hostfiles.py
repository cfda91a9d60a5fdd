"""`homeport hostfile`: the register, and a look at each file. What changed outside homeport is found here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from homeport.flow import guarding
from homeport.flow.site import Site
from homeport.model.config import HostFile
from homeport.model.errors import ConfigFault, HomeportError, Refused
from homeport.model.hostfiles import Editing, Held, Look, Registered, Version
from homeport.model.paths import printable

MARK = "hostfile-editing"
"""Key of the database under which an edit stands between its exchange and the end of its reload."""


def register(site: Site) -> dict[str, Registered]:
    """The host files of this host: those of the deployed configuration (before the first deploy, of the checkout), and
    the host's own, whose keys win one by one."""
    found: dict[str, Registered] = {}
    for entry in _configured(site):
        if not entry.hosts or site.host in entry.hosts:
            found[entry.path] = _registered(entry, "homeport.toml")
    for entry in site.host_config.hostfiles if site.host_config is not None else ():
        own, other = _registered(entry, "host.toml"), found.get(entry.path)
        if other is not None:
            own = replace(own, validate=own.validate or other.validate, reload=own.reload or other.reload,
                          secret=own.secret or other.secret)  # fmt: skip
        found[entry.path] = own
    return dict(sorted(found.items()))


def _registered(entry: HostFile, source: str) -> Registered:
    return Registered(path=entry.path, purpose=entry.purpose, validate=entry.validate, reload=entry.reload,
                      secret=entry.secret, source=source)  # fmt: skip


def _configured(site: Site) -> Sequence[HostFile]:
    sha = guarding.newest_commit(site)
    raw = site.git.file_at(sha, "homeport.toml") if sha is not None and site.git.has(sha) else None
    if raw is None:
        return site.config.hostfiles
    try:
        return site.load_config(raw, f"{(sha or '')[:12]}:homeport.toml").hostfiles
    except ConfigFault:
        return site.config.hostfiles


def find(site: Site, path: str) -> Registered:
    """The entry of a path, which this host allows.

    Raises Refused (codes `no-hostfile`, `hostfiles`).
    """
    entry = register(site).get(path.rstrip("/"))
    if entry is None:
        waits = any(one.path == path and (not one.hosts or site.host in one.hosts) for one in site.config.hostfiles)
        raise Refused(
            f"{printable(path)} is registered in homeport.toml, but that is not deployed yet" if waits else
            f"{printable(path)} is not registered for this host ({site.host})",
            where="[[hostfiles]]", code="no-hostfile",
            next="homeport deploy" if waits else "register it: [[hostfiles]] path, purpose, validate, reload",
        )  # fmt: skip
    site.permits.hostfile(entry.path)
    return entry


# A look.


def look(site: Site, entry: Registered, known: dict[str, Version]) -> tuple[Look, Held | None, str]:
    """(state, what lies there, why it is odd). A file that is seen for the first time is taken into history as it is."""
    try:
        site.permits.hostfile(entry.path)
        held = site.hostfiles.read(entry.path)
    except HomeportError as fault:
        return "odd", None, fault.what
    if being_edited(site) == entry.path and site.hostfile_lock.free():
        return "interrupted", held, "an edit was cut before its reload was over"
    version = known.get(entry.path)
    if version is None:
        if held is None:
            return "new", None, ""
        remember(site, entry, held, "seen", "homeport", "seen for the first time")
        return "recorded", held, ""
    if held is None:
        return ("recorded" if version.digest is None else "missing"), None, ""
    return ("recorded" if version.digest == held.digest else "changed"), held, ""


def being_edited(site: Site) -> str | None:
    """The path whose edit was cut before its reload was over, or runs at this moment."""
    raw = site.store.meta(MARK)
    return msgspec.json.decode(raw, type=Editing).path if raw else None


def remember(site: Site, entry: Registered, held: Held | None, how: str, by: str, because: str) -> Version:
    """Takes what lies there into history; a secret's content only into a backup that nobody else can read."""
    version = Version(at=site.clock.now(), digest=held.digest if held else None, mode=held.mode if held else 0,
                      owner=held.owner if held else "", how=how, by=by, because=because, secret=entry.secret)  # fmt: skip
    if held is not None and entry.secret:
        site.hostfiles.back_up(entry.path, held, version.at)
    site.host_history.add(entry.path, version, held.content if held else None)
    return version


def listing(site: Site) -> dict[str, Any]:
    """Every host file of this host with its state."""
    entries = register(site)
    known = site.host_history.latest() if entries else {}
    rows = []
    for path, entry in entries.items():
        state, held, why = look(site, entry, known)
        version = known.get(path)
        rows.append({
            "path": printable(path), "purpose": entry.purpose, "state": state, "because": why, "secret": entry.secret,
            "mode": f"{held.mode:04o}" if held else None, "owner": held.owner if held else None,
            "since": version.at if version else None, "by": version.by if version else None, "from": entry.source,
        })  # fmt: skip
    waiting = [entry.path for entry in site.config.hostfiles if entry.path not in entries
               and (not entry.hosts or site.host in entry.hosts)]  # fmt: skip
    return {"host": site.host, "hostfiles": rows, "notDeployed": [printable(path) for path in waiting]}


def troubled(site: Site) -> list[dict[str, Any]]:
    """The host files that are not as recorded, for `status` and `doctor`."""
    if not site.config.hostfiles and not (site.host_config is not None and site.host_config.hostfiles):
        return []
    rows = listing(site)["hostfiles"]
    return [{"path": r["path"], "state": r["state"], "because": r["because"]} for r in rows
            if r["state"] not in ("recorded", "new")]  # fmt: skip


def history_of(site: Site, path: str) -> dict[str, Any]:
    """What a host file was, newest first."""
    entry = find(site, path)
    look(site, entry, site.host_history.latest())
    rows = [{"id": v.id[:12], "at": v.at, "how": v.how, "by": v.by, "because": v.because, "digest": v.digest,
             "mode": f"{v.mode:04o}", "owner": v.owner} for v in site.host_history.of(entry.path)]  # fmt: skip
    return {"path": printable(entry.path), "purpose": entry.purpose, "secret": entry.secret, "versions": rows}


def diff_of(site: Site, paths: Sequence[str]) -> dict[str, Any]:
    """What changed outside homeport since the last record; of a secret only that it changed."""
    entries = register(site)
    for path in paths:
        find(site, path)
    known = site.host_history.latest()
    parts, changed = [], []
    for path, entry in entries.items():
        if paths and path not in paths:
            continue
        state, held, why = look(site, entry, known)
        if state in ("recorded", "new"):
            continue
        changed.append(printable(path))
        if state == "odd" or entry.secret:
            told = why or f"{state}; its content is secret and not shown"
            parts.append(f"{printable(path)}: {told}\n")
            continue
        version = known.get(path)
        before = site.host_history.content(path, version) if version is not None else None
        shown = site.host_history.diff(path, before, held.content if held else None)
        parts.append(shown or f"{printable(path)}: {state}\n")
    return {"equal": not changed, "changed": changed, "diff": "".join(parts)}
