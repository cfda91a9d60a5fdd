"""Save to live: `homeport try` on this machine against `rsync -a --delete` with the same excludes and `pm2 restart`."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _measure import FILES_PER_FOLDER, HOMEPORT, World, asked, heading, in_turns, run, table, world

SERVER = """\
const http = require("http"), fs = require("fs");
const said = fs.readFileSync(__dirname + "/part0/0/page7.txt", "utf8").slice(0, 60);
http.createServer((q, a) => a.end(said)).listen(Number(process.env.PORT), "127.0.0.1");
"""
EXCLUDES = [f"--exclude={p}" for p in (".env*", "node_modules/", ".venv/", "venv/", "__pycache__/", ".git/", "*.bak*",
                                       "*.backup*", "*.pem", "*.key", ".homeport")]  # fmt: skip


def main() -> None:
    options = asked("save to live: one changed file, one pm2 process restarted, its new answer awaited")
    heading("homeport try of one changed file, until the service answers with it (a pm2 process restarted)")
    for count in options.sizes:
        with world() as here:
            _prepare(here, count)
            _measured(here, count, options.times)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare(here: World, count: int) -> None:
    here.ports = {"try": _port(), "rsync": _port()}  # type: ignore[attr-defined]
    port = here.ports["try"]  # type: ignore[attr-defined]
    here.configure('runtime = "pm2"\nunit = "site"\ncommand = ["node", "server.js"]\n'
                   f'env = {{ PORT = "{port}" }}\n\n'
                   f'[[services.site.checks]]\nhttp = "http://127.0.0.1:{port}/"\nevery = "20ms"\n')  # fmt: skip
    toml = here.clone / "homeport.toml"
    toml.write_text(toml.read_text().replace('branch = "main"\n', 'branch = "main"\ntry = true\n'))
    here.files(count)
    (here.clone / "site/server.js").write_text(SERVER)
    here.push()
    here.homeport("deploy")
    copy = here.root / "copy"
    run("rsync", "-a", "--delete", *EXCLUDES, f"{here.clone}/site/", f"{copy}/")
    run("pm2", "start", "server.js", "--name", "copy", cwd=copy, env={**here.env, "PORT": str(here.ports["rsync"])})  # type: ignore[attr-defined]


def _measured(here: World, count: int, times: int) -> None:
    page = here.clone / "site/part0/0/page7.txt"
    assert FILES_PER_FOLDER > 7

    def try_it() -> None:
        here.homeport("-q", "try")
        _until(here.ports["try"], page)  # type: ignore[attr-defined]

    def saved() -> None:
        here.change_one()
        _until(here.ports["try"], page)  # type: ignore[attr-defined]

    def rsync() -> None:
        run("rsync", "-a", "--modify-window=-1", "--delete", *EXCLUDES, f"{here.clone}/site/", f"{here.root}/copy/")
        run("pm2", "restart", "copy", env=here.env)
        _until(here.ports["rsync"], page)  # type: ignore[attr-defined]

    steps = {"homeport try": try_it, "rsync -a --delete + pm2 restart": rsync}
    took = in_turns(steps, times, dict.fromkeys(steps, here.change_one))
    table(f"{count:,} files", took, "homeport try")
    with _watching(here, page):
        watched = in_turns({"homeport try --watch": saved, "rsync -a --delete + pm2 restart": rsync}, times,
                           {"rsync -a --delete + pm2 restart": lambda: None})  # fmt: skip
    table(f"{count:,} files, at every save", watched, "homeport try --watch")


@contextmanager
def _watching(here: World, page: Path) -> Iterator[None]:
    argv = [HOMEPORT, "-q", "try", "--watch"]
    with subprocess.Popen(argv, cwd=here.clone, env=here.env, stdout=subprocess.DEVNULL) as watching:
        try:
            _until(here.ports["try"], page)  # type: ignore[attr-defined]
            time.sleep(3)
            yield
        finally:
            watching.send_signal(signal.SIGINT)


def _until(port: int, page: Path) -> None:
    """Waits until the service answers with what was saved."""
    wanted, deadline = page.read_text()[:60], time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                if answer.read().decode() == wanted:
                    return
        except OSError:
            pass
        time.sleep(0.005)
    raise SystemExit("the service never answered with what was saved")


if __name__ == "__main__":
    main()
