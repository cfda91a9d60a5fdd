"""A copy of the caller that becomes the runner: apart from the terminal, nothing of the caller in it, and never made
where that could harm."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from homeport.doors.branching import branch_off

CALLER = """
import json, os, sys
from homeport.doors.branching import branch_off

held = open(sys.argv[2], "w")
loaded = []

def become(words):
    told = {"words": words, "loaded": loaded, "pid": os.getpid(), "session": os.getsid(0), "group": os.getpgid(0),
            "open": sorted(os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2),
            "called": open("/proc/self/cmdline", "rb").read().split(b"\\0")[0].decode()}
    print(json.dumps(told))
    print("and an error", file=sys.stderr)
    return 7

print("what the caller says", end="")
def prepare(words):
    loaded.extend(words)
    return lambda: open(sys.argv[3], "w").write("not wanted")

copy = branch_off("homeport.runner", lambda: loaded.append("all"), become, prepare)
if sys.argv[1] in ("expect", "drop"):
    copy.expects(["state", "sh\u00f6p"])
    copy.expects(["only", "once"])
if sys.argv[1] in ("tell", "expect"):
    assert copy.told(sys.argv[3], ["state", "sh\\u00f6p"])
    assert os.waitstatus_to_exitcode(os.waitpid(copy.pid, 0)[1]) == 7
else:
    print(f" {copy.pid}", end="")
"""


def called(tmp_path: Path, how: str) -> str:
    argv = [sys.executable, "-c", CALLER, how, str(tmp_path / "held"), str(tmp_path / "log")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_copy_goes_on_in_its_own_session_with_nothing_of_the_caller_open(tmp_path: Path) -> None:
    assert called(tmp_path, "tell") == "what the caller says", "and the copy does not say it again"
    first, second = sorted((tmp_path / "log").read_text().splitlines())
    told = json.loads(second)
    assert (told["words"], told["loaded"], first) == (["state", "sh\u00f6p"], ["all"], "and an error")
    assert told["session"] == told["group"] == told["pid"]
    assert not [path for path in told["open"] if path.startswith(str(tmp_path))]
    assert told["called"].startswith("homeport.runner"[:10])
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_copy_prepares_for_what_it_may_expect_and_is_told_all_the_same(tmp_path: Path) -> None:
    called(tmp_path, "expect")
    told = json.loads(sorted((tmp_path / "log").read_text().splitlines())[1])
    assert (told["words"], told["loaded"]) == (["state", "sh\u00f6p"], ["all", "state", "sh\u00f6p"])


def test_a_copy_that_is_not_wanted_ends_with_its_caller(tmp_path: Path) -> None:
    pid = int(called(tmp_path, "leave").rpartition(" ")[2])
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "log").exists()


def test_a_copy_that_prepared_for_nothing_ends_what_it_began(tmp_path: Path) -> None:
    called(tmp_path, "drop")
    deadline = time.monotonic() + 30
    log = tmp_path / "log"
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert log.read_text() == "not wanted"


def test_a_copy_that_died_is_not_told(tmp_path: Path) -> None:
    copy = branch_off("homeport.runner", lambda: os.kill(os.getpid(), signal.SIGKILL), lambda _: 0)
    if copy is None:  # beside the threads of a parallel test run none is made
        assert threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1
        return
    os.waitid(os.P_PID, copy.pid, os.WEXITED | os.WNOWAIT)
    assert not copy.told(str(tmp_path / "log"), ["state"])


def test_none_is_made_beside_a_thread_or_an_open_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "homeport.db")) as database:
        database.execute("CREATE TABLE one (x)")
        assert branch_off("homeport.runner", lambda: None, lambda _: 0) is None
    end = threading.Event()
    beside = threading.Thread(target=end.wait)
    beside.start()
    try:
        assert branch_off("homeport.runner", lambda: None, lambda _: 0) is None
    finally:
        end.set()
        beside.join()
