"""The command runtime: the project's own command restarts the service."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.runtimes.command import CommandRuntime
from homeport.doors.shell import LocalShell
from homeport.model.errors import Failed
from homeport.model.running import Unit


class Lines(list[tuple[str, str]]):
    def __call__(self, stream: str, line: str) -> None:
        self.append((stream, line))


def unit(folder: Path, command: Any, **more: Any) -> Unit:
    given = {"service": "api", "name": "api", "target": str(folder), "command": command, "cwd": str(folder),
             "env": {"COLOUR": "red"}, **more}  # fmt: skip
    return Unit(**given)


@pytest.fixture
def runtime() -> CommandRuntime:
    return CommandRuntime(LocalShell("d1"))


def test_the_command_runs_in_its_folder_with_its_own_environment(
    tmp_path: Path, runtime: CommandRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLERS_TOKEN", "secret")
    lines = Lines()
    done = runtime.restart(unit(tmp_path, "pwd; echo $COLOUR; env >&2", path=("/opt/node/bin",)), lines)
    assert (done.pid, done.registered) == (None, False)
    assert [text for stream, text in lines if stream == "stdout"] == [str(tmp_path), "red"]
    env = dict(text.split("=", 1) for stream, text in lines if stream == "stderr" and "=" in text)
    assert env["PATH"].startswith("/opt/node/bin:/usr/local/sbin:")
    assert "CALLERS_TOKEN" not in env and env["HOME"] and env["USER"]


def test_a_list_is_never_given_to_a_shell(tmp_path: Path, runtime: CommandRuntime) -> None:
    lines = Lines()
    runtime.restart(unit(tmp_path, ["echo", "$COLOUR; touch made"]), lines)
    assert lines == [("stdout", "$COLOUR; touch made")]
    assert not (tmp_path / "made").exists()


def test_a_failing_command_fails_with_what_it_said(tmp_path: Path, runtime: CommandRuntime) -> None:
    with pytest.raises(Failed, match="ended with status 3: no such port") as caught:
        runtime.restart(unit(tmp_path, "echo no such port >&2; exit 3"), Lines())
    assert (caught.value.code, caught.value.infrastructure) == ("restart", False)


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Failed, match=r"took more than 0\.3 s"):
        CommandRuntime(LocalShell(), longest=0.3).restart(unit(tmp_path, ["sleep", "60"]), Lines())
    assert time.monotonic() - began < 20


def test_without_a_command_it_says_where_to_put_one(tmp_path: Path, runtime: CommandRuntime) -> None:
    with pytest.raises(Failed) as caught:
        runtime.restart(unit(tmp_path, None), Lines())
    assert (caught.value.code, caught.value.where) == ("no-command", "services.api.command")


def test_a_service_left_running_is_no_leftover_of_the_deploy(tmp_path: Path, runtime: CommandRuntime) -> None:
    command = "sleep 300 >/dev/null 2>&1 & echo $! > pid"
    runtime.restart(unit(tmp_path, command), Lines())
    pid = int((tmp_path / "pid").read_text())
    try:
        assert LocalShell("d1").end_jobs_of("d1") == 0
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_the_command_runs_as_the_named_user(runtime: CommandRuntime) -> None:
    lines = Lines()
    runtime.restart(unit(Path("/"), "id -un; echo $USER", user="nobody"), lines)
    assert lines == [("stdout", "nobody"), ("stdout", "nobody")]


def test_an_unknown_user_is_named(tmp_path: Path, runtime: CommandRuntime) -> None:
    with pytest.raises(Failed, match="no user nobody-of-that-name"):
        runtime.restart(unit(tmp_path, ["true"], user="nobody-of-that-name"), Lines())


def test_it_does_not_pretend_to_know_the_state(tmp_path: Path, runtime: CommandRuntime) -> None:
    service = unit(tmp_path, ["true"])
    assert runtime.inspect(service).state == "unknown"
    (said,) = runtime.logs(service, 10, follow=True)
    assert "api" in said
    runtime.forget(service)
    assert list(tmp_path.iterdir()) == []
