"""A machine to reach over ssh: a real sshd on loopback, with keys of its own, that sees a folder of its own as its HOME."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from _measure import run

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def machine(root: Path, alias: str, port: int, env: Mapping[str, str]) -> Iterator[Path]:
    """Serves `alias` for who has the returned folder, with an `ssh` in it, first on the PATH. `env` is what its sessions
    see. One connection is kept for the next command (ControlMaster), for whoever uses that ssh; homeport keeps one too."""
    assert SSHD, "sshd is not installed: apt install openssh-server"
    for name in ("person", "machine"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name))
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    seen = " ".join(f'"{name}={value}"' for name, value in env.items())
    (root / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/machine\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {root}/person.pub\nUsePAM no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nSetEnv {seen}\n"
    )
    (root / "known_hosts").write_text(f"{alias} {(root / 'machine.pub').read_text()}")
    (root / "ssh_config").write_text(
        f"Host {alias}\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {alias}\n  IdentityFile {root}/person\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {root}/known_hosts\n"
        f"  ControlMaster auto\n  ControlPath {root}/cm-%C\n  ControlPersist 60\n"
    )
    tools = root / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {root}/ssh_config "$@"\n')
    (tools / "ssh").chmod(0o755)
    with open(root / "sshd.log", "wb") as log, \
            subprocess.Popen([SSHD, "-D", "-e", "-f", f"{root}/sshd_config"], stderr=log) as serving:  # fmt: skip
        try:
            while "listening" not in (root / "sshd.log").read_text():
                assert serving.poll() is None, (root / "sshd.log").read_text()
                time.sleep(0.01)
            yield tools
        finally:
            subprocess.run([str(tools / "ssh"), "-O", "exit", alias], capture_output=True)
            serving.terminate()
