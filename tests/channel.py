"""A server on loopback that takes what chat services take, keeps it, and can be told to refuse."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.world import World


class ChannelServer:
    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        self.answers: threading.Event | None = None
        """It answers when this is set."""
        self.waits = False
        """It has a message that it did not answer."""
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                if own.answers is not None:
                    own.waits = True
                    own.answers.wait(60)
                    own.waits = False
                own.asked += 1
                if own.status == 200:
                    own.taken.append({"path": self.path, **json.loads(raw)})
                self.send_response(own.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def told_by(self, world: World) -> None:
        """The project's channel is this one."""
        world.more["SHOP_CHANNEL"] = f"json://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
