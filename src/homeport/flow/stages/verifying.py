"""Health: every condition must hold, over new connections, for its stable time (promise P6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from msgspec import UNSET

from homeport.flow.goals import standard_environment, unit_of
from homeport.flow.images import runtime_of
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.abreast import side_by_side
from homeport.model.config import Check
from homeport.model.errors import Cancelled, Failed, InfrastructureFault
from homeport.model.events import CheckEvent
from homeport.model.running import Container, ImageRuntime, Probe, Unit, UnitState


def verify_services(work: Work, tools: Tools) -> Work:
    """Checks of the services that were touched, and the environment's own. Raises Failed for a required one."""
    touched = [s for s in work.services.values() if s.affected]
    if not touched:
        return work
    asked: list[tuple[Check, ServiceWork | None]] = [(c, s) for s in touched for c in s.service.checks]
    asked += [(c, None) for c in work.config.environments[tools.site.environment].checks]
    if not asked:
        return work
    answers = side_by_side([partial(_until, check, service, work, tools) for check, service in asked], 16)
    failed = [found for answer in answers if (found := answer.result())]
    if failed:
        said, unasked = zip(*failed, strict=True)
        kind = InfrastructureFault if all(unasked) else Failed
        raise kind("; ".join(said), where="verify", next=f"homeport logs {work.deploy.id}", code="unhealthy")
    return work


def _until(check: Check, service: ServiceWork | None, work: Work, tools: Tools) -> tuple[str, bool] | None:
    """Tries until the condition has held for its stable time, or its time is over; the text of a required failure, and
    whether it is only the machine's."""
    clock, began = tools.site.clock, tools.site.clock.monotonic()
    stable = (2.0 if check.process else 0.0) if check.stable is UNSET else float(check.stable or 0)
    once = _probing(check, service, work, tools)
    held_since: float | None = None
    while True:
        if tools.site.store.cancel_asked(work.deploy.id) and not (work.deploy.stage or "").startswith("rollback"):
            raise Cancelled("cancelled while verifying", code="cancelled")
        probe = once()
        now = clock.monotonic()
        held_since = (held_since if held_since is not None else now) if probe.ok else None
        if held_since is not None and now - held_since >= stable:
            break
        if held_since is None and now - began >= float(check.within):
            break
        if now - began >= float(check.within) + stable + 2 * float(check.timeout):
            probe = Probe(ok=False, detail=probe.detail or "did not stay healthy", unasked=probe.unasked)
            break
        clock.sleep(float(check.every))
    name = label(check)
    took = int((clock.monotonic() - began) * 1000)
    tools.journal.write(CheckEvent(
        deploy_id=work.deploy.id, at=clock.now(), check=name, ok=probe.ok, detail=probe.detail, duration_ms=took,
        service=service.name if service else None, required=check.required,
    ))  # fmt: skip
    whose = f"{service.name}: " if service else ""
    return (f"{whose}{probe.detail or name}", probe.unasked) if not probe.ok and check.required else None


def _probing(check: Check, service: ServiceWork | None, work: Work, tools: Tools) -> Callable[[], Probe]:
    env: Mapping[str, str] = standard_environment(tools, work.sha, work.deploy.id)
    state: Callable[[], UnitState] | None = None
    cwd, user, sha = "/", None, work.sha or ""
    if service is not None:
        unit = unit_of(service, tools, service.goal.sha, work.deploy.id)
        cwd, user, env, sha = unit.cwd, unit.user, unit.env, service.goal.sha or sha
        runtime = tools.runtimes.get(service.service.runtime or "")
        if runtime is not None and (check.process or check.containers is not None):
            inspect, first = runtime.inspect, runtime.inspect(unit)
            state = _steady(lambda: inspect(unit), first)
    elif check.containers is not None:
        state = _all_containers(work, tools)
    full = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": cwd, **env}

    def once() -> Probe:
        if service is None or (check.command is None and check.version is None):
            return tools.prober.once(check, sha=sha, cwd=cwd, env=full, user=user, state=state)
        with tools.site.builds.reached(cwd, service.target) as there:
            return tools.prober.once(check, sha=sha, cwd=cwd, env=full, user=user, state=state, reached=there)

    return once


def _all_containers(work: Work, tools: Tools) -> Callable[[], UnitState] | None:
    """Of every Compose project that the services of this environment belong to."""
    own = [s for s in work.services.values() if runtime_of(s, tools) is not None]
    units: dict[str, list[Unit]] = {}
    for each in own:
        units.setdefault(each.service.runtime or "", []).append(unit_of(each, tools, each.goal.sha, work.deploy.id))

    def state() -> UnitState:
        found: dict[str, Container] = {}
        for name, those in units.items():
            runtime = tools.runtimes[name]
            assert isinstance(runtime, ImageRuntime)
            found.update({c.id: c for c in runtime.containers(those)})
        return UnitState(state="running" if found else "missing", containers=tuple(found.values()))

    return state if units else None


def _steady(look: Callable[[], UnitState], first: UnitState) -> Callable[[], UnitState]:
    """A process that restarted since the last look is not running: it is restarting."""
    from msgspec.structs import replace

    seen = {"restarts": first.restarts, "pid": first.pid}

    def state() -> UnitState:
        now = look()
        changed = now.state == "running" and (now.restarts, now.pid) != (seen["restarts"], seen["pid"])
        seen.update(restarts=now.restarts, pid=now.pid)
        return replace(now, state="restarting", detail="restarted by itself") if changed else now

    return state


def label(check: Check) -> str:
    """The name of a check for a person."""
    if check.name:
        return check.name
    for kind in ("http", "tcp", "command", "version"):
        value = getattr(check, kind)
        if value is not None:
            return f"{kind} {value if isinstance(value, str) else ' '.join(value)}"
    if check.containers is not None:
        return "containers" + ("" if isinstance(check.containers, int) else f" {' '.join(check.containers)}")
    return "process" if check.process else "check"
