"""The daemon: build lines to WebSocket clients against `cat`, asked until started, at rest, a tick with nothing to do,
and a save until it is in the ledger of edits."""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import selectors
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from _measure import HOMEPORT, World, heading, row, world
from msgspec.structs import replace

from homeport.doors.clock import SystemClock
from homeport.doors.journal import FileJournal
from homeport.doors.shell import LocalShell
from homeport.doors.store import SqliteStore
from homeport.flow.work import OutputLines
from homeport.model.deploys import Request
from homeport.model.events import DeployDone
from homeport.model.ports import Job

PRINTS = "import sys\nfor n in range(int(sys.argv[1])): print(f'[build] compiling module number {n:>12} ok')"
"""A build that prints its lines as it goes."""
BARE = {"PATH": os.environ["PATH"]}
DONE = b'{"type":"deploy.done"'


@contextmanager
def daemon(made: World) -> Iterator[tuple[int, Path]]:
    """(pid, socket) of a daemon of this world."""
    place = made.state / ".homeport.sock"
    with open(made.root / "log", "w") as log:
        running = subprocess.Popen([HOMEPORT, "serve"], cwd=made.clone, env=made.env, stderr=log)
    try:
        while not listens(place):
            time.sleep(0.02)
        yield running.pid, place
    finally:
        running.terminate()
        running.wait(20)


def listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place))
        except OSError:
            return False
    return True


def prepare(made: World, services: int = 1) -> None:
    text = '[project]\nname = "site"\n\n[environments.production]\nbranch = "main"\nconverge = 0\n'
    for number in range(services):
        folder = made.clone / f"s{number}"
        folder.mkdir(exist_ok=True)
        (folder / "page.txt").write_text("x\n")
        text += f'\n[services.s{number}]\nsource = "s{number}"\ntarget = "{made.live}/s{number}"\n'
    (made.clone / "homeport.toml").write_text(f"# {time.time_ns()}\n{text}")
    made.push()
    made.homeport("deploy")


def client(place: Path, deploy: str) -> socket.socket:
    """A WebSocket that asks for the events of a deploy; it only counts what it gets."""
    one = socket.socket(socket.AF_UNIX)
    one.connect(str(place))
    key = base64.b64encode(os.urandom(16)).decode()
    head = (f"GET /api/v1/events?deploy={deploy} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "")  # fmt: skip
    one.sendall("\r\n".join(head).encode())
    assert one.recv(4096).startswith(b"HTTP/1.1 101"), "not let in"
    one.setblocking(False)
    return one


def drain(clients: list[socket.socket]) -> int:
    """Reads until every client has seen the end; the bytes of all."""
    watched, size = selectors.DefaultSelector(), 0
    tails = dict.fromkeys(clients, b"")
    for one in clients:
        watched.register(one, selectors.EVENT_READ)
    buffer = bytearray(1 << 20)
    while watched.get_map():
        for key, _ in watched.select():
            one: socket.socket = key.fileobj  # type: ignore[assignment]
            count = one.recv_into(buffer)
            size += count
            tails[one] = (tails[one] + bytes(buffer[max(0, count - 4096):count]))[-4096:]
            if count == 0 or DONE in tails[one]:
                watched.unregister(one)
    return size


def listen(listeners: int, place: Path, deploy: str) -> None:
    """The clients, in a process of their own as anywhere: they must not take turns with who writes the lines."""
    clients = [client(place, deploy) for _ in range(listeners)]
    print("listening", flush=True)
    drain(clients)


def through(made: World, place: Path, listeners: int, lines: int) -> float:
    """Seconds from the first line of a command to the last client's end of the deploy."""
    store = SqliteStore(str(made.state / "site/production/homeport.db"), SystemClock())
    deploy, _ = store.enqueue(Request(kind="restart", services=("s0",), request_id=f"bench-{time.time_ns()}"))
    store.begin(deploy, os.getpid())
    path = str(made.state / f"site/production/journal/{deploy}.jsonl")
    journal = FileJournal(path, deploy, lambda text: text, largest=1 << 40)
    held = os.open(made.state / "site/production/lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a runner holds it
    reading = subprocess.Popen([sys.executable, __file__, "--clients", str(listeners), str(place), deploy],
                               stdout=subprocess.PIPE)  # fmt: skip
    assert reading.stdout is not None
    assert reading.stdout.readline() == b"listening\n"
    began = time.perf_counter()
    job = Job(command=[sys.executable, "-c", PRINTS, str(lines)], cwd="/", env=BARE, label="build", timeout=600)
    LocalShell().job(job, OutputLines(journal, "s0"))
    wrote = time.perf_counter() - began
    journal.write(DeployDone(deploy_id=deploy, ok=True, status="deployed", sha=None, previous_sha=None, services=(),
                             exit_code=0, duration_ms=0))  # fmt: skip
    assert reading.wait() == 0
    took = time.perf_counter() - began
    row = store.deploy(deploy)
    assert row is not None
    store.finish(replace(row, status="unchanged", exit_code=0))
    os.close(held)
    reading.stdout.close()
    for one in (journal, store):
        one.close()
    print(f"    {listeners:2} clients: kept after {wrote:.2f} s, last client done after {took:.2f} s")
    return took


def memory(pid: int, what: str) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


def ticks(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_lines(made: World, lines: int) -> None:
    began = time.perf_counter()
    prints = [sys.executable, "-c", PRINTS, str(lines)]
    with open(made.root / "out", "wb") as out, subprocess.Popen(prints, env=BARE, stdout=subprocess.PIPE) as source:
        subprocess.run(["cat"], stdin=source.stdout, stdout=out, check=True)
    cat = time.perf_counter() - began
    print(f"\n{lines:,} lines, cat {cat:.2f} s")
    for listeners in (0, 1, 10):
        with daemon(made) as (pid, place):
            took = through(made, place, listeners, lines)
            print(f"  {cat / took:6.2f} of cat's lines/s with {listeners} clients ({lines / took:,.0f} lines/s); "
                  f"daemon at most {memory(pid, 'VmHWM'):.0f} MB, {ticks(pid):.2f} s of CPU")
            row(f"{lines:,} lines, {listeners} clients", f"{cat / took:.2f} of cat's lines/s",
                f"{took * 1000:,.0f} ms, at most {memory(pid, 'VmHWM'):.0f} MB", f"{cat * 1000:,.0f} ms")  # fmt: skip


def measure_start(made: World, times: int) -> None:
    waits, answers = [], []
    with daemon(made) as (_, place), httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), timeout=60) as ask:
        for _ in range(times):
            asked = datetime.now(UTC)
            began = time.perf_counter()
            deploy = ask.post("http://localhost/api/v1/deploys?wait=true", json={}).json()["deployId"]
            answers.append(time.perf_counter() - began)
            journal = (made.state / f"site/production/journal/{deploy}.jsonl").read_text().splitlines()
            waits.append((datetime.fromisoformat(json.loads(journal[0])["at"]) - asked).total_seconds())
    print(f"\nasked over the socket until the runner has begun: {statistics.median(waits) * 1000:.0f} ms; "
          f"until the answer of a deploy with nothing to do: {statistics.median(answers) * 1000:.0f} ms")  # fmt: skip
    row("asked until the runner has begun", "", f"{statistics.median(waits) * 1000:.0f} ms", "")


def measure_rest(made: World, seconds: float) -> None:
    with daemon(made) as (pid, _):
        time.sleep(5)
        before = ticks(pid)
        time.sleep(seconds)
        used = (ticks(pid) - before) / seconds * 100
        print(f"\nat rest for {seconds:.0f} s: {memory(pid, 'VmRSS'):.0f} MB, {used:.2f} % of a core")
        row(f"at rest for {seconds:.0f} s", "", f"{memory(pid, 'VmRSS'):.0f} MB, {used:.2f} % of a core", "")


def measure_watch(sizes: list[int], times: int, seconds: float) -> None:
    """A save until the edit is in the ledger, nobody asking; and the daemon at rest with that many files watched."""
    for count in sizes:
        with world() as here:
            here.configure()
            text = (here.clone / "homeport.toml").read_text()
            (here.clone / "homeport.toml").write_text(text.replace('branch = "main"', 'branch = "main"\nconverge = 0'))
            for number in range(count):
                folder = here.clone / f"site/part{number // 1000}/{number // 10}"
                if number % 10 == 0:
                    folder.mkdir(parents=True)
                (folder / f"page{number}.txt").write_text(f"page {number}\n" * 20)
            here.push()
            here.homeport("deploy")
            with daemon(here) as (pid, place), closing(ledger(here)) as rows:
                while folders(place) < count / 10:
                    time.sleep(0.1)
                took = [saved(here, rows, number) for number in range(times)]
                print(f"\n{count:,} files: a save is in the ledger after {statistics.median(took) * 1000:.0f} ms, "
                      f"at most {max(took) * 1000:.0f} ms")  # fmt: skip
                row(f"a save until it is in the ledger, {count:,} files", "",
                    f"{statistics.median(took) * 1000:.0f} ms", "")  # fmt: skip
                before = ticks(pid)
                time.sleep(seconds)
                used = (ticks(pid) - before) / seconds * 100
                size = f"{memory(pid, 'VmRSS'):.0f} MB, {used:.2f} % of a core"
                print(f"{folders(place):,} folders watched, at rest for {seconds:.0f} s: {size}; "
                      f"at most {memory(pid, 'VmHWM'):.0f} MB")  # fmt: skip
                row(f"at rest for {seconds:.0f} s, {count:,} files watched", "", size, "")


def folders(place: Path) -> int:
    """How many the daemon watches."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), timeout=60) as ask:
        lines = ask.get("http://localhost/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("homeport_watched_folders{")).split()[1]))


def ledger(made: World) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{made.state}/site/production/homeport.db?mode=ro", uri=True)


def saved(made: World, rows: sqlite3.Connection, number: int) -> float:
    """Seconds from one save until the ledger has it."""
    known = rows.execute("SELECT COUNT(*) FROM edits").fetchone()
    path = made.live / f"site/part0/{number}/page{number * 10}.txt"
    began = time.perf_counter()
    path.write_text("by hand\n")
    while rows.execute("SELECT COUNT(*) FROM edits").fetchone() == known:
        time.sleep(0.002)
    took = time.perf_counter() - began
    time.sleep(0.5)
    return took


def measure_tick(made: World, times: int) -> None:
    for services in (1, 50):
        prepare(made, services)
        made.homeport("converge")
        took = []
        for _ in range(times):
            began = time.perf_counter()
            made.homeport("converge")
            took.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.perf_counter() - began
        print(f"converge with nothing to do, {services} services: {statistics.median(took) * 1000:.0f} ms "
              f"(a bare interpreter {bare * 1000:.0f} ms)")  # fmt: skip
        row(f"converge tick with nothing to do, {services} services", "", f"{statistics.median(took) * 1000:.0f} ms", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    if sys.argv[1:2] == ["--clients"]:
        listen(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        return
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="how long to watch it at rest")
    parser.add_argument("--only", choices=["lines", "start", "rest", "tick", "watch"])
    parser.add_argument("--full", action="store_true", help="watch 100,000 files too")
    found, _ = parser.parse_known_args()  # `--sizes` is for the others
    heading("the daemon")
    parts = {"lines": lambda: measure_lines(made, found.lines), "start": lambda: measure_start(made, found.times),
             "rest": lambda: measure_rest(made, found.seconds),
             "tick": lambda: measure_tick(made, found.times),
             "watch": lambda: measure_watch([500, 100_000] if found.full else [500], 10, found.seconds)}  # fmt: skip
    with world() as made:
        prepare(made)
        for name, part in parts.items():
            if found.only in (None, name):
                part()


if __name__ == "__main__":
    main()
