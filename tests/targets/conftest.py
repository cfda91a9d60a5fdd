"""One host without the command line: a real origin, mirror, database, rescues and live folder in a temporary folder."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeport.decide.drift import reconcile
from homeport.doors.clock import SystemClock
from homeport.doors.git import Mirror
from homeport.doors.live import LiveTargets
from homeport.doors.permits import Permits
from homeport.doors.rescues import RescueBox
from homeport.doors.shell import LocalShell
from homeport.doors.store import SqliteStore
from homeport.model.config import HostConfig
from homeport.model.errors import Refused
from homeport.model.live import Difference, Recorded, Scan, SyncPlan, SyncResult, Target
from homeport.model.patterns import Matcher, effective_protect
from tests.conftest import QUICK

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (ownership, mounts, devices)")

Content = bytes | str | None
EXECUTABLE, LINK = "100755", "120000"


@dataclass(frozen=True)
class Made:
    """A file of a commit that is not a plain one: its git mode and bytes (or, for a submodule, a commit id)."""

    mode: str
    content: bytes


def executable(text: str) -> Made:
    return Made(EXECUTABLE, text.encode())


def link(to: str) -> Made:
    return Made(LINK, os.fsencode(to))


def git_env() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1", **QUICK, "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.com"}  # fmt: skip


def git(folder: Path | str, *args: str, input: bytes | None = None) -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], env=git_env(), input=input, capture_output=True)
    assert done.returncode == 0, f"git {args}: {done.stderr.decode()}"
    return done.stdout.decode("utf-8", "surrogateescape").strip()


class Origin:
    """A bare repository whose commits are written without any working tree, so that any name and mode can be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree: dict[bytes, Made] = {}
        self.commits = 0
        git(path.parent, "init", "-q", "--bare", "-b", "main", str(path))

    def commit(self, files: Mapping[str | bytes, Content | Made], branch: str = "main", *, anew: bool = False) -> str:
        """Changes files (None deletes) on top of the last commit; `anew` starts another history (a force-push)."""
        for name, content in files.items():
            path = name if isinstance(name, bytes) else os.fsencode(name)
            if content is None:
                self.tree.pop(path)
            elif isinstance(content, Made):
                self.tree[path] = content
            else:
                self.tree[path] = Made("100644", content.encode() if isinstance(content, str) else content)
        self.commits += 1
        head = f"refs/heads/{branch}"
        onto = [] if anew else git(self.path, "for-each-ref", "--format=%(objectname)", head).split()
        out = [b"reset %s\n\n" % head.encode()] if anew else []
        out.append(b"commit %s\ncommitter Ada <ada@example.com> %d +0000\ndata 1\n.\n"
                   % (head.encode(), 1_700_000_000 + self.commits))  # fmt: skip
        out += [b"from %s\n" % parent.encode() for parent in onto]
        out.append(b"deleteall\n")
        for path, made in self.tree.items():
            quoted = b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
            if made.mode == "160000":
                out.append(b"M 160000 %s %s\n" % (made.content, quoted))
            else:
                out.append(b"M %s inline %s\ndata %d\n%s\n" % (made.mode.encode(), quoted, len(made.content), made.content))
        git(self.path, "fast-import", "--quiet", "--force", input=b"".join(out))
        return git(self.path, "rev-parse", head)


@dataclass
class Host:
    """What a test holds in its hands: commit, deploy, scan, and the live folder itself."""

    root: Path
    environment: str = "production"

    def __post_init__(self) -> None:
        self.origin = Origin(self.root / "origin.git")
        self.live = self.root / "srv" / "api"
        self.live.parent.mkdir()
        self.mirror = Mirror.open_or_create(str(self.root / "state/shop/repo.git"), str(self.origin.path), LocalShell())
        self.state = self.root / "state/shop" / self.environment
        self.store, self.box, self.targets = self.side(self.environment)
        self.target = self.make_target()
        self.deploys = 0

    def side(self, environment: str) -> tuple[SqliteStore, RescueBox, LiveTargets]:
        """The doors of one environment of this project; all share one mirror."""
        state = self.root / "state/shop" / environment
        state.mkdir(parents=True, mode=0o700, exist_ok=True)
        clock = SystemClock()
        store = SqliteStore(str(state / "homeport.db"), clock)
        box = RescueBox(self.mirror, store, clock)
        permits = Permits(HostConfig(name="host-1", environments=[environment], roots=[str(self.root)]))
        return store, box, LiveTargets(str(state), "shop", environment, self.mirror, store, box, clock, permits)

    def make_target(self, *, protect: tuple[str, ...] = (), unprotect: tuple[str, ...] = (), source: str = "api",
                    mutable: tuple[str, ...] = (), in_place: tuple[str, ...] = (), outputs: tuple[str, ...] = (),
                    owner: str | None = None, path: Path | None = None, name: str = "api") -> Target:  # fmt: skip
        return Target(name=name, path=str(path or self.live), source=source, mutable=mutable, in_place=in_place,
                      outputs=outputs, owner=owner, protect=effective_protect(protect, (), unprotect, outputs))  # fmt: skip

    # the repository

    def commit(self, files: Mapping[str | bytes, Content | Made], *, anew: bool = False) -> str:
        """Files below `api/`, committed to main and fetched; the commit's id. Names of bytes are taken as they are."""
        below = {b"api/" + (n if isinstance(n, bytes) else os.fsencode(n)): c for n, c in files.items()}
        return self.commit_at_root(below, anew=anew)

    def commit_at_root(self, files: Mapping[str | bytes, Content | Made], *, anew: bool = False) -> str:
        sha = self.origin.commit(files, anew=anew)
        self.mirror.fetch()
        return sha

    # the live folder, through homeport

    def meet(self) -> Recorded:
        return self.targets.meet(self.target, "main")

    def scan(self) -> Scan:
        return self.targets.scan(self.target, "main")

    def drift(self) -> dict[str, Difference]:
        return {d.path: d for d in self.scan().differences}

    def states(self) -> dict[str, str]:
        return {d.path: d.state for d in self.scan().differences}

    def plan(self, sha: str, on_drift: str = "refuse") -> SyncPlan:
        """As the deploy makes it: meet, look, compare."""
        recorded = self.meet()
        scan, wanted = self.scan(), self.targets.wanted(self.target, sha)
        obstacles = self.targets.obstacles(self.target, scan, wanted)
        in_place = Matcher(self.target.in_place) if self.target.in_place else None
        return reconcile(self.target.name, recorded.tree, wanted, self.mirror.changes(recorded.tree, wanted), scan,
                         obstacles, on_drift, in_place)  # type: ignore[arg-type]  # fmt: skip

    def carry_out(self, plan: SyncPlan, sha: str | None) -> SyncResult:
        self.deploys += 1
        return self.targets.sync(self.target, plan, f"d-{self.deploys}", sha)

    def deploy(self, sha: str, on_drift: str = "refuse") -> SyncResult:
        """Raises Refused (code `conflict` or `drift`) as the pipeline does."""
        plan = self.plan(sha, on_drift)
        for code, found in (("conflict", plan.conflicts), ("drift", plan.drift)):
            if found:
                raise Refused(", ".join(f"{d.path} ({d.oddity or d.state})" for d in found), code=code)
        return self.carry_out(plan, sha)

    def put(self, files: Mapping[str | bytes, Content | Made]) -> str:
        """Commits and deploys."""
        sha = self.commit(files)
        self.deploy(sha)
        return sha

    # the live folder, by hand

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.live / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def read(self, path: str) -> str:
        return (self.live / path).read_text()

    def files(self) -> dict[str, str]:
        """Every file and link that lies there, but for the claim."""
        found = {}
        for folder, names, files in os.walk(self.live):
            for name in (*files, *(n for n in names if os.path.islink(os.path.join(folder, n)))):
                whole = os.path.join(folder, name)
                path = os.path.relpath(whole, self.live)
                if path != ".homeport":
                    found[path] = f"-> {os.readlink(whole)}" if os.path.islink(whole) else Path(whole).read_text()
        return found

    def rescued(self) -> dict[str, bytes]:
        """Everything that was saved, by path."""
        return {r.path: self.box.read(r) for r in self.box.listing()}

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.lstat(self.live / path).st_mode)


def refused(code: str, act: Callable[[], object]) -> Refused:
    """The refusal of that code that `act` must end in."""
    with pytest.raises(Refused) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.store.close()
