"""The application: every route with its right, and what they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast, get_args

from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from homeport.daemon import answers, bodies, deploying, events, hooks, looking, metrics
from homeport.daemon.access import Patience, check_right
from homeport.daemon.describing import Document
from homeport.daemon.guards import ASGIApp, Guards
from homeport.daemon.hooks import Accepted
from homeport.daemon.served import Served
from homeport.daemon.timer import Timer
from homeport.daemon.waiting import Outcomes
from homeport.daemon.watching import Watcher
from homeport.model.errors import HomeportError
from homeport.model.forge import Kind


def make(served: Served, accepted: Accepted = tuple, names: Iterable[str] = ()) -> tuple[Litestar, Guards]:
    """(the application, the same behind its guards): what is served is the second.

    `accepted` tells at each delivery which webhooks have a secret. `names` are further hosts.
    """
    tails = events.Tails(served)
    watchers = {environment.key: Watcher(served, environment) for environment in served}
    state = State({
        "served": served, "outcomes": Outcomes(served), "tails": tails, "patience": Patience(), "hooks": accepted,
        "timers": {one.key: Timer(served, one) for one in served},
        "watchers": watchers, "registry": metrics.registry_of(served, tails, watchers),
    })  # fmt: skip
    api = Router("/api/v1", route_handlers=[*deploying.ROUTES, *looking.ROUTES, events.events])
    app = Litestar(
        [api, looking.healthz, metrics.metrics, *(route for kind in get_args(Kind) for route in hooks.routes(kind))],
        state=state, guards=[check_right], request_class=bodies.StrictRequest, on_app_init=[_without_own_log],
        openapi_config=_schema(), debug=False,
        exception_handlers={HomeportError: answers.of_homeport, HTTPException: answers.of_http,
                            Exception: answers.of_anything},
    )  # fmt: skip
    return app, Guards(cast("ASGIApp", app), names)


def _schema() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="homeport", version="1",
        description="What is deployed, and asking for more. Every error has code, what, where and next.",
        openapi_router=Router("/api/v1/schema", route_handlers=[], opt={"right": "read"}),
        render_plugins=[Document(path="/", media_type="application/json")], use_handler_docstrings=True,  # type: ignore[arg-type]
    )  # fmt: skip


def _without_own_log(config: AppConfig) -> AppConfig:
    config.logging_config = None
    return config


def rights(app: Litestar) -> dict[tuple[str, str], Any]:
    """Every route and method with the right that it declares (None: it declares none)."""
    found: dict[tuple[str, str], Any] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or [route.route_handler]:  # type: ignore[union-attr]
            for method in getattr(handler, "http_methods", {"WS"}):
                found[str(method), route.path] = handler.opt.get("right")
    return found
