"""What Swarm tells of services and tasks, and the document that a stack is deployed from. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

NAMESPACE = "com.docker.stack.namespace"
OVER = ("failed", "rejected", "orphaned")


class SwarmService(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    """As its file calls it, without the stack's."""
    image: str
    replicas: int | None
    """None: one on each node."""
    template: dict[str, Any]
    """What its tasks are made from."""
    mounts: tuple[str, ...]
    updating: str
    """State of the newest update; empty when there was none."""
    told: str


class Task(Struct, frozen=True, kw_only=True):
    id: str
    service_id: str
    slot: int
    state: str
    wanted: bool
    """It is to run; false for those that were replaced."""
    template: dict[str, Any]
    image: str
    error: str
    pid: int | None
    container: str
    at: str

    @property
    def over(self) -> bool:
        return self.state in OVER


def service_row(row: Mapping[str, Any], stack: str) -> SwarmService:
    spec, update = row["Spec"], row.get("UpdateStatus") or {}
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    replicated = (spec.get("Mode") or {}).get("Replicated")
    return SwarmService(
        id=row["ID"], name=spec["Name"].removeprefix(f"{stack}_"), image=container["Image"], template=_template(template),
        replicas=None if replicated is None else replicated.get("Replicas", 1),
        mounts=tuple(m.get("Source", "") for m in container.get("Mounts") or () if m.get("Type") == "bind"),
        updating=update.get("State") or "", told=update.get("Message") or "",
    )  # fmt: skip


def task_row(row: Mapping[str, Any]) -> Task:
    status = row["Status"]
    runs = status.get("ContainerStatus") or {}
    return Task(
        id=row["ID"], service_id=row["ServiceID"], slot=row.get("Slot") or 0, state=status["State"],
        wanted=row["DesiredState"] == "running", template=_template(row["Spec"]),
        image=row["Spec"]["ContainerSpec"]["Image"], pid=runs.get("PID") or None, container=runs.get("ContainerID") or "",
        error=status.get("Err") or status.get("Message") or "", at=status.get("Timestamp") or "",
    )  # fmt: skip


def _template(said: Mapping[str, Any]) -> dict[str, Any]:
    """The part that makes Swarm replace a task when it changes, without the defaults that only a service is shown with."""
    container = {key: value for key, value in said["ContainerSpec"].items() if key != "StopGracePeriod"}
    return {"container": _said(container), "force": said.get("ForceUpdate") or 0}


def _said(value: Any) -> Any:
    """Without what is empty."""
    if isinstance(value, dict):
        return {key: kept for key, each in value.items() if (kept := _said(each)) not in (None, False, "", [], {})}
    return [_said(each) for each in value] if isinstance(value, list) else value


def converged(service: SwarmService, tasks: Sequence[Task]) -> bool:
    """Every task that is to run does, is made from what the service says now, and no update goes on."""
    wanted = [task for task in tasks if task.service_id == service.id and task.wanted]
    enough = len(wanted) == service.replicas if service.replicas is not None else bool(wanted)
    new = all(task.state == "running" and task.template == service.template for task in wanted)
    return enough and new and service.updating in ("", "completed")


def document(config: Mapping[str, Any], chosen: Sequence[str], images: Mapping[str, str]) -> dict[str, Any]:
    """What `docker stack deploy` gets: the chosen services (none: all) with the images that they are to run. Services
    that it does not name are left alone."""
    services = {}
    for name, said in config["services"].items():
        if not chosen or name in chosen:
            services[name] = {key: value for key, value in said.items() if key != "build"} | {"image": images.get(name)}
    return {**config, "services": services}


def one_off(config: Mapping[str, Any], name: str) -> list[str]:
    """The words that let a single container see what a task of the service sees of this machine."""
    said = config["services"][name]
    words: list[str] = []
    if any(((config.get("networks") or {}).get(net) or {}).get("name") == "host" for net in said.get("networks") or {}):
        words += ["--network", "host"]
    for key, value in (said.get("environment") or {}).items():
        words += ["--env", key if value is None else f"{key}={value}"]
    for volume in said.get("volumes") or ():
        if isinstance(volume, dict) and volume.get("type") == "bind":
            words += ["--volume", f"{volume['source']}:{volume['target']}" + (":ro" if volume.get("read_only") else "")]
    for used in said.get("configs") or ():
        file = ((config.get("configs") or {}).get(used.get("source")) or {}).get("file")
        if file:
            words += ["--volume", f"{file}:{used.get('target') or '/' + used['source']}:ro"]
    return words
