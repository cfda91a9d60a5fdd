"""A real systemd for tests: process 1 of namespaces of its own, started and ended by the test that asks for it.

Its root is an overlay over the machine's, of which it keeps only memory; one folder is shared with the test. It loads
no unit of the machine (nothing is cleaned, mounted or started behind the test's back) and has only the journal and
what the test writes into `units`. Commands enter it: `enter` are the words before them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY

BOOT = r"""
set -e
shared=$1 place=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$place"
mkdir "$place/up" "$place/work" "$place/root" "$place/cgroup"
mount -t cgroup2 cgroup2 "$place/cgroup"
mkdir -p "$place/cgroup/homeport-test-$$"
echo $$ > "$place/cgroup/homeport-test-$$/cgroup.procs"
umount "$place/cgroup"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/up,workdir=$place/work" "$place/root"
exec unshare --cgroup --pid --ipc --uts --fork --kill-child /bin/sh -c "$3" boot "$shared" "$place/root" "$4"
"""
FIRST = r"""
set -e
shared=$1 root=$2 also=$3
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
mount --bind "$shared/units" "$root/etc/systemd/system"
for folder in $also; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/run/systemd" "$root/var/log/journal"
mount -t tmpfs tmpfs "$root/var/log"
cd "$root"
mkdir -p run/old
pivot_root . run/old
umount -l /run/old
export container=other SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH= SYSTEMD_LOG_TARGET=null
export SYSTEMD_ENVIRONMENT_GENERATOR_PATH=
exec /lib/systemd/systemd --system --unit=ready.target --show-status=no </dev/null
"""
SWEEP = r"""
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1" && find "$1/homeport-test-$2" -depth -type d -exec rmdir {} + || true
"""
UNITS = {
    "ready.target": "[Unit]\nDefaultDependencies=no\nRequires=journal.socket journal.service\n",
    "sysinit.target": "[Unit]\nDefaultDependencies=no\n",
    "basic.target": "[Unit]\nDefaultDependencies=no\n",
    "shutdown.target": "[Unit]\nDefaultDependencies=no\n",
    "journal.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/systemd/journal/stdout\n"
    "ListenDatagram=/run/systemd/journal/socket\nSocketMode=0666\nPassCredentials=yes\nPassSecurity=yes\n"
    "Service=journal.service\n",
    "journal.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\n"
    "ExecStart=/lib/systemd/systemd-journald\nSockets=journal.socket\nStandardOutput=null\n",
}
USER_MANAGER = """\
[Unit]
DefaultDependencies=no
[Service]
Type=notify
User={user}
Delegate=yes
Slice=user-{uid}.slice
Environment=XDG_RUNTIME_DIR=/run/user/{uid} SYSTEMD_UNIT_PATH={units} SYSTEMD_GENERATOR_PATH=
ExecStartPre=+/usr/bin/install -d -o {user} -m 0700 /run/user/{uid}
ExecStart=/lib/systemd/systemd --user
"""


def why_not() -> str:
    """Why this machine cannot run one; empty when it can."""
    if os.geteuid() != 0:
        return "namespaces and mounts need root"
    missing = [name for name in ("unshare", "nsenter", "pivot_root", "systemctl", "journalctl") if not shutil.which(name)]
    if missing or not os.path.exists("/lib/systemd/systemd"):
        return f"systemd or util-linux is not installed ({', '.join(missing)})"
    return ""


class SystemdHost:
    """One running systemd. `folder` is the only one that it shares with the machine for writing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.units, self.place = folder, folder / "units", folder / "systemd-root"
        for made in (self.units, self.place):
            made.mkdir(parents=True)
        for name, text in UNITS.items():
            self.write(name, text)
        self._log = folder / "systemd.log"
        root = os.stat("/").st_dev
        also = [p for p in {str(REPOSITORY), sys.prefix, sys.base_prefix} if os.stat(p).st_dev != root]
        with self._log.open("wb") as log:
            self._started = subprocess.Popen(
                ["unshare", "--mount", "/bin/sh", "-c", BOOT, "boot", str(folder), str(self.place), FIRST, " ".join(also)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self.pid = self._first_process()
            self._wait(lambda: self.systemctl("is-active", "journal.service").returncode == 0)
        except BaseException:
            self.close()
            raise

    def enter(self, cwd: Path | str = "/") -> list[str]:
        """The words before a command that run it in this systemd's world, in that folder."""
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-i", "-u", "--",
                "/bin/sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]  # fmt: skip

    def systemctl(self, *args: str, ok: tuple[int, ...] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.enter(), "systemctl", *args], capture_output=True, text=True, timeout=30)
        assert ok is None or done.returncode in ok, done.stderr
        return done

    def write(self, name: str, text: str) -> None:
        """A unit file, without telling systemd."""
        (self.units / name).write_text(text)

    def user_manager(self, user: str, units: Path) -> None:
        """Starts the user's own systemd, which finds its units in that folder."""
        for name in ("default.target", "basic.target", "shutdown.target"):
            (units / name).write_text(UNITS["basic.target"])
        uid = pwd.getpwnam(user).pw_uid
        self.write(f"user@{uid}.service", USER_MANAGER.format(user=user, uid=uid, units=units))
        self.systemctl("daemon-reload", ok=(0,))
        self.systemctl("start", f"user@{uid}.service", ok=(0,))

    def close(self) -> None:
        """Ends it and everything that it started; the kernel takes the mounts with the last process."""
        first = getattr(self, "pid", None)
        self._started.kill()
        self._started.wait()
        if first is not None:
            self._wait(lambda: not Path(f"/proc/{first}").exists())
        subprocess.run(["unshare", "--mount", "/bin/sh", "-c", SWEEP, "sweep", str(self.place), str(self._started.pid)],
                       capture_output=True)  # fmt: skip

    def _first_process(self) -> int:
        children = Path(f"/proc/{self._started.pid}/task/{self._started.pid}/children")
        found: list[str] = []

        def ready() -> bool:
            assert self._started.poll() is None, self._log.read_text(errors="replace")
            found[:] = children.read_text().split()
            try:
                return bool(found) and Path(f"/proc/{found[0]}/comm").read_text().strip() == "systemd"
            except (FileNotFoundError, ProcessLookupError):
                return False  # a mount of the boot script, gone by now, or while it was read

        self._wait(ready)
        return int(found[0])

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "systemd: " + self._log.read_text(errors="replace")
            time.sleep(0.01)
