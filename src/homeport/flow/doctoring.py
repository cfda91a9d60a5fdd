"""What `homeport doctor` asks beside the plain needs: what setup made, who else deploys here."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterable
from typing import Any

from homeport.decide import deployers, hostfile, layout
from homeport.decide.deployers import OtherDeployer
from homeport.flow.site import Site
from homeport.model.errors import HomeportError

WORKFLOWS = (".github/workflows", ".gitea/workflows", ".forgejo/workflows", ".circleci", ".woodpecker")
CI_FILES = (".gitlab-ci.yml", ".woodpecker.yml", "bitbucket-pipelines.yml")
MANAGERS = {
    "pm2": ("pm2", "npm install -g pm2   (elsewhere: set the service's path to its folder)"),
    "systemd": ("systemctl", "a machine that systemd runs"),
    "compose": ("docker", "apt install docker.io docker-compose"),
    "swarm": ("docker", "apt install docker.io"),
}
"""By runtime: the program, and how to come by it."""
ECOSYSTEMS = ("ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.json", "ecosystem.json")


def setup_rows(site: Site) -> list[dict[str, Any]]:
    """Whether what `homeport setup` makes is as it should be."""
    again = f"homeport -e {site.environment} setup"
    modes = {folder: stat.S_IMODE(os.stat(folder).st_mode) for folder in (os.path.dirname(site.state), site.state)}
    which = next((folder for folder, mode in modes.items() if mode & 0o077), site.state)
    rows = [_host_file(site, again)]
    rows += [_row("state folder", not modes[which] & 0o077, f"{which}, mode {modes[which]:04o}", again)]
    folder = os.path.join(os.path.dirname(site.state), "ssh")
    if os.path.isdir(folder):
        private = os.path.join(folder, "id_ed25519")
        sound = os.path.isfile(private) and not stat.S_IMODE(os.stat(private).st_mode) & 0o077
        rows.append(_row("deploy key", sound, private if sound else f"{private} is missing, or open to others", again))
    observing = bool(site.observes)
    for name, target in layout.targets(site.config, site.environment).items():
        if not os.path.isdir(target.path):
            continue
        try:
            site.targets.meet(target, site.env.branch, observe=True)
        except HomeportError as fault:
            rows.append(_row(f"claim of {name}", False, str(fault), fault.next))
            continue
        claimed = os.path.exists(os.path.join(target.path, ".homeport"))
        what = "claimed" if claimed else "only looked at" if observing else "not claimed yet; the first deploy does it"
        rows.append(_row(f"claim of {name}", True, what, ""))
    return rows


def watch_rows(site: Site) -> list[dict[str, Any]]:
    """Whether the kernel lets hand edits be seen as they are made; said of live folders that were met."""
    known = [target for target in layout.targets(site.config, site.environment).values()
             if os.path.isdir(target.path) and site.store.target(target.name) is not None]  # fmt: skip
    if not known:
        return []
    try:
        watches = site.watches()
        try:
            return [_row("watching", True, f"{watches.needed(known, site.env.branch):,} folders", "")]
        finally:
            watches.close()
    except HomeportError as fault:
        return [_row("watching", False, str(fault), fault.next)]


def manager_rows(site: Site) -> list[dict[str, Any]]:
    """Whether the process manager of each service is installed, where that service looks for it."""
    lacking: dict[str, list[str]] = {}
    there: dict[str, str] = {}
    for name, service in layout.services_of(site.config, site.environment).items():
        if service.runtime not in MANAGERS:
            continue
        path = os.pathsep.join([*service.path, os.environ.get("PATH", "")])
        found = shutil.which(MANAGERS[service.runtime][0], path=path)
        if found is None:
            lacking.setdefault(service.runtime, []).append(name)
        else:
            there.setdefault(service.runtime, found)
    rows = [_row(kind, True, found, "") for kind, found in there.items() if kind not in lacking]
    return rows + [_row(kind, False, f"{MANAGERS[kind][0]} is not on the PATH of {', '.join(names)}", MANAGERS[kind][1])
                   for kind, names in lacking.items()]  # fmt: skip


def _host_file(site: Site, again: str) -> dict[str, Any]:
    """Whether there is one, and whether its lists hold what the environment needs: what a deploy would refuse later."""
    as_root = os.geteuid() == 0
    if site.host_config is None:
        return _row("host file", not as_root,
                    "none; nothing limits what homeport may do here" + (" as root" if as_root else ""), again)  # fmt: skip
    needs = hostfile.needs_of(site.config, site.environment, pwd.getpwuid(os.geteuid()).pw_name)
    lacks = hostfile.lacking(site.host_config, needs, as_root=as_root)
    said = "; ".join(f"{key}: {', '.join(values)}" for key, values in lacks.items())
    return _row("host file", not lacks, f"its lists do not hold all that is needed: {said}" if lacks
                else "its lists limit what homeport may do", f"{again} --widen   (adds these)")  # fmt: skip


def deployer_rows(site: Site, scheduled: Iterable[tuple[str, str]], read: Callable[[str], str]) -> list[dict[str, Any]]:
    """Who else deploys: in the repository's workflows and ecosystem files, and by this machine's clock.

    Beside one that observes, another deployer is as it should be.
    """
    found = [*_in_repository(site), *_on_machine(scheduled, read)]
    observing = bool(site.observes)
    if not found:
        return [_row("other deployers", True, "none found", "")]
    return [_row("other deployer", observing, f"{one.where}: {one.line}",
                 "switch it off, or: homeport setup --observe") for one in found]  # fmt: skip


def _in_repository(site: Site) -> list[OtherDeployer]:
    try:
        sha = site.git.tip(site.env.branch)
    except HomeportError:
        return []
    found: list[OtherDeployer] = []
    for folder in WORKFLOWS:
        tree = site.git.tree_of(sha, folder)
        for name in sorted(site.git.listing(tree)) if tree is not None else ():
            if name.endswith((".yml", ".yaml")):
                found += _in_workflow(site, sha, f"{folder}/{name}")
    for path in CI_FILES:
        found += _in_workflow(site, sha, path)
    folders = {layout.folder_of(service) for service in site.config.services.values()} | {""}
    for folder in sorted(folders):
        for name in ECOSYSTEMS:
            path = f"{folder}/{name}" if folder else name
            found += deployers.in_ecosystem(path, _text(site, sha, path))
    return found


def _in_workflow(site: Site, sha: str, path: str) -> list[OtherDeployer]:
    """Of the workflow itself, and of the scripts of the repository that it runs."""
    text = _text(site, sha, path)
    found = deployers.in_workflow(path, text)
    for script in deployers.scripts_of(text):
        found += deployers.in_workflow(script, _text(site, sha, script))
    return found


def _text(site: Site, sha: str, path: str) -> str:
    return (site.git.file_at(sha, path) or b"").decode("utf-8", "replace")


def _on_machine(scheduled: Iterable[tuple[str, str]], read: Callable[[str], str]) -> list[OtherDeployer]:
    """The tables themselves, and the scripts that they name."""
    found: list[OtherDeployer] = []
    seen: set[str] = set()
    for path, text in scheduled:
        found += deployers.in_schedule(path, text)
        for script in deployers.scripts_in(text):
            if script not in seen:
                seen.add(script)
                found += deployers.in_schedule(script, read(script))
    return found


def _row(name: str, ok: bool, detail: str, next: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "next": "" if ok else next}
