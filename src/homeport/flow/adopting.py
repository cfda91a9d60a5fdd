"""`homeport adopt`: what was edited live becomes one commit on a branch of its own.

Read from the top: pick, choose, refuse secrets, make, prove, push, record, ask for the merge. Until the push nothing
leaves the mirror; the live folder and every checkout are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from homeport.decide import adopting, layout
from homeport.flow import editing, guarding, tried
from homeport.flow.looking import below, met, targets_of
from homeport.flow.requesting import TRY, Part, Wish, continues, nothing_new, record_adopted, requested, skips
from homeport.flow.site import Site
from homeport.model.edits import Adopted, Edit, Finding, Person
from homeport.model.errors import HomeportError, Refused, UsageFault
from homeport.model.live import PROJECT, Difference, Entry, Target
from homeport.model.paths import exact, meant, printable
from homeport.model.patterns import Matcher

Choose = Callable[[str, str, str, list[adopting.Hunk] | None], adopting.Choice]
"""(path, what became of it, what to read first, its hunks or None where only the whole file can be taken) -> what is
taken."""


def adopt(site: Site, words: Sequence[str], wish: Wish, person: Person, choose: Choose | None = None) -> dict[str, Any]:
    """The answer of `homeport adopt --json`.

    Raises Refused (codes `no-drift`, `protected`, `not-adoptable`, `secret`, `conflict`, `branch-exists`, `no-forge`),
    InfrastructureFault; nothing is pushed then, unless the fault says so.
    """
    _check_wish(site, wish)
    site.git.fetch()
    fresh = site.git.tip(site.env.branch)
    with site.at_once():
        parts = [part if part.target.name == TRY else _collected(site, part) for part in _pick(site, words, wish)]
    _refuse_untaken(site, _named(site, words)[1], parts)
    if choose is not None:
        parts = _chosen(site, parts, choose)
    if not any(part.taken for part in parts):
        return nothing_new(site, parts, wish)
    _refuse_secrets(site, parts, wish)
    made, parts = _made(site, parts, fresh, wish, person)
    if made is None:
        return nothing_new(site, parts, wish)
    branch = wish.branch or adopting.branch_name(site.clock.now(), made.commit)
    guarding.check_push(site, branch, made.paths, merge=wish.merge)
    site.git.keep(f"adopt/{made.commit[:16]}", made.commit)
    # told before the push: cut in between, the next run looks whether the branch is there
    before = record_adopted(site, parts, branch, made, wish.by)
    try:
        site.merging.push(made.commit, branch)
    except HomeportError as fault:
        if fault.code != "push-unknown":
            site.edits.save(before)
        raise
    site.store.audit(wish.by, "adopt", f"{branch} {made.commit} {' '.join(map(printable, made.paths))}")
    tried.note_adopted(site, parts, branch, made.commit, None)
    said = requested(site, branch, made, skips(parts), wish)
    tried.note_adopted(site, parts, branch, made.commit, said["request"])
    return said


def _check_wish(site: Site, wish: Wish) -> None:
    taken = {environment.branch for environment in site.config.environments.values()} | {site.env.branch}
    why = adopting.fit_branch(wish.branch, taken) if wish.branch is not None else None
    if why is not None:
        raise Refused(f"{printable(wish.branch or '')!r}: {why}", where="--branch", next="homeport adopt --branch NEW",
                      code="branch")  # fmt: skip
    if wish.message is not None and (not wish.message.strip() or "\0" in wish.message):
        raise UsageFault("the message is empty", where="--message", next='homeport adopt --message "..."', code="message")
    forge = site.forge(site.config)
    if forge is not None:
        forge.close()
    if wish.merge and forge is None:
        raise Refused("--merge needs a forge to merge on, and a token for it", where="homeport.toml: [forge]",
                      next="homeport adopt (without --merge), or write [forge] kind and token",
                      code="no-forge")  # fmt: skip


# What is adopted.


def _pick(site: Site, words: Sequence[str], wish: Wish) -> list[Part]:
    service, paths = _named(site, words)
    parts, found = [], set()
    for _, target in targets_of(site, [service] if service else []):
        local = {relative.rstrip("/"): p for p in paths if (relative := below(target, p)) is not None}
        if paths and not local:
            continue
        scan = met(site, target)
        there = tried.lying(site, target, scan)
        local = {meant(one, (d.path for d in there.differences)): p for one, p in local.items()}
        named = set(local) if paths else _whole(site, service, target)
        differences = [*there.differences, *(d for d in scan.mutated if paths and d.path in local)]
        found |= {p for one, p in local.items() if any(adopting.named_by(d.path, [one]) for d in differences)}
        taken, skipped = adopting.select(
            differences, named, site.edits.living(target.name), foreign=wish.foreign, hostile=site.merging.hostile,
            branches=lambda name: site.git.has(f"refs/heads/{name}"), large=partial(site.targets.is_large, target),
            onto=wish.branch,
        )  # fmt: skip
        parts.append(Part(target=target, scan=scan, deployed=there.since, taken=tuple(taken), skipped=tuple(skipped)))
    parts += tried.outside(site, [service] if service else [], paths)
    found |= {p for p in paths if any(adopting.named_by(d.path, [p.rstrip("/")]) for part in parts for d in part.taken)}
    missing = [p for p in paths if p not in found]
    if missing:
        raise _no_drift(site, missing)
    _refuse_untaken(site, paths, parts)
    return parts


def _named(site: Site, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(service, paths) that a person named."""
    service = words[0] if words and words[0] in layout.services_of(site.config, site.environment) else None
    return service, list(words[1:] if service else words)


def _refuse_untaken(site: Site, paths: Sequence[str], parts: Sequence[Part]) -> None:
    """Raises Refused (code `not-adoptable`) when paths were named, and none of them can be taken."""
    if not paths or any(part.taken for part in parts) or continues(site, parts):
        return
    rows = skips(parts)
    if rows:
        raise Refused("; ".join(f"{printable(row.path)}: {row.because}" for row in rows), where=site.environment,
                      next="homeport drift", code="not-adoptable")  # fmt: skip


def _whole(site: Site, service: str | None, target: Target) -> set[str] | None:
    """None for a whole live folder; of one that services share, the named service's own."""
    if service is None or target.name != PROJECT:
        return None
    folder = layout.folder_of(site.config.services[service])
    return {folder} if folder else None


def _no_drift(site: Site, missing: Sequence[str]) -> Refused:
    for _, target in targets_of(site, []):
        protects = Matcher(target.protect, dir_only_matches_files=True)
        hidden = [p for p in missing if (local := below(target, p)) is not None and protects.match(local.rstrip("/"))]
        if hidden:
            return Refused(f"protected, and never adopted: {', '.join(map(printable, hidden))}", where=target.path,
                           next="homeport drift (lists what can be adopted)", code="protected")  # fmt: skip
    return Refused(f"no drift at {', '.join(map(printable, missing))}", where=f"environment {site.environment}",
                   next="homeport drift", code="no-drift")  # fmt: skip


def _collected(site: Site, part: Part) -> Part:
    """The part with the bytes as they are at this moment; a path that went back meanwhile is left out, and one that does
    not hold still, or is no file any more, is skipped."""
    entries, left = site.merging.collect(part.target, [d.path for d in part.taken])
    taken = tuple(d for d in part.taken if d.path in entries and entries[d.path] != d.recorded)
    skipped = tuple(adopting.Skipped(path, because) for path, because in left.items())
    return replace(part, taken=tuple(msgspec.structs.replace(d, actual=entries[d.path]) for d in taken),
                   entries={d.path: entries[d.path] for d in taken}, skipped=part.skipped + skipped)  # fmt: skip


# Hunks.


def _chosen(site: Site, parts: Sequence[Part], choose: Choose) -> list[Part]:
    """Only what the person takes, file by file, until the person stops."""
    done, stopped = [], False
    for part in parts:
        entries: dict[str, Entry | None] = {}
        partly, left = set(), []
        for difference in part.taken:
            kind, entry, because = "nothing", None, "not asked about"
            if not stopped:
                stopped, kind, entry, because = _ask(site, part, difference, choose)
            if kind != "nothing":
                entries[difference.path] = entry
            if kind == "part":
                partly.add(difference.path)
            if because:
                left.append(adopting.Skipped(difference.path, because, by_choice=True))
        taken = tuple(d for d in part.taken if d.path in entries)
        done.append(replace(part, taken=taken, entries=entries, partly=frozenset(partly), skipped=(*part.skipped, *left)))
    return done


def _ask(site: Site, part: Part, difference: Difference, choose: Choose) -> tuple[bool, str, Entry | None, str]:
    """(whether to stop, "all" | "part" | "nothing", the entry to adopt, what to say of what is not)."""
    old, new = difference.recorded, part.entries[difference.path]
    plain = old is not None and new is not None and old.mode.startswith("100") and new.mode.startswith("100")
    before = site.git.read(old.oid) if old is not None else None
    after = site.git.read(new.oid) if new is not None else None
    pieces = adopting.hunks(before or b"", after or b"") if plain else None
    told = adopting.told(old, new, before or b"", after or b"", hunks=bool(pieces))
    what = "delete" if new is None else "add" if old is None else "change"
    answer = choose(editing.in_repository(part.target, difference.path), what, told, pieces or None)
    if answer.whole or (pieces and len(answer.chosen) == len(pieces)):
        return answer.stop, "all", new, ""
    if not answer.chosen or new is None:
        return answer.stop, "nothing", None, "not chosen"
    content = adopting.assemble(before or b"", after or b"", answer.chosen)
    rest = f"{len(pieces or ()) - len(answer.chosen)} of {len(pieces or ())} changes not chosen"
    return answer.stop, "part", Entry(new.mode, site.git.write_blob(content)), rest


# Secrets.


def _refuse_secrets(site: Site, parts: Sequence[Part], wish: Wish) -> None:
    """Raises Refused (code `secret`) for what looks like one and was not allowed by its path."""
    found: list[Finding] = []
    site.hide_secrets(site.config)
    for part in parts:
        allowed = {below(part.target, p) for p in wish.allow_secret}
        for difference in part.taken:
            entry = part.entries[difference.path]
            if entry is None or entry.mode == "120000" or difference.path in allowed:
                continue
            content = site.git.read(entry.oid)
            if b"\0" in content[:8000]:
                continue
            old = difference.recorded
            known = site.git.read(old.oid) if old is not None and site.git.has(old.oid) else None
            path = editing.in_repository(part.target, difference.path)
            found += site.secret_scan.look(path, content, known)
    if found:
        shown_some = "; ".join(f"{printable(f.path)} line {f.line}: {f.kind}" for f in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        paths = " ".join(f"--allow-secret {printable(p)}" for p in dict.fromkeys(f.path for f in found[:8]))
        raise Refused(f"this looks like a secret, and git keeps it for good: {shown_some}{more}",
                      where="nothing was pushed", code="secret",
                      next=f"take it out, name other paths, or, when it is none: homeport adopt {paths}")  # fmt: skip


# The commit.


def _made(site: Site, parts: Sequence[Part], fresh: str, wish: Wish,
          person: Person) -> tuple[Adopted | None, list[Part]]:  # fmt: skip
    """One commit on `fresh`, proved; None when the branch has everything already, which the parts then say."""
    changes: dict[str, Entry | None] = {}
    conflicts: list[tuple[Part, str]] = []
    for part in parts:
        if not part.taken:
            continue
        of_part, clashing = _merged(site, part, site.git.listing(tried.folder_at(site, part.target, fresh)))
        conflicts += [(part, path) for path in clashing]
        for local, entry in of_part.items():
            path = editing.in_repository(part.target, local)
            if path in changes and changes[path] != entry:
                conflicts.append((part, local))
            changes[path] = entry
    if conflicts:
        raise _conflict(site, parts, conflicts, fresh, person)
    parts = [_without_known(part, changes, site.env.branch) for part in parts]
    if not changes:
        return None, parts
    adopted = {editing.in_repository(p.target, d.path) for p in parts for d in p.taken}
    paths = tuple(sorted(changes))
    deployed = [part.deployed for part in parts if part.deployed is not None and part.taken]
    text = adopting.message(wish.message, paths, site.host, site.environment, deployed)
    tree = site.merging.with_changes(site.git.tree_of(fresh, ""), changes)
    commit = site.merging.commit(tree, [fresh], text, person)
    site.merging.prove(fresh, commit, sorted(adopted))
    return Adopted(commit=commit, base=fresh, paths=paths), parts


def _merged(site: Site, part: Part, fresh: Mapping[str, Entry]) -> tuple[dict[str, Entry | None], Sequence[str]]:
    """(what changes on the branch's folder, the paths in conflict)."""
    recorded = {d.path: d.recorded for d in part.taken}
    found = adopting.sides(recorded, part.entries, fresh)
    if found.conflicts or not found.both:
        return found.changes, found.conflicts
    trees = (site.merging.with_changes(None, {path: side[path] for path in found.both})
             for side in (recorded, part.entries, fresh))  # fmt: skip
    merged = site.merging.merge(*trees)
    if merged.conflicts:
        return {}, merged.conflicts
    contents = site.git.listing(merged.tree)
    return found.changes | {p: contents[p] for p in found.both if contents[p] != fresh[p]}, ()


def _without_known(part: Part, changes: Mapping[str, Entry | None], branch: str) -> Part:
    """The part without what the branch has already."""
    known = [d for d in part.taken if editing.in_repository(part.target, d.path) not in changes]
    said = tuple(adopting.Skipped(d.path, f"branch {branch} has it already") for d in known)
    return replace(part, taken=tuple(d for d in part.taken if d not in known), skipped=part.skipped + said)


def _conflict(site: Site, parts: Sequence[Part], conflicts: Sequence[tuple[Part, str]], fresh: str,
              person: Person) -> Refused:  # fmt: skip
    """Keeps the host's version as a commit on what was deployed, so that any checkout can merge it."""
    deployed = next((part.deployed for part, _ in conflicts if part.deployed), None) or fresh
    changes: dict[str, Entry | None] = {}
    for part in parts:
        if part.taken:
            live = site.merging.with_changes(part.scan.recorded_tree, part.entries)
            was = tried.folder_at(site, part.target, deployed)
            changes |= {editing.in_repository(part.target, c.path): c.after for c in site.merging.changes(was, live)}
    tree = site.merging.with_changes(site.git.tree_of(deployed, ""), changes)
    names = list(dict.fromkeys(editing.in_repository(part.target, path) for part, path in conflicts))
    text = adopting.message(None, names, site.host, site.environment, [deployed])
    seen = [edit.since for part in parts if part.taken for edit in site.edits.living(part.target.name)]
    # asked again it is the same commit: whichever of two answers a person follows, the deploy knows it
    commit = site.merging.commit(tree, [deployed], text, person, at=min(seen, default=None))
    ref = f"adopt/conflict-{commit[:12]}"
    site.git.keep(f"{ref}/live", commit)
    site.git.keep(f"{ref}/branch", fresh)
    for part in parts:
        known = {edit.path: edit for edit in site.edits.living(part.target.name)}
        whole = [d for d in part.taken if d.path not in part.partly and exact(d.path) in known]
        site.edits.save([_kept_as(known[exact(d.path)], commit, d.actual) for d in whole])
    mine = site.config.hosts.get(site.host)
    source = adopting.fetched_from(mine.ssh if mine is not None else None, site.git.path)
    edited = {editing.in_repository(p.target, d.path) for p in parts if p.target.name != TRY for d in p.scan.differences}
    leave = f"or leave the path: homeport discard {printable(names[0])}"
    other = leave if names[0] in edited else "or name the other paths: homeport adopt PATH..."
    return Refused(
        f"branch {site.env.branch} and this host both changed: {', '.join(map(printable, names))}; nothing was pushed",
        where=f"{site.git.path}: refs/homeport/{ref}/live is the host's version, refs/homeport/{ref}/branch the branch's",
        next=f"in a checkout of {site.env.branch}: git fetch {source} refs/homeport/{ref}/live && git merge "
             f"FETCH_HEAD, then push and: homeport deploy   ({other})",
        code="conflict",
    )  # fmt: skip


def _kept_as(edit: Edit, commit: str, actual: Entry | None) -> Edit:
    """The edit, which the conflict's commit holds too; one that is on a branch is still settled by that branch."""
    if edit.state == "adopted" and edit.commit is not None and edit.actual == actual:
        return msgspec.structs.replace(edit, landed=commit)
    return msgspec.structs.replace(edit, commit=commit, actual=actual)
