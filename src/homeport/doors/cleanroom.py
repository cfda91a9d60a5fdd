"""A clean checkout of one commit, for the project's own checks: made for them, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from homeport.doors.buildtree import bring
from homeport.doors.git import Mirror


@contextmanager
def clean_room(git: Mirror, tree: str, user: str) -> Iterator[str]:
    """The folder; it belongs to `user`, lies outside of the private state and of every live folder, and has nothing but
    the files of the tree."""
    top = tempfile.mkdtemp(prefix="homeport-check-")
    try:
        os.chmod(top, 0o711)  # noqa: S103  (the user passes through, and cannot list it)
        folder = os.path.join(top, "checkout")
        bring(git, folder, tree, user, folder)
        yield folder
    finally:
        shutil.rmtree(top, ignore_errors=True)
