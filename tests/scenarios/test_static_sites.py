"""D19: static sites published by a command, each only when its own path changes, with the record that every deploy has."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.world import World

PUBLISH = "rsync -a --delete --checksum dist/ $WEBROOT/ && echo published $HOMEPORT_SHA"
SITE = """
[services.{name}]
source = "sites/{name}"
target = "{{live}}/{name}"
runtime = "command"
command = "{publish}"
env = {{ WEBROOT = "{root}/{name}" }}
build = {{ run = ["sh", "build.sh"], outputs = ["dist"] }}
[[services.{name}.checks]]
command = "busybox wget -qO- http://127.0.0.1:{port}/{name}/ | grep -q '<h1>'"
within = "500ms"
every = "50ms"
"""
BUILD = "mkdir -p dist && sed 's|.*|<h1>&</h1>|' page.md > dist/index.html\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A web server of static files, as far away as any other: publishing is what the command does."""
    root = tmp_path / "www"
    root.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.02))
        thread.start()
        yield root, server.server_port
        server.shutdown()
        thread.join()


def test_sites_are_published_by_path_checked_recorded_and_put_back(world: World, served: tuple[Path, int]) -> None:
    root, port = served
    files: dict[str, str | None] = {".gitignore": "dist/\n", "api/a.txt": "one\n"}
    for name in ("blog", "shop"):
        (root / name).mkdir()
        files |= {f"sites/{name}/page.md": f"{name} one\n", f"sites/{name}/build.sh": BUILD}
    tables = "".join(SITE.format(name=name, publish=PUBLISH, root=root, port=port) for name in ("blog", "shop"))
    first = world.project(tables, files)
    assert sorted(world.deploy()["services"]) == ["blog", "shop"]
    assert [world.get(port, f"/{name}/")[1] for name in ("blog", "shop")] == ["<h1>blog one</h1>\n", "<h1>shop one</h1>\n"]

    published = (root / "shop").stat().st_mtime_ns, (root / "shop/index.html").stat().st_ino
    second = world.publish({"sites/blog/page.md": "blog two\n", "api/a.txt": "two\n"})
    done = world.deploy()
    assert (done["status"], done["services"]) == ("deployed", ["blog"])
    assert world.get(port, "/blog/")[1] == "<h1>blog two</h1>\n"
    assert published == ((root / "shop").stat().st_mtime_ns, (root / "shop/index.html").stat().st_ino)
    assert f"blog: published {second}" in world.homeport("logs", done["deployId"]).stdout
    world.publish({"api/a.txt": "three\n"})
    assert world.deploy()["status"] == "unchanged"
    assert {row["service"]: row["sha"] for row in world.json("status")["services"]}["blog"] != first

    world.publish({"sites/blog/build.sh": "mkdir -p dist && : > dist/index.html\n"})
    assert world.deploy(ok=(1,))["status"] == "rolled_back", "an empty page is not what was published before"
    assert world.get(port, "/blog/")[1] == "<h1>blog two</h1>\n"
    rows = world.json("history")["deploys"]
    assert [(row["kind"], row["status"]) for row in rows if row["status"] != "unchanged"] == [
        ("commit", "rolled_back"), ("commit", "deployed"), ("commit", "deployed"),
    ]  # fmt: skip
    world.json("rollback", rows[-1]["id"])
    assert world.get(port, "/blog/")[1] == "<h1>blog one</h1>\n"
