"""The supervisor as a deploy meets it: through the Runtime that talks to its socket."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.runtimes.supervisor import SupervisorRuntime
from homeport.model.config import Ready, Seconds
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.running import Runtime, Unit
from tests import supervisor_servers as servers
from tests.supervisor_rig import Load, Rig, alive, eventually, free_port, rigged


class Lines(list[tuple[str, str]]):
    def __call__(self, stream: str, line: str) -> None:
        self.append((stream, line))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    servers.write(tmp_path)
    yield from rigged(tmp_path)


@pytest.fixture
def runtime(rig: Rig) -> Runtime:
    return SupervisorRuntime(str(rig.socket))


def unit(rig: Rig, command: Any, **more: Any) -> Unit:
    return Unit(**{"service": "api", "name": "shop-api", "target": str(rig.folder), "command": command,
                   "cwd": str(rig.folder), "env": {"COLOUR": "red"}, **more})  # fmt: skip


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        return answer.read().decode().strip()


def test_first_start_restarts_under_load_and_a_version_that_fails(
    rig: Rig, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLERS_TOKEN", "secret")
    port, lines = free_port(), Lines()
    path = (os.path.dirname(servers.node()),)
    web = unit(rig, ["node", "web.js"], listen=(f"127.0.0.1:{port}",), env={"PORT": str(port)}, path=path)
    assert runtime.inspect(web).state == "missing"
    first = runtime.restart(web, lines)
    assert first.registered and first.pid and get(port) == "one"
    assert b"CALLERS_TOKEN" not in Path(f"/proc/{first.pid}/environ").read_bytes()

    def change() -> None:
        (rig.folder / "version").write_text("two")
        second = runtime.restart(web, lines)
        assert not second.registered and second.pid != first.pid
        assert get(port) == "two"
        (rig.folder / "web.js").write_text("console.error('broken'); process.exit(7)")
        with pytest.raises(Failed) as failure:
            runtime.restart(web, lines)
        assert failure.value.code == "not-ready" and "status 7" in failure.value.what
        assert runtime.inspect(web).pid == second.pid and runtime.inspect(web).state == "running"

    load = Load(port)
    asyncio.run(load.during(change))
    assert load.failures == [] and set(load.answers) == {"one", "two"}
    assert ("stderr", "broken") in lines
    assert "listening" in list(runtime.logs(web, 50, False))


def test_forget_stops_and_removes(rig: Rig, runtime: Runtime) -> None:
    job = unit(rig, "echo begun; exec sleep 1000", ready=Ready(line="begun", timeout=Seconds(20)))
    pid = runtime.restart(job, Lines()).pid
    assert pid is not None
    runtime.forget(job)
    eventually(lambda: not alive(pid), "stopped")
    assert runtime.inspect(job).state == "missing"
    runtime.forget(job)


def test_reload_keeps_the_process(rig: Rig, runtime: Runtime) -> None:
    command = "trap 'echo reloaded' HUP; echo begun; while :; do sleep 0.05; done"
    job = unit(rig, command, on_change="reload", ready=Ready(line="begun", timeout=Seconds(20)))
    first = runtime.restart(job, Lines())
    assert first.registered
    second = runtime.restart(job, Lines())
    assert second.pid == first.pid
    eventually(lambda: "reloaded" in list(runtime.logs(job, 10, False)), "SIGHUP came")


def test_following_logs_can_be_left(rig: Rig, runtime: Runtime) -> None:
    job = unit(rig, "echo begun; while sleep 0.05; do echo more; done", ready=Ready(line="begun"))
    runtime.restart(job, Lines())
    lines = runtime.logs(job, 100, True)
    assert next(lines) == "begun"
    assert [next(lines) for _ in range(3)] == ["more"] * 3
    lines.close()  # type: ignore[attr-defined]
    assert rig.one("status")["ok"]


def test_what_cannot_be_run_is_said(rig: Rig, runtime: Runtime) -> None:
    for wrong, code in (
        (unit(rig, None), "unregistered"),
        (unit(rig, ["true"], handoff="port", listen=("127.0.0.1:20000", "127.0.0.1:20001")), "bad-unit"),
        (unit(rig, ["true"], env={"A": "x" * 70_000}), "bad-unit"),
        (unit(rig, ["/no/such/program"]), "not-ready"),
    ):
        with pytest.raises(Failed) as failure:
            runtime.restart(wrong, Lines())
        assert failure.value.code == code and failure.value.next.startswith("homeport ")


def test_no_supervisor_is_an_infrastructure_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeport.doors.runtimes.supervisor.RETURN", 0.1)
    runtime = SupervisorRuntime(str(tmp_path / "none.sock"))
    job = Unit(service="api", name="api", target=None, command=["true"], cwd="/", env={})
    assert runtime.inspect(job).state == "unknown"
    with pytest.raises(InfrastructureFault) as failure:
        runtime.restart(job, Lines())
    assert failure.value.code == "no-supervisor"


def test_a_door_leads_where_it_was_told_through_a_kill_and_a_restart_of_everything(rig: Rig) -> None:
    supervisor = SupervisorRuntime(str(rig.socket))
    port, one, two = free_port(), free_port(), free_port()
    door = unit(rig, None, listen=(f"127.0.0.1:{port}",), handoff="port")
    for name, inner, version in (("one", one, "one"), ("two", two, "two")):
        folder = rig.folder / name
        folder.mkdir()
        servers.write(folder)
        (folder / "version").write_text(version)
        (folder / "web.js").write_text(servers.PATIENT_NODE)
        path = f"{os.path.dirname(servers.node())}:{os.environ['PATH']}"
        rig.unit(name, ["node", "web.js"], cwd=str(folder), env={"PATH": path, "PORT": str(inner)},
                 ready={"tcp": f"127.0.0.1:{inner}"})  # fmt: skip
        assert rig.restart(name)["ok"]
    assert supervisor.carried(door) == {} and not supervisor.has_door(door)
    supervisor.carry(door, {"api": one})
    assert get(port) == "one" and supervisor.carried(door) == {"api": one}

    def moves() -> None:
        supervisor.carry(door, {"api.b": two})
        assert get(port) == "two"
        rig.kill()
        assert get(port) == "two"
        rig.begin()
        assert supervisor.carried(door) == {"api.b": two} and get(port) == "two"
        pid = rig.status("api@door")["pid"]
        assert rig.restart("api@door")["pid"] == pid, "a restart of everything has nothing to replace"
        supervisor.carry(door, {"api": one})
        assert get(port) == "one"

    load = Load(port)
    asyncio.run(load.during(moves))
    assert load.failures == [] and set(load.answers) == {"one", "two"}
    supervisor.close_door(door)
    with pytest.raises(OSError):
        get(port)
