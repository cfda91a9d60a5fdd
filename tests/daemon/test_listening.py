"""Where the daemon listens (P8): its socket and what lies in its place, systemd, TCP through a process without rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from homeport.daemon.sockets import Claimed, listen_tcp
from homeport.model.errors import Busy, HomeportError, InfrastructureFault, Refused, UsageFault
from tests.daemon.rig import Daemon
from tests.world import PROGRAM, World, eventually

SERVICES = '[services.api]\nsource = "api"\ntarget = "{live}/api"\n'


@pytest.fixture
def known(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.project(SERVICES, {"api/a.txt": "one\n"})
    made.homeport("history")
    yield made
    made.close()


@pytest.fixture
def daemon(known: World) -> Iterator[Daemon]:
    made = Daemon(known)
    yield made
    made.close()


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    first = Claimed(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(Busy) as caught:
        Claimed(path)
    assert caught.value.code == "serving"
    os.unlink(f"{path}.lock")
    with pytest.raises(Busy):
        Claimed(path)
    first.socket.close()
    first.release()
    assert not os.path.exists(path)
    again = Claimed(path)
    os.unlink(path)
    Path(path).write_text("somebody else's")
    again.release()
    again.socket.close()
    assert Path(path).read_text() == "somebody else's", "only its own socket is taken away"


def test_whatever_else_lies_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    others = (lambda: path.write_text("x"), path.mkdir, lambda: path.symlink_to(tmp_path / "t"), lambda: os.mkfifo(path))
    for make in others:
        make()
        with pytest.raises(Refused) as caught:
            Claimed(str(path))
        assert caught.value.code == "socket-taken" and os.path.lexists(path)
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(UsageFault) as long:
        Claimed(str(tmp_path / ("x" * 120)))
    assert long.value.code == "socket-path"
    with pytest.raises(HomeportError):
        Claimed(str(tmp_path / "none" / "s"))


@pytest.mark.root
def test_a_dead_socket_of_another_user_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    os.chown(path, 65534, 65534)
    with pytest.raises(Refused) as caught:
        Claimed(path)
    assert caught.value.code == "socket-taken" and "uid 65534" in caught.value.what


@pytest.mark.parametrize("address", ["", "7420", "localhost:", "localhost:x", "127.0.0.1:70000", "[::1]"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageFault) as caught:
        listen_tcp(address)
    assert caught.value.code == "listen"


def test_an_address_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InfrastructureFault) as caught:
            listen_tcp(f"127.0.0.1:{other.getsockname()[1]}")
    assert caught.value.code == "socket"


def test_two_daemons_do_not_serve_one_state_and_an_empty_secret_does_not_start(daemon: Daemon, known: World) -> None:
    daemon.start()
    second = known.homeport("serve", ok=(5,))
    assert "another daemon serves there" in second.stderr
    forge = f'[forge]\nkind = "github"\nrepo = "octo/shop"\nwebhook_secret = [{{ file = "{known.root}/secret" }}]\n'
    known.publish({"homeport.toml": (known.clone / "homeport.toml").read_text() + forge})
    known.homeport("plan")
    assert daemon.stop() == 0 and not daemon.socket.exists()
    for content in ("", "  \n"):
        (known.root / "secret").write_text(content)
        refused = known.homeport("serve", ok=(2,))
        assert "empty or not set" in refused.stderr and "serving" not in refused.stderr


@pytest.mark.root
def test_another_user_is_let_go_before_anything_is_read(daemon: Daemon, known: World) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        daemon.place = Path(folder) / "s"
        daemon.start()
        os.chmod(daemon.place, 0o666)
        assert "200" in asked_as(daemon.place, os.geteuid())
        assert asked_as(daemon.place, 65534) == ""
        daemon.stop()


def asked_as(place: Path, user: int) -> str:
    """What the socket answers to a process of that user; empty when it is let go."""
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(user)
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(place))
                asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                there.sendall(asking.recv(500))
        finally:
            os._exit(0)
    there.close()
    os.waitpid(child, 0)
    with here:
        return here.recv(500).decode()


def test_systemd_hands_over_sockets_and_hears_when_it_is_ready(known: World, tmp_path: Path) -> None:
    """Socket activation: the socket is systemd's, lives on without the daemon, and callers wait."""
    path, told = tmp_path / "handed.sock", tmp_path / "notify"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        listening.bind(str(path))
        listening.listen()
        hears.bind(str(told))
        hears.settimeout(20)
        number = listening.fileno()
        line = f'exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET={told} exec "$0" serve'
        daemon = subprocess.Popen(["/bin/bash", "-c", line, str(PROGRAM)], cwd=known.clone, env=known.env,
                                  pass_fds=[number], stderr=subprocess.PIPE)  # fmt: skip
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=20) as ask:
                assert ask.get("/healthz").json() == {"ok": True}
            assert hears.recv(100).startswith(b"READY=1")
            daemon.send_signal(signal.SIGTERM)
            assert hears.recv(100) == b"STOPPING=1"
            assert daemon.wait(15) == 0 and path.exists()
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
            assert daemon.stderr is not None
            daemon.stderr.close()


@pytest.mark.root
def test_tcp_goes_through_a_process_without_rights_and_ends_with_the_daemon(daemon: Daemon, known: World) -> None:
    port = known.free_port()
    known.host_file.write_text(
        f'name = "host-1"\nenvironments = ["production"]\nroots = ["{known.live}"]\nunits = ["*"]\n'
        f'[listen]\naddress = "127.0.0.1:{port}"\nuser = "nobody"\nurl = "https://deploy.example.com"\n'
    )
    daemon.start()
    base = f"http://127.0.0.1:{port}"
    eventually(lambda: known.get(port, "/healthz")[0] == 200, "TCP answers")
    token = known.json("token", "create", "ci", "--right", "read", "--right", "deploy:*")["token"]
    shown = {"Authorization": f"Bearer {token}"}
    assert daemon.process is not None
    front = next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                 if b"homeport.daemon.front" in command(pid) and parent(pid) == daemon.process.pid)  # fmt: skip
    assert os.stat(f"/proc/{front}").st_uid == pwd.getpwnam("nobody").pw_uid
    assert "NoNewPrivs:\t1" in Path(f"/proc/{front}/status").read_text()
    assert b"HOMEPORT_STATE" not in Path(f"/proc/{front}/environ").read_bytes()
    with httpx.Client(base_url=base, timeout=30) as client:
        assert client.get("/api/v1/status").status_code == 401
        assert client.get("/api/v1/status", headers={"x-homeport-client": "uid:0"}).status_code == 401
        assert client.get("/healthz", headers={"Host": "evil.example.com"}).status_code == 421
        assert client.get("/healthz", headers={"Host": "deploy.example.com"}).status_code == 200
        assert client.post("/api/v1/hold", headers=shown, content=b"x" * 70_000).status_code == 413
        said = client.post("/api/v1/self/deploy", headers=shown, json={"scope": "all", "requestedBy": "ada"}).json()
        assert said["status"] == "deployed", said
        assert client.get("/api/v1/deploys/" + said["deployId"], headers=shown).json()["requestedBy"] == "ada"
        with contextlib.closing(sqlite3.connect(known.state / "shop/production/homeport.db")) as database:
            assert ("ci", "net:127.0.0.1") in database.execute("SELECT who, origin FROM audit").fetchall()

    async def events() -> list[str]:
        url = f"ws://127.0.0.1:{port}/api/v1/events?deploy={said['deployId']}"
        async with connect(url, additional_headers=shown) as connection:
            return [json.loads(line)["type"] async for message in connection for line in str(message).split("\n")]

    heard = asyncio.run(events())
    assert heard[0] == "deploy.start" and heard[-2:] == ["deploy.done", "events.offset"]
    logs = daemon.log.read_text() + (known.state / ".front.log").read_text()
    assert token not in logs and "Bearer" not in logs, "no token in any log"
    os.kill(front, signal.SIGKILL)
    eventually(lambda: known.get(port, "/healthz")[0] == 200, "the listening process is started again")
    daemon.kill()
    eventually(lambda: known.get(port, "/healthz")[0] == 0, "it ends with the daemon")


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def test_junk_on_the_socket_and_half_open_clients_do_no_harm(daemon: Daemon) -> None:
    daemon.start()
    half = []
    for junk in (b"", b"\x16\x03\x01\x02\x00", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 1000, b"A" * 200_000,
                 b"POST /api/v1/hold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
                 b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                 b"POST /api/v1/hold HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
                 b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n",
                 b"GET /x?token=canary HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer canary\r\n\r\n"):  # fmt: skip
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(daemon.socket))
        half.append(one)
        try:
            one.sendall(junk)
        except OSError:
            continue
    assert daemon.answers() and daemon.ask("GET", "/api/v1/status").status_code == 200
    assert daemon.stop() == 0, "half-open clients do not keep it from stopping"
    for one in half:
        one.close()
    text = daemon.log.read_text()
    assert [line for line in map(json.loads, text.splitlines()) if "trace" in line] == []
    assert "canary" not in text, "what a caller shows is not written down"
