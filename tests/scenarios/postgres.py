"""A PostgreSQL server of the tests' own: started on a free socket, stopped and removed afterwards."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

USER = "nobody"


def program(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    assert found, f"{name} is not here; ./dev test installs it"
    return os.path.realpath(found)


def _as_user(argv: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return argv
    account = pwd.getpwnam(USER)
    return ["setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups", "--", *argv]


@contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh database on a Unix socket."""
    folder = tempfile.mkdtemp(prefix="pg-")
    if os.geteuid() == 0:
        account = pwd.getpwnam(USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": folder}

    def run(*argv: str) -> None:
        done = subprocess.run(_as_user(list(argv)), env=env, cwd=folder, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr

    control = [program("pg_ctl"), "-D", f"{folder}/data", "-w"]
    try:
        run(program("initdb"), "-D", f"{folder}/data", "-U", "shop", "-A", "trust", "--no-sync")
        run(*control, "-l", f"{folder}/log", "-o", f"-c listen_addresses= -c fsync=off -k {folder}", "start")
        try:
            yield f"postgresql://shop@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
