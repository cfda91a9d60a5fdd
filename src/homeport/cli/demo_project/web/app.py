"""The shop's front page: asks the API for its things and shows them."""

from __future__ import annotations

import html
import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TITLE = "The demo shop"


def front_page() -> str:
    with urllib.request.urlopen(os.environ["API_URL"] + "/things", timeout=5) as answer:  # noqa: S310
        things = json.load(answer)
    rows = "".join(f"<li>{html.escape(thing['name'])}: {thing['price']}</li>" for thing in things)
    return f"<!doctype html><title>{TITLE}</title><h1>{TITLE}</h1><ul>{rows}</ul>\n"


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = "ok\n" if self.path == "/health" else front_page()
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Pages).serve_forever()
