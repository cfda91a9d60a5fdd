"""What the built-in supervisor is to run when it starts: from what is deployed, or from a working folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from homeport.decide import layout
from homeport.flow.goals import service_now, standard_environment, unit_of
from homeport.flow.planning import SilentJournal
from homeport.flow.site import Site
from homeport.flow.work import tools_for
from homeport.model.config import Config
from homeport.model.envfile import parse
from homeport.model.errors import HomeportError
from homeport.model.running import Unit

NAME = "supervisor"


def deployed_units(site: Site) -> list[Unit]:
    """The services that the supervisor was started with last, each as its own deployed commit configures it."""
    tools = tools_for(replace(site, journal_for=lambda _deploy: SilentJournal()), "supervise")
    found: list[Unit] = []
    configs: dict[str, Config] = {}
    for name, record in sorted(site.store.services().items()):
        if record.sha is None or record.started is None:
            continue
        if record.sha not in configs:
            configs[record.sha] = _config_at(site, record.sha)
        service = configs[record.sha].services.get(name)
        if service is None or service.runtime != NAME:
            continue
        work = service_now(name, service, layout.target_of(configs[record.sha], name), record)
        found.append(unit_of(work, tools, record.sha, record.deploy_id or ""))
    return found


def _config_at(site: Site, sha: str) -> Config:
    try:
        raw = site.git.file_at(sha, "homeport.toml")
        return site.load_config(raw, f"{sha[:12]}:homeport.toml") if raw else site.config
    except HomeportError:
        return site.config


def units_of_folder(site: Site, folder: str, path: str) -> list[Unit]:
    """The supervised services of a checkout, run in their source folders with this PATH (development)."""
    tools = tools_for(replace(site, journal_for=lambda _deploy: SilentJournal()), "supervise")
    found = []
    for name in layout.services_of(site.config, site.environment):
        service = site.config.services[name]
        if service.runtime != NAME:
            continue
        base = (Path(folder) / (service.source or ".")).resolve()
        env = {"PATH": path}
        env_file = (base / service.env_file) if service.env_file else None
        if env_file is not None and env_file.is_file():
            env |= parse(env_file.read_text(encoding="utf-8", errors="replace"))
        env |= service.env | standard_environment(tools, None, "")
        listen = (service.listen,) if isinstance(service.listen, str) else tuple(service.listen or ())
        found.append(Unit(
            service=name, name=service.unit or name, target=None, command=service.command,
            cwd=str(base / service.cwd) if service.cwd else str(base), env=env, path=tuple(service.path),
            signal=service.signal, stop_timeout=float(service.stop_timeout), listen=listen, handoff=service.handoff,
            replicas=service.replicas, ready=service.ready, drain=float(service.drain),
        ))  # fmt: skip
    return found


def interrupted(site: Site) -> bool:
    """Whether a deploy waits to be ended, resumed or told of."""
    return site.store.running() is not None or site.store.waiting() is not None or bool(site.store.untold())


def restarts_itself(site: Site) -> bool:
    """Whether a restart of everything is one of the supervisor too: told by the configuration, so that asking again for
    the same is the same, also while the supervisor is away."""
    return any(service.runtime == NAME for service in layout.services_of(site.config, site.environment).values())
