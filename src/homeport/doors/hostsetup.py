"""What `homeport setup` makes on a machine: folders, the host file, a deploy key and ssh's configuration for it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile

from homeport.doors.authorized import AuthorizedKeys, own_program
from homeport.doors.shell import LocalShell
from homeport.model.errors import InfrastructureFault
from homeport.model.paths import printable

_CONFIG = """\
# Written by homeport setup: how this project's repository is fetched. Yours holds for what is not said here.
Host *
  IdentityFile "{folder}/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder}/known_hosts" ~/.ssh/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  Include ~/.ssh/config
"""

SYSTEMD_RUNS = "/run/systemd/system"
UNITS = "/etc/systemd/system"
HOST_FILE = "/etc/homeport/host.toml"
"""Where it is looked for without being named."""
_KEPT = """\
# written by homeport setup
[Unit]
Description=services of {project} ({environment}) under the homeport supervisor
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
Environment={environment_of}
ExecStart={program} -p {project} -e {environment} supervise
KillMode=process
# each service's process gets a control group of its own
Delegate=yes
Restart=always
RestartSec=100ms

[Install]
WantedBy=multi-user.target
"""
_SERVES = """\
# written by homeport setup
[Unit]
Description=homeport
After=network-online.target homeport.socket
Wants=network-online.target
Requires=homeport.socket

[Service]
Type=notify
Environment={environment_of}
ExecStart={program} serve
# only the daemon is stopped, never a deploy that runs
KillMode=process
Restart=always
RestartSec=100ms

[Install]
WantedBy=multi-user.target
Also=homeport.socket
"""
_ITS_SOCKET = """\
# written by homeport setup: callers wait while the daemon is away
[Socket]
ListenStream={root}/.homeport.sock
SocketMode=0600

[Install]
WantedBy=sockets.target
"""


class HostSetup:
    """Satisfies `Machine` of flow/settingup.py. Every method finds out what is there and does the rest."""

    def __init__(self, root: str, project: str, host_file: str, shell: LocalShell) -> None:
        self.root, self.project_folder = root, os.path.join(root, project)
        self.host_file = host_file
        self.program, self.keyring = own_program(), AuthorizedKeys()
        self._keys = os.path.join(self.project_folder, "ssh")
        self._shell = shell

    def missing_programs(self) -> list[str]:
        return [name for name in ("git", "ssh", "ssh-keygen", "setpriv") if shutil.which(name) is None]

    def private_state(self) -> bool:
        """Makes the state folder, or closes it to others; whether anything was changed.

        Raises InfrastructureFault (code `state-folder`) when it belongs to somebody else.
        """
        changed = not os.path.isdir(self.project_folder)
        try:
            os.makedirs(self.project_folder, mode=0o700, exist_ok=True)
            inside = (entry.path for entry in os.scandir(self.project_folder) if entry.is_dir(follow_symlinks=False))
            for folder in (self.root, self.project_folder, *inside):
                found = os.stat(folder)
                if found.st_uid != os.geteuid():
                    raise InfrastructureFault("the state folder belongs to another user", where=folder,
                                              next=f"ls -ld {folder}", code="state-folder")  # fmt: skip
                if stat.S_IMODE(found.st_mode) & 0o077:
                    os.chmod(folder, 0o700)
                    changed = True
        except OSError as fault:
            raise InfrastructureFault(f"the state folder cannot be made: {fault.strerror}", where=self.project_folder,
                                      next=f"ls -ld {self.root}", code="state-folder") from fault  # fmt: skip
        return changed

    def read_host_file(self) -> str | None:
        try:
            with open(self.host_file, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as fault:
            raise InfrastructureFault(f"the host file cannot be read: {fault}", where=self.host_file,
                                      next=f"ls -l {self.host_file}", code="host-file") from fault  # fmt: skip

    def write_host_file(self, text: str) -> None:
        """Replaces it as a whole. Raises InfrastructureFault (code `host-file`)."""
        folder = os.path.dirname(self.host_file)
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            mode = stat.S_IMODE(os.stat(self.host_file).st_mode) if os.path.exists(self.host_file) else 0o644
            handle, beside = tempfile.mkstemp(prefix=".host.toml-", dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(beside, self.host_file)
        except OSError as fault:
            raise InfrastructureFault(f"the host file cannot be written: {fault.strerror}", where=self.host_file,
                                      next="sudo homeport setup", code="host-file") from fault  # fmt: skip

    # the supervisor

    def keep_supervisor(self, environment: str) -> tuple[str, bool] | None:
        """Writes, enables and starts a systemd unit that keeps the environment's supervisor; (its name, was anything
        changed). None where we are not root or systemd does not run. Raises InfrastructureFault."""
        if os.geteuid() != 0 or not os.path.isdir(SYSTEMD_RUNS):
            return None
        project = os.path.basename(self.project_folder)
        name = f"homeport-{project}-{environment}-supervisor.service"
        changed = self._write_units({name: _KEPT.format(project=project, environment=environment, **self._told())})
        self._shell.run(["systemctl", "enable", "--now", name], timeout=120)
        return name, changed

    def install_daemon(self) -> tuple[str, bool] | None:
        """Writes the units of the daemon and its socket, without starting anything; (the unit, was anything changed).
        One that runs already is restarted when its unit changed. None and raises as `keep_supervisor`."""
        if os.geteuid() != 0 or not os.path.isdir(SYSTEMD_RUNS):
            return None
        texts = {"homeport.service": _SERVES.format(**self._told()), "homeport.socket": _ITS_SOCKET.format(root=self.root)}
        changed = self._write_units(texts)
        if changed:
            self._shell.run(["systemctl", "try-restart", "homeport.service"], timeout=120)
        return "homeport.service", changed

    def _told(self) -> dict[str, str]:
        words = [f"HOMEPORT_STATE={self.root}"]
        words += [f"HOMEPORT_HOST_FILE={self.host_file}"] if self.host_file != HOST_FILE else []
        return {"environment_of": " ".join(words), "program": os.path.join(os.path.dirname(sys.executable), "homeport")}

    def _write_units(self, texts: dict[str, str]) -> bool:
        """Whether any was another before; systemd then knows it."""
        changed = False
        for name, text in texts.items():
            path, before = os.path.join(UNITS, name), None
            with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
                before = file.read()
            if before != text:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                changed = True
        if changed:
            self._shell.run(["systemctl", "daemon-reload"])
        return changed

    # the deploy key

    def over_ssh(self, origin: str) -> bool:
        return over_ssh(origin)

    def deploy_key(self, comment: str) -> tuple[str, bool]:
        """(public key, was it made just now). Raises InfrastructureFault."""
        private = os.path.join(self._keys, "id_ed25519")
        made = not os.path.exists(private)
        if made:
            os.makedirs(self._keys, mode=0o700, exist_ok=True)
            self._shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", private])
        with open(private + ".pub", encoding="utf-8") as file:
            return file.read().strip(), made

    def ssh_command(self) -> str:
        """Writes ssh's configuration for the key; the value of git's `core.sshCommand`."""
        path = os.path.join(self._keys, "config")
        text = _CONFIG.format(folder=self._keys)
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if file.read() == text:
                return f"ssh -F {shlex.quote(path)}"
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        return f"ssh -F {shlex.quote(path)}"

    def learn_host_key(self, origin: str) -> list[str]:
        """Asks the repository's machine for its host keys, when none is known; the fingerprints of those that were
        added, for a person to compare."""
        host, port = machine_of(origin)
        known = os.path.join(self._keys, "known_hosts")
        named = f"[{host}]:{port}" if port not in ("", "22") else host
        for file in (known, os.path.expanduser("~/.ssh/known_hosts"), "/etc/ssh/ssh_known_hosts"):
            if os.path.exists(file) and self._shell.run(["ssh-keygen", "-F", named, "-f", file], ok=range(256)).code == 0:
                return []
        scan = ["ssh-keyscan", "-T", "10", *(["-p", port] if port else []), "--", host]
        found = self._shell.run(scan, ok=range(256)).stdout
        if not found.strip():
            return []
        with open(known, "ab", opener=_private) as added:
            added.write(found)
        shown = self._shell.run(["ssh-keygen", "-l", "-f", "-"], input=found, ok=range(256)).stdout
        return [printable(line) for line in shown.decode("utf-8", "replace").splitlines()]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


_SCP = re.compile(r"(?:[^@/:\s]+@)?([^@/:\s]+|\[[0-9A-Fa-f:]+\]):(?!//)(.+)")


def over_ssh(origin: str) -> bool:
    """Whether git fetches that address over ssh."""
    return origin.startswith(("ssh://", "git+ssh://")) or ("://" not in origin and _SCP.fullmatch(origin) is not None)


def machine_of(origin: str) -> tuple[str, str]:
    """(host, port or empty) of an address over ssh."""
    if "://" in origin:
        from urllib.parse import urlsplit

        parts = urlsplit(origin)
        return parts.hostname or "", str(parts.port or "")
    found = _SCP.fullmatch(origin)
    return (found[1].strip("[]") if found else ""), ""


