"""D12 D13: a check that is green now and then is not healthy; one that is green late, and stays so, is."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.world import World

CONFIG = """
[services.site]
source = "site"
target = "{live}/site"
checks = [{ http = "http://127.0.0.1:%d/", within = "900ms", every = "20ms", stable = "300ms" }]
"""


@pytest.fixture
def port(world: World) -> Iterator[int]:
    """A server in front of the live folder, as well as the version in there: steady, now and then, or after a while."""
    asked = itertools.count()

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version, number = world.text("site/version").strip(), next(asked)
            well = {"flaps": number % 2, "late": number - began.setdefault(version, number) > 3}.get(version, True)
            self.send_response(200 if well else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return

    began: dict[str, int] = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.02))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_check_that_flaps_is_rolled_back_and_one_that_is_late_and_steady_passes(world: World, port: int) -> None:
    world.project(CONFIG % port, {"site/version": "steady\n"})
    assert world.deploy()["status"] == "deployed"
    bad = world.publish({"site/version": "flaps\n"})
    done = world.deploy(ok=(1,))
    assert (done["status"], done["errorCode"], world.text("site/version")) == ("rolled_back", "unhealthy", "steady\n")
    assert [block["sha"] for block in world.json("status")["blocked"]] == [bad]
    world.publish({"site/version": "late\n", **world.patience("30s")})
    assert world.deploy()["status"] == "deployed"
