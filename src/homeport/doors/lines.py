"""Output cut into lines of text that can be kept, shown and encoded again."""

from __future__ import annotations

from typing import Literal

from homeport.model.ports import OnLine

LONGEST_LINE = 64 * 1024
"""Bytes; a longer line is handed on in pieces."""
Stream = Literal["stdout", "stderr"]


class Lines:
    """Cuts one stream into lines; a line without end is handed on in pieces of `LONGEST_LINE` bytes."""

    def __init__(self, stream: Stream, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._many = getattr(on_line, "many", None)
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        if self._many is not None and self._at_once(self._rest + chunk):
            return
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._hand_on(line)
        if len(self._rest) >= LONGEST_LINE:
            cut = _between_characters(self._rest)
            self._hand_on(self._rest[:cut])
            self._rest = self._rest[cut:]

    def _at_once(self, known: bytes) -> bool:
        """Hands all whole lines on in one call; False, with nothing done, when one of them needs a closer look."""
        cut = known.rfind(b"\n")
        try:
            text = known[:max(cut, 0)].decode("utf-8")
        except UnicodeDecodeError:
            return False
        lines = text.split("\n")
        longest = LONGEST_LINE // 4
        if cut < 0 or "\0" in text or max(len(known) - cut, *map(len, lines)) > longest:
            return False
        if "\r" in text:
            lines = [line.removesuffix("\r") for line in lines]
        assert self._many is not None
        self._many(self._stream, lines)
        self._rest = known[cut + 1 :]
        return True

    def end(self) -> None:
        if self._rest:
            self._hand_on(self._rest)
        self._rest = b""

    def _hand_on(self, line: bytes) -> None:
        while len(line) > LONGEST_LINE:
            cut = _between_characters(line)
            self._on_line(self._stream, printable(line[:cut]))
            line = line[cut:]
        self._on_line(self._stream, printable(line.removesuffix(b"\r")))


def _between_characters(line: bytes) -> int:
    """Where to cut a long line so that no UTF-8 character is torn."""
    cut = min(len(line), LONGEST_LINE)
    start = next((at for at in range(cut - 1, max(cut - 4, 0), -1) if line[at] & 0xC0 != 0x80), cut)
    return start if start > 0 and line[start:start + 1] >= b"\xc0" else cut


def printable(raw: bytes) -> str:
    """Text that can be encoded again: what is not UTF-8 is shown as `\\xNN`, NUL as `\\x00`."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
