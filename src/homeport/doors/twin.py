"""A twin of the mirror for as long as something is looked at: it reads the mirror's objects, and takes all writes.

So looking leaves nothing in the mirror, and works where the mirror's disk is full or read-only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from homeport.doors.git import Mirror

ROOM = 1024 * 1024
"""Bytes that must be free where a look puts its files."""
IN_MEMORY = ("/dev/shm", "/run")  # noqa: S108  # made there with mkdtemp


@contextlib.contextmanager
def twin(mirror: Mirror) -> Iterator[Mirror]:
    """The mirror's twin; gone afterwards. Raises OSError when there is room for it nowhere."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="homeport-", dir=roomy(), ignore_cleanup_errors=True) as folder:
        made = os.path.join(folder, "repo.git")
        for name in ("objects/info", "info", "refs"):
            os.makedirs(os.path.join(made, name))
        for name in ("HEAD", "config", "info/attributes"):
            shutil.copyfile(os.path.join(mirror.path, name), os.path.join(made, name))
        _write(made, "objects/info/alternates", os.path.join(mirror.path, "objects").encode("utf-8", "surrogateescape"))
        _write(made, "packed-refs", mirror.cmd.run("for-each-ref", "--format=%(objectname) %(refname)"))
        beside = Mirror(made, mirror.origin, mirror.cmd.shell)
        beside.patience = mirror.patience
        with contextlib.closing(beside):
            yield beside


def roomy() -> str | None:
    """A folder for temporary files with room in it: the usual one (None), else one in memory. On a small machine the
    usual one lies on the disk that is full."""
    import tempfile

    with contextlib.suppress(OSError):
        disk = os.statvfs(tempfile.gettempdir())
        if not disk.f_blocks or disk.f_bavail * disk.f_frsize >= ROOM:
            return None
    return next((folder for folder in IN_MEMORY if os.access(folder, os.W_OK | os.X_OK)), None)


def _write(folder: str, name: str, content: bytes) -> None:
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)
