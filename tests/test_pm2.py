"""The pm2 runtime against the real pm2, with a PM2_HOME and a daemon of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from homeport.doors.runtimes import pm2 as pm2_runtime
from homeport.doors.runtimes.pm2 import Pm2
from homeport.doors.runtimes.pm2_list import find_list, named, state_of
from homeport.doors.runtimes.pm2_socket import Pm2Socket, SocketTrouble, frame
from homeport.doors.shell import LocalShell
from homeport.model.errors import Failed
from homeport.model.running import Unit

SERVER = """
const fs = require('fs');
fs.writeFileSync(process.env.REPORT, JSON.stringify({pid: process.pid, env: process.env, cwd: process.cwd()}));
console.log('started', process.pid);
setInterval(() => {}, 1000);
"""


@dataclass
class Host:
    """A folder with an application, and a pm2 of its own."""

    root: Path
    program: str

    @property
    def home(self) -> Path:
        return self.root / "pm2"

    @property
    def app(self) -> Path:
        return self.root / "app"

    def unit(self, name: str = "api", env: dict[str, str] | None = None, **more: Any) -> Unit:
        given = {
            "service": name, "name": name, "target": str(self.app), "command": ["node", "server.js"],
            "cwd": str(self.app), "path": (str(Path(self.program).parent),), "stop_timeout": 2.0,
            "env": {"PM2_HOME": str(self.home), "REPORT": str(self.report(name)), **(env or {})}, **more,
        }  # fmt: skip
        return Unit(**given)

    def report(self, name: str = "api") -> Path:
        return self.root / f"{name}.json"

    def told(self, name: str = "api", pid: int | None = None) -> dict[str, Any]:
        """What the process of that pid wrote about itself."""
        deadline = time.monotonic() + 20
        while True:
            try:
                told: dict[str, Any] = json.loads(self.report(name).read_text())
            except (OSError, ValueError):
                told = {}
            if told and pid in (None, told["pid"]):
                return told
            assert time.monotonic() < deadline, f"{name} with pid {pid} never wrote its report: {told.get('pid')}"
            time.sleep(0.02)

    def pm2(self, *args: str, cwd: Path | None = None, **env: str) -> str:
        whole = {"PATH": f"{Path(self.program).parent}:{os.environ['PATH']}", "HOME": str(self.root),
                 "PM2_HOME": str(self.home), **env}  # fmt: skip
        done = subprocess.run([self.program, *args], cwd=cwd or self.app, env=whole, capture_output=True,
                              text=True, timeout=60, check=True)  # fmt: skip
        return done.stdout

    def pids(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in find_list(self.pm2("jlist"))}


@pytest.fixture
def host(tmp_path: Path, pm2_program: str) -> Iterator[Host]:
    made = Host(tmp_path, pm2_program)
    made.app.mkdir()
    (made.app / "server.js").write_text(SERVER)
    # With this file there, pm2 does not greet a new user, nor ask the network for a newer version.
    made.home.mkdir()
    (made.home / "touch").write_text("0")
    yield made
    pid_file = made.home / "pm2.pid"
    if pid_file.exists() and _alive(int(pid_file.read_text())):
        made.pm2("kill")


@pytest.fixture
def runtime() -> Pm2:
    return Pm2(LocalShell())


@pytest.fixture
def by_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if pm2's socket could not be used."""
    monkeypatch.setattr(pm2_runtime, "_socket_is_sound", lambda unit: False)


class Lines(list[str]):
    def __call__(self, stream: str, line: str) -> None:
        self.append(line)


def failure(act: Callable[[], object]) -> Failed:
    with pytest.raises(Failed) as caught:
        act()
    return caught.value


def test_inspecting_starts_no_daemon(host: Host, runtime: Pm2) -> None:
    assert runtime.inspect(host.unit()).state == "missing"
    assert [path.name for path in host.home.iterdir()] == ["touch"]


def test_a_daemon_killed_hard_is_no_daemon(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit(), Lines())
    apps = host.pids()
    daemon = int((host.home / "pm2.pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    os.kill(apps["api"], signal.SIGKILL)
    _until(lambda: not _alive(daemon))
    assert (host.home / "rpc.sock").exists()
    assert runtime.inspect(host.unit()).state == "missing"
    assert int((host.home / "pm2.pid").read_text()) == daemon


def test_a_daemon_that_dies_while_it_is_asked_is_not_started_again(
    host: Host, runtime: Pm2, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def only_just(path: str) -> bool:
        looks.append(path)
        return len(looks) == 1

    monkeypatch.setattr(pm2_runtime, "daemon_listens", only_just)
    assert runtime.inspect(host.unit()).state == "missing"
    assert len(looks) == 2
    assert not (host.home / "pm2.pid").exists()


def test_a_missing_process_is_registered_saved_and_online(host: Host, runtime: Pm2) -> None:
    done = runtime.restart(host.unit(env={"COLOUR": "red; touch /x $(id)"}), Lines())
    assert done.registered
    told = host.told(pid=done.pid)
    assert (told["cwd"], told["env"]["COLOUR"]) == (str(host.app), "red; touch /x $(id)")
    state = runtime.inspect(host.unit())
    assert (state.state, state.pid, state.restarts) == ("running", done.pid, 0)
    (app,) = json.loads((host.home / "dump.pm2").read_text())
    assert (app["name"], app["kill_retry_time"]) == ("api", pm2_runtime.LOOKS_EVERY)


def test_pm2_looks_sooner_whether_the_old_process_ended_only_where_homeport_registered_it() -> None:
    def conf(env: dict[str, str], **settings: object) -> object:
        row = {"name": "api", "pm_id": 0, "pid": 1, "pm2_env": {"env": env, **settings}}
        (app,) = named([row], "api")
        return pm2_runtime._merged(app, {"NEW": "1"}).get("current_conf")

    mine = {pm2_runtime.MARK: "x"}
    assert conf(mine, kill_retry_time=100) == conf(mine) == {"kill_retry_time": pm2_runtime.LOOKS_EVERY}
    assert conf(mine, kill_retry_time=500) is conf(mine, kill_retry_time=20) is conf({}, kill_retry_time=100) is None


def test_a_text_command_runs_in_a_shell(host: Host, runtime: Pm2) -> None:
    done = runtime.restart(host.unit(command="WORD='a b' exec node server.js"), Lines())
    assert host.told(pid=done.pid)["env"]["WORD"] == "a b"


def test_without_command_an_unknown_process_is_unregistered(host: Host, runtime: Pm2) -> None:
    fault = failure(lambda: runtime.restart(host.unit(command=None), Lines()))
    assert fault.code == "unregistered"
    assert [path.name for path in host.home.iterdir()] == ["touch"]


@pytest.mark.parametrize("way", ["socket", "command"])
def test_only_the_named_process_is_restarted(host: Host, runtime: Pm2, way: str,
                                             request: pytest.FixtureRequest) -> None:  # fmt: skip
    if way == "command":
        request.getfixturevalue("by_command")
    for name in ("api", "api2", "worker"):
        runtime.restart(host.unit(name), Lines())
    before = host.pids()
    done = runtime.restart(host.unit(env={"COLOUR": "blue"}), Lines())
    after = host.pids()
    assert {name for name in before if before[name] != after[name]} == {"api"}
    assert (done.pid, done.registered) == (after["api"], False)
    assert host.told(pid=done.pid)["env"]["COLOUR"] == "blue"
    assert runtime.inspect(host.unit()).restarts == 1


def test_a_process_named_like_a_word_or_number_of_pm2_is_only_itself(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit("api"), Lines())
    for name in ("all", "0"):
        runtime.restart(host.unit(name), Lines())
        before = host.pids()
        runtime.restart(host.unit(name, on_change="reload"), Lines())
        after = host.pids()
        assert {n for n in before if before[n] != after[n]} == {name}
        runtime.forget(host.unit(name))
        assert set(host.pids()) == set(before) - {name}


def test_nothing_of_the_callers_environment_arrives(host: Host, runtime: Pm2,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("CALLERS_TOKEN", "secret")
    for _ in range(2):
        done = runtime.restart(host.unit(), Lines())
        assert "CALLERS_TOKEN" not in host.told(pid=done.pid)["env"]


def test_a_removed_variable_is_gone_after_the_restart(host: Host, runtime: Pm2) -> None:
    first = runtime.restart(host.unit(env={"OLD": "1", "KEPT": "1"}), Lines())
    assert host.told(pid=first.pid)["env"]["OLD"] == "1"
    second = runtime.restart(host.unit(env={"KEPT": "2"}), Lines())
    env = host.told(pid=second.pid)["env"]
    assert ("OLD" in env, env["KEPT"]) == (False, "2")
    third = runtime.restart(host.unit(env={"KEPT": "2"}), Lines())
    assert "OLD" not in host.told(pid=third.pid)["env"]


def test_the_command_line_says_which_variable_it_keeps(host: Host, runtime: Pm2, by_command: None) -> None:
    runtime.restart(host.unit(env={"OLD": "1"}), Lines())
    lines = Lines()
    runtime.restart(host.unit(), lines)
    assert any("OLD" in line for line in lines)


def test_what_a_person_set_when_registering_stays(host: Host, runtime: Pm2) -> None:
    host.pm2("start", "server.js", "--name", "api", BY_HAND="yes", REPORT=str(host.report()))
    for _ in range(2):
        done = runtime.restart(host.unit(command=None), Lines())
        assert host.told(pid=done.pid)["env"]["BY_HAND"] == "yes"


def test_a_changed_command_is_registered_anew(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit(), Lines())
    (host.app / "other.js").write_text(SERVER.replace("pid: process.pid", "pid: process.pid, other: true"))
    done = runtime.restart(host.unit(command=["node", "other.js"]), Lines())
    assert not done.registered
    assert host.told(pid=done.pid)["other"] is True


def test_a_process_of_another_folder_is_left_alone(host: Host, runtime: Pm2) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "server.js").write_text(SERVER)
    host.pm2("start", "server.js", "--name", "api", cwd=elsewhere, REPORT=str(host.report()))
    before = host.pids()
    for act in (lambda: runtime.restart(host.unit(), Lines()), lambda: runtime.forget(host.unit())):
        assert failure(act).code == "outside-target"
    assert host.pids() == before


def test_a_link_out_of_the_target_is_outside(host: Host, runtime: Pm2) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "server.js").write_text(SERVER)
    host.pm2("start", str(elsewhere / "server.js"), "--name", "api", REPORT=str(host.report()))
    assert failure(lambda: runtime.restart(host.unit(), Lines())).code == "outside-target"
    (host.app / "link").symlink_to(elsewhere)
    unit = host.unit(target=str(host.app / "link"))
    assert failure(lambda: runtime.restart(unit, Lines())).code == "outside-target"


def test_an_interpreter_is_allowed_where_the_folder_is_inside(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit(), Lines())
    (row,) = find_list(host.pm2("jlist"))
    assert not row["pm2_env"]["pm_exec_path"].startswith(str(host.app))
    assert runtime.restart(host.unit(), Lines()).pid == host.pids()["api"]


def test_every_process_of_a_cluster_is_restarted(host: Host, runtime: Pm2) -> None:
    host.pm2("start", "server.js", "--name", "api", "-i", "2", REPORT=str(host.report()))
    old = {row["pid"] for row in find_list(host.pm2("jlist"))}
    runtime.restart(host.unit(command=None), Lines())
    rows = find_list(host.pm2("jlist"))
    assert {row["pm2_env"]["status"] for row in rows} == {"online"}
    assert len(rows) == 2 and not old & {row["pid"] for row in rows}


def test_a_stopped_process_is_started_again(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit(), Lines())
    host.pm2("stop", "api")
    assert runtime.inspect(host.unit()).state == "stopped"
    done = runtime.restart(host.unit(), Lines())
    assert host.told(pid=done.pid)["pid"] == host.pids()["api"]


def test_a_process_that_gives_up_is_failed(host: Host, runtime: Pm2) -> None:
    # however slowly it starts here, it has not run long enough to count as well
    app = {"name": "api", "script": "server.js", "max_restarts": 1, "min_uptime": 60_000}
    (host.app / "api.json").write_text(json.dumps({"apps": [app]}))
    host.pm2("start", "api.json", REPORT="/nonexistent/report")
    _until(lambda: runtime.inspect(host.unit()).state == "failed")
    assert runtime.inspect(host.unit()).detail == "errored"


def test_forget_takes_back_the_registration(host: Host, runtime: Pm2) -> None:
    runtime.restart(host.unit(), Lines())
    runtime.forget(host.unit())
    assert host.pids() == {}
    assert json.loads((host.home / "dump.pm2").read_text()) == []
    runtime.forget(host.unit())


def test_logs_are_the_last_lines_and_then_the_new_ones(host: Host, runtime: Pm2) -> None:
    first = runtime.restart(host.unit(), Lines())
    host.told(pid=first.pid)
    _until(lambda: list(runtime.logs(host.unit(), 10, follow=False)) == [f"started {first.pid}"])
    following = runtime.logs(host.unit(), 10, follow=True)
    assert next(following) == f"started {first.pid}"
    second = runtime.restart(host.unit(), Lines())
    assert next(following) == f"started {second.pid}"


def test_a_pm2_that_is_not_there_is_named(host: Host, runtime: Pm2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    fault = failure(lambda: runtime.restart(host.unit(path=(), env={"PATH": "/nonexistent"}, command=["/bin/true"]),
                                            Lines()))  # fmt: skip
    assert (fault.code, "services.api.path" in fault.next) == ("no-pm2", True)


def test_another_version_of_pm2_is_spoken_to_by_command(host: Host, runtime: Pm2,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("homeport.doors.runtimes.pm2_socket.TESTED_MAJOR", 999)
    runtime.restart(host.unit(), Lines())
    with pytest.raises(SocketTrouble):
        Pm2Socket(str(host.home / "rpc.sock"))
    assert runtime.restart(host.unit(), Lines()).pid == host.pids()["api"]


def for_everybody(program: str, folder: Path) -> str:
    """That pm2, or a copy of it where it lies in a folder that only its owner may enter, as a clone in /root does."""
    real = Path(program).resolve()
    if all(above.stat().st_mode & 0o001 for above in (*Path(program).parents, *real.parents)):
        return program
    modules = next(above for above in real.parents if above.name == "node_modules")
    shutil.copytree(modules, folder / "node_modules", symlinks=True, ignore=shutil.ignore_patterns("pnpm"))
    return str(folder / "node_modules" / real.relative_to(modules))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_as_root_pm2_runs_as_the_named_user(tmp_path: Path, pm2_program: str) -> None:
    base = Path(subprocess.run(["mktemp", "-d", "-p", "/tmp"], capture_output=True, text=True).stdout.strip())
    base.chmod(0o755)
    host, runtime = Host(base, for_everybody(pm2_program, base)), Pm2(LocalShell())
    try:
        for folder in (base, host.app, host.home):
            folder.mkdir(exist_ok=True)
            os.chown(folder, 65534, 65534)
        (host.app / "server.js").write_text(SERVER)
        (host.home / "touch").write_text("0")
        os.chown(host.home / "touch", 65534, 65534)
        unit = host.unit(user="nobody", home=str(base))
        for _ in range(2):
            done = runtime.restart(unit, Lines())
            assert os.stat(f"/proc/{done.pid}").st_uid == 65534
            assert host.told(pid=done.pid)["env"]["USER"] == "nobody"
        assert runtime.inspect(unit).state == "running"
        _until(lambda: list(runtime.logs(unit, 1, follow=False)) == [f"started {done.pid}"])
    finally:
        runtime.forget(unit)
        subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "--", host.program, "kill"],
                       env={"PATH": os.environ["PATH"], "HOME": str(base), "PM2_HOME": str(host.home)})  # fmt: skip
        subprocess.run(["rm", "-rf", "--", str(base)], check=True)


def test_notices_around_the_list_are_skipped() -> None:
    row = '{"name":"api","pid":7,"pm_id":0,"pm2_env":{"status":"online","pm_uptime":1000,"env":{"A":"[1]"}}}'
    text = f">>>> In-memory PM2 is out-of-date\n[PM2] Spawning [1] daemon\n[{row}]\n[PM2] done\n"
    (app,) = named(find_list(text), "api")
    assert (app.pid, app.started_at, app.env) == (7, 1.0, {"A": "[1]"})
    assert find_list("[PM2] hello\n[]\n") == []
    assert failure(lambda: find_list("[PM2][ERROR] no\n")).code == "pm2"


@pytest.mark.parametrize(("status", "state"), [
    ("online", "running"), ("stopped", "stopped"), ("errored", "failed"), ("launching", "restarting"),
    ("waiting restart", "restarting"), ("something new", "unknown"),
])  # fmt: skip
def test_states_are_those_of_homeport(status: str, state: str) -> None:
    rows = [{"name": "api", "pid": 7, "pm_id": i, "pm2_env": {"status": s}} for i, s in enumerate(("online", status))]
    assert state_of(named(rows, "api")).state == state


def test_a_frame_is_as_pm2_expects_it() -> None:
    assert frame({"a": 1}, "x") == b"\x12" + b"\0\0\0\x09" + b'j:{"a":1}' + b"\0\0\0\x03" + b"s:x"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
