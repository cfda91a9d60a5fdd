"""The far side of a command over ssh: greets, hears a cancel or an answer, and knows when nobody listens any more."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec

from homeport import __version__
from homeport.cli.show.json import encode
from homeport.model.errors import Cancelled, UsageFault
from homeport.model.remote import PROTOCOL, Caller, Hello, Spoken

LOOKING = frozenset({"status", "history", "show", "logs", "plan", "drift", "diff", "edits", "doctor", "rules", "audit"})
"""Verbs that change nothing a person put there: over several hosts they go on after a failure, and once nobody
listens they end at once."""
LOOKING_PARTS = frozenset({"rescue list", "rescue show", "hostfile list", "hostfile diff", "token list", "db check"})
"""The same of groups, of which other verbs change something."""
WANT_RUNNER = frozenset({"deploy", "rollback", "rebuild", "restart", "try"})
"""Verbs that will want a runner."""


def looks(words: Sequence[str]) -> bool:
    """Whether a verb, with what follows it, only looks."""
    return words[0] in LOOKING or " ".join(words[:2]) in LOOKING_PARTS


class Call:
    """The connection to whoever asked, over standard input and output."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.gone = False
        """The other side went away, or its connection broke."""
        self._looking = False
        self._answers: queue.SimpleQueue[Spoken | None] = queue.SimpleQueue()
        self._word = threading.Event()

    def begin(self, words: Sequence[str], host: str) -> None:
        """Greets, and listens from now on. Raises UsageFault (code `version`) for another protocol."""
        tell(Hello(protocol=PROTOCOL, version=__version__, host=host, waits=True))
        if self.caller.protocol != PROTOCOL:
            raise UsageFault(f"this host has homeport {__version__}, which does not understand {self.caller.version}",
                             where=host, next="homeport setup", code="version")  # fmt: skip
        self._looking = looks(words)
        threading.Thread(target=self._listen, daemon=True).start()

    def await_word(self, load: Callable[[], None]) -> None:
        """Where the other side only guesses what it will ask for: loads what that takes, and waits until it knows. Ends the
        program when the guess was wrong."""
        if not self.caller.waits:
            return
        load()
        self._word.wait()
        if self.gone:
            raise click.exceptions.Exit(1)

    def _listen(self) -> None:
        for line in _lines(0):
            try:
                said = msgspec.json.decode(line, type=Spoken)
            except msgspec.DecodeError:
                continue
            if said.cancel:
                os.kill(os.getpid(), signal.SIGINT)
            elif said.go:
                self._word.set()
            else:
                self._answers.put(said)
        self.gone = True
        self._word.set()
        self._answers.put(None)
        if self._looking:
            os._exit(1)

    def ask(self, question: str, **more: Any) -> Any:
        """Asks the person at the other side; the answer. Raises Cancelled when nobody is there any more."""
        tell({"type": "question", "text": question, **more})
        said = self._answers.get()
        if said is None:
            raise Cancelled("the connection broke before the question was answered", next="homeport status",
                            code="interrupted")  # fmt: skip
        return said.answer

    def asked_for_tree(self, what: str, given: Any) -> Any:
        """About the working tree on the other side: `take` or `pack`."""
        return self.ask(f"the working tree: {what}", tree=what, **{"with": given})



def _lines(source: int) -> Iterator[bytes]:
    """Lines of a descriptor until its end, without a buffer that the end of the program would have to wait for."""
    rest: list[bytes] = []
    with contextlib.suppress(OSError):
        while chunk := os.read(source, 65536):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            for line in others:
                yield b"".join(rest)
                rest = [line]


def tell(said: Any) -> None:
    """One line to the other side, at once."""
    click.echo(encode(said))
    sys.stdout.flush()


def read_caller(raw: str) -> Caller:
    """Raises UsageFault (code `usage`) for what no homeport sends."""
    try:
        return msgspec.json.decode(raw, type=Caller)
    except msgspec.DecodeError as fault:
        raise UsageFault(f"--caller is for homeport itself: {fault}", next="homeport --help", code="usage") from fault
