"""What a person looks at, and the small acts on drift: status, drift, diff, discard, record."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from homeport.decide import layout, trying
from homeport.decide.durations import minute
from homeport.flow import editing
from homeport.flow.site import Site
from homeport.model.deploys import Deploy, ServiceRecord
from homeport.model.errors import HomeportError, Refused, UsageFault
from homeport.model.live import PROJECT, Difference, Entry, Scan, Target
from homeport.model.paths import exact, meant, printable, within
from homeport.model.ports import Git

if TYPE_CHECKING:
    from homeport.model.running import Unit


def status_of(site: Site) -> dict[str, Any]:
    """What runs, from records, process managers and one look at each live folder; no network."""
    records = site.store.services()
    newest = next((d for d in site.store.history(50) if d.status in ("deployed", "unchanged")), None)
    names = layout.services_of(site.config, site.environment)
    states = _states(site, names, records)
    services = [_service_status(site, name, records, states.get(name, "unknown")) for name in names]
    running = site.store.running()
    return {
        "project": site.project, "environment": site.environment, "host": site.host,
        "sha": newest.sha if newest else None, "deployId": newest.id if newest else None, "services": services,
        "hold": _hold(site),
        "blocked": [{"sha": b.sha, "because": b.because, "by": b.by, "at": b.at} for b in site.store.blocks()],
        "edits": sum(s["drift"] or 0 for s in services), "tries": trying.live(records.values(), site.clock.now(),
                                                                    float(site.env.edit_warning)),
        "oldEdits": editing.old_edits(site),
        "running": {"deployId": running.id, "stage": running.stage} if running else None, "waiting": waiting_of(site),
        "hostfiles": _hostfiles(site), "idle": _idle(site, records, running),
    }  # fmt: skip


def _hold(site: Site) -> dict[str, Any] | None:
    """The hold that lasts longest, and whether a push goes on in spite of all that there are."""
    holds = site.store.holds()
    if not holds:
        return None
    from homeport.decide.converging import passes

    last = max(holds, key=lambda one: one.until)
    return {"because": last.because, "by": last.by, "until": last.until, "pushesPass": all(map(passes, holds))}


def waiting_of(site: Site) -> dict[str, Any] | None:
    """The deploy that waits for its turn: what, who asked for it, and since when."""
    row = site.store.waiting()
    if row is None:
        return None
    return {"deployId": row.id, "kind": row.kind, "ref": row.request.ref, "sha": row.sha,
            "services": list(row.request.services), "requestedBy": row.requested_by,
            "since": site.store.asked_at(row.id)}  # fmt: skip


def _idle(site: Site, records: dict[str, ServiceRecord], running: Deploy | None) -> dict[str, str] | None:
    """Why no trigger deploys now, as far as it is known without asking the origin; None when nothing stops one."""
    from homeport.decide import converging

    last = [d for d in site.store.history(50) if d.state == "done"]
    stopped = any(d.status in ("refused", "cancelled") for d in last[:10])
    if not (stopped or site.observes or site.store.holds() or site.store.blocks()):
        return None
    if not site.git.has(f"refs/heads/{site.env.branch}"):
        return None
    names = layout.services_of(site.config, site.environment)
    found = converging.decide(converging.Look(
        tip=site.git.tip(site.env.branch), services=[records[n].sha if n in records else None for n in names],
        last=last, blocks=site.store.blocks(), holds=site.store.holds(), running=running, observe=bool(site.observes),
    ))  # fmt: skip
    told = found.code in ("observes", "held", "blocked", "refused", "cancelled")
    return {"code": found.code, "because": found.because} if told else None


def _hostfiles(site: Site) -> list[dict[str, Any]]:
    """Host files that are not as recorded."""
    if not site.config.hostfiles and not (site.host_config is not None and site.host_config.hostfiles):
        return []
    from homeport.flow.hostfiles import troubled

    return troubled(site)


def _states(site: Site, names: Iterable[str], records: dict[str, ServiceRecord]) -> dict[str, str]:
    """What each service's process manager says of it; one that can is asked for all of its services at once."""
    if all(site.config.services[name].runtime is None for name in names):
        return dict.fromkeys(names, "files")
    from homeport.flow.goals import service_now, unit_of
    from homeport.flow.work import tools_for
    from homeport.model.running import Batching

    tools = tools_for(_silent(site), "status")
    found: dict[str, str] = {}
    units: dict[str, list[Unit]] = {}
    for name in names:
        service, record = site.config.services[name], records.get(name, ServiceRecord(service=name))
        runtime = tools.runtimes.get(service.runtime or "")
        if service.runtime is None or runtime is None:
            found[name] = "files" if service.runtime is None else "unknown"
            continue
        work = service_now(name, service, layout.target_of(site.config, name), record)
        try:
            unit = unit_of(work, tools, record.sha, "status")
            if isinstance(runtime, Batching):
                units.setdefault(runtime.name, []).append(unit)
            else:
                found[name] = runtime.inspect(unit).state
        except HomeportError as fault:
            found[name] = f"unknown ({fault.what})"
    for kind, those in units.items():
        runtime = tools.runtimes[kind]
        assert isinstance(runtime, Batching)
        found.update({name: state.state for name, state in runtime.states(those).items()})
    return found


def _service_status(site: Site, name: str, records: dict[str, ServiceRecord], state: str) -> dict[str, Any]:
    service = site.config.services[name]
    record = records.get(name, ServiceRecord(service=name))
    target = layout.target_of(site.config, name)
    drift: int | None = 0
    if target is not None and site.store.target(target.name) is not None:
        try:
            scan = site.targets.scan(target, site.env.branch)
            if not site.store.looks_only:
                editing.note(site, target, scan)
            drift = len(_mine(site, name, target, scan))
        except HomeportError as fault:
            if fault.code == "no-start":
                raise  # without git nothing true can be said
            state, drift = f"{state}; {fault.what}", None
    return {"service": name, "sha": record.sha, "runtime": service.runtime, "state": state, "drift": drift}


def _silent(site: Site) -> Site:
    from dataclasses import replace

    from homeport.flow.planning import SilentJournal

    return replace(site, journal_for=lambda _deploy: SilentJournal())


def _mine(site: Site, name: str, target: Target, scan: Scan) -> list[Difference]:
    """What differs in a service's own part of a live folder that several share; else in all of it."""
    if name == PROJECT or target.name != PROJECT:
        return list(scan.differences)
    folder = layout.folder_of(site.config.services[name])
    return [d for d in scan.differences if within(d.path, folder)]


def targets_of(site: Site, services: Sequence[str]) -> list[tuple[str, Target]]:
    known = layout.services_of(site.config, site.environment)
    unknown = sorted(set(services) - set(known))
    if unknown:
        raise UsageFault(f"no service named {', '.join(unknown)}", where=f"environment {site.environment}",
                         next="homeport status", code="no-service")  # fmt: skip
    found: dict[str, tuple[str, Target]] = {}
    for name in known:
        target = layout.target_of(site.config, name)
        if target is not None and (not services or name in services):
            label = name if target.name != PROJECT else (name if services else PROJECT)
            found.setdefault(target.name if not services else name, (label, target))
    return list(found.values())


def met(site: Site, target: Target) -> Scan:
    if not site.git.has(f"refs/heads/{site.env.branch}"):
        site.git.fetch()
    site.targets.meet(target, site.env.branch, observe=True)
    scan = site.targets.scan(target, site.env.branch)
    if not site.store.looks_only and _still(site, target, scan):
        editing.note(site, target, scan)
    return scan


def _still(site: Site, target: Target, scan: Scan) -> bool:
    """Whether nothing was put live during the look: what homeport itself writes is nobody's edit."""
    record = site.store.target(target.name)
    return record is not None and record.syncing is None and record.tree == scan.recorded_tree


def drift_of(site: Site, services: Sequence[str]) -> dict[str, Any]:
    """Every path that differs from what homeport last put there, as far as the branch was fetched; fetches nothing, so
    that a look is quick and needs no network."""
    rows, equal = [], True
    for name, target in targets_of(site, services):
        scan = met(site, target)
        found = _mine(site, name, target, scan)
        equal = equal and not found
        accepted = {p: f"{e.because} (by {e.by}, until {minute(e.until)})" for p, e in
                    editing.accepted_paths(site, target, scan).items()}  # fmt: skip
        torn, taken = _torn(site, target, scan), editing.adopted_paths(site, target, found)
        rows.append({
            "service": name, "target": target.path,
            "paths": [{"path": exact(d.path), "state": "conflict" if d.path in torn else d.state,
                       "accepted": accepted.get(d.path), "adopted": taken.get(d.path), "foreign": d.foreign,
                       "because": d.oddity} for d in found],
        })  # fmt: skip
    return {"equal": equal, "services": rows, "branch": site.env.branch, "fetchedAt": site.git.fetched_at(),
            "observe": site.observes}  # fmt: skip


def _torn(site: Site, target: Target, scan: Scan) -> set[str]:
    """The edits that the branch, as far as it was fetched, changed too: the next deploy cannot leave them."""
    if not scan.differences or not site.git.has(f"refs/heads/{site.env.branch}"):
        return set()
    ahead = editing.ahead_of(site, target, scan.recorded_tree)
    landed = editing.landed_paths(site, target, scan, site.git.tip(site.env.branch))
    return {d.path for d in scan.differences
            if d.path in ahead and ahead[d.path] != d.actual and d.foreign is None and d.path not in landed}  # fmt: skip


def diff_of(site: Site, service: str | None, paths: Sequence[str]) -> str:
    """A unified diff from what was put there to what is there; empty when equal. Paths as `below` takes them."""
    parts = []
    with site.git.twin() as git:
        for name, target in targets_of(site, [service] if service else []):
            local = [place for path in paths if (place := below(target, path)) is not None]
            if paths and not local:
                continue
            for difference in chosen(_mine(site, name, target, met(site, target)), local):
                parts.append(_one_diff(site, git, target, difference))
    return "".join(parts)


def _one_diff(site: Site, git: Git, target: Target, difference: Difference) -> str:
    """With the path as the repository has it, so that `git apply` takes it in a checkout."""
    actual: Entry | None = difference.actual
    place = editing.in_repository(target, difference.path)
    if actual is not None and site.targets.is_large(target, difference.path):
        return f"{printable(place)}: too large to be shown\n"
    if actual is not None and not git.has(actual.oid):
        content = site.targets.read_live(target, difference.path, link=actual.mode == "120000")
        if content is None:
            return f"{printable(place)}: {difference.oddity or 'cannot be read'}\n"
        git.write_blob(content)
    if difference.oddity and actual is None:
        return f"{printable(place)}: {difference.oddity}\n"
    return git.diff_text(difference.recorded, actual, place)


def chosen(differences: Sequence[Difference], paths: Sequence[str]) -> list[Difference]:
    """Those at the paths that a person named, or below them; all of them where none is named."""
    if not paths:
        return list(differences)
    wanted = [meant(p.rstrip("/"), (d.path for d in differences)) for p in paths]
    return [d for d in differences if any(p and within(d.path, p) for p in wanted)]


def discard_paths(site: Site, paths: Sequence[str], by: str = "") -> dict[str, Any]:
    """Puts chosen paths back to what was recorded; the bytes that were there are rescued first."""
    from homeport.flow import guarding

    done: list[str] = []
    rescued: list[str] = []
    guarding.refuse_onlooker(site)
    with site.at_once():
        for _, target in targets_of(site, []):
            local = [relative for p in paths if (relative := below(target, p)) is not None]
            found = chosen(met(site, target).differences, local) if local else []
            if found:
                guarding.check(site, guarding.putting_back(target, found), "discard")
                result = site.targets.discard(target, found, None)
                editing.discarded(site, target, [d.path for d in found], by)
                rescued += result.rescued
                done += [d.path for d in found]
    if not done:
        raise Refused(f"no drift at {', '.join(map(printable, paths))}", where=f"environment {site.environment}",
                      next="homeport drift", code="no-drift")  # fmt: skip
    site.store.audit(by, "discard", " ".join(map(printable, done)))
    return {"discarded": [exact(p) for p in done], "rescued": rescued}


def below(target: Target, path: str) -> str | None:
    """A path as given: absolute below the target, with the source folder before it, or relative to the target."""
    if os.path.isabs(path):
        return os.path.relpath(path, target.path) if path.startswith(target.path + "/") else None
    prefix = target.source.strip("/") + "/"
    return path[len(prefix):] if target.source and path.startswith(prefix) else path


def record_services(site: Site, services: Sequence[str], by: str = "") -> dict[str, Any]:
    """Takes what another deployer put there, or took away, as done by homeport; writes nothing live."""
    rows = []
    with site.at_once():
        for name, target in targets_of(site, services):
            scan = met(site, target)
            own = _mine(site, name, target, scan)
            gone = editing.gone_on_branch(site, target, scan)
            foreign = [d.path for d in own if d.foreign or (d.state == "deleted" and d.path in gone)]
            if foreign:
                record = site.store.target(target.name)
                site.targets.take(target, scan.recorded_tree, record.commit if record else None, foreign)
            site.store.audit(by, "record", f"{name} {len(foreign)} paths")
            left = [d.path for d in own if d.path not in foreign]
            rows.append({"service": name, "recorded": [exact(p) for p in foreign],
                         "left": [exact(p) for p in left]})  # fmt: skip
    return {"services": rows}


def meet_anew(site: Site, services: Sequence[str], by: str = "") -> dict[str, Any]:
    """Forgets what was recorded of these live folders and meets them as for the first time."""
    rows = []
    with site.at_once():
        if not site.git.has(f"refs/heads/{site.env.branch}"):
            site.git.fetch()
        for name, target in targets_of(site, services):
            site.targets.meet_anew(target, site.env.branch)
            scan = site.targets.scan(target, site.env.branch)
            site.store.audit(by, "record --anew", name)
            rows.append({"service": name, "recorded": [], "left": [exact(d.path) for d in scan.differences]})
    return {"services": rows}


def service_log(site: Site, name: str, lines: int, follow: bool) -> Iterator[str]:
    """What a service prints, from its process manager. Raises Refused when it has none that keeps logs."""
    from homeport.flow.work import tools_for

    service = site.config.services[name]
    tools = tools_for(_silent(site), "logs")
    runtime = tools.runtimes.get(service.runtime or "")
    if runtime is None:
        raise Refused(f"{name} has no process whose lines could be shown", where=f"services.{name}.runtime",
                      next="homeport logs (the newest deploy)", code="no-logs")  # fmt: skip
    return runtime.logs(unit_for(site, name), lines, follow)


def unit_for(site: Site, name: str) -> Unit:
    """A service as its runtime knows it, as it was last deployed."""
    from homeport.flow.goals import service_now, unit_of
    from homeport.flow.work import tools_for

    record = site.store.services().get(name, ServiceRecord(service=name))
    work = service_now(name, site.config.services[name], layout.target_of(site.config, name), record)
    return unit_of(work, tools_for(_silent(site), "logs"), record.sha, record.deploy_id or "")


def doctor_of_host() -> list[dict[str, Any]]:
    """Whether the programs that homeport calls are here."""
    from shutil import which

    rows: list[dict[str, Any]] = []
    needed = (("git", "git", "homeport works through it"),
              ("ssh", "openssh-client", "other machines, and repositories over ssh, are reached with it"),
              ("setpriv", "util-linux", "builds run as their user, and end with homeport"))  # fmt: skip
    for program, package, why in needed:
        found = which(program)
        rows.append({"name": program, "ok": found is not None, "detail": found or f"not on the PATH; {why}",
                     "next": "" if found else f"apt install {package}"})  # fmt: skip
    return rows


def doctor_of(site: Site | None, folder: str) -> list[dict[str, Any]]:
    """What is missing here and how to mend it; each row is one question and its answer."""
    rows: list[dict[str, Any]] = []

    def ask(name: str, ok: bool, detail: str, next: str = "") -> None:
        rows.append({"name": name, "ok": ok, "detail": detail, "next": "" if ok else next})

    ask("configuration", site is not None, folder, "homeport check")
    if site is None:
        return rows
    try:
        site.git.fetch()
        ask("origin", True, f"branch {site.env.branch} is at {site.git.tip(site.env.branch)[:12]}")
    except HomeportError as fault:
        ask("origin", False, str(fault), fault.next or "git fetch")
    problems = site.store.check()
    ask("state database", not problems, "; ".join(problems) or site.state, "homeport db check")
    names = layout.services_of(site.config, site.environment)
    if any(site.config.services[name].supervised for name in names):
        there = site.supervisor.run() is not None
        ask("supervisor", there, "it runs" if there else "it does not run: its services cannot be started or restarted",
            f"homeport -p {site.project} -e {site.environment} supervise   (setup has systemd keep it)")
    for row in _hostfiles(site):
        ask(f"host file {row['path']}", False, row["because"] or f"{row['state']} outside homeport",
            f"homeport hostfile diff {row['path']}")  # fmt: skip
    for name, target in targets_of(site, []):
        there = os.path.isdir(target.path)
        can = os.access(target.path if there else os.path.dirname(target.path), os.W_OK)
        ask(f"live folder of {name}", can, target.path if there else f"{target.path} (made at the first deploy)",
            f"ls -ld {target.path}")  # fmt: skip
    for name, service in layout.services_of(site.config, site.environment).items():
        live = layout.target_of(site.config, name)
        if service.build is not None and live is not None:
            from homeport.flow.goals import build_target, service_now

            kept = site.builds.kept(build_target(service_now(name, service, live, ServiceRecord(service=name))))
            size = sum(outputs.bytes for outputs in kept)
            ask(f"kept outputs of {name}", True, f"{len(kept)} beside the live one, {size / 1e6:.1f} MB")
    powerful = list(_run_as_root(site))
    if powerful:
        ask("least power", True, f"as root run the commands of: {', '.join(powerful)}. Name a `user`, or let one own the "
            "live folder")  # fmt: skip
    return rows


def _run_as_root(site: Site) -> Iterator[str]:
    """Services whose builds, checks and commands run as root: they name it, or nobody, and root owns the live folder."""
    if os.geteuid() != 0:
        return
    for name, service in layout.services_of(site.config, site.environment).items():
        live = layout.target_of(site.config, name)
        runs = service.build is not None or service.runtime == "command" or any(c.command for c in service.checks)
        if not runs or service.user not in (None, "root"):
            continue
        if service.user == "root" or live is None or not os.path.isdir(live.path) or os.stat(live.path).st_uid == 0:
            yield name
