"""One pm2 process restarted until it answers again: `homeport restart`, verified and recorded, against `pm2 restart`."""

from __future__ import annotations

import socket
import time
import urllib.request

from _measure import asked, heading, in_turns, run, table, world

SERVER = """\
const http = require("http");
http.createServer((q, a) => a.end(String(process.pid))).listen(Number(process.env.PORT), "127.0.0.1");
"""


def main() -> None:
    options = asked("restart of one pm2 process", (1,), ())
    heading("homeport restart of one pm2 process, until a new process answers (with its check, its journal and its record)")
    with world() as here, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        here.configure('runtime = "pm2"\nunit = "site"\ncommand = ["node", "server.js"]\n'
                       f'env = {{ PORT = "{port}" }}\nchecks = [{{ http = "http://127.0.0.1:{port}/", every = "20ms" }}]\n')
        (here.clone / "site").mkdir()
        (here.clone / "site/server.js").write_text(SERVER)
        here.push()
        here.homeport("deploy")
        steps = {
            "homeport restart": lambda: another(port, lambda: here.homeport("restart", "site")),
            "pm2 restart": lambda: another(port, lambda: run("pm2", "restart", "site", env=here.env)),
        }
        table("one process", in_turns(steps, options.times), "homeport restart")


def answer(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as said:
            return str(said.read().decode())
    except OSError:
        return ""


def another(port: int, restart: object) -> None:
    """Restarts, and waits until another process than before answers."""
    before = answer(port)
    assert callable(restart)
    restart()
    while answer(port) in ("", before):
        time.sleep(0.005)


if __name__ == "__main__":
    main()
