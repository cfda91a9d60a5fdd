"""A live file is brought into git as it was at one moment, whoever writes to it meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeport.doors import caught, writers
from homeport.doors.caught import CHANGING, Uncaught, caught_at
from homeport.doors.look import open_root
from homeport.model.errors import HomeportError
from homeport.model.live import Entry
from tests.targets.conftest import Host
from tests.world import eventually

BLOCKS, BLOCK = 256, 1 << 15
BACKWARDS = f"""
import os, sys
fd, count = os.open(sys.argv[1], os.O_RDWR), 0
while True:
    count += 1
    for block in reversed(range({BLOCKS})):
        os.pwrite(fd, b"%07d\\n" % count * ({BLOCK} // 8), block * {BLOCK})
    if count == 2:
        print("ready", flush=True)
"""
"""Writes a file anew again and again, from its end: at any moment its head is of one round, the rest of the next."""


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    path.write_bytes(b"0000000\n" * (BLOCKS * BLOCK // 8))
    writer = subprocess.Popen([sys.executable, "-c", BACKWARDS, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None and writer.stdout.readline()
        yield
    finally:
        writer.kill()
        writer.communicate()


def read(host: Host, path: str, most: int | None = None, *, closed: bool = False) -> Entry | None:
    root = open_root(str(host.live))
    assert root is not None
    try:
        return caught_at(host.mirror, root, path, most, closed=closed)
    finally:
        os.close(root)


def test_a_file_that_a_process_writes_to_all_the_time_is_given_up_or_taken_as_it_was_at_one_moment(host: Host) -> None:
    host.put({"a.txt": "one"})
    given_up = 0
    with written_to(host.live / "a.txt"):
        for _ in range(3):
            try:
                entry = read(host, "a.txt")
            except Uncaught as fault:
                assert fault.because == CHANGING
                given_up += 1
                continue
            assert entry is not None
            rounds = list(dict.fromkeys(host.mirror.read(entry.oid).split()))
            assert len(rounds) <= 2 and int(rounds[-1]) - int(rounds[0]) in (0, 1), "torn"
    assert given_up, "it never held still for long"
    assert read(host, "a.txt") == read(host, "a.txt")


@pytest.mark.parametrize("size", [10, 200], ids=["small", "handed to git as a file"])
def test_a_write_at_the_very_moment_of_the_reading_is_seen(host: Host, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size, and within one tick of the kernel's clock; one that never ends is given up."""
    host.put({"a.txt": "one"})
    monkeypatch.setattr(caught, "LARGE", 100)
    place, times = host.live / "a.txt", [1]
    place.write_text("x" * size)
    pread, store = os.pread, host.mirror.write_blob_of

    def written() -> None:
        if times[0]:
            times[0] -= 1
            with place.open("r+") as file:
                file.write(f"{times[0]:05}")

    def reading(fd: int, count: int, at: int) -> bytes:
        raw = pread(fd, count, at)
        written()
        return raw

    def storing(file: int) -> str:
        oid = store(file)
        written()
        return oid

    monkeypatch.setattr(caught.os, "pread", reading)
    monkeypatch.setattr(host.mirror, "write_blob_of", storing)
    entry = read(host, "a.txt")
    assert entry is not None and host.mirror.read(entry.oid).decode() == place.read_text()
    times[0] = 1000
    with pytest.raises(Uncaught, match="hold still"):
        read(host, "a.txt")


def test_a_file_that_somebody_pauses_in_the_middle_of_writing_is_no_edit_yet_and_the_writer_is_named(host: Host) -> None:
    host.put({"a.txt": "one"})
    half = "import sys; file = open(sys.argv[1], 'r+'); print(file.write('half'), flush=True); file.flush(); input()"
    writer = subprocess.Popen([sys.executable, "-c", half, host.live / "a.txt"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    with writer:
        assert writer.stdout is not None and writer.stdout.readline()
        with pytest.raises(Uncaught, match=rf"python.* \(process {writer.pid}\) has it open for writing"):
            read(host, "a.txt", closed=True)
        assert read(host, "a.txt") is not None, "who records what is there takes it as it is"
        writer.communicate(b"\n")
    entry = read(host, "a.txt", closed=True)
    assert entry is not None and host.mirror.read(entry.oid) == b"half"


def test_who_opens_a_file_in_the_moment_it_is_asked_after_waits_for_that_and_we_do_not_die_of_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the signal by which the kernel tells that somebody wants to write, a process dies."""
    host.put({"a.txt": "one"})
    real, opened = fcntl.fcntl, list[subprocess.Popen[bytes]]()

    def asked(fd: int, what: int, how: int = 0) -> int:
        if (what, how) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
            writes = f"open({str(host.live / 'a.txt')!r}, 'r+').write('two')"
            opened.append(subprocess.Popen([sys.executable, "-c", writes]))
            eventually(lambda: real(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK, "the kernel asks for the lease back")
            assert opened[0].poll() is None, "it waits"
        return real(fd, what, how)

    monkeypatch.setattr(writers.fcntl, "fcntl", asked)
    with (host.live / "a.txt").open() as file:
        assert not writers.open_for_writing(file.fileno())
    assert opened[0].wait(20) == 0
    assert host.files()["a.txt"] == "two"


def test_what_came_into_a_files_place_is_not_taken_for_deleted(host: Host) -> None:
    host.put({"a.txt": "one", "b.txt": "two", "deep/c.txt": "three"})
    (host.live / "a.txt").unlink()
    os.mkfifo(host.live / "a.txt")
    with pytest.raises(Uncaught, match="fifo"):
        read(host, "a.txt")
    assert read(host, "gone.txt") is None and read(host, "b.txt/below") is None and read(host, "deep") is None
    with pytest.raises(Uncaught, match="too large"):
        read(host, "b.txt", 3)
    (host.live / "b.txt").unlink()
    (host.live / "b.txt").symlink_to("a.txt")
    entry = read(host, "b.txt")
    assert entry is not None and (entry.mode, host.mirror.read(entry.oid)) == ("120000", b"a.txt")


def test_an_edit_that_never_holds_still_is_not_recorded_as_it_never_was(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`record` and `rebuild` refuse it by name."""
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "one"})
    host.deploy(sha)
    host.write("a.txt", "by hand")
    monkeypatch.setattr(caught, "_read_still", lambda *_: None)
    record = host.store.target(host.target.name)
    assert record is not None
    with pytest.raises(HomeportError) as fault:
        host.targets.take(host.target, record.tree, sha, ["a.txt"])
    assert fault.value.code == "unsteady" and CHANGING in fault.value.what
    with pytest.raises(HomeportError) as fault:
        host.targets.snapshot(host.target, host.scan(), sha)
    assert fault.value.code == "unsteady" and fault.value.next == "homeport drift"
