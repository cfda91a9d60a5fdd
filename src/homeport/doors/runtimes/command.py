"""The `command` runtime: the service is (re)started by a command of the project's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from homeport.doors.leftovers import MARK
from homeport.doors.runtimes.surroundings import environment_of
from homeport.model.blameless import fault_of_the_machine
from homeport.model.errors import Failed
from homeport.model.ports import Job, OnLine, Shell
from homeport.model.running import Restarted, Unit, UnitState

LONGEST = 600.0
"""Seconds a restart command may take."""


class CommandRuntime:
    """Runs `command` for each restart and knows nothing else about the service: its checks have to tell."""

    name = "command"

    def __init__(self, shell: Shell, longest: float = LONGEST) -> None:
        self._shell = shell
        self._longest = longest

    def inspect(self, unit: Unit) -> UnitState:
        return UnitState(state="unknown", detail="the command runtime cannot look; add a check")

    def restart(self, unit: Unit, on_line: OnLine) -> Restarted:
        """Raises Failed: code `no-command`, or `restart` with the last thing the command said; InfrastructureFault when it
        lacked room or memory."""
        if not unit.command:
            raise Failed(
                f"{unit.service} has no command to restart it with", where=f"services.{unit.service}.command",
                next="homeport check", code="no-command",
            )  # fmt: skip
        last = ""

        def line(stream: Literal["stdout", "stderr"], text: str) -> None:
            nonlocal last
            last = text.strip() or last
            on_line(stream, text)

        # What the command leaves running is the service: it must not be ended as a leftover of this deploy.
        job = Job(
            command=unit.command, cwd=unit.cwd, reached=unit.reached, env={**environment_of(unit), MARK: ""},
            label=f"restart of {unit.service}", timeout=self._longest, user=unit.user,
        )  # fmt: skip
        done = self._shell.job(job, line)
        if done.timed_out or done.code != 0:
            blameless = fault_of_the_machine(done, f"the restart command of {unit.service}", unit.cwd)
            if blameless is not None:
                raise blameless
            how = f"ended with status {done.code}"
            if done.timed_out:
                how = f"took more than {self._longest:g} s"
            raise Failed(
                f"the restart command of {unit.service} {how}" + (f": {last[:300]}" if last else ""),
                where=unit.cwd, next=f"homeport logs {unit.service}", code="restart",
            )  # fmt: skip
        return Restarted(pid=None)

    def forget(self, unit: Unit) -> None:
        """Nothing was registered anywhere."""

    def logs(self, unit: Unit, lines: int, follow: bool) -> Iterator[str]:
        yield f"{unit.service} is run by its own command: homeport does not know where it logs"
