"""Reads the log files that pm2 names, as the user whose files they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from homeport.model.ports import Shell

PIECE = 1024 * 1024
"""Bytes read of a file at once."""


def lines_of_files(
    shell: Shell, prefix: Sequence[str], files: Sequence[str], lines: int, follow: bool
) -> Iterator[str]:
    """The last lines of each file, then, with `follow`, what is appended until the caller stops.

    `prefix` are the words that change to the files' user: a path that pm2 names is never opened as another.
    """
    seen: dict[str, int] = {}
    for path in files:
        seen[path] = _size(shell, prefix, path)
        done = shell.run([*prefix, "tail", "-n", str(lines), "--", path], ok=(0, 1))
        yield from done.stdout[-PIECE:].decode("utf-8", "replace").splitlines()
    rest = dict.fromkeys(files, b"")
    while follow:
        for path in files:
            size = _size(shell, prefix, path)
            if size < seen[path]:
                seen[path] = 0
            if size == seen[path]:
                continue
            part = shell.run([*prefix, "tail", "-c", f"+{seen[path] + 1}", "--", path], ok=(0, 1)).stdout
            seen[path] += len(part)
            *whole, rest[path] = (rest[path] + part).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
        time.sleep(0.25)


def _size(shell: Shell, prefix: Sequence[str], path: str) -> int:
    """Bytes in a file; 0 when it is not there."""
    said = shell.run([*prefix, "stat", "-L", "-c", "%s", "--", path], ok=(0, 1)).stdout.strip()
    return int(said) if said.isdigit() else 0
