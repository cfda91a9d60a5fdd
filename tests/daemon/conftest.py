"""The application in this process, with a real environment behind it; and a client for the real daemon's socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from homeport.daemon.app import make
from homeport.daemon.hooks import Hook
from homeport.daemon.served import Environment, Served
from homeport.flow import tokens
from homeport.flow.site import Site
from homeport.model.forge import Kind
from homeport.model.tokens import EVERY_RIGHT
from homeport.wiring import open_site, site_from_state, state_root
from tests.world import World

SERVICES = """
[services.api]
source = "api"
target = "{live}/api"

[services.web]
source = "web"
target = "{live}/web"

[scopes.platform]
services = ["api"]
"""
FILES: dict[str, str | None] = {"api/a.txt": "one\n", "web/w.txt": "one\n"}
SECRETS = [b"It's a Secret to Everybody", b"the one that comes next"]


@dataclass
class App:
    """The application as the daemon serves it, asked in this process on one event loop."""

    site: Site
    kinds: tuple[Kind, ...] = ()
    """The forges whose deliveries are taken."""

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        served = Served([Environment(site=self.site)])
        self.environment = next(iter(served))
        accepted = [Hook(environment=self.environment, kind=kind, secrets=SECRETS, repository="octo/shop")
                    for kind in self.kinds]  # fmt: skip
        self.app, self.guarded = make(served, lambda: accepted, ["deploy.example.com"])
        self.timer = self.app.state.timers[self.environment.key]

    def close(self) -> None:
        self.app.state.served.close()
        self.loop.close()

    def token(self, name: str, *rights: str, kind: str = "agent") -> str:
        return tokens.create(self.site, name, rights, kind, "ann")[0]  # type: ignore[arg-type]

    def ask(self, method: str, path: str, *, token: str | None = None, peer: str = "front", headers: Any = (),
            **more: Any) -> httpx.Response:  # fmt: skip
        """One request; `peer` is who the kernel said it is: `front` or `uid:0`."""
        shown = [("authorization", f"Bearer {token}")] if token is not None else []

        async def one() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.guarded, client=(peer, 0), raise_app_exceptions=False)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, headers=[*shown, *headers], **more)

        return self.loop.run_until_complete(one())

    def own(self, method: str, path: str, **more: Any) -> httpx.Response:
        """As a peer of the daemon's own socket."""
        return self.ask(method, path, peer="uid:0", **more)

    def pushed(self) -> bool:
        """Whether a push came in since the last question."""
        was = bool(self.timer._pushed.is_set())
        self.timer._pushed.clear()
        return was


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A project that is known on this host, never deployed."""
    world = World(tmp_path_factory.mktemp("shop"))
    world.project(SERVICES, FILES)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def site(shop: World) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "HOME", "HOMEPORT_STATE", "HOMEPORT_HOST_FILE", "PM2_HOME"):
            patch.setenv(name, shop.env[name])
        with open_site(str(shop.clone)) as opened:
            opened.git.fetch()
        with site_from_state(state_root(), "shop", "production") as found:
            yield found


@pytest.fixture(scope="module")
def app(site: Site) -> Iterator[App]:
    made = App(site)
    yield made
    made.close()


@pytest.fixture(scope="module")
def every(app: App) -> str:
    """A person's token with every right."""
    return app.token("every", *EVERY_RIGHT, kind="person")


def problem(answer: httpx.Response) -> str:
    """The code of an error, which always has the four fields."""
    said = json.loads(answer.content)
    assert set(said) == {"code", "what", "where", "next"}, said
    assert "Traceback" not in answer.text
    return str(said["code"])
