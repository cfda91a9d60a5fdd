"""`homeport hostfile edit` and `record`: read first, edit a copy, validate it, exchange, reload, or put the old one back.

From the exchange to the end of the reload a mark stands in the database; whoever comes next ends what a crash left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from homeport.flow import guarding
from homeport.flow.hostfiles import MARK, find, look, register, remember
from homeport.flow.site import Site
from homeport.model.config import Command, Deeds
from homeport.model.errors import Failed, HomeportError, InfrastructureFault, Refused
from homeport.model.hostfiles import Editing, Held, Registered
from homeport.model.paths import printable
from homeport.model.ports import Job, OnLine
from homeport.model.rules import Deed

Source = Callable[[Held | None, Callable[[], str], Callable[[str], bytes]], bytes]
"""(what lies there, makes a copy to edit, reads it back) -> the new content."""
TIMEOUT = 60.0
"""Seconds for a validation or a reload."""


def edit(site: Site, path: str, source: Source, because: str, by: str, on_line: OnLine) -> dict[str, Any]:
    """The answer of `homeport hostfile edit --json`.

    Raises Refused (codes `no-lists`, `observe`, `no-hostfile`, `hostfiles`, `hostfile-changed`, `changing` and those of
    rules), Failed (`validate`, `reload`: the old content is in place), InfrastructureFault.
    """
    entry = find(site, path)
    guarding.refuse_onlooker(site)
    allowed(site, [entry.path], "hostfile edit")
    settle(site, on_line)
    state, held, why = look(site, entry, site.host_history.latest())
    if state == "odd":
        site.hostfiles.read(entry.path)
    if state in ("changed", "missing", "odd"):
        raise _unsettled(entry, state, why)
    site.hostfiles.clear(entry.path)
    copies: list[str] = []

    def copy() -> str:
        copies.append(site.hostfiles.copy(entry.path, held.content if held else b"", held, entry.secret))
        return copies[-1]

    try:
        content = source(held, copy, site.hostfiles.take)
    finally:
        for made in copies:
            site.hostfiles.drop(made)
    if held is not None and content == held.content:
        return {"path": printable(entry.path), "changed": False, "backup": None, "reloaded": False}
    with site.hostfile_lock.hold(wait=True):
        return _exchanged(site, entry, held, content, Editing(
            path=entry.path, before=held.digest if held else None, after=digest_of(content), by=by, because=because,
        ), on_line)  # fmt: skip


def allowed(site: Site, paths: Sequence[str], what: str) -> None:
    """Whether the rules let host files be changed. Raises as `guarding.check`."""
    actions: tuple[Deeds, ...] = ("hostfile", "write")
    guarding.check(site, [Deed(action=action, subject=printable(path)) for path in paths for action in actions], what)


def _unsettled(entry: Registered, state: str, why: str) -> Refused:
    if state == "odd":
        return Refused(why, where=printable(entry.path), next=f"ls -ld {entry.path}", code="hostfile-odd")
    what = "it was changed outside homeport" if state == "changed" else "it was removed outside homeport"
    return Refused(f"{what}; nothing is overwritten before somebody looked", where=printable(entry.path),
                   next=f"homeport hostfile diff {entry.path}, then: homeport hostfile record {entry.path} --because ...",
                   code="hostfile-changed")  # fmt: skip


def _exchanged(site: Site, entry: Registered, held: Held | None, content: bytes, edit: Editing,
               on_line: OnLine) -> dict[str, Any]:  # fmt: skip
    """Validate, back up, exchange, reload; on failure the old content comes back."""
    staged = site.hostfiles.copy(entry.path, content, held, entry.secret)
    try:
        _validated(site, entry, staged, content, on_line)
        backup = site.hostfiles.back_up(entry.path, held, site.clock.now()) if held is not None else None
        site.store.set_meta(MARK, msgspec.json.encode(msgspec.structs.replace(edit, copy=staged)).decode())
        site.hostfiles.put(entry.path, staged, edit.before)
    except BaseException:
        site.hostfiles.drop(staged)
        if site.store.meta(MARK):
            _unmark_unless_placed(site, edit)
        raise
    _reloaded(site, entry, edit, on_line)
    return {"path": printable(entry.path), "changed": True, "backup": backup, "reloaded": entry.reload is not None}


def _unmark_unless_placed(site: Site, edit: Editing) -> None:
    held = site.hostfiles.read(edit.path)
    if (held.digest if held else None) != edit.after:
        site.store.set_meta(MARK, "")


def _validated(site: Site, entry: Registered, staged: str, content: bytes, on_line: OnLine) -> None:
    if entry.validate is None or _ran(site, entry, entry.validate, "validation", staged, on_line):
        return
    draft = site.hostfiles.draft(entry.path, content, site.clock.now())
    raise Failed(f"{printable(entry.path)}: the new content is not valid; nothing was changed, your text is kept",
                 where=draft, code="validate",
                 next=f"mend it there, then: homeport hostfile edit {entry.path} --from {draft}")  # fmt: skip


def _reloaded(site: Site, entry: Registered, edit: Editing, on_line: OnLine) -> None:
    """The reload after the exchange, and the way back when it fails; the history and the audit get what came of it."""
    if entry.reload is None or _ran(site, entry, entry.reload, "reload", entry.path, on_line):
        _keep(site, entry, edit)
        return
    before = _before(site, entry, edit)
    if before is None and edit.before is not None:
        raise InfrastructureFault("the reload failed, and the old content is not to be found", where=printable(entry.path),
                                  next=f"homeport hostfile list {entry.path}", code="reload")  # fmt: skip
    now = site.hostfiles.read(entry.path)
    if before is not None:
        old = site.hostfiles.copy(entry.path, before, now, entry.secret)
        site.hostfiles.put(entry.path, old, edit.after)
        again = _ran(site, entry, entry.reload, "reload of the old content", entry.path, on_line)
    else:
        site.hostfiles.remove(entry.path, edit.after)
        again = True
    draft = site.hostfiles.draft(entry.path, now.content if now else b"", site.clock.now())
    site.store.set_meta(MARK, "")
    site.store.audit(edit.by, "hostfile edit", f"{printable(entry.path)}: the reload failed; {edit.because}",
                     outcome="restored")  # fmt: skip
    back = "the old content is in place again" if before is not None else "it was new, and is gone again"
    loaded = "" if again else ", but its reload failed too"
    raise Failed(f"{printable(entry.path)}: the reload failed; {back}{loaded}", where=draft, code="reload",
                 next=f"mend it there, then: homeport hostfile edit {entry.path} --from {draft}")  # fmt: skip


def _before(site: Site, entry: Registered, edit: Editing) -> bytes | None:
    return site.hostfiles.backup_of(entry.path, edit.before) if edit.before is not None else None


def _keep(site: Site, entry: Registered, edit: Editing) -> None:
    remember(site, entry, site.hostfiles.read(entry.path), "edit", edit.by, edit.because)
    site.store.set_meta(MARK, "")
    site.store.audit(edit.by, "hostfile edit", f"{printable(entry.path)}: {edit.because or 'no reason given'}")


def settle(site: Site, on_line: OnLine) -> str | None:
    """Ends an edit that was cut: with the new content in place its reload is run, with the old one nothing is left to do.

    Returns the path. Raises Failed (code `reload`) as the edit itself would have.
    """
    raw = site.store.meta(MARK)
    if not raw or not site.hostfile_lock.free():
        return None
    with site.hostfile_lock.hold(wait=True):
        raw = site.store.meta(MARK)
        if not raw:
            return None
        edit = msgspec.json.decode(raw, type=Editing)
        entry = register(site).get(edit.path)
        held = site.hostfiles.read(edit.path)
        if entry is None or (held.digest if held else None) != edit.after:
            site.hostfiles.drop(edit.copy)
            site.store.set_meta(MARK, "")
        else:
            _reloaded(site, entry, edit, on_line)
        return edit.path


def record(site: Site, paths: Sequence[str], because: str, by: str) -> dict[str, Any]:
    """Takes what lies there now into history. Writes nothing but homeport's own records."""
    entries = [find(site, path) for path in paths]
    allowed(site, [entry.path for entry in entries], "hostfile record")
    settle(site, lambda _stream, _line: None)
    known = site.host_history.latest()
    rows = []
    for entry in entries:
        state, held, why = look(site, entry, known)
        if state == "odd":
            site.hostfiles.read(entry.path)
            raise _unsettled(entry, state, why)
        changed = state in ("changed", "missing")
        if changed:
            remember(site, entry, held, "record", by, because)
        site.store.audit(by, "hostfile record", f"{printable(entry.path)}: {because}")
        rows.append({"path": printable(entry.path), "changed": changed, "state": state})
    return {"recorded": rows}


def version_named(site: Site, path: str, id: str) -> bytes:
    """The content of an earlier version. Raises Refused (code `no-version`)."""
    entry = find(site, path)
    found = [v for v in site.host_history.of(entry.path, 1000) if v.id.startswith(id)] if len(id) >= 4 else []
    content = None
    if len(found) == 1:
        content = site.host_history.content(entry.path, found[0])
        if content is None and found[0].digest is not None:
            content = site.hostfiles.backup_of(entry.path, found[0].digest)
    if content is None:
        raise Refused(f"there is no content of a version {printable(id)}", where=printable(path),
                      next=f"homeport hostfile list {path}", code="no-version")  # fmt: skip
    return content


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _ran(site: Site, entry: Registered, command: Command, what: str, file: str, on_line: OnLine) -> bool:
    """Runs a command of the register with the file's path in HOMEPORT_FILE: where the host's own file lists the path, as
    homeport's user; else as whoever owns the file's folder, for the words are a commit's."""
    shell = site.shell_for(None, lambda: False)
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LANG": "C.UTF-8",
           "HOMEPORT_FILE": file, "HOMEPORT_PATH": entry.path, "HOMEPORT_ENVIRONMENT": site.environment,
           "HOMEPORT_HOST": site.host}  # fmt: skip
    try:
        with ExitStack() as held:
            reached, cwd = "", "/"
            if entry.source != "host.toml":
                reached, cwd = held.enter_context(site.hostfiles.reached(entry.path)), os.path.dirname(entry.path)
            job = Job(command=command, cwd=cwd, reached=reached, env=env, label=f"{what} of {entry.path}", timeout=TIMEOUT)
            return shell.job(job, on_line).code == 0
    except HomeportError as fault:
        on_line("stderr", fault.what)
        return False
