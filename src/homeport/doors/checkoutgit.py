"""How git is called on a person's checkout: with their own settings, nothing of it changed. Loaded before anything that
takes time (doors/early.py)."""

from __future__ import annotations

import os

_OPTIONS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.splitIndex=false", "core.quotePath=false",
            "core.untrackedCache=false", "core.fsync=none", "advice.addEmbeddedRepo=false")  # fmt: skip
PREFIX = ("git", "--no-pager", *(part for option in _OPTIONS for part in ("-c", option)))
_OWN = ("PATH", "HOME", "XDG_CONFIG_HOME", "SUDO_UID")
DIFFERING = ("diff-files", "-z", "--raw", "--abbrev=40", "--no-renames", "--ignore-submodules=all")
"""What is not as the index says."""
BESIDES = ("ls-files", "-z", "-o", "--exclude-standard")
"""What the index does not name."""


def environment() -> dict[str, str]:
    """Of every such git."""
    whole = {name: os.environ[name] for name in _OWN if name in os.environ}
    return {**whole, "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1"}  # fmt: skip


def looking(top: str, git_dir: str, question: tuple[str, ...]) -> tuple[tuple[str, ...], str, dict[str, str]]:
    """How git is asked `DIFFERING` or `BESIDES`: the whole command line, the folder to run it in, the environment."""
    return (*PREFIX, *question), top, {**environment(), "GIT_DIR": git_dir, "GIT_WORK_TREE": top}
