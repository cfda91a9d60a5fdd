"""A changed name is on the disk once its folder is (fsync(2): syncing a file is not syncing its name)."""

import os


def sync_folder(path: str, *, dir_fd: int | None = None) -> None:
    """Waits until the names in that folder are on its disk; raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
