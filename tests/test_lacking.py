"""What a command that failed lacked, by the kernel's own counts: memory that ran out while it ran, room on its disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from homeport.doors import lacking
from homeport.doors.shell import LocalShell
from homeport.model.blameless import fault_of_the_machine
from homeport.model.ports import Completed, Job

ELSEWHERE, OURS = "echo oom_kill 6 > machine", "echo oom_kill 4 > unit/memory.events"


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counters of a kernel that has killed for memory before: five on the machine, three of them in our own group."""
    (tmp_path / "unit").mkdir()
    (tmp_path / "group").write_text("4:memory:/\n1:cpu:/\n0::/unit\n")
    (tmp_path / "machine").write_text("nr_free_pages 1\noom_kill 5\n")
    (tmp_path / "unit/memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    for name, path in (("_MACHINE", "machine"), ("_GROUP", "group"), ("_GROUPS", "")):
        monkeypatch.setattr(lacking, name, str(tmp_path / path))
    return tmp_path


@pytest.mark.parametrize(("command", "expected"), [
    ("exit 137", False), ("kill -9 $$", False), ("exit 1", False), ("true", False),
    (f"{ELSEWHERE}; exit 137", True), (f"{ELSEWHERE}; kill -9 $$", True), (f"{ELSEWHERE}; exit 1", False),
    (ELSEWHERE, False), (f"{OURS}; exit 2", True), (OURS, False), ("rm machine unit/memory.events; exit 137", False),
])  # fmt: skip
def test_only_a_kill_for_memory_while_the_command_ran_is_evidence_and_only_one_of_ours_for_any_other_status(
    counts: Path, command: str, expected: bool
) -> None:
    """Status 137 is what a shell says of a child that SIGKILL ended; a commit can say so too."""
    job = Job(command=command, cwd=str(counts), env={"PATH": os.defpath}, label="build of api", timeout=60)
    assert LocalShell("d1").job(job, lambda stream, line: None).no_memory is expected


@pytest.mark.parametrize(("done", "code"), [
    (Completed(argv=(), code=0, no_room="/opt"), None),
    (Completed(argv=(), code=1), None),
    (Completed(argv=(), code=137), None),
    (Completed(argv=(), code=-15), None),
    (Completed(argv=(), code=-9, timed_out=True, no_memory=True), None),
    (Completed(argv=(), code=-9), "killed"),
    (Completed(argv=(), code=137, no_memory=True), "killed"),
    (Completed(argv=(), code=1, no_room="/opt"), "build-disk"),
])  # fmt: skip
def test_a_command_that_lacked_room_or_memory_is_the_machines_fault_and_any_other_is_not(
    done: Completed, code: str | None
) -> None:
    fault = fault_of_the_machine(done, "build of api", "/opt/api", "homeport logs d1")
    assert (fault.code if fault else None) == code
    assert fault is None or (fault.infrastructure and fault.next)
