"""The pm2 runtime: exactly the named process, with the unit's environment, waited for until it is online.

pm2 merges the environment of a restart into what it has. So each restart notes the names it set in
`HOMEPORT_VARIABLES`; a name that is noted there and no longer wanted is taken out (what a person set by hand
when registering the process stays). `HOMEPORT_REGISTERED` marks a process that homeport registered itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from homeport.doors.runtimes.pm2_list import App, find_list, must_be_inside, named, state_of
from homeport.doors.runtimes.pm2_logs import lines_of_files
from homeport.doors.runtimes.pm2_socket import Pm2Socket, SocketTrouble, daemon_listens
from homeport.doors.runtimes.surroundings import account, as_user, environment_of, home_of
from homeport.model.envfile import fingerprint
from homeport.model.errors import Failed
from homeport.model.ports import Completed, OnLine, Shell
from homeport.model.running import Restarted, Unit, UnitState

SET, MARK = "HOMEPORT_VARIABLES", "HOMEPORT_REGISTERED"
NO_DAEMON = {"PM2_LOG_FILE_PATH": "/dev/null/none"}
"""pm2 starts a daemon for every command when none runs, and cannot when its log is not to be opened."""
LOOKS_EVERY = 20
"""Milliseconds between pm2's looks at whether the old process has ended, where homeport registered it; pm2's own are
100, and it waits for the first of them in any case."""
ONLINE_WITHIN = 30.0
"""Seconds a restarted process has to be online, beside its time to stop."""


class Pm2:
    """Satisfies Runtime. pm2's command line does the work; its own socket does it faster where that is sound."""

    name = "pm2"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._registering = threading.Lock()

    def inspect(self, unit: Unit) -> UnitState:
        """Never starts a pm2 daemon: where none runs, the unit is missing."""
        return state_of(self._apps(unit, self._environment(unit)))

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        env = self._environment(unit)
        apps = self._apps(unit, env)
        if not apps:
            return self._register(unit, env, on_line)
        must_be_inside(unit, apps, env["PATH"])
        before = {app.id: app for app in apps}
        if self._registered_otherwise(unit, apps):
            on_line("stdout", f"{unit.name}: its command or folder changed, registered anew")
            self._delete(unit, env, apps)
            return Restarted(pid=self._register(unit, env, on_line).pid)
        if unit.on_change == "reload" or not self._restart_by_socket(unit, env, apps):
            self._restart_by_command(unit, env, apps, on_line)
        return Restarted(pid=self._wait_online(unit, env, before))

    def forget(self, unit: Unit) -> None:
        env = self._environment(unit)
        apps = self._apps(unit, env)
        if not apps:
            return
        must_be_inside(unit, apps, env["PATH"])
        self._delete(unit, env, apps)
        with self._registering:
            self._pm2(unit, env, ["save", "--force"])

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        env = self._environment(unit)
        apps = self._apps(unit, env)
        files = tuple(dict.fromkeys(path for app in apps for path in app.logs))
        if not files:
            yield f"pm2 does not know {unit.name}"
            return
        yield from lines_of_files(self._shell, as_user(unit), files, lines, follow)

    def _environment(self, unit: Unit) -> dict[str, str]:
        """The whole environment of the process, and of every pm2 command for it."""
        env = environment_of(unit)
        if "PM2_HOME" not in env:
            # Which daemon to talk to is the caller's choice only where it is the caller's own daemon.
            own = os.environ.get("PM2_HOME") if unit.user is None else None
            env["PM2_HOME"] = own or os.path.join(home_of(unit), ".pm2")
        env[SET] = ",".join(sorted(unit.env))
        elsewhere = shutil.which("pm2") if shutil.which("pm2", path=env["PATH"]) is None else None
        if elsewhere:
            env["PATH"] += os.pathsep + os.path.dirname(os.path.abspath(elsewhere))
        return env

    def _apps(self, unit: Unit, env: Mapping[str, str]) -> list[App]:
        path = _socket_path(env)
        if not daemon_listens(path):
            return []
        if _socket_is_sound(unit):
            try:
                with Pm2Socket(path) as pm2:
                    rows = pm2.call("getMonitorData", {})
                if isinstance(rows, list):
                    return named(rows, unit.name)
            except SocketTrouble:
                pass
        try:
            done = self._pm2(unit, {**env, **NO_DAEMON}, ["jlist"])
        except Failed:
            if daemon_listens(path):
                raise
            return []
        return named(find_list(done.stdout.decode("utf-8", "replace")), unit.name)

    def _restart_by_socket(self, unit: Unit, env: Mapping[str, str], apps: Sequence[App]) -> bool:
        """False when the command line has to do it (again)."""
        if not _socket_is_sound(unit):
            return False
        try:
            with Pm2Socket(_socket_path(env)) as pm2:
                for app in apps:
                    wanted = _merged(app, env)
                    limit = ONLINE_WITHIN + unit.stop_timeout + _stop_time(app)
                    pm2.call("restartProcessId", {"id": app.id, "env": wanted}, timeout=limit)
        except SocketTrouble:
            return False
        return True

    def _restart_by_command(
        self, unit: Unit, env: Mapping[str, str], apps: Sequence[App], on_line: OnLine
    ) -> None:
        gone = sorted({name for app in apps for name in _dropped(app, env)})
        if gone:
            on_line("stderr", f"pm2 keeps {', '.join(gone)} for {unit.name} until it is registered anew")
        verb = "reload" if unit.on_change == "reload" else "restart"
        for app in apps:
            limit = 2 * ONLINE_WITHIN + unit.stop_timeout + _stop_time(app)
            self._pm2(unit, env, [verb, str(app.id), "--update-env"], timeout=limit)

    def _registered_otherwise(self, unit: Unit, apps: Sequence[App]) -> bool:
        marks = {app.env.get(MARK) for app in apps} - {None}
        return unit.command is not None and bool(marks) and marks != {_mark(unit)}

    def _register(self, unit: Unit, env: Mapping[str, str], on_line: OnLine) -> Restarted:
        if not unit.command:
            raise Failed(
                f"pm2 does not know a process named {unit.name}, and the service has no command",
                where=env["PM2_HOME"], next=f"set services.{unit.service}.command, or pm2 start it once",
                code="unregistered",
            )  # fmt: skip
        config = {"apps": [_registration(unit, env)]}
        # One at a time: two first commands would each start a daemon.
        with self._registering:
            self._pm2(unit, env, ["start", "-"], input=msgspec.json.encode(config), timeout=2 * ONLINE_WITHIN)
            pid = self._wait_online(unit, env, {})
            self._pm2(unit, env, ["save"])
        on_line("stdout", f"{unit.name}: registered with pm2")
        return Restarted(pid=pid, registered=True)

    def _delete(self, unit: Unit, env: Mapping[str, str], apps: Sequence[App]) -> None:
        for app in apps:
            limit = ONLINE_WITHIN + unit.stop_timeout + _stop_time(app)
            if _socket_is_sound(unit):
                with contextlib.suppress(SocketTrouble), Pm2Socket(_socket_path(env)) as pm2:
                    pm2.call("deleteProcessId", app.id, timeout=limit)
                if not any(one.id == app.id for one in self._apps(unit, env)):
                    continue
            self._pm2(unit, env, ["delete", str(app.id)], timeout=limit)

    def _wait_online(self, unit: Unit, env: Mapping[str, str], before: Mapping[int, App]) -> int | None:
        """The pid of the first process, once every one of them is new and online."""
        deadline = time.monotonic() + ONLINE_WITHIN + unit.stop_timeout
        while True:
            apps = self._apps(unit, env)
            online = [app for app in apps if app.status == "online" and app.pid]
            new = [app for app in online if not _same(app, before.get(app.id))]
            if apps and len(new) == len(apps):
                return new[0].pid
            ended = any(app.status in ("errored", "stopped") for app in apps)
            if ended or time.monotonic() > deadline:
                raise Failed(
                    f"{unit.name} did not come online: pm2 says {state_of(apps).detail}",
                    where=env["PM2_HOME"], next=f"homeport logs {unit.service}", code="not-online",
                )  # fmt: skip
            time.sleep(0.05)

    def _pm2(self, unit: Unit, env: Mapping[str, str], args: Sequence[str], *, input: bytes | None = None,
             timeout: float = 60.0) -> Completed:  # fmt: skip
        """Runs pm2's command line as the unit's user. Raises Failed (codes `no-pm2`, `pm2`)."""
        program = shutil.which("pm2", path=env["PATH"])
        if program is None:
            raise Failed(
                "pm2 is not found", where=f"PATH={env['PATH']}",
                next=f"set services.{unit.service}.path to the folder that holds pm2 and node", code="no-pm2",
            )  # fmt: skip
        argv = [*as_user(unit), program, *args]
        done = self._shell.run(argv, cwd="/", env=env, input=input, timeout=timeout, ok=range(256))
        if done.code != 0:
            said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
            raise Failed(
                f"pm2 {args[0]} of {unit.name} ended with status {done.code}: {said[-400:]}",
                where=env["PM2_HOME"], next=f"homeport logs {unit.service}", code="pm2",
            )  # fmt: skip
        return done


def _socket_path(env: Mapping[str, str]) -> str:
    return os.path.join(env["PM2_HOME"], "rpc.sock")


def _socket_is_sound(unit: Unit) -> bool:
    return account(unit).pw_uid == os.geteuid()


def _same(now: App, before: App | None) -> bool:
    return before is not None and (now.pid, now.started_at) == (before.pid, before.started_at)


def _stop_time(app: App) -> float:
    """Seconds pm2 itself gives the process to stop."""
    given = app.settings.get("kill_timeout")
    return given / 1000 if isinstance(given, int | float) else 1.6


def _dropped(app: App, env: Mapping[str, str]) -> list[str]:
    """Variables that an earlier restart set and this one does not."""
    noted = [name for name in app.env.get(SET, "").split(",") if name]
    return [name for name in noted if name in app.env and name not in env]


def _merged(app: App, env: Mapping[str, str]) -> dict[str, Any]:
    """The `env` of a restart over the socket; in `current_conf` the text "null" removes one of pm2's settings."""
    gone = [name for name in _dropped(app, env) if app.settings.get(name) == app.env[name]]
    conf: dict[str, Any] = {}
    if gone:
        conf = {"env": {**{k: v for k, v in app.env.items() if k not in gone}, **env}, **dict.fromkeys(gone, "null")}
    if MARK in app.env and app.settings.get("kill_retry_time") in (None, 100):
        conf["kill_retry_time"] = LOOKS_EVERY
    return {**env, "current_conf": conf} if conf else dict(env)


def _argv(unit: Unit) -> list[str]:
    command = unit.command or []
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)


def _mark(unit: Unit) -> str:
    return fingerprint({"cwd": unit.cwd, **{str(i): word for i, word in enumerate(_argv(unit))}})[:16]


def _registration(unit: Unit, env: Mapping[str, str]) -> dict[str, Any]:
    """pm2's description of the process. The program is whole: pm2 chooses no interpreter and no shell."""
    program, *args = _argv(unit)
    if "/" in program:
        found: str | None = os.path.join(unit.cwd, program)
    else:
        found = shutil.which(program, path=env["PATH"])
    if found is None:
        raise Failed(f"{program} is not found", where=f"PATH={env['PATH']}",
                     next=f"set services.{unit.service}.path", code="no-program")  # fmt: skip
    return {
        "name": unit.name, "script": found, "args": args, "cwd": unit.cwd, "interpreter": "none",
        "exec_mode": "fork", "vizion": False, "kill_timeout": int(unit.stop_timeout * 1000),
        "kill_retry_time": LOOKS_EVERY,
        "env": {**env, MARK: _mark(unit)},
    }  # fmt: skip
