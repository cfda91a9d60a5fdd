"""Each forge with its client, and a clock that only tests move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from homeport.doors.forges.gitea import Gitea
from homeport.doors.forges.github import GitHub
from homeport.doors.forges.gitlab import GitLab
from homeport.doors.forges.http import Timing
from homeport.model.forge import Forge

from .fakes import TOKEN, GiteaFake, GitHubFake, GitLabFake, Pulls
from .server import serving


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def timing(self) -> Timing:
        return Timing(now=self.now, monotonic=self.now, sleep=self.sleep)


class Memory:
    """Satisfies `Cache`."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def cached(self, key: str) -> str | None:
        return self.held.get(key)

    def cache(self, key: str, value: str) -> None:
        self.held[key] = value


class World:
    """A fake forge, its clock, a cache, and clients for it."""

    def __init__(self, fake: Any) -> None:
        self.fake, self.clock, self.memory = fake, Clock(), Memory()
        self.clients: list[Forge] = []

    def client(self) -> Forge:
        self.clients.append(self._client())
        return self.clients[-1]

    def _client(self) -> Forge:
        web, timing = self.fake.url, self.clock.timing
        if self.fake.kind == "github":
            return GitHub("octo/shop", TOKEN, self.memory, web=web, timing=timing)
        if self.fake.kind == "gitea":
            return Gitea("octo/shop", TOKEN, self.memory, web=web, timing=timing)
        return GitLab("octo/shop", TOKEN, self.memory, web=web, timing=timing)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes are on the loopback; no proxy of this machine may come between."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _world(fake: Pulls) -> Iterator[World]:
    with serving(fake):
        world = World(fake)
        yield world
        for client in world.clients:
            client.close()
    assert not fake.wrong


@pytest.fixture(params=[GitHubFake, GiteaFake, GitLabFake], ids=["github", "gitea", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield from _world(request.param())


@pytest.fixture
def github() -> Iterator[World]:
    yield from _world(GitHubFake())


@pytest.fixture
def gitea() -> Iterator[World]:
    yield from _world(GiteaFake())


@pytest.fixture
def gitlab() -> Iterator[World]:
    yield from _world(GitLabFake())
