"""Whatever is sent to the socket is answered for that request alone; nobody who is slow holds up anybody else."""

from __future__ import annotations

import ctypes
import json
import os
import random
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import let_everybody_in
from tests.supervisor_rig import Client, Rig, eventually, rigged


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One supervisor for all of it: what one test does must not be felt by the next."""
    for rig in rigged(tmp_path_factory.mktemp("protocol")):
        rig.unit("job", "echo begun; exec sleep 1000", ready={"line": "begun"})
        assert rig.restart("job")["ok"]
        yield rig


@pytest.fixture
def client(rig: Rig) -> Iterator[Client]:
    pid = rig.status("job")["pid"]
    client = Client(rig.socket)
    yield client
    client.close()
    assert rig.status("job")["pid"] == pid and rig.status("job")["state"] == "running"


ABUSE = {
    "not json": (b"hello", "bad-request"),
    "half json": (b'{"id":1,"op":', "bad-request"),
    "not an object": (b"[1,2,3]", "bad-request"),
    "a number": (b"7", "bad-request"),
    "null": (b"null", "bad-request"),
    "no op": (b'{"id":1}', "bad-request"),
    "op of another type": (b'{"id":1,"op":["restart"]}', "bad-request"),
    "id of another type": (b'{"id":{"a":1},"op":"status"}', "bad-request"),
    "a huge id": (b'{"id":1' + b"0" * 400 + b',"op":"status"}', "bad-request"),
    "an enormous id": (b'{"id":' + b"9" * 60_000 + b',"op":"status"}', "bad-request"),
    "a long id": (b'{"id":"' + b"9" * 60_000 + b'","op":"status"}', "bad-request"),
    "id not a number": (b'{"id":NaN,"op":"status"}', "bad-request"),
    "unknown op": (b'{"id":1,"op":"destroy"}', "unknown-op"),
    "__class__": (b'{"id":1,"op":"__class__"}', "unknown-op"),
    "dotted": (b'{"id":1,"op":"restart.__globals__"}', "unknown-op"),
    "a method of ours": (b'{"id":1,"op":"data_received"}', "unknown-op"),
    "a private method": (b'{"id":1,"op":"_each"}', "unknown-op"),
    "empty op": (b'{"id":1,"op":""}', "unknown-op"),
    "unknown key": (b'{"id":1,"op":"status","pid":1}', "bad-request"),
    "scope of another type": (b'{"id":1,"op":"status","scope":{"$ne":1}}', "bad-request"),
    "unknown scope": (b'{"id":1,"op":"restart","scope":"nobody"}', "unknown-scope"),
    "scope that walks": (b'{"id":1,"op":"logs","service":"../../etc/passwd"}', "unknown-scope"),
    "scope __dict__": (b'{"id":1,"op":"stop","scope":"__dict__"}', "unknown-scope"),
    "logs of all": (b'{"id":1,"op":"logs","service":""}', "unknown-scope"),
    "deep": (b"[" * 60_000, "bad-request"),
    "deep objects": (b'{"a":' * 12_000, "bad-request"),
    "not utf-8": (b'{"id":1,"op":"\xff\xfe"}', "bad-request"),
    "zero bytes": (b"\0\0\0\0", "bad-request"),
    "too long": (b'{"id":1,"op":"' + b"x" * 70_000 + b'"}', "too-long"),
    "much too long": (b"x" * 3_000_000, "too-long"),
}


@pytest.mark.parametrize("kind", ABUSE)
def test_abuse_is_answered_and_the_connection_goes_on(client: Client, kind: str) -> None:
    line, code = ABUSE[kind]
    client.send(line + b"\n")
    answer = client.read()
    assert (answer["type"], answer["code"]) == ("error", code), answer
    assert len(json.dumps(answer)) < 2000
    assert client.ask("status")[-1]["ok"] is True


BAD_UNITS = {
    "name": {"name": "../x"}, "name is empty": {"name": ""}, "name is all options": {"name": "-rf"},
    "no command": {"command": []}, "empty word": {"command": [""]}, "zero byte": {"command": ["a\0b"]},
    "cwd": {"cwd": "here"}, "env": {"env": {"A=B": "c"}}, "env value": {"env": {"A": "\0"}},
    "replicas": {"replicas": 0}, "too many": {"replicas": 10_000}, "signal": {"signal": "SIGKILL"},
    "no signal": {"signal": "__class__"}, "stop_timeout": {"stop_timeout": -1}, "drain": {"drain": 1e9},
    "handoff port": {"handoff": "port", "listen": ["127.0.0.1:20000", "127.0.0.1:20001"]}, "fd without": {"handoff": "fd"},
    "carries and command": {"carries": {"a": 20000}, "listen": ["127.0.0.1:20001"]},
    "carries nowhere": {"carries": {"a": 0}, "listen": ["127.0.0.1:20001"], "command": "", "env": {}},
    "carries too far": {"carries": {"a": 65536}, "listen": ["127.0.0.1:20001"], "command": "", "env": {}},
    "carries without address": {"carries": {"a": 20000}, "command": "", "env": {}},
    "carries a name with a line": {"carries": {"a\n": 20000}, "listen": ["127.0.0.1:20001"], "command": "", "env": {}},
    "front": {"front_of": "web"}, "port without": {"handoff": "port"},
    "listen": {"listen": ["127.0.0.1:99999"]}, "listen name": {"listen": ["example.com:80"]},
    "listen twice": {"listen": ["127.0.0.1:20001", "localhost:20001"]}, "listen path": {"listen": ["unix:relative"]},
    "ready twice": {"ready": {"line": "a", "tcp": "127.0.0.1:1"}}, "ready url": {"ready": {"http": "ftp://x/"}},
    "ready header": {"ready": {"http": "http://127.0.0.1:80/\r\nX: y"}}, "ready host": {"ready": {"http": "http://a.example/"}},
    "user": {"user": "nobody-of-that-name"}, "log": {"log_bytes": 1}, "ready timeout": {"ready": {"timeout": 0}},
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_UNITS)
def test_a_unit_that_cannot_run_is_refused_whole(client: Client, kind: str) -> None:
    good = {"name": "good", "command": ["true"]}
    bad = {"name": "bad", "command": ["true"], **BAD_UNITS[kind]}
    answer = client.ask("configure", units=[good, bad])[-1]
    assert (answer["type"], answer["code"]) == ("error", "bad-unit"), answer
    assert [one["service"] for one in client.ask("status")[-1]["services"]] == ["job"], "all or nothing"


def test_two_units_do_not_share_an_address(client: Client) -> None:
    units = [{"name": name, "command": ["true"], "listen": ["127.0.0.1:20002"]} for name in ("a", "b")]
    answer = client.ask("configure", units=units)[-1]
    assert answer["code"] == "bad-unit" and "is that of a already" in answer["message"]


def test_noise_does_no_harm(client: Client) -> None:
    noise = random.Random(7)
    for _ in range(200):
        client.send(noise.randbytes(noise.randrange(1, 400)).replace(b"\n", b" ") + b"x\n")
    for _ in range(200):
        assert client.read()["type"] == "error"
    assert client.ask("status")[-1]["ok"]


def test_requests_of_one_connection_are_answered_each(client: Client) -> None:
    client.send(b'{"id":"a","op":"status"}\n{"id":"b","op":"nothing"}\n{"id":3,"op":"status"}\n')
    answers = {client.read()["id"] for _ in range(3)}
    assert answers == {"a", "b", 3}


def test_a_line_may_come_in_pieces_and_end_with_the_sending_side(rig: Rig) -> None:
    client = Client(rig.socket)
    for sign in b'{"id":1,"op":"status"}\n':
        client.send(bytes([sign]))
    client.line.shutdown(socket.SHUT_WR)
    assert client.read()["type"] == "status"
    client.close()


def test_a_client_that_closed_its_sending_side_still_gets_the_outcome(rig: Rig) -> None:
    rig.unit("slow", "sleep 0.3; echo begun; exec sleep 1000", ready={"line": "begun"})
    client = Client(rig.socket)
    client.send(b'{"id":1,"op":"restart","scope":"slow"}\n')
    client.line.shutdown(socket.SHUT_WR)
    assert [client.read()["type"] for _ in range(3)] == ["restart.ack", "restart.done", "restart.end"]
    client.close()
    assert rig.one("configure", remove=["slow"])["services"] == ["job"]


def test_a_restart_goes_on_without_its_client(rig: Rig) -> None:
    rig.unit("slow", "sleep 0.3; echo begun; exec sleep 1000", ready={"line": "begun"})
    client = Client(rig.socket)
    client.send(b'{"id":1,"op":"restart","scope":"slow"}\n')
    client.close()
    eventually(lambda: rig.status("slow")["state"] == "running", "started for nobody")
    assert rig.one("configure", remove=["slow"])["services"] == ["job"]


def test_half_open_and_silent_clients_hold_up_nobody(rig: Rig) -> None:
    silent = [Client(rig.socket) for _ in range(100)]
    for client in silent[::2]:
        client.send(b'{"id":1,"op":"sta')
    began = time.monotonic()
    for _ in range(20):
        assert rig.one("status")["ok"]
    assert time.monotonic() - began < 5
    for client in silent:
        client.close()


def test_more_connections_than_allowed_are_told_and_closed(rig: Rig) -> None:
    silent = [Client(rig.socket) for _ in range(128)]
    try:
        late = Client(rig.socket)
        answer = late.read()
        assert answer["code"] == "refused" and late.file.readline() == b""
        late.close()
    finally:
        for client in silent:
            client.close()
    eventually(rig.answers, "there is room again")


def test_a_client_that_never_reads_is_dropped_and_costs_bounded_memory(rig: Rig) -> None:
    assert rig.process is not None
    client = Client(rig.socket)
    client.line.settimeout(20)
    line = b'{"id":"' + b"i" * 200 + b'","op":"status"}\n'
    dropped = False
    for _ in range(4_000):
        try:
            client.send(line * 10)
        except (BrokenPipeError, ConnectionResetError):
            dropped = True
            break
        except TimeoutError:
            break
    client.close()
    assert dropped, "its connection is aborted"
    status = Path(f"/proc/{rig.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 120_000, f"{peak} KiB"
    assert rig.one("status")["ok"]


def test_a_long_log_reaches_a_slow_reader_whole_while_others_are_served(rig: Rig) -> None:
    rig.unit("talk", "seq -f 'line %.0f 0123456789012345678901234567890123456789' 1 9000; echo begun; exec sleep 1000",
             ready={"line": "begun"})  # fmt: skip
    assert rig.restart("talk")["ok"]
    client = Client(rig.socket)
    client.send(b'{"id":1,"op":"logs","service":"talk","lines":10000}\n')
    for _ in range(5):
        assert rig.one("status")["ok"]
    lines = []
    while (answer := client.read())["type"] == "logs.line":
        lines.append(answer["line"])
    assert answer["type"] == "logs.end" and len(lines) == 9001 and lines[-1] == "begun"
    client.close()
    assert rig.one("configure", remove=["talk"])["services"] == ["job"]


def test_following_a_log_sees_new_lines_and_ends_with_its_reader(rig: Rig) -> None:
    rig.unit("talk", "echo begun; while read line < go; do echo \"$line\"; done", ready={"line": "begun"})
    go = rig.folder / "go"
    os.mkfifo(go)
    assert rig.restart("talk")["ok"]
    client = Client(rig.socket)
    client.send(b'{"id":1,"op":"logs","service":"talk","lines":1,"follow":true}\n')
    assert client.read()["line"] == "begun"
    go.write_text("more\n")
    assert client.read()["line"] == "more"
    client.close()
    assert rig.one("configure", remove=["talk"])["services"] == ["job"]


def test_the_socket_and_the_state_are_nobody_elses(rig: Rig) -> None:
    assert stat.S_IMODE(rig.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(rig.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((rig.state / "supervisor.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((rig.state / "logs" / "job.log").stat().st_mode) == 0o600


@pytest.mark.root
def test_another_user_is_refused_even_where_the_mode_lets_it_in(rig: Rig, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    let_everybody_in(rig.socket.parent)
    os.chmod(rig.socket, 0o666)
    child = os.fork()
    if child == 0:
        # Only the parent's marks are shared: the verdict travels as the exit status.
        code = 9
        try:
            ctypes.CDLL(None).setgroups(0, None)
            os.setgid(65534)
            os.setuid(65534)
            client = Client(rig.socket)
            client.line.settimeout(20)
            code = 0 if client.read()["code"] == "refused" and client.file.readline() == b"" else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    os.chmod(rig.socket, 0o600)
    assert os.waitstatus_to_exitcode(status) == 0


def test_scopes_name_sets_and_each_unit_is_reported(rig: Rig) -> None:
    units = [{"name": name, "command": "echo begun; exec sleep 1000", "env": {"PATH": os.environ["PATH"]},
              "ready": {"line": "begun"}} for name in ("one", "two")]  # fmt: skip
    assert rig.one("configure", units=units, scopes={"platform": ["one", "two"]})["ok"]
    answers = rig.ask("restart", scope="platform")
    assert [answer["type"] for answer in answers] == ["restart.ack", "restart.done", "restart.done", "restart.end"]
    assert answers[0]["services"] == ["one", "two"]
    assert {(a["service"], a["ok"], type(a["pid"]), type(a["durationMs"])) for a in answers[1:3]} == {
        ("one", True, int, int), ("two", True, int, int)
    }  # fmt: skip
    assert answers[-1]["ok"] is True
    assert rig.one("configure", remove=["one", "two"])["services"] == ["job"]
