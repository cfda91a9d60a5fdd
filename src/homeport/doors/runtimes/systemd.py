"""The systemd runtime: exactly the named unit, of the machine's systemd or of a user's own.

What the unit is started with beside its own file (`env`, `env_file`, the `HOMEPORT_` variables) is a drop-in next to
the unit and a file of values that only its owner reads. A service with a `command` and no unit gets a unit file.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from homeport.doors.runtimes.surroundings import account, as_user, environment_of, home_of
from homeport.doors.runtimes.systemd_units import (
    DROP_IN,
    MADE_BY_US,
    VALUES,
    Named,
    drop_in,
    environment_file,
    named,
    unit_file,
)
from homeport.model.errors import Failed, InfrastructureFault
from homeport.model.ports import Completed, OnLine, Shell
from homeport.model.running import Restarted, Unit, UnitState

LONGEST = 600.0
"""Seconds that a unit may take to stop and be ready again; its own TimeoutStartSec is usually less."""
TAIL = 20
"""Lines of the journal that a failed start is told with."""
REPLACE = 'umask 022; mkdir -p "$1" && umask 077 && cat >"$2.new" && chmod "$3" "$2.new" && mv -f "$2.new" "$2"'
ASKED = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "MainPID", "NeedDaemonReload", "CanReload",
         "FragmentPath", "ExecMainStartTimestamp")  # fmt: skip
STATES: dict[str, Literal["running", "stopped", "failed", "restarting"]] = {
    "active": "running", "reloading": "running", "activating": "restarting", "deactivating": "restarting",
    "failed": "failed", "inactive": "stopped", "maintenance": "failed",
}  # fmt: skip


class Systemd:
    """Satisfies Runtime."""

    name = "systemd"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def inspect(self, unit: Unit) -> UnitState:
        at = named(unit, os.geteuid() == 0)
        try:
            found = self._show(unit, at)
        except InfrastructureFault as fault:
            return UnitState(state="unknown", detail=fault.what)
        if found["LoadState"] == "not-found":
            return UnitState(state="missing", detail=f"systemd knows no {at.name}")
        more = f": {found['Result']}" if found["Result"] not in ("success", "") else ""
        return UnitState(
            state=STATES.get(found["ActiveState"], "unknown"), pid=int(found["MainPID"] or 0) or None,
            restarts=int(found["NRestarts"] or 0), detail=f"{found['ActiveState']} ({found['SubState']}){more}",
        )  # fmt: skip

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises Failed: codes `unregistered`, `bad-unit`, `not-ready` with the end of the unit's journal."""
        at = named(unit, os.geteuid() == 0)
        found = self._show(unit, at)
        registered = self._place(unit, at, found)
        found = self._show(unit, at)
        if found["LoadState"] == "not-found":
            raise Failed(
                f"systemd knows no {at.name} and {unit.service} has no command to make one from",
                where=f"services.{unit.service}.unit", next="install the unit file, or give the service a `command`",
                code="unregistered",
            )  # fmt: skip
        if found["ActiveState"] == "failed":
            # or the limit of starts that a crash loop ran into forbids this one too
            self._ctl(unit, at, "reset-failed", at.name)
        verb = self._verb(unit, at, found, on_line)
        done = self._ctl(unit, at, verb, at.name, ok=None, timeout=LONGEST)
        after = self._show(unit, at)
        if after["Result"] == "start-limit-hit" or "attempted too often" in _said(done):
            # earlier restarts, or a loop that had not ended when we looked, used up the starts that are allowed
            self._ctl(unit, at, "reset-failed", at.name)
            done = self._ctl(unit, at, "restart", at.name, ok=None, timeout=LONGEST)
            after = self._show(unit, at)
        if done.code != 0 or after["ActiveState"] == "failed":
            for line in self._journal(unit, at, TAIL):
                on_line("stderr", line)
            why = after["Result"] if after["Result"] not in ("success", "") else _said(done)
            raise Failed(f"{at.name} did not start: {why}", where=unit.cwd, next=f"homeport logs {unit.service}",
                         code="not-ready")  # fmt: skip
        return Restarted(pid=int(after["MainPID"] or 0) or None, registered=registered)

    def forget(self, unit: Unit) -> None:
        """Stops it and removes what homeport wrote for it; a unit of somebody else's stays."""
        at = named(unit, os.geteuid() == 0)
        own = self._own_file(unit, at)
        if own is None:
            return
        self._ctl(unit, at, "disable", "--now", at.name, ok=None, timeout=LONGEST)
        self._run(unit, at, ["rm", "-f", "--", own, f"{own}.d/{DROP_IN}", f"{own}.d/{VALUES}"])
        self._ctl(unit, at, "daemon-reload")

    def ours(self, unit: Unit) -> bool:
        """Whether homeport wrote the unit's file, and may take it away."""
        return self._own_file(unit, named(unit, os.geteuid() == 0)) is not None

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        at = named(unit, os.geteuid() == 0)
        cursor = ""
        while True:
            since = [f"--after-cursor={cursor}"] if cursor else ["-n", str(lines)]
            for text in self._journal(unit, at, None, [*since, "--show-cursor"]):
                if text.startswith("-- cursor: "):
                    cursor = text.removeprefix("-- cursor: ")
                else:
                    yield text
            if not follow:
                return
            time.sleep(0.25)

    def _verb(self, unit: Unit, at: Named, found: dict[str, str], on_line: OnLine) -> str:
        if unit.on_change != "reload" or found["ActiveState"] != "active":
            return "restart"
        if found["CanReload"] == "yes":
            return "reload"
        on_line("stderr", f"{at.name} has no ExecReload: restarted instead")
        return "restart"

    def _place(self, unit: Unit, at: Named, found: dict[str, str]) -> bool:
        """Brings unit file, drop-in and values to what the service is to be started with; True for a new unit."""
        folder = self._folder(unit, at)
        path = f"{folder}/{at.name}"
        changed = found["NeedDaemonReload"] == "yes"
        fresh = False
        missing = found["LoadState"] == "not-found"
        if missing and unit.command is None:
            # a unit file that was written a moment ago may only need to be read
            self._ctl(unit, at, "daemon-reload")
            if self._show(unit, at)["LoadState"] == "not-found":
                return False
        elif unit.command is not None and (missing or self._own_file(unit, at) is not None):
            text = unit_file(unit, environment_of(unit)["PATH"], at.of_user)
            fresh, changed = missing, self._write(unit, at, path, text, "0644") or changed
        values = f"{path}.d/{VALUES}"
        self._write(unit, at, values, environment_file(unit.env), "0600")
        changed = self._write(unit, at, f"{path}.d/{DROP_IN}", drop_in(values), "0644") or changed
        if changed:
            self._ctl(unit, at, "daemon-reload")
        if fresh:
            self._ctl(unit, at, "enable", at.name)
        return fresh

    def _own_file(self, unit: Unit, at: Named) -> str | None:
        """The unit file that homeport wrote for this unit; None when it is another's or there is none."""
        path = f"{self._folder(unit, at)}/{at.name}"
        text = self._read(unit, at, path)
        return path if text is not None and text.startswith(MADE_BY_US.encode()) else None

    def _folder(self, unit: Unit, at: Named) -> str:
        """Where this systemd looks for the administrator's (or the user's) own units."""
        said = self._ctl(unit, at, "show", "--property=UnitPath", "--value").stdout.decode("utf-8", "replace")
        for path in said.split():
            last = os.path.basename(path)
            if not path.startswith("/run/") and not last.endswith((".control", "transient", ".attached")):
                return path.rstrip("/")
        raise InfrastructureFault("systemd names no folder for unit files", where="systemctl show --property=UnitPath",
                                  next="homeport doctor", code="tool")  # fmt: skip

    def _read(self, unit: Unit, at: Named, path: str) -> bytes | None:
        done = self._run(unit, at, ["cat", "--", path], ok=(0, 1))
        return done.stdout if done.code == 0 else None

    def _write(self, unit: Unit, at: Named, path: str, text: str, mode: str) -> bool:
        """True when the file was not like that before. Written as the owner of the manager, so that no link in
        a user's folder leads anywhere that user could not write to."""
        raw = text.encode("utf-8", "surrogateescape")
        if self._read(unit, at, path) == raw:
            return False
        self._run(unit, at, ["/bin/sh", "-c", REPLACE, "replace", os.path.dirname(path), path, mode], input=raw)
        return True

    def _show(self, unit: Unit, at: Named) -> dict[str, str]:
        said = self._ctl(unit, at, "show", f"--property={','.join(ASKED)}", "--", at.name).stdout
        rows = (line.partition("=") for line in said.decode("utf-8", "replace").splitlines())
        return {**dict.fromkeys(ASKED, ""), **{key: value for key, _, value in rows}}

    def _journal(self, unit: Unit, at: Named, lines: int | None, more: Sequence[str] = ()) -> list[str]:
        """What the unit printed, as journalctl shows it; a machine without a journal has nothing to say."""
        which = [f"--unit={at.name}"]
        words: list[str] = []
        if at.of_user:
            uid = account(unit).pw_uid
            which = [f"_SYSTEMD_USER_UNIT={at.name}", f"_UID={uid}"]
            words = [] if uid != os.geteuid() else ["--user"]
        argv = ["journalctl", *words, "--no-pager", "--quiet", "--output=short-iso", *more]
        done = self._shell.run([*argv, *(["-n", str(lines)] if lines is not None else []), *which], ok=range(-64, 256))
        return done.stdout.decode("utf-8", "replace").splitlines()

    def _ctl(self, unit: Unit, at: Named, *words: str, ok: Sequence[int] | None = (0,),
             timeout: float = 60.0) -> Completed:  # fmt: skip
        which = ["--user"] if at.of_user else []
        return self._run(unit, at, ["systemctl", "--no-ask-password", "--no-pager", *which, *words], ok=ok, timeout=timeout)

    def _run(self, unit: Unit, at: Named, argv: Sequence[str], *, ok: Sequence[int] | None = (0,),
             timeout: float = 60.0, input: bytes | None = None) -> Completed:  # fmt: skip
        """Runs a tool as the owner of the manager: root for the machine's, the user for their own."""
        env = {"PATH": os.environ.get("PATH") or os.defpath, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME") or "/"}
        prefix: list[str] = []
        if at.of_user:
            prefix = as_user(unit)
            uid = account(unit).pw_uid
            own = os.environ.get("XDG_RUNTIME_DIR") if uid == os.geteuid() else None
            env.update(HOME=home_of(unit), XDG_RUNTIME_DIR=own or f"/run/user/{uid}")
        if shutil.which(argv[0], path=env["PATH"]) is None:
            raise InfrastructureFault(f"{argv[0]} is not on this machine", where=env["PATH"],
                                      next="choose another runtime for the service", code="no-systemd")  # fmt: skip
        return self._shell.run([*prefix, *argv], env=env, timeout=timeout, input=input,
                               ok=range(-64, 256) if ok is None else ok)  # fmt: skip


def _said(done: Completed) -> str:
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[0][:300] if lines else f"systemctl ended with status {done.code}"
