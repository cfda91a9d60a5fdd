"""homeport brought to a machine that has none, or another version: sent over ssh, installed there with pip."""

from __future__ import annotations

import re
from collections.abc import Callable

from homeport import __version__
from homeport.doors.remote import SshHost
from homeport.doors.wheel import own_wheel
from homeport.model.errors import InfrastructureFault
from homeport.model.paths import printable
from homeport.model.remote import SetupStep

INSTALL = """\
set -eu
wheel=$1 version=$2
python=
for each in python3.14 python3.13 python3.12 python3.11 python3; do
  if "$each" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$each; break
  fi
done
[ -n "$python" ] || { echo "it has no Python 3.11 or newer with venv" >&2; exit 3; }
if [ -n "${HOMEPORT_PREFIX:-}" ]; then place=$HOMEPORT_PREFIX/lib/homeport bin=$HOMEPORT_PREFIX/bin
elif [ "$(id -u)" = 0 ]; then place=/opt/homeport bin=/usr/local/bin
else place=$HOME/.local/lib/homeport bin=$HOME/.local/bin; fi
mkdir -p "$place" "$bin"
new=$(mktemp -d "$place/$version.XXXXXX")
chmod 0755 "$new"
"$python" -m venv "$new"
"$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$wheel"
ln -s "$new/bin/homeport" "$new/link"
mv -f "$new/link" "$bin/homeport"
rm -rf "${wheel%/*}"
ls -1dt "$place"/*/ | tail -n +3 | while IFS= read -r old; do rm -rf "$old"; done
"""
"""Fixed text, run by `sh` on the machine. A program that runs keeps its own folder; the newest two stay."""
RECEIVE = 'umask 077; folder=$(mktemp -d) && cat > "$folder/$1" && printf "%s\\n" "$folder/$1"'


def is_newer(there: str, here: str) -> bool:
    """Whether one version comes after the other; what is no plain version is not newer, nor older."""
    if not all(re.fullmatch(r"\d+(\.\d+)*", said) for said in (there, here)):
        return False
    return [int(part) for part in there.split(".")] > [int(part) for part in here.split(".")]


def bring(host: SshHost, name: str, note: Callable[[str], None]) -> SetupStep:
    """The same homeport there as here, but never an older one than is there. Raises InfrastructureFault (code
    `install`)."""
    for program in host.places():
        said = host.run([program, "--version"])
        found = said.stdout.decode("utf-8", "replace").strip() if said.code == 0 else ""
        if found == f"homeport {__version__}":
            return SetupStep(name="program", ok=True, done=f"homeport {__version__}")
        if is_newer(found.removeprefix("homeport "), __version__):
            raise InfrastructureFault(f"{printable(found)} is there, newer than the {__version__} that runs here",
                                      where=name, next="pipx upgrade homeport   (here)", code="install")  # fmt: skip
    file, wheel = own_wheel()
    note(f"installing homeport {__version__} on {name}")
    sent = host.run(["/bin/sh", "-c", RECEIVE, "sh", file], input=wheel)
    path = sent.stdout.decode("utf-8", "replace").strip()
    done = host.run(["/bin/sh", "-c", INSTALL, "sh", path, __version__]) if sent.code == 0 else sent
    if done.code:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no word why"]
        mend = "apt install python3-venv   (there)" if done.code == 3 else "pip install homeport   (there, by hand)"
        raise InfrastructureFault(f"homeport cannot be installed there: {why[0]}", where=name, next=mend,
                                  code="install")  # fmt: skip
    return SetupStep(name="program", ok=True, done=f"homeport {__version__}, installed just now", changed=True)
