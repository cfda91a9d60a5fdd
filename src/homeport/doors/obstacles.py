"""What lies in the way of paths that a commit brings and the record does not have (GIT.md: the `lib/.env` hole)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from homeport.doors.look import Blocked, Seen, folder_at, look_in, split
from homeport.model.live import Difference, TreeChange
from homeport.model.paths import from_bytes


class Obstacles:
    """Looks below an open root; nothing is hidden here, protected and ignored files are in the way like any other."""

    def __init__(self, root: int, changes: Sequence[TreeChange]) -> None:
        self._root = root
        self._new = [c.path for c in changes if c.before is None and c.after is not None]
        self._going = {c.path for c in changes if c.before is not None and c.after is None}

    def find(self) -> dict[str, Difference]:
        """By the path that is wanted."""
        found = {}
        missing: set[str] = set()
        for path in self._new:
            folder, name = split(path)
            if folder in missing:
                continue
            try:
                with folder_at(self._root, folder) as here:
                    seen = look_in(here, name)
                    if seen.oddity in ("directory", "nested repository") and not self._holds_other(path):
                        seen = Seen()
            except FileNotFoundError:
                missing.add(folder)
                continue
            except Blocked as blocked:
                seen = Seen() if blocked.path in self._going else Seen(oddity=blocked.oddity)
            if not seen.absent:
                found[path] = Difference(path=path, state="added", actual=seen.entry, oddity=seen.oddity)
        return found

    def _holds_other(self, folder: str) -> bool:
        """Whether anything lies below that this very commit does not take away."""
        try:
            with folder_at(self._root, folder) as here:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
        except (OSError, Blocked):
            return True
        try:
            with os.scandir(fd) as entries:
                names = [(from_bytes(os.fsencode(e.name)), e.is_dir(follow_symlinks=False)) for e in entries]
        finally:
            os.close(fd)
        for name, is_folder in names:
            path = f"{folder}/{name}"
            if self._holds_other(path) if is_folder else path not in self._going:
                return True
        return False
