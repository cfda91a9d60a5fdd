"""Paths inside a repository or a live folder.

Git paths are bytes. Inside homeport they are `str` with surrogate escapes (PEP 383), always with `/`,
relative to the folder at hand. They are shown through `printable`, and put into JSON through `exact`.
"""

from __future__ import annotations

from collections.abc import Iterable


def from_bytes(raw: bytes) -> str:
    """The in-memory form of a git path."""
    return raw.decode("utf-8", "surrogateescape")


def to_bytes(path: str) -> bytes:
    """The bytes git and the kernel know the path by."""
    return path.encode("utf-8", "surrogateescape")


def exact(path: str) -> str:
    """The path as JSON and the database hold it: itself, with bytes that are no UTF-8 as `\\xNN`."""
    return path if path.isascii() else to_bytes(path).decode("utf-8", "backslashreplace")


def within(path: str, folder: str) -> bool:
    """Whether a path is this folder or lies below it; all of a repository lies within the empty one."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def folders_above(path: str) -> list[str]:
    """The folders that a relative path lies in, the outermost first; the one that it is counted from is not among them."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def meant(given: str, paths: Iterable[str]) -> str:
    """Of `paths` the one that a person means who typed it as it was shown; else what they typed."""
    if "\\" not in given:
        return given
    known = list(paths)
    return given if given in known else next((p for p in known if given in (exact(p), printable(p))), given)


def printable(text: str) -> str:
    """Text that is valid UTF-8 and holds no control characters, fit for a terminal.

    Undecodable bytes and control characters (C0, DEL, C1, bidirectional overrides) appear as `\\xNN`
    or `\\uNNNN`.
    """
    if text.isascii() and text.isprintable():
        return text
    safe = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(_escape(c) for c in safe)


_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029\ufeff")


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if char in _OVERRIDES else char
