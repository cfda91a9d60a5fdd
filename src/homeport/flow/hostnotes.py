"""The session note of a changed host file: a page under docs/operations/ on a branch of its own, asked to be merged.

The file itself is not in git; whoever reads the repository finds here that it changed, when, by whom and why.
"""

from __future__ import annotations

from typing import Any

from homeport.flow import guarding
from homeport.flow.hostfiles import find
from homeport.flow.requesting import Wish, requested
from homeport.flow.site import Site
from homeport.model.edits import Adopted, Person
from homeport.model.errors import HomeportError
from homeport.model.hostfiles import Registered
from homeport.model.live import Entry
from homeport.model.paths import printable

FOLDER = "docs/operations"


def write_note(site: Site, path: str, because: str, person: Person, by: str) -> dict[str, Any]:
    """Makes and pushes the note. A note that cannot be pushed fails nothing: the change is made; the answer says why."""
    entry = find(site, path)
    versions = site.host_history.of(entry.path, 2)
    before = site.host_history.content(entry.path, versions[1]) if len(versions) > 1 else None
    after = site.host_history.content(entry.path, versions[0]) if versions else None
    said: dict[str, Any] = {"path": None, "branch": None, "pushed": False, "request": None}
    try:
        with_diff = _diff(site, entry, before, after)
        site.git.fetch()
        base = site.git.tip(site.env.branch)
        said["path"] = _free_name(site, base, entry.path)
        text = _text(site, entry, because, by, with_diff)
        tree = site.merging.with_changes(site.git.tree_of(base, ""),
                                         {said["path"]: Entry("100644", site.git.write_blob(text.encode()))})  # fmt: skip
        commit = site.merging.commit(tree, [base], f"Note a change of {entry.path} on {site.host}\n\n{because}\n", person)
        site.merging.prove(base, commit, [said["path"]])
        said["branch"] = f"homeport/note-{site.clock.now()[:10]}-{commit[:8]}"
        site.git.keep(f"notes/{commit[:16]}", commit)
        guarding.check_push(site, said["branch"], [said["path"]], merge=False)
        site.merging.push(commit, said["branch"])
        done = requested(site, said["branch"], Adopted(commit=commit, base=base, paths=(said["path"],)), [], Wish(by=by))
        site.store.audit(by, "hostfile note", f"{said['branch']} {commit} {said['path']}")
        return said | {"pushed": True, "request": done["request"], "page": done.get("page")}
    except HomeportError as fault:
        return said | {"because": fault.what}


def _free_name(site: Site, base: str, path: str) -> str:
    """`session-<date>-<file>.md`, numbered when that day has one already."""
    words = "".join(c if c.isalnum() else "-" for c in path.rsplit("/", 1)[-1].lower()).strip("-") or "file"
    stem = f"{FOLDER}/session-{site.clock.now()[:10]}-{words}-on-{site.host}"
    number = 1
    name = f"{stem}.md"
    while site.git.entry_at(base, name) is not None:
        number += 1
        name = f"{stem}-{number}.md"
    return name


def _diff(site: Site, entry: Registered, before: bytes | None, after: bytes | None) -> str:
    """What changed, unless that is a secret or looks like one."""
    if entry.secret:
        return "The content is secret and not shown.\n"
    if after is not None and b"\0" not in after and site.secret_scan.look(entry.path, after, None):
        return "The content holds what looks like a secret, and is not shown.\n"
    shown = site.host_history.diff(entry.path, before, after)
    return "\n".join(f"    {printable(line)}" for line in shown.splitlines()) + "\n" if shown else "Nothing differs.\n"


def _text(site: Site, entry: Registered, because: str, by: str, diff: str) -> str:
    reload = entry.reload if isinstance(entry.reload, str) else " ".join(entry.reload or ())
    rows = [
        ("file", f"`{printable(entry.path)}`"), ("host", site.host), ("environment", site.environment),
        ("what it is for", entry.purpose), ("when", site.clock.now()), ("by", printable(by)),
        ("why", printable(because) or "no reason given"), ("reloaded with", f"`{reload}`" if reload else "nothing"),
    ]  # fmt: skip
    told = "\n".join(f"- {name}: {value}" for name, value in rows)
    return (f"# {printable(entry.path)} on {site.host}, {site.clock.now()[:10]}\n\n{told}\n\nThe file is not in git; its "
            f"history is on the host: `homeport -e {site.environment} hostfile list {printable(entry.path)}`\n\n"
            f"## What changed\n\n{diff}")  # fmt: skip
