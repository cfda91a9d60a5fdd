"""Health probes against real sockets that answer well, badly, slowly and never."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.probes import LARGEST, Probes, names_commit
from homeport.doors.shell import LocalShell
from homeport.model.config import Check, Seconds
from homeport.model.errors import Cancelled, Failed
from homeport.model.running import Probe, UnitState
from tests.supervisor_rig import CLAIMS

SHA = "0123456789abcdef0123456789abcdef01234567"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
Answer = Callable[[socket.socket, bytes], None]


class Server:
    """Answers each connection with `answer`, in a thread of its own; counts the connections."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self._answer, self._tls = answer, tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._open.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError):
            talk = self._tls.wrap_socket(peer, server_side=True) if self._tls else peer
            request = talk.recv(65536)
            self.requests.append(request)
            self._answer(talk, request)
            talk.close()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for each in (self._socket, *self._open):
            each.close()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Server] = []

    def start(answer: Answer, tls: ssl.SSLContext | None = None) -> Server:
        made.append(Server(answer, tls))
        return made[-1]

    yield start
    for server in made:
        server.close()


def says(status: int, body: bytes = b"", *headers: str) -> Answer:
    head = f"HTTP/1.1 {status} Word\r\nContent-Length: {len(body)}\r\n" + "".join(f"{h}\r\n" for h in headers)
    return lambda peer, _: peer.sendall(head.encode() + b"\r\n" + body)


def drip(head: bytes) -> Answer:
    """Sends a byte every 20 ms without end."""

    def answer(peer: socket.socket, _: bytes) -> None:
        peer.sendall(head)
        while True:
            peer.sendall(b"x")
            time.sleep(0.02)

    return answer


def once(state: Callable[[], UnitState] | None = None, cwd: str = "/", sha: str = SHA, timeout: float = 5,
         **check: Any) -> Probe:  # fmt: skip
    return Probes(LocalShell()).once(
        Check(timeout=Seconds(timeout), **check), sha=sha, cwd=cwd, env=ENV, user=None, state=state
    )


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (302, True), (399, True),
                                            (404, False), (502, False)])  # fmt: skip
def test_from_200_to_399_is_well(serve: Serve, status: int, ok: bool) -> None:
    url = serve(says(status)).url + "/health?a=b"
    assert once(http=url) == Probe(ok=ok, detail=f"GET {url} answered {status}")


def test_named_statuses_replace_the_usual_ones(serve: Serve) -> None:
    url = serve(says(401)).url
    assert once(http=url, status=401).ok
    assert once(http=url, status=[200, 401]).ok
    assert not once(http=url, status=200).ok


def test_redirects_are_not_followed(serve: Serve) -> None:
    other = serve(says(500))
    assert once(http=serve(says(301, b"", f"Location: {other.url}/")).url).ok
    assert other.requests == []


def test_every_try_is_a_new_connection_for_the_whole_target(serve: Serve) -> None:
    server = serve(says(200, b"", "Connection: keep-alive"))
    for _ in range(2):
        assert once(http=server.url + "/a/b?c=d#e").ok
    assert [request.split(b"\r\n")[0] for request in server.requests] == [b"GET /a/b?c=d HTTP/1.1"] * 2


def test_a_body_must_contain_the_text(serve: Serve) -> None:
    url = serve(says(200, "alles gut, größer".encode())).url
    assert once(http=url, contains="größer").ok
    assert once(http=url, contains="bad") == Probe(ok=False, detail=f"GET {url} answered 200 without 'bad'")


def test_no_more_than_the_first_part_of_a_body_is_looked_at(serve: Serve) -> None:
    url = serve(says(200, b"." * (LARGEST - 3) + b"abc" + b"later")).url
    assert once(http=url, contains="abc").ok
    assert not once(http=url, contains="later").ok


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"])
def test_a_server_that_drips_is_cut_off(serve: Serve, head: bytes) -> None:
    began = time.monotonic()
    probe = once(http=serve(drip(head)).url, contains="y", timeout=0.3)
    assert not probe.ok and probe.detail.endswith("gave no whole answer within 0.3 s")
    assert time.monotonic() - began < 20
    for thread in threading.enumerate():
        if thread.name == "homeport-probe":
            thread.join(20)
            assert not thread.is_alive(), "a probe that was cut off still reads"


def test_a_server_that_accepts_and_is_silent_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert not once(http=f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.3).ok
        assert time.monotonic() - began < 20


def test_what_went_wrong_is_told(serve: Serve) -> None:
    gone = f"http://127.0.0.1:{closed_port()}/"
    assert once(http=gone).detail == f"GET {gone} refused the connection"
    hangs_up = serve(lambda peer, _: None).url
    assert once(http=hangs_up).detail == f"GET {hangs_up} closed the connection without an answer"
    assert not once(http=serve(lambda peer, _: peer.sendall(b"220 smtp\r\n")).url).ok


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "http://[::1",
                                 "http://127.0.0.1/a b\r\nX: y"])  # fmt: skip
def test_what_is_no_url_is_a_failed_check(url: str) -> None:
    assert not once(http=url).ok


def test_a_password_in_the_url_is_not_shown() -> None:
    detail = once(http=f"http://me:hunter2@127.0.0.1:{closed_port()}/x").detail
    assert "hunter2" not in detail and "/x" in detail


def test_a_certificate_that_nobody_signed_fails(serve: Serve, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    probe = once(http=serve(says(200), context).url)
    assert not probe.ok and "certificate verify failed" in probe.detail


def test_tcp_is_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert once(tcp=address) == Probe(ok=True, detail=f"tcp {address} accepts connections")
    gone = f"127.0.0.1:{closed_port()}"
    assert once(tcp=gone) == Probe(ok=False, detail=f"tcp {gone} refused the connection")
    for wrong in ("", "localhost", ":80", "localhost:http", "localhost:70000"):
        assert "is not HOST:PORT" in once(tcp=wrong).detail


def test_a_command_is_well_when_it_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    assert once(command=["test", "-e", "here"], cwd=str(tmp_path)).ok
    probe = once(command="echo fine; echo queue is full >&2; exit 4")
    assert not probe.ok and "ended with status 4" in probe.detail
    assert not once(command=["/nonexistent/program"]).ok


def test_a_check_that_the_machine_cannot_start_was_not_asked() -> None:
    """No descriptor is left: nothing is known of the service."""
    assert not once(command="exit 1").unasked
    lowest = os.dup(0)
    os.close(lowest)
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, most))
    try:
        probe = once(command="true")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
    assert (probe.ok, probe.unasked) == (False, True)
    assert "Too many open files" in probe.detail


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    for timeout in (0.5, 4.0):
        probe = once(command="sleep 60 & echo $! > pid; wait", cwd=str(tmp_path), timeout=timeout)
        assert not probe.ok and f"did not end within {timeout:g} s" in probe.detail
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():  # a busy machine may not have begun
            break
    assert time.monotonic() - began < 40
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while running(child):
        assert time.monotonic() < deadline, "the child of the command outlived it"
        time.sleep(0.01)


def test_a_command_of_endless_words_does_not_fill_the_memory() -> None:
    probe = once(command="yes | head -c 5000000; exit 1", timeout=30)
    assert not probe.ok and len(probe.detail) < 1000


def test_a_process_is_asked_of_its_runtime() -> None:
    assert once(process=True, state=lambda: UnitState(state="running", pid=7)).ok
    probe = once(process=True, state=lambda: UnitState(state="failed", detail="errored"))
    assert probe == Probe(ok=False, detail="the process is failed (errored)")
    assert not once(process=True).ok

    def broken() -> UnitState:
        raise Failed("pm2 is not found")

    assert once(process=True, state=broken) == Probe(ok=False, detail="pm2 is not found")


def test_a_version_is_the_commit_in_an_answer(serve: Serve) -> None:
    for body, ok in ((SHA, True), (f'{{"sha":"{SHA[:7]}"}}', True), (SHA[:6], False), ("fedcba9", False)):
        assert once(version=serve(says(200, body.encode())).url).ok is ok
    assert not once(version=serve(says(500, SHA.encode())).url).ok


def test_a_version_is_the_commit_a_command_prints() -> None:
    assert once(version=["echo", f"v1.2-3-g{SHA[:9].upper()}"]).ok
    probe = once(version=["echo", "v1.2"])
    assert probe == Probe(ok=False, detail=f"echo v1.2 does not name {SHA[:12]}: v1.2")
    assert not once(version=f"echo {SHA}; exit 1").ok


@pytest.mark.parametrize(("text", "named"), [
    (SHA, True), (SHA[:7], True), (SHA[:7] + "f", False), ("a" + SHA[:7], False), (SHA[1:], False),
    (SHA + "0", False), ("", False), (f"build-{SHA[:12]}-dirty", True),
])  # fmt: skip
def test_only_a_whole_word_of_the_commits_digits_names_it(text: str, named: bool) -> None:
    assert names_commit(text, SHA) is named


def test_without_a_commit_nothing_is_named() -> None:
    assert not once(version=["echo", "abcdef0"], sha="").ok


def test_a_cancel_is_not_a_failed_check() -> None:
    with pytest.raises(Cancelled):
        Probes(LocalShell("d", lambda: True)).once(
            Check(command=["sleep", "60"]), sha=SHA, cwd="/", env=ENV, user=None, state=None
        )


def test_control_characters_do_not_reach_the_detail() -> None:
    assert "\x1b" not in once(version=["printf", "\\033[2Jgone"]).detail
    assert "\x1b" not in once(command="printf '\\033[2Jgone\\n'; exit 1").detail


def closed_port() -> int:
    """It is bound, so that no other test gets it, and does not listen."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    CLAIMS.append(bound)
    return int(bound.getsockname()[1])


def running(pid: int) -> bool:
    """Whether that process still runs; a dead one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
