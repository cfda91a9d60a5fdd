"""Children: crashes and their back-off, whole groups, output of every kind, users, and being PID 1."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.supervisor.unit import FIRST_DELAY, LONGEST_DELAY, STABLE, Backoff
from tests.conftest import let_everybody_in
from tests.supervisor_rig import Client, Rig, alive, eventually, rigged

UNTIL_TOLD = "until [ -e crash ]; do sleep 0.01; done"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield from rigged(tmp_path)


def test_delays_double_are_capped_and_forgotten_after_a_stable_time() -> None:
    backoff = Backoff()
    delays = [backoff.after(0.0) for _ in range(40)]
    assert delays[:4] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY and sorted(delays) == delays
    assert backoff.after(STABLE - 0.1) == LONGEST_DELAY
    assert backoff.after(STABLE) == FIRST_DELAY


def test_a_child_that_crashes_at_once_is_started_again_ever_more_slowly(rig: Rig) -> None:
    script = (
        "import os, time\nprint('begun', time.monotonic(), flush=True)\n"
        "while not os.path.exists('crash'): time.sleep(0.01)\n"
    )
    rig.unit("job", [sys.executable, "-c", script], ready={"line": "begun"})
    assert rig.restart("job")["ok"]
    (rig.folder / "crash").touch()

    def starts() -> list[float]:
        return [float(line.split()[1]) for line in rig.log("job").splitlines() if line.startswith("begun")]

    eventually(lambda: len(starts()) >= 6, "five crashes")
    gaps = [after - before for before, after in zip(starts(), starts()[1:], strict=False)]
    assert all(gap >= FIRST_DELAY * 2**number for number, gap in enumerate(gaps[:5])), gaps
    eventually(lambda: rig.status("job")["state"] == "failed", "it is called failed")
    state = rig.status("job")
    assert state["restarts"] >= 5 and "status 0" in state["detail"]
    (rig.folder / "crash").unlink()
    began = time.monotonic()
    assert rig.restart("job")["ok"] and time.monotonic() - began < 5, "somebody who asks does not wait for the back-off"
    assert rig.status("job")["state"] == "running"


def test_the_last_words_of_a_child_that_ends_at_once_are_in_its_log_and_in_the_answer(rig: Rig) -> None:
    """Whoever reads its output has not opened it yet when it ends."""
    rig.unit("job", "echo said; echo last words; touch ended; exit 3", ready={"line": "never"})
    client, keeper = Client(rig.socket), rig.keeper()
    os.kill(keeper, signal.SIGSTOP)
    try:
        client.send(b'{"id":1,"op":"restart","scope":"job"}\n')
        assert client.read()["type"] == "restart.ack"
        records = rig.state / "supervisor.json"
        eventually((rig.folder / "ended").exists, "it runs")
        eventually(lambda: json.loads(records.read_text())["children"] == [], "it has ended and is forgotten")
    finally:
        os.kill(keeper, signal.SIGCONT)
    done = client.read()
    client.close()
    assert (done["ok"], "status 3" in done["why"], done["tail"]) == (False, True, ["said", "last words"]), done
    assert rig.log("job").splitlines() == ["said", "last words"]
    eventually(lambda: not list((rig.state / "out").iterdir()), "the keeper has put away what it wrote to")


def test_a_stop_ends_the_back_off(rig: Rig) -> None:
    rig.unit("job", f"echo begun; {UNTIL_TOLD}; exit 1", ready={"line": "begun"})
    assert rig.restart("job")["ok"]
    (rig.folder / "crash").touch()
    eventually(lambda: rig.status("job")["restarts"] >= 1, "a crash")
    assert rig.one("stop", scope="job")["ok"]
    stopped = rig.status("job")
    assert stopped["state"] == "stopped"
    time.sleep(1.0)
    assert rig.status("job") == stopped, "another start would have been another crash"


def test_a_stop_does_not_wait_for_a_start_that_hangs(rig: Rig) -> None:
    rig.unit("job", ["sleep", "1000"], ready={"line": "never", "timeout": 600})
    client = Client(rig.socket)
    client.send(b'{"id":1,"op":"restart","scope":"job"}\n')
    assert client.read()["type"] == "restart.ack"
    assert rig.one("stop", scope="job")["ok"]
    done = client.read()
    assert not done["ok"] and "told to stop" in done["why"]
    client.close()


def test_a_restart_that_waits_for_its_turn_starts_nothing_of_a_removed_unit(rig: Rig) -> None:
    rig.unit("job", ["sleep", "1000"], ready={"line": "never", "timeout": 600})
    clients = [Client(rig.socket) for _ in range(3)]
    for client in clients:
        client.send(b'{"id":1,"op":"restart","scope":"job"}\n')
        assert client.read()["type"] == "restart.ack"
    assert rig.one("configure", remove=["job"])["services"] == []
    assert [client.read()["ok"] for client in clients] == [False] * 3
    for client in clients:
        client.close()
    assert json.loads((rig.state / "supervisor.json").read_text())["children"] == []


def test_a_unit_may_be_removed_and_come_back_at_once(rig: Rig) -> None:
    rig.unit("job", "echo begun; exec sleep 1000", ready={"line": "begun"})
    for _ in range(3):
        assert rig.restart("job")["registered"]
        client = Client(rig.socket)
        client.send(b'{"id":1,"op":"configure","remove":["job"]}\n')
        rig.unit("job", "echo begun; exec sleep 1000", ready={"line": "begun"})
        assert client.read()["ok"]
        client.close()
    assert rig.status("job")["state"] == "stopped"


def test_grandchildren_go_with_the_group_and_who_ignores_the_signal_is_killed(rig: Rig) -> None:
    script = (
        "trap '' TERM\n(trap '' TERM; while :; do sleep 0.1; done) & echo first $!\n"
        "sleep 1000 & echo second $!\nwhile :; do sleep 0.1; done"
    )
    rig.unit("job", script, ready={"line": "second"}, stop_timeout=0.5)
    assert rig.restart("job")["ok"]
    main = rig.status("job")["pid"]
    children = [int(line.split()[1]) for line in rig.log("job").splitlines()]
    assert len(children) == 2 and all(map(alive, [main, *children]))
    began = time.monotonic()
    assert rig.one("stop", scope="job")["ok"]
    assert 0.4 < time.monotonic() - began < 8
    eventually(lambda: not any(map(alive, [main, *children])), "all of the group is gone")


def test_grandchildren_do_not_outlive_a_child_that_crashed(rig: Rig) -> None:
    rig.unit("job", "sleep 1000 & echo child $!; sleep 1000", ready={"line": "child"})
    assert rig.restart("job")["ok"]
    child = int(rig.log("job").split()[1])
    os.kill(rig.status("job")["pid"], signal.SIGKILL)
    eventually(lambda: not alive(child), "the grandchild is gone")
    eventually(lambda: rig.status("job")["state"] == "running", "started again")


def test_the_configured_signal_and_reload(rig: Rig) -> None:
    script = (
        "import signal, sys\nsignal.signal(signal.SIGHUP, lambda *_: print('reloaded', flush=True))\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(print('interrupted', flush=True)))\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('terminated', flush=True))\n"
        "print('begun', flush=True)\nwhile True: signal.pause()\n"
    )
    rig.unit("job", [sys.executable, "-c", script], ready={"line": "begun"}, signal="SIGINT")
    assert rig.restart("job")["ok"]
    pid = rig.status("job")["pid"]
    assert rig.one("reload", scope="job")["ok"]
    eventually(lambda: "reloaded" in rig.log("job"), "SIGHUP came")
    assert rig.status("job")["pid"] == pid
    assert rig.one("stop", scope="job")["ok"]
    eventually(lambda: rig.log("job").split() == ["begun", "reloaded", "interrupted"], "only the configured signal")


def test_the_environment_is_the_units_own(rig: Rig) -> None:
    rig.unit("job", "env; echo end; exec sleep 1000", ready={"line": "end"}, env={"COLOUR": "red"})
    assert rig.restart("job")["ok"]
    names = {line.split("=")[0] for line in rig.log("job").splitlines() if "=" in line}
    assert names <= {"PATH", "LANG", "COLOUR", "HOMEPORT_INSTANCE", "PWD", "OLDPWD", "SHLVL", "_"}, names


def test_the_beginning_of_a_line_is_written_soon_and_its_end_behind_it(rig: Rig) -> None:
    """The keeper was woken again and again for what it had seen, and never found the time to write it."""
    rig.unit("asks", "echo begun; printf 'who? '; until [ -e crash ]; do sleep 0.05; done; echo me; exec sleep 1000",
             ready={"line": "begun"})  # fmt: skip
    assert rig.restart("asks")["ok"]
    eventually(lambda: rig.log("asks") == "begun\nwho? ", "what it asks is in its log")
    (rig.folder / "crash").touch()
    eventually(lambda: rig.log("asks") == "begun\nwho? me\n", "the rest stands behind it")


def test_logs_are_put_aside_by_size_and_bounded(rig: Rig) -> None:
    rig.unit("talk", "seq 1 60000; echo the end; exec sleep 1000", ready={"line": "the end"}, log_bytes=50_000, log_files=3)
    assert rig.restart("talk")["ok"]
    eventually(lambda: "the end" in rig.log("talk"), "all of it is written")
    files = sorted((rig.state / "logs").iterdir())
    assert [file.name for file in files] == ["talk.log", "talk.log.1", "talk.log.2", "talk.log.3"]
    assert all(file.stat().st_size <= 50_000 for file in files)
    lines = "".join(file.read_text() for file in (*reversed(files[1:]), files[0])).splitlines()
    assert lines[-1] == "the end"
    assert [int(line) for line in lines[1:-1]] == list(range(60000 - len(lines) + 3, 60001)), "nothing lost at a seam"
    answers = rig.ask("logs", service="talk", lines=3)
    assert [answer["line"] for answer in answers[:-1]] == ["59999", "60000", "the end"]


def test_a_flood_costs_bounded_disk_and_leaves_the_supervisor_responsive(rig: Rig) -> None:
    rig.unit("flood", "echo begun; exec yes", ready={"line": "begun"}, log_bytes=100_000, log_files=2)
    assert rig.restart("flood")["ok"]
    eventually((rig.state / "logs" / "flood.log.2").exists, "it floods")
    for _ in range(10):
        assert rig.one("status")["ok"]
        assert _sizes(rig.state / "logs") <= 350_000
    status = Path(f"/proc/{rig.keeper()}/status").read_text()
    most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert most < 60_000, "kB of memory of whoever reads it"
    assert rig.one("stop", scope="flood")["ok"]


def _sizes(folder: Path) -> int:
    """Of all files together; one may be renamed while it is looked at."""
    total = 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def test_huge_lines_and_bytes_that_are_no_text_do_no_harm(rig: Rig) -> None:
    script = (
        "import os, time\nos.write(1, b'\\xff\\xfe\\x00 raw \\x1b[31m\\n')\n"
        "for _ in range(64): os.write(1, b'x' * 65536)\n"
        "os.write(1, b'\\nafter\\n')\ntime.sleep(1000)\n"
    )
    rig.unit("job", [sys.executable, "-c", script], ready={"line": "after"})
    assert rig.restart("job")["ok"]
    answers = rig.ask("logs", service="job", lines=5)
    lines = [answer["line"] for answer in answers if answer["type"] == "logs.line"]
    assert lines[-1] == "after" and lines[-2].startswith("xxx") and len(lines[-2]) < 10_000
    log = (rig.state / "logs" / "job.log").read_bytes()
    assert log.startswith(b"\xff\xfe\x00 raw \x1b[31m\n") and log.count(b"x") == 64 * 65536


def test_no_process_is_left_as_a_zombie(rig: Rig) -> None:
    rig.unit("job", f"echo begun; {UNTIL_TOLD}", ready={"line": "begun"})
    assert rig.restart("job")["ok"]
    (rig.folder / "crash").touch()
    eventually(lambda: rig.status("job")["restarts"] >= 2, "some crashes")
    assert rig.one("stop", scope="job")["ok"]
    assert rig.process is not None
    pid = rig.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    eventually(lambda: children.read_text().split() == [str(rig.keeper())], "all remains are taken away")


def namespace() -> list[str]:
    """The words that make a command PID 1 of a namespace of its own."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    return words


def test_as_pid_1_orphans_are_reaped_and_everything_ends_with_it(tmp_path: Path) -> None:
    path, state = tmp_path / "s.sock", tmp_path / "state"
    words = [*namespace(), sys.executable, "-m", "homeport.supervisor", "--socket", str(path), "--state", str(state)]
    with open(tmp_path / "err", "wb") as errors:
        process = subprocess.Popen([*words, "--ephemeral"], stderr=errors, cwd="/")
    try:
        eventually(path.exists, "it listens")
        client = Client(path)
        # The grandchild's parent ends at once: its orphan becomes ours, and its remains are ours to remove.
        job = {"name": "job", "command": "(setsid sh -c 'sleep 0.3; touch orphan' &) ; echo begun; exec sleep 1000",
               "cwd": str(tmp_path), "env": {"PATH": os.environ["PATH"]}, "ready": {"line": "begun"}}  # fmt: skip
        look = {"name": "look", "command": "while :; do ps -e -o stat=,comm= > seen.new; mv seen.new seen; sleep 0.1; done",
                "cwd": str(tmp_path), "env": {"PATH": os.environ["PATH"]}}  # fmt: skip
        assert client.ask("configure", units=[job, look])[-1]["ok"]
        assert client.ask("start", scope="all")[-1]["ok"]
        eventually((tmp_path / "orphan").exists, "the orphan ended")
        eventually(lambda: "sleep" in (seen := _read(tmp_path / "seen")) and "Z" not in seen, "no zombie is left")
        client.close()
        # unshare itself takes no notice of the signal.
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        os.kill(first, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "err").read_text()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_as_pid_1_a_state_that_ends_with_the_container_is_refused(tmp_path: Path) -> None:
    places = (tmp_path, Path("/var/tmp"), Path.home(), Path("/"))
    inside = [place for place in places if place.stat().st_dev == os.stat("/").st_dev and os.access(place, os.W_OK)]
    if not inside:
        pytest.skip("every folder here that can be written is a volume of its own")
    words = [*namespace(), sys.executable, "-m", "homeport.supervisor", "--socket", str(tmp_path / "s.sock")]
    with tempfile.TemporaryDirectory(dir=inside[0]) as folder:
        done = subprocess.run([*words, "--state", f"{folder}/state"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "volume" in done.stderr


@pytest.mark.root
def test_a_unit_runs_as_its_user_and_its_output_is_read(rig: Rig) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    nobody = pwd.getpwnam("nobody")
    let_everybody_in(rig.state.parent)
    spied = " ".join(str(path) for path in (rig.state, *rig.state.rglob("*"), rig.socket))
    spy = f"for f in {spied}; do test -r $f && echo read $f; test -w $f && echo wrote $f; done; ls /proc/self/fd | wc -l; "
    rig.unit("job", spy + "id -u; id -g; echo through /proc > /proc/self/fd/1; exec sleep 1000", cwd="/", user="nobody",
             ready={"line": "through"})  # fmt: skip
    assert rig.restart("job")["ok"]
    opened, *said = rig.log("job").splitlines()
    assert said == [str(nobody.pw_uid), str(nobody.pw_gid), "through /proc"], "nothing of the supervisor's is in reach"
    assert int(opened) <= 4, "nor an open one: its own three, and that of ls"


def test_configuration_survives_and_can_be_replaced(rig: Rig) -> None:
    rig.unit("one", ["sleep", "1000"])
    rig.unit("two", ["sleep", "1000"])
    assert rig.restart("one")["ok"]
    pid = rig.status("one")["pid"]
    keep = {"name": "two", "command": ["sleep", "1000"]}
    assert rig.one("configure", units=[keep], replace=True)["services"] == ["two"]
    assert not alive(pid)
    rig.kill()
    rig.begin()
    assert [one["service"] for one in rig.one("status")["services"]] == ["two"]
    assert set(json.loads((rig.state / "supervisor.json").read_text())["units"]) == {"two"}
