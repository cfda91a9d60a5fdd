"""The journal: complete lines only, in spite of crashes, floods and bytes that are no text; no secret in it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.journal import FileJournal, follow, read_from
from homeport.doors.secrets import Redactor
from homeport.model.errors import InfrastructureFault
from homeport.model.events import DeployDone, Notice, StageEvent


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "d1.jsonl")


def opened(path: str, **more: Any) -> FileJournal:
    return FileJournal(path, "d1", Redactor(["hunter2hunter2"]).redact, **more)


def events(path: str) -> list[dict[str, Any]]:
    lines, _ = read_from(path, 0)
    return [json.loads(line) for line in lines]


def done() -> DeployDone:
    return DeployDone(deploy_id="d1", ok=True, status="deployed", sha=None, previous_sha=None, services=(), exit_code=0,
                      duration_ms=1)  # fmt: skip


def test_every_event_is_a_line_with_its_time_in_a_private_file(path: str) -> None:
    journal = opened(path)
    journal.write(StageEvent(deploy_id="d1", stage="build", state="start"))
    journal.line("stdout", "hello", "api")
    journal.sync()
    found = events(path)
    journal.close()
    journal.close()
    assert [e["type"] for e in found] == ["deploy.stage", "deploy.log"]
    assert all(e["at"].endswith("Z") and e["deployId"] == "d1" for e in found)
    assert (found[1]["stream"], found[1]["line"], found[1]["service"]) == ("stdout", "hello", "api")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_no_secret_reaches_the_file(path: str) -> None:
    journal = opened(path)
    journal.line("stdout", "password is hunter2hunter2, cloning https://bob:s3cr3t@git.example.com/x")
    journal.write(Notice(deploy_id="d1", level="info", message="hunter2hunter2"))
    journal.close()
    raw = Path(path).read_text()
    assert "hunter2" not in raw
    assert "s3cr3t" not in raw
    assert events(path)[0]["line"] == "password is ***, cloning https://***@git.example.com/x"


def test_bytes_that_are_no_text_do_not_stop_a_deploy(path: str) -> None:
    journal = opened(path)
    journal.line("stderr", "caf\udce9 é \ud800 \n tail")
    journal.write(Notice(deploy_id="d1", level="warning", message="\udcff"))
    journal.close()
    assert [e.get("line", e.get("message")) for e in events(path)] == ["caf\\udce9 é \\ud800 \n tail", "\\udcff"]


def test_a_torn_last_line_is_closed_when_the_journal_is_opened_again(path: str) -> None:
    journal = opened(path)
    journal.line("stdout", "one")
    journal.close()
    with open(path, "ab") as file:
        file.write(b'{"type":"deploy.log","line":"tor')
    assert [e["line"] for e in events(path)] == ["one"]
    again = opened(path)
    again.line("stdout", "two")
    again.close()
    assert [e["line"] for e in events(path)] == ["one", "two"]
    assert Path(path).read_bytes().count(b"\n") == 3


def test_a_line_that_the_disk_takes_in_parts_is_whole_and_one_that_it_cuts_is_left_out(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is no fault; it used to fail the deploy. The next write says whether the disk is full."""
    journal, whole, room = opened(path), os.write, [10_000]

    def takes_seven_bytes_at_once(fd: int, data: bytes) -> int:
        if room[0] < 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 7
        return whole(fd, data[:7])

    monkeypatch.setattr(os, "write", takes_seven_bytes_at_once)
    journal.line("stdout", "one")
    room[0] = 20
    with pytest.raises(InfrastructureFault, match="No space left"):
        journal.line("stdout", "cut")
    room[0] = 10_000
    journal.line("stdout", "two")
    journal.close()
    assert [e["line"] for e in events(path)] == ["one", "two"]


FLOOD = """
import sys
from homeport.doors.journal import FileJournal
journal = FileJournal(sys.argv[1], "d1", str)
for number in range(10**9):
    journal.line("stdout", f"{number} " + "x" * 500)
"""


def test_kill_9_in_the_middle_of_a_flood_loses_no_line_that_was_written_before(path: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", FLOOD, path])
    try:
        while not os.path.exists(path) or os.path.getsize(path) < 2_000_000:
            assert writer.poll() is None
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    again = opened(path)
    again.write(done())
    again.close()
    found = list(follow(path, 0, lambda: False))
    numbers = [int(json.loads(line)["line"].split()[0]) for line in found[:-1]]
    assert len(numbers) > 1000
    assert numbers == list(range(len(numbers)))
    assert json.loads(found[-1])["type"] == "deploy.done"


def test_reading_goes_on_where_it_stopped_and_leaves_half_lines(path: str) -> None:
    assert read_from(path, 0) == ([], 0)
    Path(path).write_bytes(b'{"a":1}\n\nnot json\n{"b":{"c":2}\n{"d":4}\n{"e":')
    lines, offset = read_from(path, 0)
    assert lines == [b'{"a":1}', b'{"d":4}']
    assert read_from(path, offset) == ([], offset)
    with open(path, "ab") as file:
        file.write(b"5}\n")
    assert read_from(path, offset)[0] == [b'{"e":5}']


def test_a_line_longer_than_a_look_is_read_whole(path: str) -> None:
    long = b'{"a":"' + b"x" * 3_000_000 + b'"}'
    Path(path).write_bytes(b'{"b":1}\n' + long + b"\n")
    assert list(follow(path, 0, lambda: False)) == [b'{"b":1}', long]


def test_a_follower_gets_every_line_and_ends_with_the_deploy(path: str) -> None:
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(follow(path, 0, lambda: True)))
    reader.start()
    journal = opened(path)
    for number in range(2000):
        journal.line("stdout", f'{number} {{"type":"deploy.done"')
    journal.write(done())
    journal.line("homeport", "after the end")
    journal.close()
    reader.join(30)
    assert not reader.is_alive()
    assert len(seen) == 2001
    assert json.loads(seen[-1])["type"] == "deploy.done"


def test_a_follower_of_a_dead_deploy_reads_the_rest_and_ends(path: str) -> None:
    def dies_after_a_last_line() -> bool:
        journal = opened(path)
        journal.line("stdout", "last words")
        journal.close()
        return False

    assert [json.loads(line)["line"] for line in follow(path, 0, dies_after_a_last_line)] == ["last words"]
    assert list(follow(path, os.path.getsize(path), lambda: False)) == []


def test_a_flood_of_lines_is_capped_and_events_still_get_through(path: str) -> None:
    journal = opened(path, largest=10_000)
    for _ in range(1000):
        journal.line("stdout", "x" * 100)
    journal.write(StageEvent(deploy_id="d1", stage="build", state="done"))
    journal.write(done())
    journal.close()
    found = events(path)
    kept = sum(e["type"] == "deploy.log" for e in found)
    notices = [e["message"] for e in found if e["type"] == "deploy.notice"]
    assert os.path.getsize(path) < 12_000
    assert 0 < kept < 100
    assert "counted, not kept" in notices[0]
    assert notices[1:] == [f"{1000 - kept} lines of output were not kept"]
    assert [e["type"] for e in found[-3:]] == ["deploy.stage", "deploy.notice", "deploy.done"]


def test_threads_never_mix_their_lines(path: str) -> None:
    journal = opened(path)

    def write(name: str) -> None:
        for number in range(300):
            journal.line("stdout", f"{name} {number} " + "y" * 300)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = [e["line"].split()[:2] for e in events(path)]
    assert len(found) == 2400
    assert all([int(n) for name, n in found if name == str(t)] == list(range(300)) for t in range(8))


def test_a_full_disk_is_an_infrastructure_fault_and_the_rest_stays_readable(path: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = opened(path)
    try:
        journal.line("stdout", "one")
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 20, hard))
        for _ in range(2):
            with pytest.raises(InfrastructureFault) as told:
                journal.line("stdout", "two")
            assert told.value.code == "journal"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    journal.line("stdout", "three")
    journal.close()
    assert [e["line"] for e in events(path)] == ["one", "three"]


def test_a_link_in_the_place_of_a_journal_is_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(InfrastructureFault):
        opened(path)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("fetch https://ghp_token@git.example.com/a.git", "fetch https://***@git.example.com/a.git"),
        ("postgres://app:p@ss:word@db.example.com/x", "postgres://***@db.example.com/x"),
        ("redis://:secret@localhost", "redis://***@localhost"),
        ("ssh://git@git.example.com/a.git", "ssh://git@git.example.com/a.git"),
        ("http://example.com/?mail=a@example.com", "http://example.com/?mail=a@example.com"),
        ("a\udcffhunter2hunter2", "a\udcff***"),
        ("in a form: a%2Fb%2Fc%2Fd", "in a form: ***"),
        ("short words stay", "short words stay"),
        ("line two of a key: QUJDREVGR0g", "line two of a key: ***"),
    ],
)  # fmt: skip
def test_redaction(text: str, safe: str) -> None:
    redactor = Redactor(["hunter2hunter2", "hunter2", "a/b/c/d", "short", "-----KEY-----\nQUJDREVGR0g\n"])
    assert redactor.redact(text) == safe


def test_lines_that_come_at_once_are_kept_as_if_one_by_one(path: str) -> None:
    given = ["plain", "the password is hunter2hunter2", "", "tab\tand \x1b[31mred", "Größe \U0001f600", "lone \udc80"]
    together, apart = opened(path), opened(f"{path}.2")
    together.lines("stderr", given, "api")
    for line in given:
        apart.line("stderr", line, "api")
    together.close()
    apart.close()
    found, wanted = events(path), events(f"{path}.2")
    assert [{**e, "at": ""} for e in found] == [{**e, "at": ""} for e in wanted]
    assert b"hunter2" not in Path(path).read_bytes()


def test_lines_that_come_at_once_stop_at_the_bound_like_others(path: str) -> None:
    journal = opened(path, largest=2000)
    for _ in range(50):
        journal.lines("stdout", ["x" * 100] * 5)
    journal.write(done())
    journal.close()
    found = events(path)
    kept = sum(e["type"] == "deploy.log" for e in found)
    assert 0 < kept < 20
    assert found[-2]["message"] == f"{250 - kept} lines of output were not kept"
