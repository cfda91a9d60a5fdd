"""A folder on the way to a file is swapped for a link, again and again, while homeport writes: never a byte elsewhere.

A thread exchanges the folder and the link as fast as it can (`RENAME_EXCHANGE`); the folder that the link leads to must
stay as it is in every byte, mode, owner and time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from homeport.doors.beside import EXCHANGE, rename
from homeport.doors.clock import SystemClock
from homeport.doors.hostfiles import HostFileDoor
from homeport.doors.shell import LocalShell
from homeport.model.errors import HomeportError
from homeport.model.live import Target
from homeport.model.ports import Job
from homeport.wiring_later import builds as build_folders
from tests.targets.conftest import Host

FILES = {"a.txt", "sub/b.txt", "sub/deep/c.txt", "sub/in-place.txt"}
pytestmark = pytest.mark.timeout(3600)

ROUNDS, SOAK = 2, 1000


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """What lies below a folder, to the last byte, and when it was changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        seen = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_ino, seen.st_nlink, seen.st_ctime_ns, content)
    return found


class Swapper:
    """Exchanges a folder and a link to another one; `at_work` while it does, and the folder is back afterwards."""

    def __init__(self, folder: Path, link: Path) -> None:
        self.folder, self.link, self.swaps = folder, link, 0
        self._stop = threading.Event()

    def _swap(self) -> None:
        rename(-100, os.fsencode(self.folder), -100, os.fsencode(self.link), EXCHANGE)
        self.swaps += 1

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._swap()
            self._swap()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._stop.clear()
        worker = threading.Thread(target=self._loop)
        worker.start()
        try:
            yield
        finally:
            self._stop.set()
            worker.join()


@pytest.fixture
def decoy(tmp_path: Path) -> Path:
    """A folder that looks like the live one, and is none of homeport's business."""
    folder = tmp_path / "decoy"
    for name in FILES:
        path = folder / "api" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not yours\n")
    return folder


def acts(host: Host, number: int) -> dict[str, Callable[[], object]]:
    """Each way of writing, made ready while nothing moves: what is left is the writing itself."""
    comes, goes = ("sub/odd.txt", "sub/even.txt") if number % 2 else ("sub/even.txt", "sub/odd.txt")
    sha = host.commit({**dict.fromkeys(FILES, f"version {number}\n"), comes: "x", goes: None})
    plan = host.plan(sha)
    assert not plan.conflicts and not plan.drift, plan

    def discard() -> None:
        host.targets.discard(host.target, host.scan().differences, None)

    def restore() -> None:
        for saved in host.box.listing()[:3]:
            host.targets.restore(host.target, saved)

    return {"deploy": lambda: host.carry_out(plan, sha), "whole deploy": lambda: host.deploy(sha, "discard"),
            "discard": discard, "restore": restore}  # fmt: skip


@pytest.mark.parametrize("above", [True, False], ids=["above the live folder", "within the live folder"])
def test_a_folder_that_is_swapped_for_a_link_while_homeport_writes_lets_no_byte_out(
    host: Host, decoy: Path, above: bool, request: pytest.FixtureRequest
) -> None:
    host.target = host.make_target(in_place=("sub/in-place.txt",))
    host.put({**dict.fromkeys(FILES, "version 0\n"), "sub/even.txt": "x"})
    link = host.root / "away"
    link.symlink_to(decoy if above else decoy / "api/sub")
    swapper = Swapper(host.live.parent if above else host.live / "sub", link)
    before = everything(decoy)
    ended: dict[str, list[bool]] = {}
    soak = bool(request.config.getoption("--soak"))
    for number in range(1, 1 + (SOAK if soak else ROUNDS)):
        for name, act in acts(host, number).items():
            if name == "discard":
                for path in ("a.txt", "sub/b.txt", "sub/deep/c.txt"):
                    host.write(path, f"by hand {number}\n")
            with swapper.at_work():
                try:
                    act()
                    ended.setdefault(name, []).append(True)
                except HomeportError:
                    ended.setdefault(name, []).append(False)
            assert everything(decoy) == before, name
            host.targets.settle(host.target)
            host.deploy(host.mirror.tip("main"), "discard")
    assert swapper.swaps > 20
    assert not soak or not all(ended["deploy"] + ended["discard"]), "the swaps came in between"
    assert {p: t for p, t in host.files().items() if p in FILES} == dict.fromkeys(FILES, f"version {number}\n")
    assert not host.drift()


def test_a_command_starts_in_no_folder_that_was_swapped_for_a_link_within_the_live_one_or_on_the_way_to_a_host_file(
    host: Host, decoy: Path, request: pytest.FixtureRequest
) -> None:
    """As root; whoever else runs homeport is followed into what is its own."""
    host.target = host.make_target()
    host.put(dict.fromkeys(FILES, "version 0\n"))
    link = host.root / "away"
    link.symlink_to(decoy / "api/sub")
    builds = build_folders(host.mirror, LocalShell(), SystemClock(), host.store)
    files, ended = HostFileDoor(str(host.root / "hostfiles")), list[bool]()
    swapper, before = Swapper(host.live / "sub", link), everything(decoy)

    def command(held: AbstractContextManager[str]) -> None:
        with held as there:
            job = Job(command=["sh", "-c", "pwd > where"], cwd=str(host.live / "sub"), reached=there, label="check",
                      env={"PATH": os.environ["PATH"]}, timeout=20)  # fmt: skip
            if LocalShell().job(job, lambda stream, line: None).code:
                raise OSError

    def starts() -> Iterator[AbstractContextManager[str]]:
        if os.geteuid() == 0:
            yield builds.reached(str(host.live / "sub"), host.target)
        yield files.reached(str(host.live / "sub/app.conf"))

    with swapper.at_work():
        for held in [one for _ in range(200 if request.config.getoption("--soak") else 8) for one in starts()]:
            try:
                command(held)
                ended.append(True)
            except (HomeportError, OSError):
                ended.append(False)
    assert everything(decoy) == before
    for held in starts():
        command(held)
        (host.live / "sub/where").unlink()
    assert not request.config.getoption("--soak") or {*ended} == {True, False}, "the swaps came in between"


def ready_to_be_hit(decoy: Path) -> None:
    """What a build and an exchange would write to, move or remove if they came here; a name leads out of it."""
    beside = decoy / ".homeport-api"
    for name in ("api/dist/page", ".homeport-api/build/a.txt", ".homeport-api/build/dist/page", ".homeport-api/build.tree",
                 ".homeport-api/outputs/victim/0/page", ".homeport-api/outputs/.new-1/0", "victim/page"):  # fmt: skip
        (decoy / name).parent.mkdir(parents=True, exist_ok=True)
        (decoy / name).write_text("not yours\n")
    (beside / "live.json").write_text('{"key": "../../victim", "outputs": ["dist"]}')
    for key in ("victim", *map(str, range(1, 1 + ROUNDS))):
        (beside / "outputs" / key).mkdir(exist_ok=True)
        about = '{"outputs": ["dist"], "bytes": 1, "at": "2020-01-01T00:00:00.000Z"}'
        (beside / "outputs" / key / "about.json").write_text(about)


def test_a_folder_above_that_is_swapped_for_a_link_while_homeport_builds_lets_no_byte_out(
    host: Host, decoy: Path, request: pytest.FixtureRequest
) -> None:
    host.target = host.make_target(outputs=("dist",))
    host.put(dict.fromkeys(FILES, "version 0\n"))
    ready_to_be_hit(decoy)
    link = host.root / "away"
    link.symlink_to(decoy)
    swapper, before = Swapper(host.live.parent, link), everything(decoy)
    builds = build_folders(host.mirror, LocalShell(), SystemClock(), host.store)
    made, ended = host.live.parent / ".homeport-api/build", list[bool]()

    def command(place: Path, live: Target | None, stands: bool) -> None:
        with builds.reached(str(place), live) as there:
            job = Job(command=["sh", "-c", "pwd > where"], cwd=str(place), reached=there, env={"PATH": os.environ["PATH"]},
                      label="build", timeout=20, stands_at=(str(made), str(host.live)) if stands else None)  # fmt: skip
            if LocalShell().job(job, lambda stream, line: None).code:
                raise OSError

    def disturbed(act: Callable[[], object], times: int = 20) -> None:
        """While the folder is swapped, as often as it takes; then once more in peace."""
        with swapper.at_work():
            for _ in range(times):
                try:
                    act()
                    ended.append(True)
                except (HomeportError, OSError):
                    ended.append(False)
        assert everything(decoy) == before
        act()

    for number in range(1, 1 + (50 if request.config.getoption("--soak") else ROUNDS)):
        sha = host.commit(dict.fromkeys(FILES, f"version {number}\n"))
        tree = host.mirror.tree_of(sha, "api") or ""
        disturbed(lambda: builds.prepare(host.target, tree, ["a.txt"], None))  # noqa: B023
        disturbed(lambda: builds.lend_history(str(made), sha, "api", "main", None))  # noqa: B023
        places = [(made, None, True), (made / "sub", None, False), (host.live / "sub", host.target, False)]
        for place, live, stands in places:
            disturbed(lambda: command(place, live, stands), 5)  # noqa: B023
            inside = stands and not LocalShell().cannot_stand()
            assert (place / "where").read_text() == f"{host.live if inside else place}\n"
            (place / "where").unlink()
        (made / "dist").mkdir(exist_ok=True)
        (made / "dist/page").write_text(f"page {number}\n")
        disturbed(lambda: builds.collect(host.target, str(number), ["dist"]))  # noqa: B023
        disturbed(lambda: builds.swap_in(host.target, str(number), None))  # noqa: B023
        disturbed(lambda: builds.prune(host.target, 2))
        assert (host.live / "dist/page").read_text() == f"page {number}\n"
        assert (made / "a.txt").read_text() == "version 0\n", "inherited from the live folder"
    assert swapper.swaps > 20
    assert True in ended
    assert not request.config.getoption("--soak") or False in ended, "the swaps came in between"
    assert len(builds.kept(host.target)) <= 2
