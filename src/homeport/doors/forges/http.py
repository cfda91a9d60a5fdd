"""The one HTTP client for forges: bounded in time and size, one origin only, rate limits obeyed, ETags kept.

The token is in one header and nowhere else: never in a URL, a log, an error, or a request to another origin.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from homeport.doors.forges.limits import Limits
from homeport.model.abreast import Turn, begun
from homeport.model.errors import ConfigFault
from homeport.model.forge import Cache, ForgeFault, GoOn

if TYPE_CHECKING:
    import httpx

LARGEST = 16 * 1024 * 1024
"""Bytes of one answer."""
KEPT_AT_MOST = 512 * 1024
"""Bytes of an answer that is kept for its ETag."""
DEADLINE = 15.0
"""Seconds for one read: the name, the connection, all tries and the whole answer."""
WRITING = 20.0
"""Seconds for one write; a large forge takes its time to merge. Mostly a read has shown before that it answers."""
AWAY = 15.0
"""Seconds in which this process asks nothing of a forge that has just been silent: whoever has ten questions for it, or
serves ten environments, waits once."""
LOOK = 0.2
"""Seconds between two looks whether whoever asked still waits."""
TRIES = 3
"""Of a read that meets silence or a 5xx; nothing is written twice."""
MOST_PAGES = 50
_REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_T = TypeVar("_T")
_silent: dict[tuple[str, bool], float] = {}
"""(base, whether it was a write) -> until when, by the monotonic clock, it is not asked again. One that was silent at a
write is still read from: what came of the write is asked there."""


class _SilentForge(Exception):
    """It has had its time."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
    """By lower-case name."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The real time; tests pass another."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class _Kept(msgspec.Struct, kw_only=True):
    """An answer in the cache."""

    url: str
    etag: str
    body: str
    link: str = ""


class Client:
    """Speaks to one API at `base` (no slash at its end). `name` is for people: `GitHub`.

    `scheme` is what stands before the token in the header `auth`. Raises ConfigFault (`bad-token`).
    """

    def __init__(self, base: str, name: str, token: str, cache: Cache, *, auth: str = "Authorization",
                 scheme: str = "Bearer ", headers: Mapping[str, str] | None = None, write_gap: float = 0.0,
                 timing: Timing | None = None) -> None:  # fmt: skip
        if not _TOKEN.fullmatch(token):
            raise ConfigFault("the forge's token is empty, or holds spaces or control characters",
                              where="forge.token", next="store the bare token", code="bad-token")  # fmt: skip
        self.base, self.name, self._token, self._cache = base, name, token, cache
        self._timing = timing or Timing()
        self._limits = Limits(cache, base, self._timing.now)
        self._headers = {"User-Agent": "homeport", "Accept": "application/json", **(headers or {}), auth: scheme + token}
        self._write_gap, self._last_write = write_gap, -math.inf
        self._connection: httpx.Client | None = None
        self._go_on: GoOn | None = None

    def __repr__(self) -> str:
        return f"Client({self.base!r})"

    def get(self, path: str, params: Mapping[str, str | int] | None = None, *, keep: str = "") -> Reply:
        """Reads. `keep` names this kind of question: its latest answer is kept, and asked for again by its ETag,
        which forges do not count as a request."""
        url = self.base + path + (f"?{urlencode(params, quote_via=quote)}" if params else "")
        key = "forge:etag:" + hashlib.sha256(f"{self.base} {keep}".encode()).hexdigest()[:32] if keep else ""
        kept = self._kept(key, url) if key else None
        reply = self._read(url, {"If-None-Match": kept.etag} if kept else {}, (200, 304) if kept else (200,))
        if kept and reply.status == 304:
            return Reply(status=200, body=kept.body.encode(), headers={**reply.headers, "link": kept.link})
        if key and reply.headers.get("etag") and len(reply.body) <= KEPT_AT_MOST:
            fresh = _Kept(url=url, etag=reply.headers["etag"], body=reply.body.decode("utf-8", "replace"),
                          link=reply.headers.get("link", ""))  # fmt: skip
            self._cache.cache(key, msgspec.json.encode(fresh).decode())
        return reply

    def pages(self, path: str, params: Mapping[str, str | int], *, keep: str = "") -> Iterator[Reply]:
        """Every page, as long as the forge says that there is a next one. Raises ForgeFault after 50."""
        for number in range(1, MOST_PAGES + 1):
            reply = self.get(path, {**params, "page": number}, keep=f"{keep} {number}" if keep else "")
            yield reply
            if not re.search(r'rel="?next\b', reply.headers.get("link", "")):
                return
        raise self._fault("forge-refused", f"{self.name} has more than {MOST_PAGES} pages of this", path, "")

    def send(self, method: str, path: str, body: Mapping[str, Any] | None, ok: tuple[int, ...]) -> Reply:
        """Writes, once. Any status that is not in `ok` is a ForgeFault that carries it as `status`."""
        wait = self._last_write + self._write_gap - self._timing.monotonic()
        if wait > 0:
            self._timing.sleep(wait)
        try:
            content = None if body is None else msgspec.json.encode(body)
            headers = {} if content is None else {"Content-Type": "application/json"}
            return self._once(method, self.base + path, headers, ok, content, self._timing.monotonic() + WRITING)
        finally:
            self._last_write = self._timing.monotonic()

    def read(self, reply: Reply, shape: type[_T]) -> _T:
        """The answer in the documented shape. Raises ForgeFault (`forge-garbled`)."""
        try:
            return msgspec.json.decode(reply.body, type=shape)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            detail = str(error)[:200] if isinstance(error, msgspec.ValidationError) else "no JSON"
            raise self._fault("forge-garbled", f"{self.name} answered something unexpected: {detail}", self.base,
                              "check forge.url and forge.kind") from None  # fmt: skip

    def attend(self, go_on: GoOn) -> None:
        """As `Forge.attend`."""
        self._go_on = go_on

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _kept(self, key: str, url: str) -> _Kept | None:
        try:
            kept = msgspec.json.decode(self._cache.cached(key) or "", type=_Kept)
        except (msgspec.MsgspecError, ValueError):
            return None
        return kept if kept.url == url and kept.etag.isascii() and kept.etag.isprintable() else None

    def _read(self, url: str, headers: Mapping[str, str], ok: tuple[int, ...]) -> Reply:
        deadline = self._timing.monotonic() + DEADLINE
        for attempt in range(1, TRIES):
            try:
                return self._once("GET", url, headers, ok, None, deadline)
            except ForgeFault as fault:
                rest = 0.25 * 4**attempt
                if fault.code != "forge-down" or self._timing.monotonic() + rest > deadline:
                    raise
                self._rest(rest)
        return self._once("GET", url, headers, ok, None, deadline)

    def _rest(self, seconds: float) -> None:
        ends = self._timing.monotonic() + seconds
        while self._go_on is not None and (left := ends - self._timing.monotonic()) > LOOK:
            self._go_on()
            self._timing.sleep(min(left, LOOK))
        self._timing.sleep(max(0.0, ends - self._timing.monotonic()))

    def _once(self, method: str, url: str, headers: Mapping[str, str], ok: tuple[int, ...],
              content: bytes | None, deadline: float) -> Reply:  # fmt: skip
        where = f"{method} {urlsplit(url).path}"
        for writing in {False, method != "GET"}:
            left = _silent.get((self.base, writing), -math.inf) - self._timing.monotonic()
            if 0 < left <= AWAY:
                raise self._down(f"did not answer a moment ago, and is asked again in {left:.0f} s", where)
        until = self._limits.pause()
        if until is not None:
            raise self._fault("rate-limited", f"{self.name} asked to wait", where, "", until)
        reply = self._follow(method, url, headers, content, deadline)
        until = self._limits.learn(reply.status, reply.headers, reply.body)
        if until is not None:
            raise self._fault("rate-limited", f"{self.name} asked to wait: {self._said(reply)}", where, "", until,
                              reply.status)  # fmt: skip
        if reply.status in ok:
            self._limits.worked()
            return reply
        raise self._refusal(reply, where)

    def _follow(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None,
                deadline: float) -> Reply:  # fmt: skip
        """Redirects are followed for reads and within the API's own origin only."""
        for _ in range(_REDIRECTS):
            reply = self._exchange(method, url, headers, content, deadline)
            if reply.status not in _MOVED or method != "GET":
                return reply
            target = urljoin(url, reply.headers.get("location", ""))
            if _origin(target) != _origin(self.base):
                host = "".join(c for c in (urlsplit(target).hostname or "?") if c.isprintable())[:100]
                raise self._fault("forge-refused", f"{self.name} sends us to another place, {host}", url,
                                  "correct forge.url")  # fmt: skip
            url = target
        raise self._fault("forge-refused", f"{self.name} redirects in a circle", url, "correct forge.url")

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None,
                  deadline: float) -> Reply:  # fmt: skip
        """One question and its answer. A thread waits for it: not even the name of a host is looked up in a way that
        could be interrupted or has an end. One that is not waited for any more keeps its connection."""
        import httpx

        if self._connection is None:
            self._connection = httpx.Client(headers=self._headers, follow_redirects=False)
        asking = Turn(partial(self._asked, self._connection, method, url, headers, content, deadline))
        try:
            if begun(asking.do):
                self._wait(asking, deadline)
            return asking.result()
        except _SilentForge:
            raise self._silence(method, url) from None

    def _wait(self, asking: Turn[Reply], deadline: float) -> None:
        asking.begins()
        try:
            while asking.has_begun() and not asking.ended(min(LOOK, self._left(deadline))):
                if self._go_on is not None:
                    self._go_on()
                if self._timing.monotonic() >= deadline:
                    raise _SilentForge
        except BaseException:
            self._connection = None
            raise

    def _left(self, deadline: float) -> float:
        return max(0.01, deadline - self._timing.monotonic())

    def _silence(self, method: str, url: str) -> ForgeFault:
        writing = method != "GET"
        _silent[self.base, writing] = self._timing.monotonic() + AWAY
        return self._down(f"takes too long to answer: {WRITING if writing else DEADLINE:g} s", url)

    def _asked(self, connection: httpx.Client, method: str, url: str, headers: Mapping[str, str], content: bytes | None,
               deadline: float) -> Reply:  # fmt: skip
        import httpx

        body = bytearray()
        try:
            with connection.stream(method, url, headers=dict(headers), content=content,
                                   timeout=self._left(deadline)) as response:  # fmt: skip
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > LARGEST:
                        raise self._fault("forge-garbled", f"{self.name}'s answer is larger than 16 MiB", url, "")
                    if self._timing.monotonic() > deadline:
                        raise _SilentForge
                found = {name.lower(): value for name, value in response.headers.items()}
                return Reply(status=response.status_code, body=bytes(body), headers=found)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            connection.close()
            if self._connection is connection:
                self._connection = None
            if isinstance(error, httpx.TimeoutException):
                raise _SilentForge from None
            raise self._down(f"cannot be reached or breaks off ({type(error).__name__})", url) from None

    def _refusal(self, reply: Reply, where: str) -> ForgeFault:
        said, status = self._said(reply), reply.status
        if status >= 500:
            return self._down(f"answered {status}: {said}", where, status)
        if status in (401, 403):
            return self._fault("forge-denied", f"{self.name} does not allow it ({status}): {said}", where,
                               "check the token of forge.token and its rights", status=status)  # fmt: skip
        if status == 404:
            return self._fault("forge-missing", f"{self.name} has no such thing, or does not show it to this token",
                               where, "check forge.repo and the token's rights", status=status)  # fmt: skip
        moved = "correct forge.repo: the repository has moved" if status in _MOVED else ""
        return self._fault("forge-refused", f"{self.name} refused ({status}): {said}", where, moved, status=status)

    def _down(self, what: str, where: str, status: int | None = None) -> ForgeFault:
        until = self._limits.failed()
        base = urlsplit(self.base)
        return self._fault("forge-down", f"{self.name} {what}", where, "the same again in a while; whether this host "
                           f"reaches it: curl -sSI {base.scheme}://{base.netloc.rpartition('@')[2]}", until,
                           status)  # fmt: skip

    def _fault(self, code: str, what: str, where: str, next: str, until: float | None = None,
               status: int | None = None) -> ForgeFault:  # fmt: skip
        host = urlsplit(self.base).netloc.rpartition("@")[2]
        place = where if "://" not in where else urlsplit(where).path
        return ForgeFault(self._clean(what), where=self._clean(f"{host}: {place}"), next=next, code=code, until=until,
                          status=status)  # fmt: skip

    def _said(self, reply: Reply) -> str:
        """The forge's own message, short and harmless to print."""
        try:
            document = msgspec.json.decode(reply.body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return "no message"
        if not isinstance(document, dict):
            return "no message"
        parts = [document.get("message") or document.get("error") or "", document.get("errors") or ""]
        said = " ".join(part if isinstance(part, str) else msgspec.json.encode(part).decode() for part in parts if part)
        return self._clean(said)[:300] or "no message"

    def _clean(self, text: str) -> str:
        return "".join(c if c.isprintable() else " " for c in text.replace(self._token, "***"))


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", "", None
