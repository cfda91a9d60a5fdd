"""Where this machine keeps its state."""

from __future__ import annotations

import os


def state_root() -> str:
    """`HOMEPORT_STATE`, else /var/lib/homeport for root, else the user's own state folder."""
    named = os.environ.get("HOMEPORT_STATE")
    if named:
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return "/var/lib/homeport"
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "homeport")
