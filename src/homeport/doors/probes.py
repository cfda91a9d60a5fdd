"""One try of one health condition, over a new connection, within its time. A failed check is an answer."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from homeport.model.abreast import Turn, begun
from homeport.model.config import Check, Command
from homeport.model.errors import Cancelled, HomeportError
from homeport.model.paths import printable
from homeport.model.ports import Job, Shell
from homeport.model.running import Probe, UnitState

LARGEST = 1024 * 1024
"""Bytes of an answer that are looked at."""
_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{7,64}(?![0-9a-f])")


class _Answer(Struct, frozen=True):
    status: int
    body: bytes


class Probes:
    """Satisfies Prober."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def once(self, check: Check, *, sha: str, cwd: str, env: Mapping[str, str], user: str | None,
             state: Callable[[], UnitState] | None, reached: str = "") -> Probe:  # fmt: skip
        timeout = float(check.timeout)

        def run(command: Command, label: str) -> tuple[bool, str, str]:
            job = Job(command=command, cwd=cwd, reached=reached, env=env, label=label, timeout=timeout, user=user)
            return self._run(job)

        try:
            if check.http is not None:
                return _http(check, check.http, timeout)
            if check.tcp is not None:
                return _tcp(check.tcp, timeout)
            if check.command is not None:
                ok, how, _ = run(check.command, "check")
                return Probe(ok=ok, detail=f"{_words(check.command)} {how}")
            if check.process is not None:
                return _process(check.process, state)
            if check.version is not None:
                return _version(check, check.version, sha, timeout, run)
        except Cancelled:
            raise
        except HomeportError as fault:
            return Probe(ok=False, detail=_shown(fault.what), unasked=fault.infrastructure)
        return _containers(check.containers, state)

    def _run(self, job: Job) -> tuple[bool, str, str]:
        """(ended with 0, how it ended, what it printed)."""
        lines: list[str] = []
        size = 0

        def line(stream: Literal["stdout", "stderr"], text: str) -> None:
            nonlocal size
            size += len(text)
            if size <= LARGEST:
                lines.append(text)

        done = self._shell.job(job, line)
        last = next((text for text in reversed(lines) if text.strip()), "")
        if done.timed_out:
            how = f"did not end within {job.timeout:g} s"
        elif done.code < 0:
            how = f"was ended by signal {-done.code}"
        else:
            how = f"ended with status {done.code}"
        how += f": {_shown(last)}" if last else ""
        return done.code == 0 and not done.timed_out, how, "\n".join(lines)


def _process(wanted: bool, state: Callable[[], UnitState] | None) -> Probe:
    if state is None:
        return Probe(ok=False, detail="there is no runtime to ask for the process")
    now = state()
    more = f" ({now.detail})" if now.detail and now.detail != now.state else ""
    return Probe(ok=(now.state == "running") == wanted, detail=_shown(f"the process is {now.state}{more}"))


def _containers(wanted: int | list[str] | None, state: Callable[[], UnitState] | None) -> Probe:
    """So many containers of the Compose project run and are healthy; or those of the named services do."""
    now = state() if state is not None else None
    if now is None or wanted is None or now.state == "unknown":
        return Probe(ok=False, detail=_shown(f"there is no Compose project to look at {now.detail if now else ''}"))
    ill = [f"{c.name} is {c.health or c.state}" for c in now.containers if not c.well]
    if isinstance(wanted, int):
        well = sum(c.well for c in now.containers)
        more = f" ({', '.join(ill)})" if ill else ""
        return Probe(ok=well >= wanted, detail=_shown(f"{well} of {wanted} containers are well{more}"))
    lacking = [n for n in wanted if not any(c.service == n and c.well for c in now.containers)
               or any(c.service == n and not c.well for c in now.containers)]  # fmt: skip
    told = ", ".join([*(t for t in ill), *(n for n in lacking if not any(c.service == n for c in now.containers))])
    said = f"not well: {told or ', '.join(lacking)}" if lacking else "containers are well"
    return Probe(ok=not lacking, detail=_shown(said))


def _version(check: Check, asked: str | list[str], sha: str, timeout: float,
             run: Callable[[Command, str], tuple[bool, str, str]]) -> Probe:  # fmt: skip
    if isinstance(asked, str) and asked.startswith(("http://", "https://")):
        name = f"GET {_public(asked)}"
        answer = _get(asked, timeout)
        if isinstance(answer, str):
            return Probe(ok=False, detail=f"{name} {answer}")
        if not _accepted(check, answer.status):
            return Probe(ok=False, detail=f"{name} answered {answer.status}")
        text = answer.body.decode("utf-8", "replace")
    else:
        name = _words(asked)
        ok, how, text = run(asked, "version check")
        if not ok:
            return Probe(ok=False, detail=f"{name} {how}")
    if names_commit(text, sha):
        return Probe(ok=True, detail=f"{name} names {sha[:12]}")
    return Probe(ok=False, detail=f"{name} does not name {sha[:12]}: {_shown(text.strip())}")


def names_commit(text: str, sha: str) -> bool:
    """Whether the text holds the commit's id, or at least its first seven digits as a word of hex digits."""
    return bool(sha) and any(sha.lower().startswith(word) for word in _HEX.findall(text.lower()))


def _http(check: Check, url: str, timeout: float) -> Probe:
    name = f"GET {_public(url)}"
    answer = _get(url, timeout)
    if isinstance(answer, str):
        return Probe(ok=False, detail=f"{name} {answer}")
    if not _accepted(check, answer.status):
        return Probe(ok=False, detail=f"{name} answered {answer.status}")
    if check.contains is not None and check.contains.encode("utf-8", "surrogateescape") not in answer.body:
        return Probe(ok=False, detail=f"{name} answered {answer.status} without {_shown(check.contains)!r}")
    return Probe(ok=True, detail=f"{name} answered {answer.status}")


def _accepted(check: Check, status: int) -> bool:
    if check.status is None:
        return 200 <= status <= 399
    return status in (check.status if isinstance(check.status, list) else [check.status])


def _get(url: str, timeout: float) -> _Answer | str:
    """One GET over a new connection, no redirect followed; a text says why there is no answer."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        return f"is not a URL: {_shown(str(fault))}"
    if parts.scheme not in ("http", "https") or not host:
        return "is not a URL with http:// or https://"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=timeout)
    # http.client lets go of its socket while the body is still to be read.
    opened: list[socket.socket] = []

    def ask() -> _Answer:
        headers = {"User-Agent": "homeport", "Accept": "*/*", "Connection": "close"}
        with closing(connection):
            connection.connect()
            opened.append(connection.sock)
            connection.request("GET", _target(parts), headers=headers)
            with connection.getresponse() as response:
                return _Answer(response.status, response.read(LARGEST))

    def cut() -> None:
        for sock in (*opened, connection.sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    return _within(ask, cut, timeout)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _within(ask: Callable[[], _Answer], cut: Callable[[], None], timeout: float) -> _Answer | str:
    """What `ask` answers, or a text that says why it did not within `timeout` seconds.

    In a thread of its own, because the time of a socket counts for each byte: a server that drips is cut off.
    """
    answers: list[_Answer | str] = []

    def work() -> None:
        try:
            answers.append(ask())
        except TimeoutError:
            answers.append(_late(timeout))
        except (OSError, http.client.HTTPException, ValueError) as fault:
            answers.append(_trouble(fault))

    turn = Turn(work)
    if begun(turn.do):
        turn.ended(timeout)
    turn.do()  # where no thread has begun it: then the time counts for each byte only
    if not turn.ended(0):
        cut()
        return _late(timeout)
    return answers[0] if answers else "gave no answer"


def _late(timeout: float) -> str:
    return f"gave no whole answer within {timeout:g} s"


def _trouble(fault: Exception) -> str:
    if isinstance(fault, ConnectionRefusedError):
        return "refused the connection"
    if isinstance(fault, http.client.RemoteDisconnected | ConnectionResetError):
        return "closed the connection without an answer"
    said = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    return f"failed: {_shown(str(said))}"


def _tcp(address: str, timeout: float) -> Probe:
    name = f"tcp {_shown(address)}"
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        return Probe(ok=False, detail=f"{name} is not HOST:PORT")

    def ask() -> _Answer:
        socket.create_connection((host, int(port)), timeout=timeout).close()
        return _Answer(0, b"")

    answer = _within(ask, lambda: None, timeout)
    if isinstance(answer, str):
        return Probe(ok=False, detail=f"{name} {answer}")
    return Probe(ok=True, detail=f"{name} accepts connections")


def _public(url: str) -> str:
    """The URL without a user and password in it."""
    return _shown(re.sub(r"//[^/?#]*@", "//", url, count=1))


def _words(command: Command) -> str:
    return _shown(command if isinstance(command, str) else " ".join(command))


def _shown(text: str) -> str:
    """For a message: one line, no control characters, at most 200 characters."""
    return printable(" ".join(text.split()))[:200]
