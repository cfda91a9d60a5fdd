"""Where each service is to go: the records and digests a restart and a build are decided from."""

from __future__ import annotations

from msgspec.structs import replace

from homeport.decide import digest, together
from homeport.decide.layout import folder_of
from homeport.decide.using import used_by
from homeport.flow.work import ServiceWork, TargetWork, Tools, Work
from homeport.model import envfile
from homeport.model.config import IMAGES, Config, Service
from homeport.model.deploys import ServiceRecord, ServiceState, StartedWith
from homeport.model.live import PROJECT, Target
from homeport.model.ports import Git
from homeport.model.running import Unit


def service_now(name: str, service: Service, target: Target | None, record: ServiceRecord) -> ServiceWork:
    """A service whose goal is what is there: the starting point of every deploy."""
    goal = ServiceState(sha=record.sha, tree=record.tree, outputs=record.outputs)
    return ServiceWork(name=name, service=service, target=target, record=record, goal=goal,
                       start_with=record.started or StartedWith())  # fmt: skip


def files_print(work: ServiceWork, sha: str, config: Config, tools: Tools) -> tuple[str | None, tuple[str, ...]]:
    """(tree of the service's own files without those it ignores, marks of what it uses and watches)."""
    service, git = work.service, tools.site.git
    tree: str | None = None
    if service.source is not None:
        base = work.target or Target(name=work.name, path="/", source=service.source)
        own = replace(base, name=work.name, source=service.source, protect=base.protect + tuple(service.ignore))
        tree = tools.site.targets.wanted(own, sha)
    return tree, marks_of(config, work.name, sha, git)


def marks_of(config: Config, service: str, sha: str, git: Git) -> tuple[str, ...]:
    """One mark for each thing outside its own folder that a service uses or watches, by content."""
    used, watch = used_by(config, service), config.services[service].watch
    marks = []
    for place in used.folders:
        found = git.tree_of(sha, place) or (entry.oid if (entry := git.entry_at(sha, place)) else None)
        if found:
            marks.append(f"{place}={found}")
    if watch or used.patterns:
        marks.append("watch=" + digest.watched(git.listing(sha), [*watch, *used.patterns]))
    asked = [action.paths for action in config.actions if action.service == service and action.on_change != "none"]
    marks += [f"action={digest.watched(git.listing(sha), paths)}" for paths in asked]
    return tuple(marks)


def place_in_target(work: ServiceWork, path: str) -> str:
    """A path of the service as one of its live folder, which may be that of the whole checkout."""
    folder = folder_of(work.service) if work.target is not None and work.target.name == PROJECT else ""
    return f"{folder}/{path}" if folder else path


def build_target(work: ServiceWork) -> Target:
    """The live folder as the builds door is to know it: in a shared one, each service has outputs of its own."""
    assert work.target is not None
    if work.target.name != PROJECT:
        return work.target
    outputs = work.service.build.outputs if work.service.build is not None else []
    return replace(work.target, shared_by=work.name, outputs=tuple(place_in_target(work, o) for o in outputs))


def env_file_of(work: ServiceWork, tools: Tools) -> bytes | None:
    """The bytes of the service's env file; None when it names none, or it is not there."""
    named = work.service.env_file
    if named is None:
        return None
    if named.startswith("/"):
        return _kept_secret(tools.site.targets.read_host_file(named), tools)
    if work.target is None:
        return None
    return _kept_secret(tools.site.targets.read_live(work.target, place_in_target(work, named)), tools)


def _kept_secret(raw: bytes | None, tools: Tools) -> bytes | None:
    """An env file as it was read; what it holds of secrets is written nowhere from now on."""
    if raw is not None:
        tools.site.secrets.learn(None, envfile.parse(raw.decode("utf-8", "replace")))
    return raw


def environment_print(work: ServiceWork, tools: Tools) -> str:
    """Hash over what the service's environment comes from, `.env` in its folder included (A5)."""
    raw = env_file_of(work, tools)
    if work.service.env_file is None and work.target is not None:
        raw = _kept_secret(tools.site.targets.read_live(work.target, place_in_target(work, ".env")), tools)
    return digest.environment(work.service, raw)


def with_environment(work: ServiceWork, tools: Tools) -> ServiceWork:
    """The service with its environment as it is now: a changed `.env` alone is a reason to restart."""
    from dataclasses import replace as change

    if work.service.runtime is None:
        return work
    return change(work, start_with=replace(work.start_with, environment=environment_print(work, tools)))


def outputs_key(work: ServiceWork, sha: str, tree: str, marks: tuple[str, ...], config: Config, tools: Tools) -> str | None:
    """Key of the build outputs for that tree; None when the service builds nothing."""
    build = work.service.build
    if build is None and work.service.runtime in IMAGES:
        return digest.images(work.service, tree, environment_print(work, tools), marks)
    if build is None:
        return None
    inherited: dict[str, bytes | None] = {}
    if work.target is not None:
        live = tools.site.targets.read_live
        inherited = {path: live(work.target, place_in_target(work, path)) for path in build.inherit}
    if build.run is None:
        marks += together.mark(config, work.name, tools.site.git.listing(sha))
    return digest.outputs(work.service, tree, inherited, marks)


def with_goal(work: ServiceWork, sha: str, tree: str | None, config: Config, tools: Tools, *,
              outputs: str | None = None, then: str | None = None) -> ServiceWork:  # fmt: skip
    """The service as it is to be at that commit, and what it must be started with. `then`: the key that it had in the
    deploy which a rollback goes back to."""
    files, marks = files_print(work, sha, config, tools)
    key = outputs or _lasting(then or work.record.outputs, outputs_key(work, sha, files or sha, marks, config, tools))
    goal = ServiceState(sha=sha, tree=tree, outputs=key)
    start = StartedWith(tree=files, outputs=key, environment=environment_print(work, tools), marks=marks)
    from dataclasses import replace as change

    return change(work, goal=goal, start_with=start)


FRESH = "-fresh-"
"""Between a key and the deploy that built the same files anew without the engine's cache: what was kept under the key
itself stays for a rollback."""


def with_own_key(work: ServiceWork, deploy: str) -> ServiceWork:
    """The service with a key that no deploy before has used."""
    from dataclasses import replace as change

    if work.goal.outputs is None:
        return work
    key = work.goal.outputs.partition(FRESH)[0] + FRESH + deploy
    return change(work, goal=replace(work.goal, outputs=key), start_with=replace(work.start_with, outputs=key))


def _lasting(now: str | None, key: str | None) -> str | None:
    """What runs now (or ran then), when it was built anew from just these files; else the key itself."""
    return now if now is not None and now.partition(FRESH)[0] == key else key


def unit_of(work: ServiceWork, tools: Tools, sha: str | None, deploy: str) -> Unit:
    """The service as its runtime needs it: its own environment and nothing of the caller's."""
    from homeport.model.envfile import parse

    service = work.service
    env: dict[str, str] = {}
    raw = env_file_of(work, tools)
    if raw is not None:
        env.update(parse(raw.decode("utf-8", "replace")))
    env.update(service.env)
    env.update(standard_environment(tools, sha, deploy))
    folder = work.target.path if work.target is not None else "/"
    below = folder_of(service) if work.target is not None and work.target.name == PROJECT else ""
    base = f"{folder}/{below}" if below else folder
    return Unit(
        service=work.name, name=service.unit or work.name, target=folder if work.target else None,
        command=service.command, cwd=f"{base}/{service.cwd}" if service.cwd else base, env=env,
        user=service.user, home=service.home, path=tuple(service.path), signal=service.signal,
        stop_timeout=float(service.stop_timeout), on_change=work.on_change or service.on_change, image=work.goal.outputs,
        image_before=work.record.outputs or f"found-{deploy}", listen=_addresses(service),
        handoff=service.handoff, replicas=service.replicas, ready=service.ready, drain=float(service.drain),
    )  # fmt: skip


def _addresses(service: Service) -> tuple[str, ...]:
    return (service.listen,) if isinstance(service.listen, str) else tuple(service.listen or ())


def standard_environment(tools: Tools, sha: str | None, deploy: str) -> dict[str, str]:
    """The variables every command and service gets (DESIGN section 5)."""
    return {
        "HOMEPORT_SHA": sha or "",
        "HOMEPORT_BRANCH": tools.site.env.branch,
        "HOMEPORT_ENVIRONMENT": tools.site.environment,
        "HOMEPORT_DEPLOY": deploy,
    }


def target_of(work: Work, service: ServiceWork) -> TargetWork | None:
    return work.targets.get(service.target.name) if service.target is not None else None
