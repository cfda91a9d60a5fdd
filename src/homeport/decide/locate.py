"""Line numbers of the keys of a TOML text, for error messages; `tomllib` keeps none."""

from __future__ import annotations

import tomllib

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the document."""

_BLANK = " \t"
_ENDS = ",]}#\n"


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of every table, key and list element of a *valid* TOML text."""
    return _Walk(text.replace("\r\n", "\n")).run()


def line_at(lines: dict[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest thing around it that is written down; 1 when there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def dotted(path: Path) -> str:
    """`services.api.checks[0].http`; a key that is not a bare TOML key is quoted."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
            continue
        bare = part.isascii() and part.replace("-", "a").replace("_", "a").isalnum()
        shown += ("." if shown else "") + (part if bare else f'"{part}"')
    return shown


class _Walk:
    """One pass over the text. The text is known to be valid, so nothing is checked twice here."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(newlines=True):
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text[self.at] == "[":
                table = self._header(1)
            else:
                self._pair(table)
        return self.lines

    def _header(self, brackets: int) -> Path:
        self._move(brackets)
        keys = self._keys()
        self._move(brackets)
        path: Path = (*self._resolved(keys[:-1]), keys[-1])
        if brackets == 2:
            self._note(path)
            self.counts[path] = self.counts.get(path, -1) + 1
            path = (*path, self.counts[path])
        self.lines[path] = self.line
        return path

    def _resolved(self, keys: list[str]) -> Path:
        path: Path = ()
        for key in keys:
            path = self._inside((*path, key))
            self._note(path)
        return path

    def _inside(self, path: Path) -> Path:
        """A header below an array of tables means its last element."""
        return (*path, self.counts[path]) if path in self.counts else path

    def _pair(self, table: Path) -> None:
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path)
        self._move(1)
        self._skip()
        self._value(path)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip()
            start = self.at
            if self.text[start] in "\"'":
                self._string()
                keys.append(_unquoted(self.text[start : self.at]))
            else:
                while self.text[self.at] not in " \t.=]":
                    self.at += 1
                keys.append(self.text[start : self.at])
            self._skip()
            if self.text[self.at] != ".":
                return keys
            self._move(1)

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._items(path)
        elif first == "{":
            self._inline(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in _ENDS:
                self.at += 1

    def _items(self, path: Path) -> None:
        self._move(1)
        position = 0
        while self._skip(newlines=True) and self.text[self.at] != "]":
            self._note((*path, position))
            self._value((*path, position))
            position += 1
            self._skip(newlines=True)
            if self.text[self.at] == ",":
                self._move(1)
        self._move(1)

    def _inline(self, path: Path) -> None:
        self._move(1)
        while self._skip(newlines=True) and self.text[self.at] != "}":
            self._pair(path)
            self._skip(newlines=True)
            if self.text[self.at] == ",":
                self._move(1)
        self._move(1)

    def _string(self) -> None:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            self._long_string(quote)
            return
        self._move(1)
        while self.text[self.at] != quote:
            self._move(2 if quote == '"' and self.text[self.at] == "\\" else 1)
        self._move(1)

    def _long_string(self, quote: str) -> None:
        self._move(3)
        while not self.text.startswith(quote * 3, self.at):
            self._move(2 if quote == '"' and self.text[self.at] == "\\" else 1)
        self._move(3)
        while self.text.startswith(quote, self.at):  # up to two quotes may stand right before the closing ones
            self._move(1)

    def _skip(self, newlines: bool = False) -> bool:
        """Passes blanks, and with `newlines` line ends and comments; False at the end of the text."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if newlines and char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif char in _BLANK or (newlines and char == "\n"):
                self._move(1)
            else:
                return True
        return False

    def _move(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def _note(self, path: Path) -> None:
        self.lines.setdefault(path, self.line)


def _unquoted(raw: str) -> str:
    return next(iter(tomllib.loads(f"{raw} = 0")))
