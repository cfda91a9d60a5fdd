"""P9: the login in the address of a repository reaches git, and no command line of the machine, no file of the mirror."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from homeport.doors import git as git_door
from homeport.doors.git import Mirror
from homeport.doors.gitlogin import hidden, parted
from homeport.doors.shell import LocalShell
from tests.conftest import QUICK

WORD = f"word-{os.urandom(6).hex()}"
"""On no other command line of the machine: tests beside this one have their own."""
NAME, PASSWORD = "ada", f"{WORD}:p@ss%20/é"
IN_URL = f"ada:{WORD}%3Ap%40ss%2520%2F%C3%A9"


class Forge:
    """A git server over TLS that wants a login. At each request it reads every command line of the machine."""

    def __init__(self, folder: Path, pem: Path) -> None:
        self.lines: set[bytes] = set()
        self.asked = 0
        own = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                own.asked += 1
                own.lines |= command_lines()
                shown = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {shown}":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                env = {"GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                       "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                       "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                       "REMOTE_USER": NAME, "PATH": os.environ["PATH"],
                       "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                       "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}  # fmt: skip
                said = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=True).stdout
                head, _, content = said.partition(b"\r\n\r\n")
                self.send_response(200)
                for line in head.decode().split("\r\n"):
                    self.send_header(*line.split(": ", 1))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def command_lines() -> set[bytes]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            continue
    return found


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    pem = tmp_path / "server.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(pem),
                    "-out", str(tmp_path / "ca.pem")], check=True, capture_output=True)  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "ca.pem").read_text())
    plain = git_door.network_environment
    monkeypatch.setattr(git_door, "network_environment", lambda: {**plain(), "GIT_SSL_CAINFO": str(tmp_path / "ca.pem")})
    origin = tmp_path / "served/shop.git"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **QUICK}
    line = ("git init -q --bare -b main $0 && git -C $0 config http.receivepack true && git init -q -b main work && "
            "cd work && git -c user.name=A -c user.email=a@example.com commit -q --allow-empty -m one && "
            "git push -q $0 main")  # fmt: skip
    subprocess.run(["/bin/sh", "-c", line, str(origin)], cwd=tmp_path, env=env, check=True)
    made = Forge(tmp_path / "served", pem)
    yield made
    made.close()


def test_a_fetch_and_a_push_with_a_login_show_it_on_no_command_line_and_keep_it_nowhere(
    forge: Forge, tmp_path: Path
) -> None:
    mirror = Mirror.open_or_create(str(tmp_path / "repo.git"), f"https://{IN_URL}@127.0.0.1:{forge.port}/shop.git",
                                   LocalShell())  # fmt: skip
    try:
        mirror.fetch()
        tip = mirror.tip("main")
        mirror.fetch()
        mirror.push_new(tip, "adopted")
    finally:
        mirror.close()
    assert forge.asked > 4
    assert any(b"remote-https" in line for line in forge.lines), "git was seen at work"
    assert not [line for line in forge.lines if WORD.encode() in line]
    for path in (tmp_path / "repo.git").rglob("*"):
        assert path.is_dir() or WORD.encode() not in path.read_bytes(), path


def test_a_wrong_login_is_told_without_it(forge: Forge, tmp_path: Path) -> None:
    mirror = Mirror.open_or_create(str(tmp_path / "repo.git"), f"https://ada:cana@ry@127.0.0.1:{forge.port}/shop.git",
                                   LocalShell())  # fmt: skip
    with pytest.raises(git_door.InfrastructureFault) as caught:
        mirror.fetch()
    mirror.close()
    said = f"{caught.value} {caught.value.next}"
    assert "cana" not in said and "ry@" not in said and "127.0.0.1" in said
    assert not [line for line in forge.lines if b"cana@ry" in line]


def test_a_login_goes_to_its_own_host_only() -> None:
    bare, options, env = parted("https://ada:s%65cret@git.example.com:8443/o/r.git")
    assert bare == "https://git.example.com:8443/o/r.git"
    assert options[1].startswith("credential.https://git.example.com:8443.helper=")
    assert env == {"HOMEPORT_GIT_NAME": "ada", "HOMEPORT_GIT_PASSWORD": "secret"}
    assert parted("ssh://git:secret@git.example.com/r.git")[0] == "ssh://git@git.example.com/r.git"
    for plain in ("git@git.example.com:o/r.git", "https://git.example.com/o/r.git", "/srv/git/r.git", ""):
        assert parted(plain) == (plain, (), {})


def test_a_password_with_an_at_sign_is_hidden_whole() -> None:
    assert hidden("unable to access 'https://ada:p@ss@git.example.com/r@1.git/'") == (
        "unable to access 'https://git.example.com/r@1.git/'")  # fmt: skip
