"""Commands that see their build folder at its live path, in a mount namespace of their own (unshare(1), mount(8)).

What they write there lands in the build folder; the live folder itself is out of their sight and reach.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from homeport.model.ports import Shell

_AS_ROOT = """\
no() { echo "$1" >&2; exit 125; }
exec 9<. && mount --no-canonicalize --bind . "$1" && cd "$1" || exit 125
[ . -ef /proc/self/fd/9 ] || no "another folder came to $1 meanwhile"
exec 9<&-
for hidden in $2; do [ -d "$hidden" ] && { mount -t tmpfs -o mode=0700,size=4k none "$hidden" || exit 125; }; done
[ "$3" = . ] || cd -P "./$3" || exit 125
shift 3
exec "$@"
"""
_BECOME = 'exec unshare --user --map-user="$HOMEPORT_UID" --map-group="$HOMEPORT_GID" -- "$@"'
_AS_USER = _AS_ROOT.replace('exec "$@"', _BECOME)
_CLEARED = 'unset HOMEPORT_UID HOMEPORT_GID; exec "$@"'


def standing_at(argv: Sequence[str], path: str, below: str, hidden: Sequence[str] = ()) -> list[str]:
    """The command in a namespace where the folder that it is started in stands at `path`; it works in `below` there.

    No path leads to the folder, so that it is the one that was meant whatever is swapped above it, and what came to
    `path` is looked at; further down it is `cd -P`, since a shell's plain `cd` goes by the whole path again. `hidden`
    folders (no white space in their names) are empty in there. Ends with 125 when it cannot be set up.
    """
    quiet = " ".join(h for h in hidden if not any(c.isspace() for c in h))
    if os.geteuid() == 0:
        start = ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-c", _AS_ROOT, "homeport-build"]
        return [*start, path, quiet, below, *argv]
    ids = ["env", f"HOMEPORT_UID={os.geteuid()}", f"HOMEPORT_GID={os.getegid()}"]
    start = ["unshare", "--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c", _AS_USER, "homeport-build"]
    return [*ids, *start, path, quiet, below, "/bin/sh", "-c", _CLEARED, "homeport-build", *argv]


@cache
def why_not(shell: Shell) -> str:
    """Why this machine cannot do it; empty when it can."""
    from shutil import which

    if which("unshare") is None:
        return "unshare (util-linux) is not installed"
    argv = standing_at(["true"], "/dev", ".")
    done = shell.run(argv, cwd="/", timeout=20.0, ok=range(256))
    if done.code == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"the kernel does not let it make a mount namespace ({said[-1][:160] if said else f'status {done.code}'})"
