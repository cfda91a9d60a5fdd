"""`homeport setup` on the machine itself: each step looks at what is there and does the rest, so it can run at any time."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from typing import Protocol

from msgspec import Struct

from homeport.decide import hostfile, layout, loading
from homeport.flow import binding
from homeport.flow.binding import Keyring, KeyWish
from homeport.flow.site import Site
from homeport.model.config import Config
from homeport.model.errors import HomeportError, Refused
from homeport.model.live import Target
from homeport.model.remote import SetupStep


class Machine(Protocol):
    """What is set up: `doors/hostsetup.py` is the real one."""

    project_folder: str
    host_file: str
    program: str
    """The path that runs homeport here."""

    @property
    def keyring(self) -> Keyring: ...
    def missing_programs(self) -> list[str]: ...
    def private_state(self) -> bool: ...
    def read_host_file(self) -> str | None: ...
    def write_host_file(self, text: str) -> None: ...
    def deploy_key(self, comment: str) -> tuple[str, bool]: ...
    def ssh_command(self) -> str: ...
    def learn_host_key(self, origin: str) -> list[str]: ...
    def over_ssh(self, origin: str) -> bool: ...
    def keep_supervisor(self, environment: str) -> tuple[str, bool] | None: ...
    def install_daemon(self) -> tuple[str, bool] | None: ...


class Wish(Struct, frozen=True, kw_only=True):
    """What the machine is to be ready for."""

    config: Config
    environment: str
    origin: str
    host: str
    """Its name."""
    observe: bool | None = None
    """None: as it is, and off for a new host file."""
    widen: bool = False
    """Add to the lists of a host file that is there already."""
    key: KeyWish | None = None
    """An ssh key to bind to a token."""


class _Stop(Exception):
    """What follows makes no sense without this step."""


def set_up(machine: Machine, wish: Wish, open_site: Callable[[], Site]) -> Iterator[SetupStep]:
    """Each step as it is done. Raises Refused (code `identity`) when the machine has another name already."""
    try:
        yield _programs(machine)
        yield _step("state folder", lambda: _state(machine), needed=True)
        yield _step("host file", lambda: _host_file(machine, wish), needed=True)
        with open_site() as site:
            yield _step("repository", lambda: _repository(machine, wish, site), needed=True)
            for name, target in layout.targets(wish.config, wish.environment).items():
                yield _step(f"live folder of {name}", lambda its=target: _live(site, its))  # type: ignore[misc]
            keys = _step(binding.NAME, lambda: binding.bind_keys(
                machine, machine.keyring, machine.program, wish.config.project.name, wish.environment, wish.key,
                site.tokens))  # fmt: skip
            if keys.done:
                yield keys
        services = layout.services_of(wish.config, wish.environment)
        if any(wish.config.services[name].supervised for name in services):
            yield _step("supervisor", lambda: _supervisor(machine, wish))
        daemon = _step("daemon", lambda: _daemon(machine))
        if daemon.done:
            yield daemon
    except _Stop as stop:
        yield stop.args[0]


def _step(name: str, act: Callable[[], SetupStep], *, needed: bool = False) -> SetupStep:
    try:
        done = act()
    except HomeportError as fault:
        if fault.code == "identity":
            raise
        done = SetupStep(name=name, ok=False, done=str(fault), next=fault.next)
    if needed and not done.ok:
        raise _Stop(done)
    return done


def _programs(machine: Machine) -> SetupStep:
    missing = machine.missing_programs()
    if not missing:
        return SetupStep(name="programs", ok=True, done="git, ssh and setpriv are here")
    packages = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "setpriv": "util-linux"}
    needed = sorted({packages.get(name, name) for name in missing})
    return SetupStep(name="programs", ok=False, done=f"missing: {', '.join(missing)}",
                     next=f"apt install {' '.join(needed)}")  # fmt: skip


def _state(machine: Machine) -> SetupStep:
    changed = machine.private_state()
    return SetupStep(name="state folder", ok=True, done=f"{machine.project_folder}, for its owner only", changed=changed)


def _host_file(machine: Machine, wish: Wish) -> SetupStep:
    """Writes a host file where there is none; one that is there is widened only when that was asked for."""
    needs = hostfile.needs_of(wish.config, wish.environment, pwd.getpwuid(os.geteuid()).pw_name)
    text = machine.read_host_file()
    if "/" in needs.roots:
        return SetupStep(name="host file", ok=False, done="a live folder lies right below /: its root would be /",
                         next="put live folders below a folder of their own, such as /srv")  # fmt: skip
    if text is None:
        fresh = hostfile.first_text(wish.host, needs, observe=bool(wish.observe))
        loading.load_host(fresh, machine.host_file)
        machine.write_host_file(fresh)
        return SetupStep(name="host file", ok=True, done=f"wrote {machine.host_file}", changed=True, lines=_shown(fresh))
    host = loading.load_host(text, machine.host_file)
    if host.name != wish.host:
        raise Refused(f"this machine is {host.name}, not {wish.host}: its host.toml says so", where=machine.host_file,
                      next="is the address right? if so, correct `name` there", code="identity")  # fmt: skip
    lacks = hostfile.lacking(host, needs, as_root=os.geteuid() == 0)
    more = lacks if wish.widen else {}
    changed = hostfile.widened(text, more, wish.observe)
    if changed != text:
        machine.write_host_file(changed)
    if lacks and not wish.widen:
        rows = [f"{key}: {', '.join(values)}" for key, values in lacks.items()]
        return SetupStep(name="host file", ok=False, done=f"{machine.host_file} does not hold all that is needed",
                         lines=rows, changed=changed != text, next="homeport setup --widen   (adds these)")  # fmt: skip
    return SetupStep(name="host file", ok=True, done=machine.host_file, changed=changed != text, lines=_shown(changed))


def _supervisor(machine: Machine, wish: Wish) -> SetupStep:
    """Services under the built-in supervisor need it to run, and to be started again."""
    kept = machine.keep_supervisor(wish.environment)
    if kept is None:
        return SetupStep(
            name="supervisor", ok=True, done="no systemd of the machine to keep it: start it yourself",
            next=f"homeport -p {wish.config.project.name} -e {wish.environment} supervise",
        )  # fmt: skip
    unit, changed = kept
    return SetupStep(name="supervisor", ok=True, done=f"{unit} runs, and is started again by systemd", changed=changed)


def _daemon(machine: Machine) -> SetupStep:
    """Its unit is there for whoever wants it: with the daemon, pushes deploy by themselves."""
    installed = machine.install_daemon()
    if installed is None:
        return SetupStep(name="daemon", ok=True, done="")
    unit, changed = installed
    return SetupStep(name="daemon", ok=True, done=f"{unit} and its socket are installed", changed=changed,
                     lines=["to have pushes deployed, and programs ask for deploys: systemctl enable --now " + unit])


def _shown(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _repository(machine: Machine, wish: Wish, site: Site) -> SetupStep:
    """The first fetch; a key of its own only where what is there does not do."""
    done = f"{wish.config.environments[wish.environment].branch} is at"
    branch = site.env.branch
    try:
        site.git.fetch()
        return SetupStep(name="repository", ok=True, done=f"{done} {site.git.tip(branch)[:12]}")
    except HomeportError as fault:
        if fault.code != "fetch" or not machine.over_ssh(wish.origin):
            raise
    public, made = machine.deploy_key(f"homeport {wish.config.project.name}@{wish.host}")
    learnt = machine.learn_host_key(wish.origin)
    site.git.use_ssh(machine.ssh_command())
    said = [f"learnt the repository's host key, compare it: {line}" for line in learnt]
    try:
        site.git.fetch()
    except HomeportError as fault:
        if fault.code != "fetch":
            raise
        return SetupStep(
            name="repository", ok=False, changed=made or bool(learnt), lines=[*said, public],
            done=f"{fault.what}; this key of the host may not read it yet",
            next="add it to the repository's deploy keys (to write too, for `homeport adopt`), then: homeport setup",
        )  # fmt: skip
    return SetupStep(name="repository", ok=True, done=f"{done} {site.git.tip(branch)[:12]}, fetched with a key of its own",
                     changed=True, lines=said)  # fmt: skip


def _live(site: Site, target: Target) -> SetupStep:
    name = f"live folder of {target.name}"
    looks = bool(site.observes)
    if not os.path.isdir(target.path):
        site.permits.folder(target.path)
        return SetupStep(name=name, ok=True, done=f"{target.path} is made at the first deploy")
    known = site.store.target(target.name)
    site.targets.meet(target, site.env.branch, observe=looks)
    differs = len(site.targets.scan(target, site.env.branch).differences)
    some = "1 path differs" if differs == 1 else f"{differs} paths differ"
    drift = f", {some} from git (homeport drift)" if differs else ", as in git"
    kept = "only looked at" if looks else "claimed"
    return SetupStep(name=name, ok=True, done=f"{target.path}, {kept}{drift}", changed=known is None)
