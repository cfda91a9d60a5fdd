"""Commands that see their build folder at its live path, in a mount namespace of their own (unshare(1), mount(8)).

What they write there lands in the build folder; the live folder itself is out of their sight and reach.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from homeport.model.ports import Shell

_AS_ROOT = """\
mount --bind "$1" "$2" || exit 125
for hidden in $3; do [ -d "$hidden" ] && { mount -t tmpfs -o mode=0700,size=4k none "$hidden" || exit 125; }; done
cd "$4" || exit 125
shift 4
exec "$@"
"""
_BECOME = 'exec unshare --user --map-user="$HOMEPORT_UID" --map-group="$HOMEPORT_GID" -- "$@"'
_AS_USER = _AS_ROOT.replace('exec "$@"', _BECOME)
_CLEARED = 'unset HOMEPORT_UID HOMEPORT_GID; exec "$@"'


def standing_at(argv: Sequence[str], folder: str, path: str, cwd: str, hidden: Sequence[str] = ()) -> list[str]:
    """The command in a namespace where `folder` stands at `path`; `cwd` is a folder as seen in there.

    `hidden` folders (no white space in their names) are empty in there. Ends with 125 when it cannot be set up.
    """
    quiet = " ".join(h for h in hidden if not any(c.isspace() for c in h))
    if os.geteuid() == 0:
        start = ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-c", _AS_ROOT, "homeport-build"]
        return [*start, folder, path, quiet, cwd, *argv]
    ids = ["env", f"HOMEPORT_UID={os.geteuid()}", f"HOMEPORT_GID={os.getegid()}"]
    start = ["unshare", "--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c", _AS_USER, "homeport-build"]
    return [*ids, *start, folder, path, quiet, cwd, "/bin/sh", "-c", _CLEARED, "homeport-build", *argv]


@cache
def why_not(shell: Shell) -> str:
    """Why this machine cannot do it; empty when it can."""
    from shutil import which

    if which("unshare") is None:
        return "unshare (util-linux) is not installed"
    argv = standing_at(["true"], "/", "/dev", "/")
    done = shell.run(argv, cwd="/", timeout=20.0, ok=range(256))
    if done.code == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"the kernel does not let it make a mount namespace ({said[-1][:160] if said else f'status {done.code}'})"
