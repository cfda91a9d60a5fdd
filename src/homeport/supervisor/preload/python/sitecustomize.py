"""Loaded before an unmodified Python program (PYTHONPATH); see homeport_door.py beside it.

It then loads the sitecustomize that it hides, if there is one.
"""
# mypy: ignore-errors

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _without_us():
    return [entry for entry in sys.path if os.path.abspath(entry or ".") != HERE]


def _next():
    """The sitecustomize that this one hides."""
    sys.path[:] = _without_us()
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        if ours is not None:
            sys.modules["sitecustomize"] = ours


_words = os.environ.get("HOMEPORT_SHIM", "").split()
if len(_words) > 1:
    import homeport_door

    homeport_door.install(_words)
_next()
