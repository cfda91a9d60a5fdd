"""Process entry of the daemon: `python -m homeport.daemon [--socket PATH] PROJECT ENVIRONMENT [...]`."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from typing import Any

import msgspec

from homeport.daemon import serving, sockets
from homeport.daemon.accepting import Accepting
from homeport.daemon.app import make
from homeport.daemon.hooks import Accepted
from homeport.daemon.served import Environment, Served
from homeport.daemon.timer import mind_queue
from homeport.flow.site import Site
from homeport.model.config import HostConfig
from homeport.model.errors import HomeportError, UsageFault

log = logging.getLogger("homeport.daemon")
DESCRIPTORS = 8192


def main(argv: list[str]) -> int:
    """0 after a signal; else the exit code of what was wrong."""
    os.umask(0o077)
    os.chdir("/")
    _room_for_callers()
    _log_lines()
    try:
        path, names = _arguments(argv)
        _serve(path, names)
    except HomeportError as fault:
        log.error("%s next: %s", fault, fault.next, extra={"told": {"code": fault.code}})  # noqa: TRY400
        return fault.exit_code
    return 0


def _room_for_callers() -> None:
    """A descriptor for each caller that waits, as far as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _arguments(argv: list[str]) -> tuple[str | None, list[tuple[str, str]]]:
    path = None
    if argv[:1] == ["--socket"]:
        path, argv = argv[1], argv[2:]
    if not argv or len(argv) % 2:
        raise UsageFault("which environments are to be served?", next="homeport serve", code="usage")
    return path, list(zip(argv[::2], argv[1::2], strict=True))


def _serve(path: str | None, names: list[tuple[str, str]]) -> None:
    from homeport.wiring import read_host, site_from_state, state_root
    from homeport.wiring_daemon import forge_repository, secret_of, socket_path

    host, root = read_host(), state_root()
    sites = [site_from_state(root, project, environment) for project, environment in names]
    try:
        served = Served([Environment(site=_fetched(site)) for site in sites])
        accepted = Accepting(served, secret_of, forge_repository)
        accepted.check()
        _listen(served, accepted, host, path or socket_path(root))
    finally:
        for site in sites:
            site.__exit__()


def _fetched(site: Site) -> Site:
    """With the branch in the mirror, so that the configuration is known; without, when the origin is silent."""
    try:
        if not site.git.has(f"refs/heads/{site.env.branch}"):
            site.git.fetch()
    except HomeportError as fault:
        log.warning("%s/%s starts without its origin: %s", site.project, site.environment, fault)
    return site


def _listen(served: Served, accepted: Accepted, host: HostConfig | None, path: str) -> None:
    given = sockets.handed_over(os.environ)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    own = next((one for one in given if one.family == socket.AF_UNIX), None)
    network = next((one for one in given if one.family != socket.AF_UNIX), None)
    claimed = sockets.Claimed(path) if own is None else None
    try:
        listening = own or claimed.socket  # type: ignore[union-attr]
        if network is None and host is not None and host.listen.address:
            network = sockets.listen_tcp(host.listen.address)
        asyncio.run(_run(served, accepted, host, listening, network, path))
    finally:
        if claimed is not None:
            claimed.release()


async def _run(served: Served, accepted: Accepted, host: HostConfig | None, own: socket.socket,
               network: socket.socket | None, path: str) -> None:  # fmt: skip
    from homeport.daemon import fronting

    front, ask_at = sockets.between() if network is not None else (None, "")
    user = host.listen.user if host is not None else None
    app, guarded = make(served, accepted, fronting.names_of(host, network))
    welcome = serving.peers(own, front, {os.geteuid(), 0}, fronting.uids_of(user))

    def stopping() -> None:
        sockets.tell_systemd("STOPPING=1")
        app.state.outcomes.stopping.set()
        guarded.stop()

    def ready() -> None:
        sockets.tell_systemd("READY=1\nSTATUS=serving")
        log.info("serving", extra={"told": {"environments": ["/".join(one.key) for one in served], "pid": os.getpid(),
                                            "socket": path}})  # fmt: skip

    server = serving.Server(serving.config_for(guarded, welcome), ready, stopping)
    serving.signal_safe(server)
    beside: list[asyncio.Task[Any]] = []
    for environment in served:
        beside.append(asyncio.create_task(app.state.timers[environment.key].run()))
        beside.append(asyncio.create_task(mind_queue(served, environment)))
        beside.append(asyncio.create_task(app.state.watchers[environment.key].run()))
    if network is not None:
        beside.append(asyncio.create_task(fronting.keep(network, ask_at, user)))
    await serving.run(server, [own, *([front] if front is not None else [])], beside)
    served.close()


class _JsonLines(logging.Formatter):
    """One JSON object a line, for journald and people with jq."""

    def format(self, record: logging.LogRecord) -> str:
        said = {"at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname.lower(),
                "message": record.getMessage(), **getattr(record, "told", {})}  # fmt: skip
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(_encodable(said)).decode()


def _encodable(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
            for key, value in said.items()}  # fmt: skip


def _log_lines() -> None:
    """uvicorn takes a WebSocket that was refused with an answer for one that was forgotten: that is not told."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing handshake" not in record.getMessage())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
