"""A deployed world whose origin is hosted on a fake forge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.forges.fakes import TOKEN, GiteaFake, GitHubFake, GitLabFake, Pulls
from tests.forges.server import serving
from tests.scenarios.test_adopt import FILES, SITE, branches
from tests.world import Ran, World

FAKES: dict[str, type[Pulls]] = {"github": GitHubFake, "gitea": GiteaFake, "gitlab": GitLabFake}
FORGE = """
[forge]
kind = "{kind}"
url = "{url}"
repo = "octo/shop"
token = { env = "SHOP_FORGE" }
"""


class Forged:
    """A world whose origin is hosted on a fake forge: requests carry real commits, a merge is a real squash."""

    def __init__(self, world: World, fake: Pulls) -> None:
        self.world, self.fake = world, fake
        plain_add, plain_merge = fake.add_pull, fake.merge_now

        def add_pull(head: str = "", base: str = "main", **_: Any) -> int:
            fake.branches |= set(branches(world))
            return plain_add(head, base, world.git("rev-parse", head, cwd=world.origin))

        def merge_now(number: str, sha: str | None) -> int:
            status = plain_merge(number, sha)
            if status == 200:
                world.git("fetch", "-q", "origin")
                done = world.git("commit-tree", f"{sha}^{{tree}}", "-p", "origin/main", "-m", "squashed")
                world.git("push", "-q", "origin", f"{done}:refs/heads/main")
            return status

        fake.add_pull, fake.merge_now = add_pull, merge_now  # type: ignore[method-assign]
        fake.branches = _Branches(world)

    def run(self, *args: str, ok: tuple[int, ...] = (0,)) -> Ran:
        return self.world.homeport("--json", *args, ok=ok, env={"SHOP_FORGE": TOKEN})


class _Branches(set):  # type: ignore[type-arg]
    """The branches of the real origin."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __contains__(self, name: object) -> bool:
        return name in branches(self.world)

    def discard(self, name: str) -> None:
        self.world.git("push", "-q", "origin", "--delete", name)


def on_forge(world: World, fake: Pulls) -> Iterator[Forged]:
    """A deployed world with that forge, and an edit on its host."""
    with serving(fake):
        forge = FORGE.replace("{kind}", fake.kind).replace("{url}", fake.url)
        world.project(SITE + forge, FILES)
        made = Forged(world, fake)
        made.run("deploy")
        (world.live / "site/other.txt").write_text("by hand\n")
        yield made
    assert not fake.wrong
