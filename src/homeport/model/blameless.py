"""A command of the project that failed through no fault of the commit (P6). Pure."""

from __future__ import annotations

import signal

from homeport.model.errors import InfrastructureFault
from homeport.model.ports import Completed


def fault_of_the_machine(done: Completed, label: str, folder: str, see: str = "") -> InfrastructureFault | None:
    """Why it is the machine's doing that a command failed in `folder`; None when nothing says so. `see`: a command that
    shows its output. What was directly killed, by whomever, is nothing that a commit does."""
    if done.code == 0 or done.timed_out:
        return None
    first = f"{see}; " if see else ""
    if done.no_room:
        look = f"df -h {done.no_room}; df -i {done.no_room}   (then: homeport deploy)"
        return InfrastructureFault(f"{label} {how(done)}, and the disk is full", where=done.no_room, next=look,
                                   code="build-disk")  # fmt: skip
    if done.no_memory:
        return InfrastructureFault(f"{label} {how(done)}: the kernel ended a process for want of memory meanwhile",
                                   where=folder, next=f"{first}dmesg", code="killed")  # fmt: skip
    if done.code == -signal.SIGKILL:
        return InfrastructureFault(f"{label} was ended by signal 9; did the machine run out of memory?", where=folder,
                                   next=f"{first}dmesg", code="killed")  # fmt: skip
    return None


def how(done: Completed) -> str:
    """How it ended, after its name."""
    return f"was ended by signal {-done.code}" if done.code < 0 else f"ended with {done.code}"
