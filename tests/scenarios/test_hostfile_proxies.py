"""B11: host files of real programs. nginx and Caddy judge the copy, reload it, or have the old one back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.world import World, eventually

NGINX = """\
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
  scgi_temp_path {root}/t5;
  include {root}/etc/sites.conf;
}}
"""
SITE = 'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{said}"; }} }}\n'
CADDY = """\
{{
  admin 127.0.0.1:{admin}
  auto_https off
  storage file_system {root}/caddy
}}
http://127.0.0.1:{port} {{
  respond "{said}"
}}
"""


def program(name: str) -> str:
    """The real one: on the PATH, or what `./dev test` unpacked."""
    unpacked = REPOSITORY / ".dev/proxies/usr"
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:{unpacked}/sbin:{unpacked}/bin")
    if found is None:
        pytest.skip(f"{name} is not installed; ./dev test unpacks it")
    return found


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a program in front, in a group of its own that ends with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True, env=env))  # fmt: skip
        return running[-1]

    yield start
    for one in running:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()


def registered(world: World, path: Path, validate: str, reload: str) -> None:
    table = f'\n[[hostfiles]]\npath = "{path}"\npurpose = "proxy"\nvalidate = "{validate}"\nreload = "{reload}"\n'
    world.project(f'\n[services.site]\nsource = "site"\ntarget = "{{live}}/site"\n{table}', {"site/a": "one\n"})
    world.deploy()


def edit(world: World, path: Path, content: str, *, code: str = "") -> dict[str, Any]:
    """Changes the host file; `code` is that of the error that is expected."""
    new = world.root / "new-content"
    new.write_text(content)
    said = world.json("hostfile", "edit", str(path), "--from", str(new), "--because", "x", "--no-note",
                      ok=(1 if code else 0,))  # fmt: skip
    assert said.get("code", "") == code, said
    return said


def test_nginx_judges_the_copy_and_serves_the_old_file_when_its_reload_fails(
    world: World, etc: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    nginx, conf, port = program("nginx"), etc / "nginx.conf", world.free_port()
    first = NGINX.format(root=world.root)
    conf.write_text(first)
    (etc / "sites.conf").write_text(SITE.format(port=port, said="one"))
    registered(world, conf, f"{nginx} -t -e stderr -c $HOMEPORT_FILE", f"{nginx} -e stderr -c $HOMEPORT_PATH -s reload")
    running = started(nginx, "-e", "stderr", "-c", str(conf), "-g", "daemon off;")
    eventually(lambda: world.get(port) == (200, "one"), "nginx answers")

    said = edit(world, conf, first.replace("access_log off", "acess_log off"), code="validate")
    assert conf.read_text() == first and Path(said["where"]).read_text() != first, "the text is kept beside"
    second = first.replace("  include", f"  {SITE.format(port=world.free_port(), said='two')}  include")
    other = int(second.split("127.0.0.1:")[1].split(";")[0])
    assert edit(world, conf, second)["reloaded"]
    eventually(lambda: world.get(other) == (200, "two"), "nginx has the new file")

    os.kill(running.pid, signal.SIGQUIT)
    running.wait(timeout=20)
    said = edit(world, conf, second + "# more\n", code="reload")
    assert conf.read_text() == second and "old content is in place again" in said["what"]
    assert [row["state"] for row in world.json("hostfile", "list")["hostfiles"]] == ["recorded"]
    assert sorted(os.listdir(etc)) == ["nginx.conf", "sites.conf"], "no copy stays"


def test_caddy_judges_the_copy_and_has_the_old_file_back_when_it_cannot_load_the_new_one(
    world: World, etc: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    caddy, conf = program("caddy"), etc / "Caddyfile"
    admin, port, taken = (world.free_port() for _ in range(3))
    first = CADDY.format(root=world.root, admin=admin, port=port, said="one")
    conf.write_text(first)
    words = f"HOME={world.root} {caddy} %s --adapter caddyfile --config %s"
    registered(world, conf, words % ("validate", "$HOMEPORT_FILE"),
               words % ("reload", "$HOMEPORT_PATH") + f" --address 127.0.0.1:{admin}")  # fmt: skip
    started(caddy, "run", "--adapter", "caddyfile", "--config", str(conf), env={**os.environ, "HOME": str(world.root)})
    eventually(lambda: world.get(port) == (200, "one"), "Caddy answers")

    edit(world, conf, first.replace("respond", "repsond"), code="validate")
    assert conf.read_text() == first and world.get(port) == (200, "one")
    second = first.replace('"one"', '"two"')
    assert edit(world, conf, second)["reloaded"]
    eventually(lambda: world.get(port) == (200, "two"), "Caddy has the new file")

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken))
        holder.listen()
        third = second.replace('"two"', '"three"') + f'http://127.0.0.1:{taken} {{\n  respond "no"\n}}\n'
        said = edit(world, conf, third, code="reload")
    assert conf.read_text() == second, "what is valid may still not load"
    eventually(lambda: world.get(port) == (200, "two"), "Caddy let go of what it had begun to load")
    assert Path(said["where"]).read_text() == third
