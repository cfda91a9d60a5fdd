"""Faults put into the installed program's runner at one exact system call, and what must be true afterwards.

The request is put into the queue first, then the runner is started. `trace` runs a deploy without a fault under strace,
which follows this one process and thread only, and lists the moments; `killed` and `refused` run the next one with
`SIGKILL`, or an error of the kernel, at such a moment (injecting.py).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from homeport.doors.clock import SystemClock
from homeport.doors.store import SqliteStore
from homeport.model.deploys import Deploy, Request
from tests.faults.injecting import POSSIBLE, Injection
from tests.faults.moments import Moment, Share, Stage, last_of_each, moments, spread
from tests.loaded import BEFORE, Loaded, loaded
from tests.supervisor_rig import working_in
from tests.world import REAL, World, eventually

SERVICES = """
[services.plain]
source = "plain"
target = "{live}/plain"
in_place = ["in-place.txt"]

[services.web]
source = "web"
target = "{live}/web"

  [services.web.build]
  run = ["sh", "build.sh"]
  outputs = ["dist", "stamp.txt"]

[services.app]
source = "app"
target = "{live}/app"
runtime = "command"
command = "cat version.txt >> started.log"
checks = [{ command = "test -s version.txt", within = "5s" }]
"""
BUILD = "rm -rf dist; mkdir -p dist/sub; for to in dist/page.html dist/sub/more.html stamp.txt; do cp page.txt $to; done\n"
CHANGING = ("renameat2", "rename", "renameat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "symlinkat", "link",
            "fsync", "fdatasync", "syncfs", "pwrite64", "ftruncate", "openat", "write")  # fmt: skip
"""Every call of the runner that makes, moves, fills or removes a file, or brings one to its disk."""

Files = dict[str, tuple[str, str]]
"""path -> (kind: file, program or link; content)"""

PROTECTED: Files = {"plain/.env": ("file", "KEY=of the server\n"), "web/node_modules/it.js": ("file", "installed there\n"),
                    "app/notes.bak": ("file", "of a person\n")}  # fmt: skip
"""Server-side files: they stay as they are, whatever happens (A3)."""


def files(number: int, size: int = 8) -> Files:
    """What version `number` of the project brings below `live`: every kind of change from each to the next."""
    said = f"version {number}\n"
    odd = number % 2 == 1
    made: Files = {f"plain/{n:03}.txt": ("file", f"{n} of {said}") for n in range(size)}
    made["plain/in-place.txt"] = ("file", said * (1 + number % 3))
    made["plain/tool.sh"] = ("program" if odd else "file", said)
    made["plain/link"] = ("link", f"{number:03}.txt")
    made["plain/same.txt"] = ("file", "always the same\n")
    made["plain/shape/inner.txt" if odd else "plain/shape"] = ("file", said)
    made["plain/odd/deep/only.txt" if odd else "plain/even.txt"] = ("file", said)
    made["web/build.sh"] = ("file", BUILD)
    made["web/page.txt"] = ("file", said)
    made["app/version.txt"] = ("file", said)
    return made


def outputs(number: int) -> Files:
    """What the build of that version makes live."""
    said = ("file", f"version {number}\n")
    return {"web/dist/page.html": said, "web/dist/sub/more.html": said, "web/stamp.txt": said}


def read(live: Path) -> Files:
    """Everything below the live folders that is not homeport's claim or the application's own."""
    found: Files = {}
    for folder, folders, names in os.walk(live):
        folders[:] = [f for f in folders if not f.startswith(".homeport")]
        for name in [*names, *[f for f in folders if os.path.islink(os.path.join(folder, f))]]:
            path = os.path.join(folder, name)
            if name in (".homeport", "started.log"):
                continue
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, live)] = ("link", os.readlink(path))
            else:
                kind = "program" if mode & 0o100 else "file"
                found[os.path.relpath(path, live)] = (kind, Path(path).read_text())
    return found


class Host:
    """A world with three services, that goes from version to version."""

    def __init__(self, world: World, size: int = 8) -> None:
        self.world, self.size, self.number = world, size, 1
        world.project(SERVICES, {})
        self._write(1)
        self.sha = world.push()
        self.deploy()
        for name, (_, content) in PROTECTED.items():
            path = world.live / name
            path.parent.mkdir(exist_ok=True)
            with path.open("w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # it outlives a power cut, as what was long there does
        self.database = world.state / "shop/production/homeport.db"
        self._traced: dict[bool, list[Moment]] = {}
        self.asked = ""
        """The id of the deploy that was asked for last, by hand."""
        self.fault: Moment | None = None
        """The call at which the last fault came, if it did."""

    @property
    def next_is_odd(self) -> bool:
        return self.number % 2 == 0

    def settle(self) -> None:
        """Whatever the test before has left: its version, or the next one, is live in every byte."""
        if read(self.world.live) != self.expected(self.number):
            self.publish()
            self.deploy("--discard-drift")
            self.ended(self.number)

    def towards(self, *, odd: bool) -> None:
        """The next version to publish is an odd, or an even one: each way some files become folders, others files."""
        if self.next_is_odd != odd:
            self.publish()
            self.deploy()

    def moments(self) -> list[Moment]:
        """The moments of the next version's deploy; traced once for odd, once for even versions."""
        odd = self.next_is_odd
        if odd not in self._traced:
            for way in (odd, not odd):
                self._traced[way] = self.trace()
        return self._traced[odd]

    def each(self, wanted: Callable[[Moment], bool], most: int, *, soak: Share | None) -> Iterator[Moment]:
        """So many of the wanted moments, evenly spread, first and last among them; all of both ways for a soak, or a
        share of them.

        The caller publishes the next version each time. A deploy differs a little from the next (who of two threads is
        first to write a ref): a soak goes on behind the last moment of each call until no fault comes any more.
        """
        self.moments()
        found = {way: [m for m in moments if wanted(m)] for way, moments in self._traced.items()}
        assert all(found.values()), "there are such moments"
        if not soak:
            for n in range(most):
                yield spread(found[self.next_is_odd], most)[n]
            return
        left = {way: soak.of(moments)[::-1] for way, moments in found.items()}
        behind = soak.of([m for way in found for m in last_of_each(self._traced[way], found[way])])
        tried = came = 0
        while any(left.values()) or behind:
            if any(left.values()):
                if not left[self.next_is_odd]:
                    self.towards(odd=not self.next_is_odd)
                yield left[self.next_is_odd].pop()
            else:
                last = behind.pop()
                after = replace(last, nth=last.nth + 1, within=last.within + 1)
                yield after
                if self.fault is not None and wanted(self.fault):
                    behind.append(after)
            tried, came = tried + 1, came + (self.fault is not None)
            if tried % 25 == 0:
                soak.tell(f"{tried} so far, the fault came in {came}")
        soak.tell(f"{tried} moments tried, of {sum(map(len, found.values()))}; the fault came in {came}")
        assert not soak.wrong, "\n".join(soak.wrong)

    @contextmanager
    def trying(self, soak: Share | None, what: str) -> Iterator[None]:
        """Says at which moment something went wrong; a soak notes it and goes on with a version that is whole."""
        try:
            yield
        except (AssertionError, subprocess.TimeoutExpired) as wrong:
            row = self.row(self.asked)
            text = f"{what} (came at {self.fault}; {row.status}: {row.error_summary}): {wrong}"
            if soak is None:
                raise AssertionError(text) from wrong
            soak.tell(text)
            soak.wrong.append(text)
            self.world.kill_homeport()
            self.settle()

    def publish(self) -> None:
        """The next version is pushed."""
        self.number += 1
        self._write(self.number)
        self.sha = self.world.push()

    def _write(self, number: int) -> None:
        clone = self.world.clone
        for folder in ("plain", "web", "app"):
            shutil.rmtree(clone / folder, ignore_errors=True)
        for name, (kind, content) in files(number, self.size).items():
            path = clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                path.symlink_to(content)
            else:
                path.write_text(content)
                path.chmod(0o755 if kind == "program" else 0o644)
        (clone / ".gitignore").write_text("started.log\n/web/dist/\n/web/stamp.txt\n")
        self.world.commit(f"version {number}")

    def expected(self, number: int) -> Files:
        return {**files(number, self.size), **outputs(number), **PROTECTED}

    def deploy(self, *options: str, ok: tuple[int, ...] | None = (0,)) -> dict[str, Any]:
        return self.world.deploy(*options, ok=ok)

    def finish(self, soak: Share | None) -> None:
        """What was asked for last is asked for again, and comes. In a soak by a runner that is loaded already, but for one
        time in ten: what a person types starts just that, and waits."""
        if soak is None or REAL or self.number % 10 == 0:
            assert self.deploy()["ok"]
            return
        _, *argv = self.runner
        deploy = self.enqueue()
        loaded().run_beside(argv, self.world.root, self.world.env, [], 60)
        row = self.row(deploy)
        assert row.status in ("deployed", "unchanged"), row

    def store(self) -> SqliteStore:
        return SqliteStore(str(self.database), SystemClock())

    def enqueue(self, **request: Any) -> str:
        """Asks for a deploy that no runner takes but the one that is started next: the one before has ended."""
        eventually(lambda: not self.world.own_processes(), "the runner before has ended")
        store = self.store()
        try:
            self.asked, _ = store.enqueue(Request(**{"kind": "commit", "requested_by": "ada", **request}))
            return self.asked
        finally:
            store.close()

    def row(self, deploy: str) -> Deploy:
        store = self.store()
        try:
            found = store.deploy(deploy)
        finally:
            store.close()
        assert found is not None
        return found

    def blocked(self) -> list[str]:
        """The commits that are not to be deployed."""
        store = self.store()
        try:
            return [block.sha for block in store.blocks()]
        finally:
            store.close()

    # the runner, by hand

    @property
    def runner(self) -> list[str]:
        return [sys.executable, "-m", "homeport.runner", str(self.world.state), "shop", "production"]

    def run(self, *strace: str, within: float = 60) -> int:
        """The runner under strace; its exit code (-9 when the fault killed it)."""
        looks = ["strace", "-qq", "-e", "signal=none", *strace]
        env, (python, *argv) = self.world.env, self.runner
        if not REAL and Loaded.takes(argv, env):
            return loaded().run_beside(argv, self.world.root, env, looks, within)
        argv = [*looks, python, *argv]
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=within)
        return done.returncode

    def trace(self) -> list[Moment]:
        """Deploys the next version under the eyes of strace, and lists the moments of its runner."""
        self.publish()
        deploy = self.enqueue()
        log = self.world.root / "strace.log"
        assert self.run("-y", "-o", str(log), "-s", "300", "-e", "trace=" + ",".join(CHANGING)) == 0
        assert self.row(deploy).status == "deployed"
        return list(moments(log.read_text(errors="replace").splitlines()))

    def killed(self, moment: Moment, **request: Any) -> tuple[str, bool]:
        """Starts a deploy that is killed at that moment: (its id, whether the kill came)."""
        deploy = self.enqueue(**request)
        return deploy, self._with(moment, None) != 0

    def refused(self, moment: Moment, error: str, **request: Any) -> tuple[str, Moment | None]:
        """Starts a deploy in which that call fails with `error`: (its id, the call that did fail, if one did).

        It need not be the same as in the deploy that was traced: what counts is what this deploy was refused.
        """
        deploy = self.enqueue(**request)
        self._with(moment, error)
        return deploy, self.fault

    def _with(self, moment: Moment, error: str | None) -> int:
        """The runner with that error, or killed, at that moment; its exit code."""
        env, (_, *argv), root = self.world.env, self.runner, self.world.root
        if POSSIBLE and not REAL and Loaded.takes(argv, env):
            stage = Stage(self.database.parent / f"journal/{self.asked}.jsonl")
            injection = Injection(moment, getattr(errno, error) if error else None, stage)
            code = loaded().run_beside(argv, root, {**env, BEFORE: str(injection.begin(root))}, [], 60)
            self.fault = replace(moment, stage=injection.in_stage, shown=injection.came) if injection.came else None
            return code
        log, what = root / "strace.log", f"error={error}" if error else "signal=KILL"
        code = self.run("-y", "-s", "300", "-o", str(log), "-e", f"trace={moment.syscall},write",
                        "-e", f"inject={moment.syscall}:{what}:when={moment.nth}")  # fmt: skip
        lines = log.read_text(errors="replace").splitlines()
        came = [m for m in moments(lines) if m.shown.endswith("(INJECTED)")] if error else [moment] * (code != 0)
        self.fault = came[0] if came else None
        return code

    # what must be true

    def old_or_new(self, old: int, new: int, *besides: str) -> None:
        """P1: every live path has its complete old or complete new content, and outputs are of one version."""
        before, after, found = self.expected(old), self.expected(new), read(self.world.live)
        for path in (before.keys() | after.keys() | found.keys()) - set(besides):
            allowed = (before.get(path), after.get(path))
            assert found.get(path) in allowed, f"{path} is {found.get(path)}, neither of {allowed}"
        dist = {found.get(p) for p in outputs(new) if p.startswith("web/dist/")}
        assert len(dist) == 1, f"outputs of two versions: {dist}"

    def ended(self, number: int, *besides: str) -> None:
        """Nothing is half done: that version is there, record and disk agree, nothing is left over, all have ended."""
        expected, found = self.expected(number), read(self.world.live)
        differing = {p for p in expected.keys() | found.keys() if expected.get(p) != found.get(p)} - set(besides)
        assert not differing, {p: (expected.get(p), found.get(p)) for p in differing}
        drift = self.world.json("drift", ok=(0, 3))
        drifted = {p["path"] for s in drift["services"] for p in s["paths"]}
        assert drifted <= {b.split("/", 1)[1] for b in besides}, drift
        self.tidy()

    def endings(self, deploy: str) -> int:
        """How often its journal says that it is done."""
        journal = self.world.state / f"shop/production/journal/{deploy}.jsonl"
        return journal.read_bytes().count(b'{"type":"deploy.done"') if journal.exists() else 0

    def tidy(self) -> None:
        """One outcome for each request, no stage folder, no intent, no process."""
        eventually(lambda: not self.world.own_processes(), "every process of homeport has ended")
        live = self.world.live
        eventually(lambda: not working_in(live), "nothing that a build or a service's start left runs on")
        left = [*live.glob(".homeport-*/stage/*"), *live.glob(".homeport-*/swap.json*"),
                *live.glob(".homeport-*/outputs/.*")]  # fmt: skip
        assert not left, left
        store = self.store()
        try:
            for row in store.history(100):
                assert (row.state, bool(row.status)) == ("done", True), row
                assert self.endings(row.id) <= 1, f"{row.id} is told to have ended twice"
            assert not [t.name for t in store.targets() if t.syncing is not None]
            assert store.check() == []
        finally:
            store.close()
