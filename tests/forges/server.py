"""A forge on the loopback: answers from its state, holds both sides to the published schema, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .schema import closed, faults


@dataclass
class Seen:
    method: str
    path: str
    """As it came, escapes included."""
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    """A document, or bytes as they are."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The connection ends after that many bytes of the body; with -1 nothing at all is answered."""


class Fake:
    """One forge. Subclasses list their `routes`: method, pattern of the unescaped path, handler."""

    kind = ""
    auth = ("", "")

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.wrong: list[str] = []
        """Where a request or an answer was not as the forge documents it."""
        self.queued: list[Answer] = []
        """Answers to give before anything else."""
        self.meddle: Callable[[Seen, Callable[[], Answer]], Answer] = lambda seen, ordinary: ordinary()
        """Comes between a question and its ordinary answer."""
        self.page_size = 100
        self.routes: list[tuple[str, str, Callable[..., Answer]]] = []

    def answer(self, seen: Seen) -> Answer:
        return self.meddle(seen, lambda: self._answer(seen))

    def _answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        if seen.headers.get(self.auth[0].lower()) != self.auth[1]:
            self.wrong.append(f"{seen.method} {seen.path}: without the token")
        if self.queued:
            return self.queued.pop(0)
        for method, pattern, handler in self.routes:
            match = re.fullmatch(pattern, unquote(seen.path))
            if match and method == seen.method:
                return self._with_etag(seen, handler(seen, *match.groups()))
        self.wrong.append(f"{seen.method} {seen.path}: no such route")
        return Answer(404, {"message": "Not Found"})

    def asked(self, schema: dict[str, Any], body: Any) -> None:
        self.wrong += [f"request {fault}" for fault in faults(self.kind, closed(schema), body)]

    def answered(self, schema: dict[str, Any], body: Any) -> Any:
        self.wrong += [f"answer {fault}" for fault in faults(self.kind, schema, body)]
        return body

    def paged(self, seen: Seen, items: list[Any], wrap: Callable[[list[Any]], Any] = list) -> Answer:
        """One page, with a Link to the next one as long as there is one."""
        size = min(self.page_size, int(seen.query.get("per_page") or seen.query.get("limit") or 30))
        number = int(seen.query.get("page", "1"))
        headers = {}
        if number * size < len(items):
            headers["Link"] = f'<{self.url}/elsewhere?page={number + 1}>; rel="next", <{self.url}/x>; rel="last"'
        return Answer(200, wrap(items[(number - 1) * size : number * size]), headers)

    def _with_etag(self, seen: Seen, answer: Answer) -> Answer:
        if seen.method != "GET" or answer.status != 200:
            return answer
        etag = f'W/"{hashlib.sha256(json.dumps(answer.body).encode()).hexdigest()}"'
        if seen.headers.get("if-none-match") == etag:
            return Answer(304, None, {"ETag": etag})
        return Answer(answer.status, answer.body, {**answer.headers, "ETag": etag})


@contextmanager
def serving(fake: Fake, at: str = "127.0.0.1") -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen = Seen(self.command, parts.path, dict(parse_qsl(parts.query)),
                        {name.lower(): value for name, value in self.headers.items()},
                        json.loads(raw) if raw else None)  # fmt: skip
            answer = fake.answer(seen)
            none = answer.status in (204, 304)
            if answer.cut == -1:
                self.close_connection = True
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not none:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not none:
                self.wfile.write(body[: answer.cut])
            self.close_connection = self.close_connection or answer.cut is not None

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((at, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://{at}:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
