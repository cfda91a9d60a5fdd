"""How a deploy looks while it runs: JSON lines, plain lines, or a live display on a terminal."""

from __future__ import annotations

from typing import Protocol, TextIO

import msgspec

from homeport.cli.show.closing import Story, advice, outcome
from homeport.cli.show.plain import PlainLines
from homeport.cli.show.rows import BAD, GOOD, NONE, Row
from homeport.cli.show.words import encodable, is_drawable, wants_color
from homeport.model.events import DeployDone, Event

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class View(Protocol):
    """A way to show events; `PlainLines` and `Screen` are the two."""

    def show(self, event: Event, story: Story) -> None: ...
    def fail(self, story: Story) -> None: ...
    def say(self, words: str) -> None: ...
    def end(self, row: Row) -> None: ...
    def close(self) -> None: ...


class Shown:
    """Shows one deploy from the lines of its journal, fed as they come.

    `json` passes the lines on as they are. `quiet` leaves only the closing words. Outcome and progress go to
    `out`; what failed, and the command to run next, to `err`.
    """

    def __init__(self, json: bool, quiet: bool, verbose: bool, out: TextIO, err: TextIO) -> None:
        self._json = json
        self._quiet = quiet
        self._verbose = verbose
        self._out = out
        self._err = err
        self._story = Story()
        self._view: View | None = None
        self.done: DeployDone | None = None

    def feed(self, line: bytes) -> None:
        """One line of the journal. Lines that are no event, or of a kind not known here, are passed over."""
        if self._json:
            self._pass_on(line)
        try:
            event = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if isinstance(event, DeployDone):
            if self.done is None:
                self.done = event
                self._finish(event)
            return
        self._story.hear(event)
        if not self._json and not self._quiet:
            self._seen().show(event, self._story)

    def say(self, words: str) -> None:
        """A word of the program itself between the events (to `err` with JSON), for example after Ctrl-C."""
        if self._json or self._quiet:
            self._err.write(encodable(words, self._err) + "\n")
            self._err.flush()
        else:
            self._seen().say(words)

    def close(self) -> None:
        """Gives the terminal back, whatever happened; may be called twice."""
        if self._view is not None:
            self._view.close()

    def _seen(self) -> View:
        if self._view is None:
            if is_drawable(self._out):
                from homeport.cli.show.screen import Screen

                self._view = Screen(self._out, verbose=self._verbose)
            else:
                self._view = PlainLines(self._out, verbose=self._verbose)
        return self._view

    def _finish(self, done: DeployDone) -> None:
        if self._json:
            return
        if not self._quiet and done.status in ("failed", "rolled_back"):
            self._seen().fail(self._story)
        mark, style = (GOOD, "good") if done.ok else (BAD, "bad") if done.exit_code in (1, 2) else (NONE, "warn")
        row: Row = ((style, f"{mark} "), (style, outcome(done, self._story)))
        if self._view is not None:
            self._view.end(row)
        else:
            PlainLines(self._out, verbose=False).end(row)
        said = advice(done, color=wants_color(self._err))
        if said:
            self._err.write(encodable(said, self._err))
            self._err.flush()

    def _pass_on(self, line: bytes) -> None:
        said = line.rstrip(b"\r\n").decode("utf-8", "replace")
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        try:
            said.encode(encoding)
        except UnicodeEncodeError:
            said = msgspec.json.decode(said) and _ascii(said)
        self._out.write(said + "\n")
        self._out.flush()


def _ascii(said: str) -> str:
    """JSON text with everything beyond ASCII as `\\uNNNN` (outside of strings JSON is ASCII)."""
    pairs = said.encode("utf-16-be", "replace")
    units = (int.from_bytes(pairs[i : i + 2], "big") for i in range(0, len(pairs), 2))
    return "".join(chr(unit) if unit < 0x80 else f"\\u{unit:04x}" for unit in units)
