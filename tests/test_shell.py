"""The shell door: jobs are read line by line and die whole, with everything they started."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.doors import jobwatch, leftovers
from homeport.doors.lines import LONGEST_LINE, Lines
from homeport.doors.shell import LocalShell, Standing
from homeport.model.errors import Cancelled, Failed, InfrastructureFault
from homeport.model.ports import Completed, Job
from homeport.supervisor import records

ENV = {"PATH": os.environ.get("PATH", os.defpath)}
DEPLOY = f"d{os.getpid()}"
"""Of this process: jobs are found by it wherever they are."""
ESCAPES = "setsid sh -c '(sleep 300 >/dev/null 2>&1 & echo $! >> pids); exec sleep 300 >/dev/null 2>&1' & echo $! >> pids;"
"""A double fork into a session of its own, that holds no output; writes the process ids into `pids`."""


def job(command: str | list[str], cwd: Path, timeout: float = 60, **more: Any) -> Job:
    return Job(command=command, cwd=str(cwd), label="build of api", timeout=timeout, **{"env": ENV, **more})


def lines_of(
    command: str | list[str], cwd: Path, timeout: float = 60, **more: Any
) -> tuple[Completed, list[tuple[str, str]]]:
    seen: list[tuple[str, str]] = []
    done = LocalShell(DEPLOY).job(job(command, cwd, timeout, **more), lambda stream, line: seen.append((stream, line)))
    return done, seen


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def pids_in(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_dead(folder: Path, count: int) -> None:
    assert len(pids_in(folder)) == count
    wait_for(lambda: not any(map(runs, pids_in(folder))), "every child is dead")


def test_a_tool_is_given_input_and_a_scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    done = LocalShell().run(["sh", "-c", "cat; env"], input=b"given\n")
    assert done.stdout.startswith(b"given\n")
    assert b"SECRET_OF_THE_CALLER" not in done.stdout
    assert LocalShell().run(["cat"]).stdout == b""


def test_a_tool_that_fails_tells_its_status_and_last_words() -> None:
    with pytest.raises(InfrastructureFault, match="status 3: no space"):
        LocalShell().run(["sh", "-c", "echo no space >&2; exit 3"])
    assert LocalShell().run(["sh", "-c", "exit 3"], ok=(0, 3)).code == 3
    with pytest.raises(InfrastructureFault) as told:
        LocalShell().run(["/nonexistent/tool"])
    assert told.value.code == "no-start"


def test_a_tool_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    command = "sleep 300 & echo $! > pids; sleep 300"
    for timeout in (0.5, 2, 8):
        with pytest.raises(InfrastructureFault) as told:
            LocalShell().run(["sh", "-c", command], cwd=str(tmp_path), timeout=timeout)
        assert told.value.code == "timeout"
        if pids_in(tmp_path):  # a busy machine may not have begun
            break
    all_dead(tmp_path, 1)


def test_a_job_gets_its_environment_and_nothing_else(tmp_path: Path) -> None:
    done, seen = lines_of(["env"], tmp_path, env={**ENV, "A": "b c"})
    names = {line.partition("=")[0] for _, line in seen}
    assert done.code == 0
    assert names == {"PATH", "A", "HOMEPORT_JOB"}
    assert any(line.startswith(f"HOMEPORT_JOB={DEPLOY}:") for _, line in seen)


def test_a_list_is_run_as_it_stands_and_a_string_by_the_shell(tmp_path: Path) -> None:
    assert lines_of(["echo", "$HOME; id", "--"], tmp_path)[1] == [("stdout", "$HOME; id --")]
    assert lines_of("echo $((1+1)); cat; exit 7", tmp_path)[1] == [("stdout", "2")]
    assert lines_of("exit 7", tmp_path)[0].code == 7
    assert lines_of("kill -9 $$", tmp_path)[0].code == -9


def test_both_streams_come_line_by_line_while_the_job_runs(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    seen: list[tuple[str, str]] = []

    def line(stream: str, text: str) -> None:
        seen.append((stream, text))
        go_on.touch()

    command = "echo first; until test -e go-on; do sleep 0.01; done; echo second >&2; printf last"
    assert LocalShell().job(job(command, tmp_path), line).code == 0
    assert seen == [("stdout", "first"), ("stderr", "second"), ("stdout", "last")]


def test_what_is_not_text_is_made_printable(tmp_path: Path) -> None:
    _, seen = lines_of(r"printf 'caf\303\251 \377\000x\r\n'", tmp_path)
    assert seen == [("stdout", r"café \xff\x00x")]
    seen[0][1].encode("utf-8")


def test_a_line_without_end_comes_in_pieces_and_loses_nothing(tmp_path: Path) -> None:
    program = "import sys; sys.stdout.write('x' + 'é' * 150_000 + '\\nshort\\n')"
    _, seen = lines_of([sys.executable, "-c", program], tmp_path, env={**ENV, "PYTHONUTF8": "1"})
    assert max(len(line.encode()) for _, line in seen) <= LONGEST_LINE
    assert "".join(line for _, line in seen) == "x" + "é" * 150_000 + "short"


def test_a_command_that_is_not_there_ends_with_127(tmp_path: Path) -> None:
    done, seen = lines_of(["no-such-program"], tmp_path)
    assert done.code == 127
    assert "no-such-program" in seen[-1][1]
    done, seen = lines_of(["true"], tmp_path / "no-such-folder")
    assert done.code == 127
    assert "no-such-folder" in seen[-1][1]


@pytest.fixture
def until_ready(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Completed, list[str]]]:
    """As `lines_of`, for a job whose deadline comes as soon as it prints `ready`; the lines of its output."""
    passed = [0.0]
    monkeypatch.setattr(jobwatch, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))

    def run(command: str, cwd: Path, **more: Any) -> tuple[Completed, list[str]]:
        seen: list[str] = []

        def line(stream: str, text: str) -> None:
            if text == "ready":
                passed[0] += 60.0
            elif stream == "stdout":  # the shell itself may say "Terminated" about its sleep
                seen.append(text)

        return LocalShell(DEPLOY).job(job(command, cwd, 60, **more), line), seen

    return run


def test_at_its_deadline_a_job_is_asked_to_stop_and_may_say_goodbye(
    tmp_path: Path, until_ready: Callable[..., tuple[Completed, list[str]]]
) -> None:
    done, seen = until_ready("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done", tmp_path)
    assert done.timed_out
    assert seen == ["bye"]


def test_a_job_that_ignores_its_deadline_is_killed_with_all_that_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_ready: Callable[..., tuple[Completed, list[str]]]
) -> None:
    monkeypatch.setattr(jobwatch, "GRACE", 0.3)
    both = "until test $(cat pids | wc -l) = 2; do sleep 0.01; done; echo ready"
    done, _ = until_ready(f"trap '' TERM; {ESCAPES} {both}; while :; do sleep 0.1; done", tmp_path)
    assert done.timed_out
    all_dead(tmp_path, 2)


def test_a_cancel_kills_the_job_and_all_that_escaped(tmp_path: Path) -> None:
    asked = threading.Event()
    door = LocalShell(DEPLOY, asked.is_set)
    with pytest.raises(Cancelled):
        door.job(job(f"{ESCAPES} until test $(wc -l < pids) = 2; do sleep 0.01; done; echo ready; sleep 300", tmp_path),
                 lambda _stream, _line: asked.set())  # fmt: skip
    all_dead(tmp_path, 2)
    with pytest.raises(Cancelled):
        door.job(job("touch never", tmp_path), lambda _stream, _line: None)
    assert not (tmp_path / "never").exists()


def test_a_child_that_holds_the_output_does_not_hold_the_deploy(tmp_path: Path) -> None:
    began = time.monotonic()
    done, seen = lines_of("setsid sleep 300 & echo $! > pids; echo done", tmp_path)
    assert time.monotonic() - began < 20
    assert (done.code, done.timed_out) == (0, False)
    assert seen == [("stdout", "done")]
    all_dead(tmp_path, 1)


def test_a_reader_that_fails_leaves_no_job_behind(tmp_path: Path) -> None:
    def full(_stream: str, _line: str) -> None:
        raise InfrastructureFault("disk full")

    with pytest.raises(InfrastructureFault, match="disk full"):
        LocalShell(DEPLOY).job(job("echo $$ > pids; echo line; sleep 300", tmp_path), full)
    all_dead(tmp_path, 1)


RUNNER = """
import sys
from homeport.doors.shell import LocalShell, Standing
from homeport.model.ports import Job
LocalShell(sys.argv[1]).job(Job(command=sys.argv[2], cwd=sys.argv[3], env={"PATH": sys.argv[4]}, label="x", timeout=600),
                            lambda stream, line: None)
"""


def test_kill_9_of_the_runner_leaves_no_child_after_recovery(tmp_path: Path) -> None:
    command = f"echo $$ >> pids; {ESCAPES} sleep 300"
    deploy = f"20260101t000000-{os.getpid()}"
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, deploy, command, str(tmp_path), ENV["PATH"]])
    try:
        wait_for(lambda: len(pids_in(tmp_path)) == 3, "the job has started its children")
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    main = pids_in(tmp_path)[0]
    wait_for(lambda: not runs(main), "the command dies with its runner, without any recovery")
    assert any(map(runs, pids_in(tmp_path))), "what escaped is what the recovery is for"
    assert LocalShell().end_jobs_of(f"{deploy}0") == 0, "another deploy whose name begins alike is left alone"
    assert LocalShell().end_jobs_of(deploy) >= 2
    all_dead(tmp_path, 3)
    assert LocalShell().end_jobs_of(deploy) == 0


def test_what_a_job_left_at_work_ends_with_its_deploy_and_nobody_is_looked_for_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy = f"20260102t000000-{os.getpid()}"
    shell = LocalShell(deploy)
    command = "setsid sleep 300 >/dev/null 2>&1 & echo $! > pids"
    job = Job(command=command, cwd=str(tmp_path), env=ENV, label="x", timeout=60)
    assert shell.job(job, lambda stream, line: None).code == 0
    (left,) = pids_in(tmp_path)
    assert LocalShell(deploy).end_jobs_of(deploy) == 1
    wait_for(lambda: not runs(left), "it is ended")
    monkeypatch.setattr("homeport.doors.shell.kill_marked", lambda *_, **__: pytest.fail("every process was looked at"))
    assert LocalShell(f"{deploy}0").end_jobs_of(f"{deploy}0") == 0


def test_ending_jobs_never_ends_ourselves_or_who_started_us(tmp_path: Path) -> None:
    inner = f"from homeport.doors.shell import LocalShell; print(LocalShell().end_jobs_of('{DEPLOY}'))"
    done, seen = lines_of(f"{sys.executable} -c \"{inner}\"; echo still here", tmp_path)
    assert done.code == 0
    assert seen == [("stdout", "0"), ("stdout", "still here")]


BECOMING = f"{leftovers.MARK}=becoming-{os.getpid()}:".encode()


@pytest.mark.parametrize("found", [
    lambda pid: leftovers._is_marked(pid, BECOMING), lambda pid: BECOMING in records._environment(str(pid)),
], ids=["of a build", "of a service"])  # fmt: skip
def test_a_process_is_found_while_it_becomes_another_program_too(tmp_path: Path, found: Callable[[int], bool]) -> None:
    """Its environment is empty for a moment at each exec: longer where other processes want the core."""
    (tmp_path / "again").write_text('exec sh "$0"\n')
    with subprocess.Popen(["sh", str(tmp_path / "again")], env={**ENV, **dict([BECOMING.decode().split("=")])}) as becoming:
        try:
            assert sum(not found(becoming.pid) for _ in range(2000)) == 0
        finally:
            becoming.kill()


def test_an_empty_mark_lets_a_command_leave_a_service_behind(tmp_path: Path) -> None:
    command = "setsid sleep 300 >/dev/null 2>&1 & echo $! > pids"
    done, _ = lines_of(command, tmp_path, env={**ENV, leftovers.MARK: ""})
    (service,) = pids_in(tmp_path)
    try:
        assert done.code == 0
        assert LocalShell().end_jobs_of(DEPLOY) == 0
        assert leftovers.kill_marked("", exact=False) == 0
        assert runs(service)
    finally:
        os.kill(service, signal.SIGKILL)


@pytest.mark.parametrize("user", ["no-such-user-here", "nobody"])
def test_a_user_that_cannot_be_becomes_a_failure_not_a_run_as_ourselves(
    tmp_path: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Failed) as told:
        lines_of("touch never", tmp_path, user=user)
    assert told.value.code == "user"
    assert not (tmp_path / "never").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_job_runs_as_its_user_and_still_dies_with_the_deadline(
    until_ready: Callable[..., tuple[Completed, list[str]]]
) -> None:
    nobody = pwd.getpwnam("nobody")
    done, seen = until_ready("id -u; id -G; echo ready; sleep 300", Path("/"), user="nobody")
    assert done.timed_out
    assert seen == [str(nobody.pw_uid), str(nobody.pw_gid)]


def test_without_setpriv_a_job_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert lines_of("echo plain", tmp_path)[1] == [("stdout", "plain")]
    assert lines_of(["no-such-program"], tmp_path)[0].code == 127


def test_jobs_in_parallel_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    results: dict[int, list[tuple[str, str]]] = {}

    def one(number: int) -> None:
        results[number] = lines_of(f"for i in 1 2 3; do echo {number}-$i; done", tmp_path)[1]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [("stdout", f"{n}-{i}") for i in (1, 2, 3)] for n in range(16)}


@dataclass
class Together:
    """A reader that takes many lines in one call."""

    found: list[str]

    def __call__(self, stream: str, line: str) -> None:
        self.found.append(line)

    def many(self, stream: str, lines: list[str]) -> None:
        self.found += lines


ODD = [b"\n", b"a\r\n", b"\0\n", "ß€😀".encode(), b"x" * 70_000]


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(ODD)),
                max_size=12))  # fmt: skip
def test_lines_handed_on_together_are_the_lines_handed_on_one_by_one(chunks: list[bytes]) -> None:
    single: list[str] = []
    together = Together([])
    for take in (lambda _, line: single.append(line), together):
        lines = Lines("stdout", take)
        for chunk in chunks:
            lines.feed(chunk)
        lines.end()
    assert together.found == single


def test_a_standing_tool_hears_all_of_a_line_that_the_pipe_takes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest used to be lost: homeport and git waited for each other for two minutes."""
    whole = os.write
    tool = Standing(["cat"], "/", {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:3]))
    try:
        tool.say(b"a line of some length\n")
        heard = b""
        while not heard.endswith(b"\n"):
            heard += os.read(tool.answers, 100)
    finally:
        tool.ended()
    assert heard == b"a line of some length\n"
