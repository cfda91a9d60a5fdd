"""The journal of one deploy: a file of JSON lines that only grows. Everything on a screen is read from it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

from homeport.doors.clock import SystemClock
from homeport.doors.durable import sync_folder
from homeport.doors.encoding import encode
from homeport.model.errors import InfrastructureFault
from homeport.model.events import DeployDone, Event, LogLine, Notice
from homeport.model.ports import Clock

LARGEST = 256 * 1024 * 1024
"""Bytes of output lines that are kept; events are always written."""
POLL = 0.02
"""Seconds between two looks of a follower, at most; after something came it looks sooner."""
CHUNK = 1024 * 1024
_encoder = msgspec.json.Encoder()
_whole_line = msgspec.json.Decoder(dict[str, msgspec.Raw])
_syntax = msgspec.json.Decoder(msgspec.Raw)
"""Enough for what this file wrote itself: the beginning of an object is no JSON."""
_LAST = b'{"type":"deploy.done"'


class FileJournal:
    """Satisfies `Journal`. Threads may share it; each event is one write at the end of the file.

    Opened again after a crash, it closes a torn last line, so that what follows stays readable.
    Every method raises InfrastructureFault (code `journal`) when the disk does not take it.
    """

    def __init__(self, path: str, deploy: str, redact: Callable[[str], str], *, clock: Clock | None = None,
                 largest: int = LARGEST) -> None:  # fmt: skip
        self.path = path
        self._deploy = deploy
        self._redact = redact
        self._clock = clock or SystemClock()
        self._largest = largest
        self._dropped = 0
        self._guard = threading.RLock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._size = os.fstat(self._file).st_size
            self._torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"
            sync_folder(os.path.dirname(os.path.abspath(path)))
        except OSError as fault:
            raise self._fault(fault) from fault

    def write(self, event: Event) -> None:
        with self._guard:
            if isinstance(event, DeployDone) and self._dropped:
                self._put(self._notice(f"{self._dropped} lines of output were not kept"))
                self._dropped = 0
            self._put(event)

    def line(self, stream: Literal["stdout", "stderr", "homeport"], line: str, service: str | None = None) -> None:
        event = LogLine(deploy_id=self._deploy, stream=stream, line=line, service=service)
        with self._guard:
            if self._size < self._largest:
                self._put(event)
                return
            if not self._dropped:
                self._put(self._notice("there is too much output: from here on lines are counted, not kept"))
            self._dropped += 1

    def lines(self, stream: Literal["stdout", "stderr"], lines: Sequence[str], service: str | None = None) -> None:
        whole = "\n".join(lines)
        plain = self._redact(whole) == whole
        at = self._clock.now()
        safe = lines if plain else [self._redact(line) for line in lines]
        events = [LogLine(deploy_id=self._deploy, stream=stream, line=line, service=service, at=at) for line in safe]
        with self._guard:
            try:
                raw = _encoder.encode_lines(events)
            except UnicodeEncodeError:
                raw = b""
            if not raw or self._torn or self._size + len(raw) > self._largest:
                for line in lines:
                    self.line(stream, line, service)
                return
            self._append(raw)

    def sync(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as fault:
            raise self._fault(fault) from fault

    def close(self) -> None:
        """May be called twice."""
        with self._guard:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _notice(self, message: str) -> Notice:
        return Notice(deploy_id=self._deploy, level="warning", message=message, code="output-cap")

    def _put(self, event: Event) -> None:
        raw = encode(self._told(event)) + b"\n"
        self._append(b"\n" + raw if self._torn else raw)

    def _append(self, raw: bytes) -> None:
        left = raw
        while left:
            try:
                written = os.write(self._file, left)
            except OSError as fault:
                self._torn = self._torn or len(left) < len(raw)
                raise self._fault(fault) from fault
            self._size += written
            left = left[written:]
        self._torn = False

    def _told(self, event: Event) -> Event:
        """The event with its time, and with every text in it redacted."""
        changes: dict[str, str] = {} if event.at else {"at": self._clock.now()}
        for name in event.__struct_fields__:
            value = getattr(event, name)
            if name not in ("deploy_id", "at") and isinstance(value, str) and (safe := self._redact(value)) != value:
                changes[name] = safe
        return msgspec.structs.replace(event, **changes) if changes else event

    def _fault(self, fault: OSError) -> InfrastructureFault:
        return InfrastructureFault(f"the journal cannot be written: {fault.strerror}", where=self.path, next="df -h",
                                   code="journal")  # fmt: skip


def read_from(path: str, offset: int) -> tuple[list[bytes], int]:
    """The complete lines from that byte on (some of them, when there are many) without their line ends, and
    where to go on. Lines that a crash tore are left out; a file that is not there yet has none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], offset
    try:
        size = CHUNK
        while len(raw := os.pread(handle, size, offset)) == size and b"\n" not in raw:
            size *= 2
    finally:
        os.close(handle)
    end = raw.rfind(b"\n") + 1
    return [line for line in raw[:end].split(b"\n") if _is_whole(line)], offset + end


def chunk_from(path: str, offset: int, most: int = CHUNK) -> tuple[bytes, int]:
    """As `read_from`, in one piece: about `most` bytes of whole lines with their line ends.

    From the middle of a line it begins with the next one.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", offset
    try:
        size, inside = most, offset > 0 and os.pread(handle, 1, offset - 1) not in (b"\n", b"")
        while len(raw := os.pread(handle, size, offset)) == size and b"\n" not in raw:
            size *= 2
    finally:
        os.close(handle)
    end = raw.rfind(b"\n") + 1
    after, whole = offset + end, raw[:end]
    if inside:
        whole = whole[whole.find(b"\n") + 1 :]
    try:
        _syntax.decode_lines(whole)
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole = b"".join(line + b"\n" for line in whole.split(b"\n") if _is_whole(line))
    return whole, after


def _is_whole(line: bytes) -> bool:
    if not line:
        return False
    try:
        _whole_line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def follow(path: str, offset: int, alive: Callable[[], bool]) -> Iterator[bytes]:
    """Complete lines as they come. Ends after the `deploy.done` line, or when the deploy is not `alive` and
    there is nothing more to read."""
    going_on, pause = True, POLL / 8
    while True:
        lines, after = read_from(path, offset)
        for line in lines:
            yield line
            if line.startswith(_LAST):
                return
        if after == offset:
            if not going_on:
                return
            going_on = alive()
            if going_on:
                time.sleep(pause)
                pause = min(pause * 1.2, POLL)
        else:
            pause = POLL / 8
        offset = after
