"""Many askers, cancels and Ctrl-C: one deploy at a time, one outcome for each request, and no process left (P3)."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import BUILD, Host, read
from tests.faults.moments import Moment
from tests.world import PROGRAM, World, eventually

pytestmark = pytest.mark.timeout(300)


def waiting_build(host: Host) -> Path:
    """The next version's build says `waiting` and goes on when this file is there."""
    going = host.world.root / f"going-on-{host.number + 1}"
    host.number += 1
    host._write(host.number)
    said = f"echo waiting; while [ ! -e {going} ]; do sleep 0.05; done; {BUILD}"
    host.world.publish({"web/build.sh": said}, "a build that waits")
    return going


def reads_until(lines: Iterator[str], words: str) -> list[str]:
    seen = []
    for line in lines:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"{words!r} did not come: {seen}")


def live_is(host: Host, number: int) -> bool:
    found = read(host.world.live)
    return all(found.get(p) == c for p, c in host.expected(number).items() if p != "web/build.sh")


def test_twenty_askers_get_one_deploy_and_one_outcome(host: Host) -> None:
    already = len(host.world.json("history", "-n", "1000")["deploys"])
    going = waiting_build(host)
    asking = [host.world.start("--json", "deploy") for _ in range(20)]
    for asker in asking:
        assert asker.stdout is not None
        reads_until(iter(asker.stdout), "waiting")
    joined = host.world.json("history")["deploys"][0]["id"]
    eventually(lambda: len(askers(host.world)) == 20, "every one of them waits")
    going.touch()
    outcomes = []
    for asker in asking:
        said, _ = asker.communicate(timeout=100)
        assert asker.returncode == 0, said
        outcomes.append(json.loads(said.splitlines()[-1]))
    assert {o["deployId"] for o in outcomes} == {joined}
    assert all(o == outcomes[0] for o in outcomes)
    assert outcomes[0]["status"] == "deployed"
    assert live_is(host, host.number)
    assert len(host.world.json("history", "-n", "1000")["deploys"]) == already + 1
    assert (host.world.live / "app/started.log").read_text().count(f"version {host.number}") == 1
    host.tidy()


def askers(world: World) -> list[int]:
    """Processes of `homeport deploy` in this world (their runners are others)."""
    return [pid for pid, command in world.own_commands().items() if b"deploy" in command.split(b"\0")]


def test_twenty_askers_for_a_new_version_at_once(host: Host) -> None:
    """Nothing runs yet, so all twenty race to be the first."""
    host.publish()
    running = [host.world.start("--json", "deploy") for _ in range(20)]
    outcomes = []
    for asker in running:
        said, _ = asker.communicate(timeout=200)
        assert asker.returncode == 0, said
        outcomes.append(json.loads(said.splitlines()[-1]))
    by_id = {o["deployId"]: o for o in outcomes}
    assert all(o == by_id[o["deployId"]] for o in outcomes)
    assert sorted(o["status"] for o in by_id.values())[0] == "deployed"
    assert sum(o["status"] == "deployed" for o in by_id.values()) == 1
    assert (host.world.live / "app/started.log").read_text().count(f"version {host.number}") == 1
    host.ended(host.number)


def test_a_newer_request_supersedes_the_waiting_one_and_both_are_answered(host: Host) -> None:
    going = waiting_build(host)
    first = host.world.start("--json", "deploy")
    assert first.stdout is not None
    reads_until(iter(first.stdout), "waiting")
    second = host.world.start("--json", "deploy", "web")
    eventually(lambda: store_waits(host), "the second one waits")
    waits = host.world.json("status")["waiting"]
    assert (waits["kind"], waits["services"], bool(waits["since"])) == ("commit", ["web"], True)
    told = f"waiting its turn: {waits['deployId']}, commit web, asked for by {waits['requestedBy']}, "
    assert all(told in host.world.homeport(verb).stdout for verb in ("status", "history"))
    third = host.world.start("--json", "deploy", "app")
    said, _ = second.communicate(timeout=60)
    assert (second.returncode, json.loads(said.splitlines()[-1])["status"]) == (6, "superseded")
    going.touch()
    assert json.loads(third.communicate(timeout=60)[0].splitlines()[-1])["ok"]
    first.communicate(timeout=60)
    assert first.returncode == 0
    host.tidy()


@pytest.mark.parametrize("fetched", [True, False], ids=["in the mirror", "never fetched"])
def test_a_commit_that_vanishes_while_its_deploy_waits_never_runs(host: Host, fetched: bool) -> None:
    """The branch is pushed anew by force without it, and the origin collects its garbage."""
    world, going = host.world, waiting_build(host)
    first = world.start("--json", "deploy")
    assert first.stdout is not None
    reads_until(iter(first.stdout), "waiting")
    gone = world.publish({"plain/vanished.txt": "must not run\n"}, "vanishes")
    if fetched:
        assert world.json("plan", gone)["to"] == gone
    second = world.start("--json", "deploy", gone)
    eventually(lambda: store_waits(host), "it waits its turn")
    world.git("reset", "-q", "--hard", "HEAD~1")
    world.git("push", "-q", "--force", "origin", "HEAD:main")
    world.git("-C", str(world.origin), "gc", "-q", "--prune=now")
    going.touch()
    done = json.loads(second.communicate(timeout=60)[0].splitlines()[-1])
    assert first.wait(timeout=60) == 0
    first.stdout.close()
    code = "unreachable" if fetched else "no-commit"
    assert (second.returncode, done["status"], done["errorCode"]) == (3, "refused", code), done
    assert gone[:12] in done["errorSummary"] and done["next"], "who asked is told"
    assert not (world.live / "plain/vanished.txt").exists() and live_is(host, host.number)
    assert host.blocked() == []
    host.tidy()
    assert host.deploy()["status"] == "unchanged"


def store_waits(host: Host) -> bool:
    store = host.store()
    try:
        return store.waiting() is not None
    finally:
        store.close()


def test_a_cancel_during_the_build_touches_nothing(host: Host) -> None:
    waiting_build(host)
    running = host.world.start("--json", "deploy")
    assert running.stdout is not None
    reads_until(iter(running.stdout), "waiting")
    host.world.homeport("cancel")
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, json.loads(said.splitlines()[-1])["status"]) == (6, "cancelled")
    assert read(host.world.live) == host.expected(host.number - 1)
    host.tidy()
    assert not left_by_builds(host.world)


@pytest.mark.parametrize("stage", ["sync", "verify"])
def test_a_cancel_past_the_first_change_goes_back(host: Host, stage: str) -> None:
    """The runner is stopped in the middle of that stage, the cancel is asked, and it goes on."""
    moments = host.moments()
    host.publish()
    deploy = host.enqueue()
    if stage == "sync":
        syscall, only = "renameat2", []
        nth = next(m.nth for m in moments if (m.stage, m.syscall) == (stage, syscall))
    else:
        told = [m for m in moments if m.syscall == "write" and '{\\"type\\":\\"deploy.' in m.shown]
        syscall, only = "write", ["-P", str(host.world.state / f"shop/production/journal/{deploy}.jsonl")]
        nth = next(n for n, m in enumerate(told, 1) if m.stage == stage)
    log = host.world.root / f"stopped-in-{stage}.log"
    argv = ["strace", "-qq", "-o", str(log), "-e", f"trace={syscall}", *only,
            "-e", f"inject={syscall}:signal=STOP:when={nth}", *host.runner]  # fmt: skip
    tracer = subprocess.Popen(argv, env=host.world.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    eventually(lambda: log.exists() and "stopped by SIGSTOP" in log.read_text(), f"the runner stands still in {stage}")
    assert host.row(deploy).stage == stage
    store = host.store()
    assert store.ask_cancel(deploy, "ada")
    store.close()
    os.kill(host.row(deploy).pid or 0, signal.SIGCONT)
    assert tracer.wait(timeout=60) == 0
    assert host.row(deploy).status == "cancelled"
    host.ended(host.number - 1)
    assert host.world.json("status")["blocked"] == []
    assert host.deploy()["status"] == "deployed"
    host.ended(host.number)


class Terminal:
    """`homeport deploy` on a terminal of its own."""

    def __init__(self, world: World, *argv: str) -> None:
        self.seen = ""
        self.master, other = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", str(PROGRAM), *argv], cwd=world.clone, env={**world.env, "TERM": "xterm"},
            stdin=other, stdout=other, stderr=other,
        )  # fmt: skip
        os.close(other)

    def until(self, words: str, within: float = 30) -> None:
        deadline = time.monotonic() + within
        while words not in self.seen:
            assert time.monotonic() < deadline, f"{words!r} did not come: {self.seen[-2000:]}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:
                    assert words in self.seen, self.seen[-2000:]

    def interrupt(self) -> None:
        os.write(self.master, b"\x03")

    def end(self, within: float = 30) -> int:
        """Reads to the end of the terminal; the exit code."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            try:
                if select.select([self.master], [], [], 0.1)[0]:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                break
        os.close(self.master)
        return self.process.wait(timeout=within)


def test_ctrl_c_cancels_and_waits_for_the_undo(host: Host) -> None:
    waiting_build(host)
    terminal = Terminal(host.world, "deploy")
    terminal.until("waiting")
    terminal.interrupt()
    assert terminal.end() == 6, terminal.seen
    assert host.world.json("history")["deploys"][0]["status"] == "cancelled"
    assert read(host.world.live) == host.expected(host.number - 1)
    host.tidy()


def test_a_second_ctrl_c_leaves_the_deploy_running_and_says_how_to_follow_it(host: Host) -> None:
    """The runner stands still, so that the cancel cannot come through before the second Ctrl-C."""
    going = waiting_build(host)
    terminal = Terminal(host.world, "deploy")
    terminal.until("waiting")
    running = host.world.json("history")["deploys"][0]["id"]
    pid = host.row(running).pid or 0
    os.kill(pid, signal.SIGSTOP)
    try:
        terminal.interrupt()
        terminal.until("cancelling")
        terminal.interrupt()
        assert terminal.end() == 6, terminal.seen
        assert f"homeport logs -f {running}" in terminal.seen
    finally:
        os.kill(pid, signal.SIGCONT)
    going.touch()
    eventually(lambda: host.row(running).state == "done", "the deploy ends without its terminal")
    host.tidy()


LOOP = "while :; do sleep 1; done"
HOSTILE = {
    "forks a daemon": f"(setsid sh -c 'trap \"\" TERM HUP; {LOOP}' >/dev/null 2>&1 </dev/null &); exit 1",
    "ignores SIGTERM": f"trap '' TERM INT HUP; {LOOP}",
    "closes its output": f"exec >&- 2>&-; {LOOP}",
    "leaves a child in the background": f"sh -c '{LOOP}' & exit 1",
    "has a child that is killed for its memory": f"sh -c '{LOOP}' & sh {{greedy}}",
}
BUILDING = """
[services.web]
source = "web"
target = "{live}/web"
  [services.web.build]
  run = ["sh", "build.sh"]
  outputs = ["dist"]
"""
MAKES = "mkdir -p dist; cp page.txt dist/\n"


@pytest.fixture
def greedy(world: World) -> Iterator[Path]:
    """A script that the kernel's memory killer ends a child of, in a control group of its own; where none can be made,
    one that kills the build itself."""
    script, group = world.root / "greedy.sh", Path(f"/sys/fs/cgroup/memory/homeport-test-{os.getpid()}")
    limit = group / "memory.limit_in_bytes"
    if not group.parent.is_dir():
        group = Path(f"/sys/fs/cgroup/{group.name}")
        limit = group / "memory.max"
    try:
        group.mkdir()
        limit.write_text("16M")
        script.write_text(f"echo $$ > {group}/cgroup.procs; head -c 60m /dev/zero | tail; exit $?\n")
    except OSError:
        script.write_text("kill -9 $PPID\n")
    yield script
    if group.is_dir():
        eventually(lambda: removed(group), "nobody is in the group any more")


def removed(group: Path) -> bool:
    """A control group is busy as long as one of its processes is dying, which it lists no longer."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("does", HOSTILE)
def test_a_build_that_will_not_end_is_ended_with_all_that_it_started(world: World, does: str, greedy: Path) -> None:
    first: dict[str, str | None] = {"web/build.sh": MAKES, "web/page.txt": "one\n", ".gitignore": "dist/\n"}
    world.project(BUILDING, first)
    world.deploy()
    killed = does == "has a child that is killed for its memory"
    code = "killed" if killed else "command" if "exit 1" in HOSTILE[does] else "timeout"
    # what ends by itself has the time for it that a busy machine needs
    limited = (world.clone / "homeport.toml").read_text() + f'  timeout = "{1 if code == "timeout" else 60}s"\n'
    build = HOSTILE[does].format(greedy=greedy) + "\n"
    world.publish({"web/build.sh": build, "web/page.txt": "two\n", "homeport.toml": limited})
    done = world.deploy(ok=(1,))
    assert done["status"] == "failed"
    assert world.text("web/dist/page.txt") == "one\n"
    assert world.text("web/page.txt") == "one\n"
    assert world.json("status")["blocked"] == []
    assert done["errorCode"] == code
    eventually(lambda: not left_by_builds(world), "nothing of the build runs on")


def left_by_builds(world: World) -> list[str]:
    """Processes that a build of this world left: they stand in its build folder."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and str(world.live) in os.readlink(folder / "cwd"):
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


def peak(pid: int) -> int:
    """The most memory that a process has had, in kB; 0 for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def test_a_build_that_prints_a_gigabyte_ends_in_a_journal_of_bounded_size(world: World) -> None:
    flood = "line=$(head -c 60000 /dev/zero | tr '\\0' x); yes \"$line\" | head -c 1000000000; " + MAKES
    world.project(BUILDING, {"web/build.sh": flood, "web/page.txt": "one\n", ".gitignore": "dist/\n"})
    asker = world.start("-q", "deploy")
    most = 0
    while asker.poll() is None:
        most = max([most, *map(peak, world.own_processes())])
        time.sleep(0.1)
    assert asker.stdout is not None
    with asker.stdout:
        assert asker.returncode == 0, asker.stdout.read()[-500:]
    assert 0 < most < 300_000, "kB of memory, of who asks and of the runner"
    journal = next((world.state / "shop/production/journal").iterdir())
    assert journal.stat().st_size < 258 * 1024 * 1024
    with journal.open("rb") as file:
        file.seek(-20_000, os.SEEK_END)
        end = file.read().decode()
    assert "lines of output were not kept" in end
    assert end.splitlines()[-1].startswith('{"type":"deploy.done"')
    assert world.text("web/dist/page.txt") == "one\n"


def test_two_runners_never_work_at_once(host: Host) -> None:
    """Two runners for two requests, the first one killed in its sync: the second ends both, in turn."""
    moment: Moment = next(m for m in host.moments() if m.stage == "sync" and m.syscall == "renameat2")
    host.publish()
    killed, _ = host.killed(moment)
    waiting = host.enqueue(services=("app",))
    two = [subprocess.Popen(host.runner, env=host.world.env, stdin=subprocess.DEVNULL) for _ in range(2)]
    assert [runner.wait(timeout=60) for runner in two] == [0, 0]
    rows = [host.row(killed), host.row(waiting)]
    assert [(r.state, r.status) for r in rows] == [("done", "deployed"), ("done", "unchanged")]
    assert (rows[0].ended_at or "") <= (rows[1].started_at or "")
    host.ended(host.number)


SLOW_START = """\
import os, sys, time
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
if "homeport.runner" in sys.orig_argv:
    with open({log!r}, "a") as file:
        file.write("started\\n")
    time.sleep(2.5)
"""


def test_a_runner_that_is_slow_to_start_is_not_started_again(host: Host) -> None:
    """No copy of the caller's process can be made, and two and a half seconds pass before the runner takes the lock:
    who started it waits for it."""
    log = host.world.root / "starts"
    (host.world.root / "slow").mkdir()
    (host.world.root / "slow/sitecustomize.py").write_text(SLOW_START.format(log=str(log)))
    host.publish()
    done = host.world.homeport("--json", "deploy", env={"PYTHONPATH": str(host.world.root / "slow")})
    assert done.last["status"] == "deployed"
    assert len(log.read_text().splitlines()) == 1
    host.ended(host.number)
