"""One call of a runner's main thread that fails, or at which it is killed: put there by the kernel's own filter.

A tracer stops the runner twice at each of its thousands of calls, which costs more than the deploy itself. A seccomp
filter asks only at the calls of one name, and who is asked lets each pass but one. What a process starts inherits its
filter, so it is answered until the last of them has ended. Where this cannot be (another machine type, an older
kernel, no root), tests/faults/harness.py takes strace.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from tests.faults.moments import Moment, Stage

NUMBERS = {"write": 1, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "rename": 82, "mkdir": 83,
           "rmdir": 84, "link": 86, "unlink": 87, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264,
           "symlinkat": 266, "syncfs": 306, "renameat2": 316}  # fmt: skip
WORDS = {"rename": "pp", "mkdir": "p", "rmdir": "p", "link": "pp", "unlink": "p", "openat": "fp", "mkdirat": "fp",
         "unlinkat": "fp", "renameat": "fpfp", "renameat2": "fpfp", "symlinkat": "pfp"}  # fmt: skip
"""The first words of each call: `f` a descriptor, `p` a path; of the others the first is a descriptor."""

X86_64, ALLOW, ASK = 0xC000003E, 0x7FFF0000, 0x7FC00000
SECCOMP, SET_FILTER, NEW_LISTENER, WAIT_KILLABLE = 317, 1, 8, 32
RECEIVE, ANSWER, SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
GO_ON, WAKE_AT_ONCE = 1, 1
ASKED, ANSWERED = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")


def is_possible() -> bool:
    """Whether this kernel knows such filters: it looks at the flags before it looks for the filter."""
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(SECCOMP, SET_FILTER, NEW_LISTENER | WAIT_KILLABLE, None) < 0 and ctypes.get_errno() == errno.EFAULT


POSSIBLE = is_possible()

BEGIN = """\
import runpy, socket
install = runpy.run_path({here!r})["install"]
with socket.socket(socket.AF_UNIX) as door:
    door.connect({door!r})
    install(door, {number})
"""


class Filter(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(door: socket.socket, number: int) -> None:
    """In the runner, for this thread and what it starts from now on: whoever holds the other end is asked."""
    steps = [
        (0x20, 0, 0, 4),
        (0x15, 0, 3, X86_64),
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, ASK),
        (0x06, 0, 0, ALLOW),
    ]
    told = array.array("i", [0])
    program = Filter(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SECCOMP, SET_FILTER, NEW_LISTENER | WAIT_KILLABLE, ctypes.byref(program))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no filter")
    told[0] = fd
    door.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, told)])
    os.close(fd)


@dataclass
class Injection:
    """What comes at one moment, and what was found of it."""

    moment: Moment
    error: int | None
    """None: the runner is killed."""
    stage: Stage
    calls: int = 0
    """Of the runner's main thread, so far: in the moment's stage, or all when its number there is not known."""
    came: str = ""
    """The call, as it was asked for."""
    in_stage: str = ""

    def is_now(self) -> bool:
        """Whether the call that the main thread asks for is the one."""
        moment = self.moment
        if moment.within and self.stage() != moment.stage:
            return False
        self.calls += 1
        return self.calls == (moment.within or moment.nth)

    def serve(self, door: socket.socket) -> None:
        """Answers until the last process with this filter has ended. The first that asks is the runner."""
        with door:
            connection, _ = door.accept()
        with connection:
            peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            _, (listener,), _, _ = socket.recv_fds(connection, 1, 1)
        try:
            with suppress(OSError):  # an older kernel answers a little slower
                fcntl.ioctl(listener, SET_FLAGS, WAKE_AT_ONCE)
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            while not poll.poll()[0][1] & select.POLLHUP:
                asked = bytearray(ASKED.size)
                try:
                    fcntl.ioctl(listener, RECEIVE, asked)
                    number, who, _, _, _, _, *words = ASKED.unpack(asked)
                    if who != peer or not self.is_now():
                        fcntl.ioctl(listener, ANSWER, ANSWERED.pack(number, 0, 0, GO_ON))
                        continue
                    self.came, self.in_stage = shown(self.moment.syscall, who, words), self.stage()
                    if self.error is None:
                        os.kill(who, signal.SIGKILL)
                    else:
                        fcntl.ioctl(listener, ANSWER, ANSWERED.pack(number, 0, -self.error, 0))
                except FileNotFoundError:
                    continue  # who asked has been killed meanwhile
        finally:
            os.close(listener)

    def begin(self, folder: Path) -> Path:
        """Waits for a runner that carries out the returned file first."""
        place, script = folder / "asked", folder / "asks.py"
        place.unlink(missing_ok=True)
        door = socket.socket(socket.AF_UNIX)
        here = os.open(folder, os.O_RDONLY)
        try:
            door.bind(f"/proc/self/fd/{here}/{place.name}")  # a path of any length
        finally:
            os.close(here)
        door.listen()
        script.write_text(BEGIN.format(here=__file__, door=place.name, number=NUMBERS[self.moment.syscall]))
        threading.Thread(target=self.serve, args=[door], daemon=True).start()
        return script


def shown(syscall: str, pid: int, words: list[int]) -> str:
    """The call with the paths of its words."""
    said = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for kind, word in zip(WORDS.get(syscall, "f"), words, strict=False):
            if kind == "f":
                fd = ctypes.c_int(word & 0xFFFFFFFF).value
                said.append("AT_FDCWD" if fd == -100 else f"{fd}<{os.readlink(f'/proc/{pid}/fd/{fd}')}>")
            else:
                said.append(f'"{text(memory, word)}"')
    flags = [("O_CREAT|" if words[2] & os.O_CREAT else "") + hex(words[2])] if syscall == "openat" else []
    return f"{syscall}({', '.join(said + flags)}) (INJECTED)"


def text(memory: BinaryIO, address: int) -> str:
    """The path that lies there."""
    memory.seek(address)
    return memory.read(4096).split(b"\0")[0].decode(errors="replace")
