"""The only file that names concrete doors: finds the project, its state on this host, and opens a Site."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from homeport import wiring_later as doors
from homeport.decide import durations, layout, loading, placing
from homeport.doors.clock import SystemClock
from homeport.doors.git import Mirror
from homeport.doors.journal import FileJournal, chunk_from, follow
from homeport.doors.live import LiveTargets
from homeport.doors.lock import FileLock
from homeport.doors.origin import plain_origin
from homeport.doors.permits import Permits
from homeport.doors.rescues import RescueBox
from homeport.doors.secrets import Keyring, Redactor
from homeport.doors.shell import LocalShell
from homeport.doors.stateroot import state_root
from homeport.doors.store import SqliteStore
from homeport.flow.site import Site
from homeport.model.config import Config, Environment, HostConfig, Project, Secret
from homeport.model.errors import ConfigFault, HomeportError, InfrastructureFault, StateFault, UsageFault
from homeport.model.remote import Elsewhere
from homeport.wiring_later import later
from homeport.wiring_person import actor, caller, for_a_key, identity, person

if TYPE_CHECKING:
    from homeport.model.live import Target
    from homeport.model.ports import Journal, Shell
    from homeport.model.running import Seen, Unit
    from homeport.model.trying import WorkingTree
    from homeport.model.watching import Watches

__all__ = ["actor", "identity", "person", "state_root"]
ETC_HOST_FILE = "/etc/homeport/host.toml"


def find_config(folder: str) -> str | None:
    """The homeport.toml of this folder or the nearest one above it."""
    try:
        here = os.path.abspath(folder)
    except FileNotFoundError as fault:
        raise UsageFault("the folder this was started in is not there any more", next="cd /, then: homeport -C DIR ...",
                         code="no-folder") from fault  # fmt: skip
    if not os.path.isdir(here):
        raise UsageFault("that folder is not there", where=here, next="homeport -C DIR ...")
    while True:
        candidate = os.path.join(here, "homeport.toml")
        if os.path.isfile(candidate):
            return candidate
        parent = os.path.dirname(here)
        if parent == here:
            return None
        here = parent


def read_config(path: str) -> Config:
    """Raises ConfigFault for what is wrong in it."""
    with open(path, "rb") as file:
        return loading.load(file.read(loading.LONGEST + 1), path)


def open_site(folder: str = ".", project: str | None = None, environment: str | None = None,
              host: str | None = None) -> Site:  # fmt: skip
    """Opens the environment that the folder and the options name.

    Raises UsageFault or ConfigFault when it cannot be told which, Refused when this host does not serve it,
    Elsewhere when other machines do.
    """
    path = find_config(folder)
    config = read_config(path) if path else None
    if config is None or (project is not None and config.project.name != project):
        site = _known_site(project, environment, host)
        try:
            _placed(site.config, site.environment, site.host_config, host)
        except BaseException:
            site.close()
            raise
        return site
    name, env = layout.environment_named(config, environment)
    host_config = read_host()
    _placed(config, name, host_config, host)
    assert path is not None
    origin = env.repo or config.project.repo or checkout_origin(os.path.dirname(path))
    return build_site(config, name, env, origin, host_config)


def _known_site(project: str | None, environment: str | None, host: str | None) -> Site:
    root = state_root()
    for named in (project, environment):
        if named is not None and (not named or named.startswith(".") or "/" in named):
            raise UsageFault(f"{named!r} names no project or environment", where=root, next="homeport -p PROJECT ...",
                             code="no-project")  # fmt: skip
    known = sorted(p for p in (os.listdir(root) if os.path.isdir(root) else []) if not p.startswith("."))
    if project is None and len(known) != 1:
        raise UsageFault(
            "no homeport.toml here or above" + (f", and this host knows {', '.join(known)}" if known else ""),
            where=os.getcwd(), next="homeport -p PROJECT ..." if known else "homeport init", code="no-project",
        )  # fmt: skip
    name = project or known[0]
    environments = sorted(
        e for e in (os.listdir(f"{root}/{name}") if os.path.isdir(f"{root}/{name}") else [])
        if os.path.isfile(f"{root}/{name}/{e}/homeport.db")
    )  # fmt: skip
    if not environments:
        meant = f" -e {environment}" if environment else ""
        raise UsageFault(f"{host or 'this host'} does not know a project named {name} yet", where=root, code="no-project",
                         next=f"in a checkout of {name}: homeport{meant} setup")  # fmt: skip
    if environment is None and len(environments) > 1:
        raise UsageFault(f"which environment? {', '.join(environments)}", where=name, next="homeport -e ENV ...",
                         code="no-environment")  # fmt: skip
    chosen = environment or environments[0]
    if chosen not in environments:
        raise UsageFault(f"no environment named {chosen}; there is {', '.join(environments)}", where=name,
                         next="homeport -e ENV ...", code="no-environment")  # fmt: skip
    return site_from_state(root, name, chosen)


def site_from_state(root: str, project: str, environment: str) -> Site:
    """A site from what earlier commands recorded, without a checkout: what the runner uses."""
    clock = SystemClock()
    store = SqliteStore(f"{root}/{project}/{environment}/homeport.db", clock)
    branch, origin = store.meta("branch"), store.meta("repo")
    store.close()
    if branch is None:
        raise StateFault("the state folder does not say which branch it follows",
                         where=f"{root}/{project}/{environment}", next="homeport -C CHECKOUT status")  # fmt: skip
    env = Environment(branch=branch)
    config = Config(project=Project(name=project, repo=origin), environments={environment: env})
    site = build_site(config, environment, env, origin, read_host())
    try:
        raw = site.git.file_at(site.git.tip(branch), "homeport.toml")
        config = loading.load(raw, "homeport.toml") if raw else config
    except HomeportError:
        return site
    from dataclasses import replace

    told = config.environments.get(environment, env)
    return replace(site, config=config, env=msgspec.structs.replace(told, branch=branch))


def host_file() -> str:
    """Where this machine's host.toml is, or would be: in /etc; `HOMEPORT_HOST_FILE` counts only where /etc has none.
    A user who is not root may keep one among the own settings."""
    named = os.environ.get("HOMEPORT_HOST_FILE")
    if os.path.isfile(ETC_HOST_FILE) or (os.geteuid() == 0 and not named):
        return ETC_HOST_FILE
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return named or os.path.join(own, "homeport", "host.toml")


def read_host() -> HostConfig | None:
    """host.toml of this machine; None when there is none."""
    path = host_file()
    try:
        with open(path, "rb") as file:
            return loading.load_host(file.read(loading.LONGEST + 1), path)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise ConfigFault(f"the host file cannot be read: {fault.strerror}", where=path, next="homeport doctor") from fault


def host_name(host_config: HostConfig | None) -> str:
    return host_config.name if host_config else os.uname().nodename


def own_name() -> str:
    """This machine's name, for a greeting: a host file that is wrong is told later."""
    try:
        return host_name(read_host())
    except HomeportError:
        return os.uname().nodename


def _placed(config: Config, environment: str, host_config: HostConfig | None, host: str | None) -> None:
    """Raises Elsewhere when the work belongs on other machines, Refused when this one is not who it should be (A2)."""
    here, owns = host_name(host_config), placing.owning(host_config, owns_address)
    if caller() is None and not for_a_key():
        places = placing.elsewhere(config, environment, here, host_config is not None, host, owns)
        if places:
            raise Elsewhere(places)
    asking = caller()
    placing.check_identity(config, environment, host_config, here, host, asking.addresses if asking else (), owns)


def owns_address(address: str) -> bool:
    """Whether this machine has that IP address."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def checkout_origin(folder: str) -> str:
    """The `origin` of a checkout. Raises ConfigFault when there is none."""
    origin = plain_origin(folder) or ""
    if not origin:
        done = LocalShell().run(["git", "-C", folder, "config", "--get", "remote.origin.url"], ok=(0, 1, 128))
        origin = done.stdout.decode("utf-8", "replace").strip()
    if not origin:
        raise ConfigFault("it is not known which repository to deploy from", where="homeport.toml: project.repo",
                          next="git remote add origin URL, or set [project] repo", code="no-repo")  # fmt: skip
    if "://" not in origin and ":" not in origin.split("/")[0]:
        return os.path.abspath(os.path.join(folder, origin))
    return origin


def checkout_files(folder: str) -> list[str]:
    """Every path that HEAD of the checkout around this folder holds; empty when there is no commit."""
    done = LocalShell().run(["git", "-C", folder, "ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD"],
                            ok=(0, 128))  # fmt: skip
    return [raw.decode("utf-8", "surrogateescape") for raw in done.stdout.split(b"\0") if raw]


def running_here() -> list[Seen]:
    """As `doors.running_here.found_here`."""
    from homeport.doors.running_here import found_here

    return found_here(LocalShell())


def build_site(config: Config, environment: str, env: Environment, origin: str | None,
               host_config: HostConfig | None) -> Site:  # fmt: skip
    """Opens (and makes, the first time) the state folder and every door on it."""
    root = state_root()
    project = config.project.name
    state = os.path.join(root, project, environment)
    _private(root, os.path.join(root, project), state, os.path.join(state, "journal"), os.path.join(state, "targets"))
    clock, shell = SystemClock(), LocalShell()
    asking = actor()
    redactor, keyring = Redactor(), Keyring(host_file(), host_config)
    redactor.learn(None, os.environ)
    store = SqliteStore(os.path.join(state, "homeport.db"), clock, actor=asking, redact=redactor.redact)
    before = store.meta("repo")
    kept_open = ExitStack()
    git = Mirror.open_or_create(os.path.join(root, project, "repo.git"), origin or before or "", shell)
    kept_open.callback(git.close)
    if host_config is not None and "fetch" in host_config.limits:
        git.patience = durations.parse(host_config.limits["fetch"])
    if store.looks_only:
        git = kept_open.enter_context(git.twin())
    else:
        _note_origin(git, store, origin, env.branch)
    origin = origin or before or ""
    rescues = RescueBox(git, store, clock)
    permits = Permits(host_config, environment)

    def shell_for(deploy: str | None, cancelled: Callable[[], bool]) -> Shell:
        return LocalShell(deploy, cancelled, permits, hidden=(root, "/etc/homeport"))

    def migration_lock(url: Secret | str, within: float, cancelled: Callable[[], bool]) -> AbstractContextManager[None]:
        from homeport.doors.advisory import advisory_lock

        plain = url if isinstance(url, str) else keyring.value_of(url, "homeport.toml: migrate.lock")
        return advisory_lock(plain, project, clock, within, cancelled)

    def journal_for(deploy: str) -> Journal:
        if host_config is not None:
            redactor.learn(host_config.secrets)
        return FileJournal(os.path.join(state, "journal", f"{deploy}.jsonl"), deploy, redactor.redact, clock=clock)

    from homeport.doors.starting import Runners
    from homeport.doors.targetbook import TargetBook
    from homeport.wiring_runtimes import commit_page, forge, page, prober, runtimes

    def clean_room(tree: str, user: str) -> AbstractContextManager[str]:
        from homeport.doors.cleanroom import clean_room

        return clean_room(git, tree, user)

    def take_over(target: Target, names: Collection[str]) -> str | None:
        from homeport.doors.renames import Renames

        book = TargetBook(state, project, environment, git, store)
        return Renames(book, git, store, store.database).take_over(target, names)

    def watches() -> Watches:
        from homeport.doors.watching import LiveWatches

        return LiveWatches(TargetBook(state, project, environment, git, store), git, environment)

    def prune_journals(most: int) -> int:
        from homeport.doors.journals import prune

        return prune(os.path.join(state, "journal"), most, time.time())

    runners = Runners(root, project, environment, state)
    return Site(
        project=project, prune_journals=prune_journals,
        supervisor=later(lambda: doors.supervisor(f"{state}/supervisor.sock")),
        environment=environment, host=host_name(host_config), state=state, config=config, env=env,
        host_config=host_config, store=store, git=git, rescues=rescues, clock=clock,
        targets=LiveTargets(state, project, environment, git, store, rescues, clock, permits),
        checkouts=later(lambda: doors.checkouts(state, project, environment, git, store, shell, permits)),
        tries=later(lambda: doors.tries(git, environment)), watches=watches, take_over=take_over,
        builds=later(lambda: doors.builds(git, shell, clock, store)), lock=FileLock(os.path.join(state, "lock")),
        shell_for=shell_for, runtimes_for=lambda shell: runtimes(shell, permits, state), prober_for=prober,
        journal_for=journal_for, follow_journal=follow, read_journal=chunk_from,
        start_runner=runners.start, ready_runner=runners.ready, runner_on_its_way=runners.on_its_way,
        load_config=loading.load, actor=asking, migration_lock=migration_lock, closers=[store.close, kept_open.close],
        edits=later(lambda: doors.edits(store.database)),
        hostfiles=later(lambda: doors.host_files(os.path.join(state, "hostfiles"))),
        host_history=later(lambda: doors.host_history(git, environment)),
        hostfile_lock=FileLock(os.path.join(state, "hostfiles.lock")),
        merging=later(lambda: doors.merging(git, permits)),
        secret_scan=later(lambda: doors.secret_scan(state, redactor.known_in)),
        tokens=later(lambda: doors.tokens(store.database)),
        permits=permits, secrets=redactor, forge=lambda its: forge(its, store, origin, redactor, keyring),
        request_page=lambda asked: page(config, origin, asked),
        outbox=later(lambda: doors.outbox(store.database, redactor.redact)),
        outbox_lock=FileLock(os.path.join(state, "notify.lock")),
        channel=later(lambda: doors.channel(host_config.channels if host_config is not None else (), keyring.value_of)),
        start_sending=lambda: runners.apart("send", "notify.log"),
        checks_lock=FileLock(os.path.join(state, "checks.lock")),
        start_checking=lambda: runners.apart("check", "checks.log"),
        clean_room=clean_room,
        commit_page=lambda its, sha: commit_page(its, origin, sha),
    )  # fmt: skip


def _note_origin(git: Mirror, store: SqliteStore, origin: str | None, branch: str) -> None:
    before = store.meta("repo")
    if store.meta("branch") != branch:
        store.set_meta("branch", branch)
    if origin and before is None:
        store.set_meta("repo", origin)
    elif origin and before != origin:
        _follow(git, store, origin)


def _follow(git: Mirror, store: SqliteStore, origin: str) -> None:
    """The checkout names another origin than before: it may have moved, but another project of the same name must not
    be shown, or deploy, what is this one's. One that cannot be reached now, or soon, is tried again by whoever fetches.

    Raises StateFault (code `other-origin`).
    """
    patience, git.patience = git.patience, min(git.patience, 10.0)
    try:
        with suppress(InfrastructureFault):
            git.fetch()
    except HomeportError:
        store.close()
        raise
    finally:
        git.patience = patience
    store.set_meta("repo", origin)


def _private(*folders: str) -> None:
    for folder in folders:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as fault:
            why = "there is a file in its place" if isinstance(fault, FileExistsError) else fault.strerror
            raise StateFault(f"the state folder cannot be made: {why}", where=folder,
                             next="set HOMEPORT_STATE to a folder of your own") from fault  # fmt: skip


def site_of_checkout(folder: str, environment: str | None) -> tuple[Site, str]:
    """For development: the site of a checkout on this machine, wherever its environment's hosts are; its folder."""
    path = find_config(folder)
    if path is None:
        raise UsageFault("no homeport.toml here or above", where=folder, next="homeport init", code="no-project")
    config, root = read_config(path), os.path.dirname(path)
    name, env = layout.environment_named(config, environment)
    return build_site(config, name, env, env.repo or config.project.repo or checkout_origin(root), None), root


def become_supervisor(state: str, units: list[Unit], scopes: dict[str, tuple[str, ...]], **how: Any) -> None:
    """As `doors.supervising.become`: does not return."""
    from homeport.doors.supervising import become

    become(state, units, scopes, **how)


def working_tree(folder: str) -> WorkingTree:
    """The checkout around a folder, as something to try. Raises UsageFault (code `no-checkout`)."""
    from homeport.doors.workingtree import Checkout

    return Checkout(folder, LocalShell())


def inside(site: Site, unit: Unit, runtime: str, command: Sequence[str], terminal: bool) -> int:
    """Runs a command (none: a shell) where the service runs, at this terminal; its exit status."""
    from homeport.doors.runtimes.surroundings import inside as beside
    from homeport.doors.shell import attached
    from homeport.model.running import ImageRuntime

    site.permits.lists()
    site.permits.unit(unit.name)
    if unit.user is not None:
        site.permits.user(unit.user)
    found = site.runtimes_for(site.shell_for(None, lambda: False)).get(runtime)
    how = found.inside(unit, command, terminal) if isinstance(found, ImageRuntime) else beside(unit, command)
    return attached(how.argv, how.cwd, how.env)
