"""A try that comes over ssh: what the host asks for, and what came already."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.git import Mirror
from homeport.doors.senttree import SentTree
from homeport.doors.shell import LocalShell
from homeport.doors.workingtree import Checkout
from homeport.model.edits import Person
from homeport.model.errors import InfrastructureFault
from homeport.model.trying import Snapshot
from tests.test_workingtree import checkout, git, nobodys_settings

__all__ = ["checkout", "nobodys_settings"]
ADA = Person(name="Ada Example", email="ada@example.com")


class Host:
    """Asks a checkout as if it were far away."""

    def __init__(self, folder: Path, mirror: Mirror, along: object) -> None:
        """`along`: what comes with the answer as the pack; None: whatever it is."""
        self.asked: list[str] = []
        self.near, self.mirror, self.along = Checkout(str(folder), LocalShell()), mirror, along
        self.tree = SentTree(self.ask, LocalShell())

    def ask(self, what: str, given: Any) -> Any:
        self.asked.append(what)
        if what == "pack":
            return self.text(given["commit"], given["have"])
        taken = self.near.take(ADA, given["message"], lambda _: False)
        pack = self.text(taken.sha, [taken.base]) if self.along is None else self.along
        return {"sha": taken.sha, "base": taken.base, "nested": [], "pack": pack}

    def text(self, commit: str, have: list[str]) -> str:
        return base64.b64encode(Path(self.near.packed(commit, have)).read_bytes()).decode()

    def brought(self, have: list[str] | None = None) -> Snapshot:
        taken = self.tree.take(ADA, "try\n", lambda _: False)
        self.tree.pack(taken.sha, have or [taken.base], self.mirror.path)
        return taken


@pytest.fixture
def mirror(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    made = Mirror.open_or_create(str(tmp_path_factory.mktemp("host") / "repo.git"), str(checkout), LocalShell())
    made.fetch()
    (checkout / "a.txt").write_text("tried\n")
    return made


def test_what_came_with_the_answer_is_not_asked_for_again(checkout: Path, mirror: Mirror) -> None:
    host = Host(checkout, mirror, along=None)
    assert mirror.file_at(host.brought().sha, "a.txt") == b"tried\n" and host.asked == ["take"]
    (checkout / "a.txt").write_text("again\n")
    assert mirror.file_at(host.brought().sha, "a.txt") == b"again\n"
    host.near.close()


def test_a_host_that_has_other_commits_asks_for_a_pack_on_these(checkout: Path, mirror: Mirror) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    git(checkout, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qam", "not pushed")
    (checkout / "a.txt").write_text("tried on that\n")
    host = Host(checkout, mirror, along=None)
    assert mirror.file_at(host.brought([first]).sha, "a.txt") == b"tried on that\n"
    assert host.asked == ["take", "pack"]
    host.near.close()


@pytest.mark.parametrize("along", ["no pack", "bm8gcGFjaw==", 7, {"a": 1}])
def test_what_came_is_checked_as_what_was_asked_for(checkout: Path, mirror: Mirror, along: object) -> None:
    host = Host(checkout, mirror, along=along)
    with pytest.raises(InfrastructureFault):
        host.brought()
    host.near.close()
