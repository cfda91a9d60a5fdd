"""Restarts under a steady load, without one failed request; and what keeps serving when the new one is no good."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import supervisor_servers as servers
from tests.supervisor_rig import Load, Rig, alive, eventually, free_port, rigged

KINDS = {
    "shim, node": (["node", "web.js"], "shim"),
    "shim, python http.server": (["python3", "web.py"], "shim"),
    "shim, python asyncio": (["python3", "loop.py"], "shim"),
    "fd, node": (["node", "fd.js"], "fd"),
    "fd, LISTEN_FDS": (["python3", "fds.py"], "fd"),
    "port, node": (["node", "web.js"], "port"),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    servers.write(tmp_path)
    yield from rigged(tmp_path)


def command(words: list[str]) -> list[str]:
    return [servers.node() if words[0] == "node" else servers.python(), *words[1:]]


def get(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read().decode().strip()


def web(rig: Rig, words: list[str], handoff: str | None, **more: object) -> int:
    """A web unit that serves version `one`; its port."""
    port = free_port()
    rig.unit("web", command(words), listen=[f"127.0.0.1:{port}"], handoff=handoff, env={"PORT": str(port)}, **more)
    done = rig.restart("web")
    assert done["ok"] and done["registered"], done
    assert get(port) == "one"
    return port


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_fails_while_versions_change_under_load(rig: Rig, kind: str) -> None:
    words, handoff = KINDS[kind]
    port = web(rig, words, handoff)
    pids = {rig.status("web")["pid"]}

    def change() -> None:
        for version in ("two", "three"):
            (rig.folder / "version").write_text(version)
            done = rig.restart("web")
            assert done["ok"] and not done["registered"], done
            assert get(port) == version, "a new connection after restart.done meets the new version"
            pids.add(done["pid"])

    load = Load(port)
    asyncio.run(load.during(change))
    assert load.failures == []
    assert len(load.answers) > 100 and set(load.answers) == {"one", "two", "three"}
    last = rig.status("web")["pid"]
    assert len(pids) == 3
    eventually(lambda: [pid for pid in pids if alive(pid)] == [last], "the old ones are gone")


def test_a_plain_python_m_http_server_takes_the_held_socket(rig: Rig) -> None:
    port = free_port()
    rig.unit("files", [servers.python(), "-m", "http.server", str(port)], listen=[f"127.0.0.1:{port}"])
    assert rig.restart("files")["ok"]
    assert get(port, "/version") == "one"
    assert rig.restart("files")["ok"]
    assert get(port, "/version") == "one"


def test_replicas_share_the_socket_and_are_replaced_together(rig: Rig) -> None:
    port = web(rig, ["node", "web.js"], None, replicas=3)
    before = rig.status("web")["pids"]
    (rig.folder / "version").write_text("two")
    load = Load(port)
    assert asyncio.run(load.during(lambda: rig.restart("web")))["ok"]
    assert load.failures == []
    after = rig.status("web")["pids"]
    assert len(after) == 3 and not set(before) & set(after)
    assert get(port) == "two"


@pytest.mark.parametrize("breakage", ["never listens", "ends", "no such program", "no such folder"])
def test_the_old_version_keeps_serving_when_the_new_one_does_not_get_ready(rig: Rig, breakage: str) -> None:
    port = web(rig, ["node", "web.js"], "shim")
    old = rig.status("web")["pid"]
    bad: dict[str, tuple[list[str], str]] = {
        "never listens": (["sh", "-c", "echo here; exec sleep 1000"], "does not listen"),
        "ends": (["sh", "-c", "echo here; sleep 0.1; exit 3"], "status 3"),
        "no such program": (["/no/such/program"], "No such file"),
        "no such folder": (command(["node", "web.js"]), "enter /no/such"),
    }
    words, why = bad[breakage]
    within = 1.0 if breakage == "never listens" else 20.0
    more = {"cwd": "/no/such"} if breakage == "no such folder" else {}
    spec = {"name": "web", "command": words, "cwd": str(rig.folder), "listen": [f"127.0.0.1:{port}"],
            "env": {"PORT": str(port)}, "ready": {"timeout": within}, **more}  # fmt: skip
    assert rig.one("configure", units=[spec])["ok"]
    load = Load(port)
    answers = asyncio.run(load.during(lambda: rig.ask("restart", scope="web")))
    done, end = answers[-2:]
    assert (done["ok"], end["ok"], done["pid"]) == (False, False, old) and why in done["why"], answers
    if breakage in ("never listens", "ends"):
        assert "here" in done["tail"]
    assert load.failures == [] and set(load.answers) == {"one"}
    state = rig.status("web")
    assert (state["state"], state["pids"], state["pending"]) == ("running", [old], True)


def test_a_crash_after_a_failed_restart_brings_back_what_was_good(rig: Rig) -> None:
    port = web(rig, ["node", "web.js"], "shim")
    spec = {"name": "web", "command": ["/bin/false"], "listen": [f"127.0.0.1:{port}"]}
    assert rig.one("configure", units=[spec])["ok"] and not rig.restart("web")["ok"]
    old = rig.status("web")["pid"]
    os.kill(old, signal.SIGKILL)
    state = eventually(
        lambda: (s := rig.status("web"))["state"] == "running" and s["pid"] != old and s, "it runs again"
    )
    assert state["restarts"] == 1 and get(port) == "one"


def test_stop_first_never_runs_two_and_refuses_nobody(rig: Rig) -> None:
    script = rig.folder / "single.js"
    script.write_text(
        "require('fs').openSync('only', 'wx');"
        "process.on('exit', () => fs.unlinkSync('only')); process.on('SIGTERM', () => process.exit(0));"
        + servers.NODE_HTTP
    )
    port = web(rig, ["node", "single.js"], "stop-first")
    (rig.folder / "version").write_text("two")
    load = Load(port, rate=100)
    done = asyncio.run(load.during(lambda: rig.restart("web")))
    assert done["ok"] and load.failures == []
    assert set(load.answers) == {"one", "two"}


def test_a_stopped_unit_refuses_connections_and_starts_again(rig: Rig) -> None:
    port = web(rig, ["node", "web.js"], "shim")
    pid = rig.status("web")["pid"]
    assert rig.one("stop", scope="web")["ok"]
    assert not alive(pid) and rig.status("web")["state"] == "stopped"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert rig.one("start", scope="web")["ok"]
    assert get(port) == "one"


def test_a_changed_address_is_served_and_the_old_one_closed(rig: Rig) -> None:
    port, other = web(rig, ["node", "web.js"], "shim"), free_port()
    rig.unit("web", command(["node", "web.js"]), listen=[f"127.0.0.1:{other}"], env={"PORT": str(other)})
    assert rig.restart("web")["ok"]
    assert get(other) == "one"
    eventually(lambda: _refused(port), "the old port is closed")


def test_a_connection_that_never_ends_holds_up_nobody_and_is_cut_at_the_deadline(rig: Rig) -> None:
    script = (
        "const http = require('http'); let old = require('fs').existsSync('again');"
        "http.createServer((q, r) => q.url === '/stream' ? r.write('begun') : r.end(old ? 'two' : 'one'))"
        ".listen(Number(process.env.PORT), '127.0.0.1');"
    )
    port = free_port()
    rig.unit("web", [servers.node(), "-e", script], listen=[f"127.0.0.1:{port}"], env={"PORT": str(port)}, drain=2.5)
    assert rig.restart("web")["ok"]
    old = rig.status("web")["pid"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"begun" in line.recv(4096)
        (rig.folder / "again").touch()
        done = rig.restart("web")
        assert done["ok"] and rig.status("web")["draining"] == [old] and alive(old), "done before the drain is"
        assert get(port) == "two"
        while line.recv(4096):
            pass
    eventually(lambda: not alive(old) and rig.status("web")["draining"] == [], "cut at its deadline")


def test_each_worker_of_a_cluster_drains(rig: Rig) -> None:
    """They share one line to the supervisor; each of them has to hear it."""
    (rig.folder / "cluster.js").write_text(
        "const cluster = require('cluster'); if (cluster.isPrimary) { cluster.fork(); cluster.fork(); cluster.fork(); }"
        " else {" + servers.NODE_HTTP + "}"
    )
    port = web(rig, ["node", "cluster.js"], "shim")
    (rig.folder / "version").write_text("two")
    load = Load(port)
    assert asyncio.run(load.during(lambda: rig.restart("web"), after=1.0))["ok"]
    assert load.failures == [] and set(load.answers) == {"one", "two"}


def test_a_worker_that_comes_up_only_while_the_others_leave_cuts_nobody_off(rig: Rig) -> None:
    """It took connections, nobody had heard of it, and the signal came when those known were drained."""
    (rig.folder / "cluster.js").write_text(
        "const cluster = require('cluster'), files = require('fs'), fresh = files.existsSync('up');"
        "if (cluster.isPrimary) { cluster.fork(); for (let n = 0; n < 6; n++) cluster.fork({ LATE: 20 * n + 1 }); } else {"
        "const serve = () => {" + servers.NODE_HTTP + "};"
        "if (fresh || !process.env.LATE) { serve(); files.writeFileSync(fresh ? 'fresh' : 'up', ''); }"
        "else { const look = setInterval(() => { if (files.existsSync('fresh')) {"
        " clearInterval(look); setTimeout(serve, Number(process.env.LATE)); } }, 1); } }"
    )
    port = web(rig, ["node", "cluster.js"], "shim")
    eventually((rig.folder / "up").exists, "the first generation serves")
    load = Load(port)
    assert asyncio.run(load.during(lambda: rig.restart("web")))["ok"]
    assert load.failures == []


LOOKS_FIRST = """
import os, socket
door = socket.socket()
door.bind(('127.0.0.1', int(os.environ['PORT'])))
if not door.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
    door.listen(8)
while True:
    line, _ = door.accept()
    line.recv(4096)
    line.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\none')
    line.close()
"""


def test_a_server_that_looks_whether_it_listens_already_and_blocks_in_accept(rig: Rig) -> None:
    """As gunicorn does: the held socket has listened for long, and yet the program has to say that it does."""
    (rig.folder / "looks.py").write_text(LOOKS_FIRST)
    port = web(rig, ["python3", "looks.py"], "shim")
    load = Load(port, rate=100, slow="/")
    assert asyncio.run(load.during(lambda: rig.restart("web")))["ok"]
    assert load.failures == []


def test_every_interface_and_a_unix_socket_are_handed_on_too(rig: Rig) -> None:
    port, path = free_port(), f"/tmp/{rig.folder.name[:40]}-{os.getpid()}.sock"
    script = (
        "const http = require('http'); const answer = (q, r) => r.end('here');"
        f"http.createServer(answer).listen({port}); http.createServer(answer).listen({path!r});"
    )
    rig.unit("web", [servers.node(), "-e", script], listen=[str(port), f"unix:{path}"])
    for _ in range(2):
        assert rig.restart("web")["ok"]
        assert get(port) == "here"
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(path)
            line.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert line.makefile("rb").read().endswith(b"here")
    assert rig.one("stop", scope="web")["ok"]
    assert not os.path.exists(path)


def test_another_kind_of_file_at_a_sockets_path_is_left_alone(rig: Rig) -> None:
    (rig.folder / "precious").write_text("mine")
    rig.unit("web", ["sleep", "1000"], listen=[f"unix:{rig.folder}/precious"])
    assert not rig.restart("web")["ok"]
    assert (rig.folder / "precious").read_text() == "mine"


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_address_that_is_taken_is_said_and_nothing_is_left_running(rig: Rig) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        rig.unit("web", command(["node", "web.js"]), listen=[f"127.0.0.1:{port}"], env={"PORT": str(port)})
        done = rig.restart("web")
    assert not done["ok"] and f"127.0.0.1:{port}" in done["why"] and "in use" in done["why"]
    assert rig.status("web")["state"] == "failed"


READY = {
    "http": ({"http": "/health"}, "node", "web.js"),
    "tcp": ({"tcp": "127.0.0.1:{port}"}, "node", "web.js"),
    "line": ({"line": "listening"}, "node", "web.js"),
}


@pytest.mark.parametrize("kind", READY)
def test_readiness_by(rig: Rig, kind: str) -> None:
    ready, *words = READY[kind]
    port = free_port()
    ready = {key: value.format(port=port) for key, value in ready.items()}
    rig.unit("web", command(list(words)), listen=[f"127.0.0.1:{port}"], env={"PORT": str(port)}, ready=ready)
    assert rig.restart("web")["ok"] and rig.restart("web")["ok"]
    assert get(port) == "one"


def test_readiness_by_sd_notify(rig: Rig) -> None:
    script = rig.folder / "notify.py"
    script.write_text(
        "import os, socket, time\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "s.send(b'STATUS=up\\nREADY=1')\ntime.sleep(1000)\n"
    )
    rig.unit("job", [servers.python(), "notify.py"], ready={"notify": True, "timeout": 0.5})
    done = rig.restart("job")
    assert not done["ok"] and "READY=1" in done["why"]
    (rig.folder / "go").touch()
    rig.unit("job", [servers.python(), "notify.py"], ready={"notify": True, "timeout": 20})
    assert rig.restart("job")["ok"]


def test_somebody_elses_ready_is_not_believed(rig: Rig) -> None:
    rig.unit("job", "echo socket=$NOTIFY_SOCKET; sleep 1000", ready={"notify": True, "timeout": 3})

    def forge() -> None:
        name = eventually(lambda: "socket=@" in rig.log("job") and rig.log("job").split("socket=@")[1].split()[0], "name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(b"READY=1", f"\0{name}")

    thread = threading.Thread(target=forge)
    thread.start()
    done = rig.restart("job")
    thread.join()
    assert not done["ok"], done


def test_behind_a_port_a_killed_supervisor_fails_no_request_and_another_handoff_takes_the_socket(rig: Rig) -> None:
    port = web(rig, ["node", "web.js"], "port", replicas=2)
    assert [unit["service"] for unit in rig.one("status")["services"]] == ["web"], "the forwarder is not a service"

    def change() -> None:
        first = rig.status("web")["pids"]
        rig.kill()
        assert get(port) == "one", "it is carried on while no supervisor runs"
        rig.begin()
        assert rig.status("web")["pids"] == first
        (rig.folder / "version").write_text("two")
        assert rig.restart("web")["ok"]
        assert get(port) == "two"

    load = Load(port)
    asyncio.run(load.during(change))
    assert load.failures == [] and set(load.answers) == {"one", "two"}
    eventually(lambda: not rig.status("web")["draining"], "the old ones are gone")
    spec = {"handoff": "shim", "listen": [f"127.0.0.1:{port}"], "env": {"PORT": str(port)}}
    rig.unit("web", command(["node", "web.js"]), **spec)
    (rig.folder / "version").write_text("three")
    assert rig.restart("web")["ok"]
    assert get(port) == "three", "another way to hand over takes the same socket"
    eventually(lambda: len(rig.status("web")["pids"]) == 1 and not rig.status("web")["draining"], "the old ones are gone")


def test_a_crash_behind_a_port_is_waited_for_and_a_stop_closes_the_door(rig: Rig) -> None:
    port = web(rig, ["node", "web.js"], "port")
    pid = rig.status("web")["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "all of it is gone, its socket too")
    assert get(port) == "one", "a new connection waits for the next process"
    assert rig.ask("stop", scope="web")[-1]["ok"]
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert rig.restart("web")["ok"] and get(port) == "one"
