"""`/metrics` for Prometheus: counts and times, no names of commits or people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from litestar import Response, get
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from homeport.daemon.deploying import Ask
from homeport.daemon.events import Tails
from homeport.daemon.served import Environment, Served
from homeport.daemon.watching import Watcher


class Figures:
    """What is read from each environment's database when somebody asks."""

    def __init__(self, served: Served, tails: Tails, watchers: Mapping[tuple[str, str], Watcher]) -> None:
        self._served, self._tails, self._watchers = served, tails, watchers

    def collect(self) -> Iterator[Metric]:
        labels = ["project", "environment"]
        ended = CounterMetricFamily("homeport_deploys", "Deploys that ended, by status", labels=[*labels, "status"])
        gauges = {
            "running": "Deploys that run", "waiting": "Deploys that wait", "holds": "Holds in force",
            "blocked": "Commits that are blocked", "edits": "Edits that are not settled",
            "last_success_seconds": "When the newest good deploy ended, Unix time",
            "last_duration_seconds": "How long the newest deploy took",
            "watched_folders": "Folders in which hand edits are seen as they are made",
            "unwatched_targets": "Live folders that cannot be watched now",
        }  # fmt: skip
        families = {name: GaugeMetricFamily(f"homeport_{name}", text, labels=labels) for name, text in gauges.items()}
        for environment in self._served:
            key = list(environment.key)
            for status, number in environment.site.store.outcomes().items():
                ended.add_metric([*key, status], number)
            watcher = self._watchers[environment.key]
            watched = {"watched_folders": float(watcher.folders), "unwatched_targets": float(watcher.unwatched)}
            for name, value in {**_gauges(environment), **watched}.items():
                families[name].add_metric(key, value)
        yield ended
        yield from families.values()
        clients = GaugeMetricFamily("homeport_event_clients", "WebSocket clients that listen")
        clients.add_metric([], self._tails.clients)
        yield clients


def _gauges(environment: Environment) -> dict[str, float]:
    store = environment.site.store
    last = store.history(50)
    good = next((row for row in last if row.status in ("deployed", "unchanged") and row.ended_at), None)
    done = next((row for row in last if row.duration_ms is not None), None)
    found = {
        "running": float(store.running() is not None), "waiting": float(store.waiting() is not None),
        "holds": float(len(store.holds())), "blocked": float(len(store.blocks())),
        "edits": float(len(environment.site.edits.living())),
    }  # fmt: skip
    if good is not None and good.ended_at:
        found["last_success_seconds"] = datetime.fromisoformat(good.ended_at).timestamp()
    if done is not None and done.duration_ms is not None:
        found["last_duration_seconds"] = done.duration_ms / 1000
    return found


@get("/metrics", opt={"right": "read"}, media_type="text/plain", summary="Figures for Prometheus")
async def metrics(request: Ask) -> Response[bytes]:
    served, registry = request.app.state.served, request.app.state.registry
    text: bytes = await served.quickly(generate_latest, registry)
    return Response(text, media_type="text/plain; version=0.0.4")


def registry_of(served: Served, tails: Tails, watchers: Mapping[tuple[str, str], Watcher]) -> Any:
    """A registry of this application's own, the process's figures with it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Figures(served, tails, watchers))
    return registry
