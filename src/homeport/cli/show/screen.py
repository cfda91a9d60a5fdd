"""A deploy on a terminal: finished stages above, the current one with a spinner and its output's last lines below.

Only this file needs rich. All words are put into `Text` objects, so no markup in them is ever read.
"""

from __future__ import annotations

import os
import time
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from homeport.cli.show.closing import Story, labelled
from homeport.cli.show.plain import duration
from homeport.cli.show.rows import BAD, GOOD, NONE, TIMES, Row, heading, joined, note, stage
from homeport.cli.show.words import encodable, text, took
from homeport.model.events import DeployStart, Event, LogLine, RestartDone, RestartStart, StageEvent

_STYLES = {
    "good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim", "strong": "bold", "sha": "yellow", "next": "cyan",
}  # fmt: skip
LINES = 6
"""Lines of the current output that are kept in sight."""
QUICK = 250
"""Milliseconds below which stages that had nothing to say share one line."""
PER_SECOND = 8


class Screen:
    """State is replaced, never changed in place: rich draws from a thread of its own."""

    def __init__(self, out: TextIO, *, verbose: bool) -> None:
        self._out = out
        self._verbose = verbose
        color = not os.environ.get("NO_COLOR")
        self._console = Console(
            file=out, force_terminal=True, color_system="auto" if color else None, markup=False, highlight=False,
            emoji=False,
        )  # fmt: skip
        self._unicode = "utf" in (getattr(out, "encoding", "") or "utf-8").lower()
        self._spinner = Spinner("dots" if self._unicode else "line", style=Style.parse(_STYLES["next"]))
        self._stage = ""
        self._began = 0.0
        self._began_at = ""
        self._recent: tuple[str, ...] = ()
        self._notes: tuple[Row, ...] = ()
        self._folded: tuple[tuple[str, int], ...] = ()
        self._restarting: tuple[str, ...] = ()
        self._open = True
        self._told_tail = False
        self._live = Live(
            console=self._console, get_renderable=self._frame, refresh_per_second=PER_SECOND, transient=True,
            redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip
        self._live.start()

    def show(self, event: Event, story: Story) -> None:
        if isinstance(event, DeployStart):
            self._put(heading(event))
        elif isinstance(event, StageEvent):
            self._on_stage(event, story)
        elif isinstance(event, LogLine):
            self._on_line(event)
        else:
            if isinstance(event, RestartStart):
                self._restarting = (*self._restarting, event.service)
            elif isinstance(event, RestartDone):
                self._restarting = tuple(s for s in self._restarting if s != event.service)
            row = note(event)
            if row is not None and self._stage:
                self._notes = (*self._notes, row)
            elif row is not None:
                self._note(row)

    def fail(self, story: Story) -> None:
        """The last lines of output of what failed, once."""
        if self._told_tail or self._verbose:
            return
        self._told_tail = True
        for event in story.tail:
            if event.stream != "homeport":
                self._put((("dim", f"    {labelled(event)}"),))

    def say(self, words: str) -> None:
        self._put((("", words),))

    def end(self, row: Row) -> None:
        self._flush()
        self.close()
        self._console.print()
        self._console.print(self._words(row), soft_wrap=True)

    def close(self) -> None:
        """Gives the terminal back; may be called twice."""
        if self._open:
            self._open = False
            self._stage = ""
            self._live.stop()

    def _on_stage(self, event: StageEvent, story: Story) -> None:
        if event.state == "start":
            self._stage, self._began, self._began_at = event.stage, time.monotonic(), event.at
            return
        ms, notes = duration(event, self._began_at), self._notes
        self._stage, self._recent, self._notes, self._restarting = "", (), (), ()
        if event.state == "done" and not notes and ms is not None and ms < QUICK and not event.detail:
            self._folded = (*self._folded, (event.stage, ms))
            return
        if event.state == "done" and ms is not None and ms < QUICK:
            self._folded = (*self._folded, (event.stage, ms))
            self._flush()
        else:
            self._flush()
            mark = {"done": GOOD, "failed": BAD}.get(event.state, NONE)
            self._put(stage(mark, [event.stage], ms, event.detail))
        for row in notes:
            self._note(row)
        if event.state == "failed":
            self.fail(story)

    def _on_line(self, event: LogLine) -> None:
        if self._verbose or event.stream == "homeport":
            self._put((("dim", f"    {labelled(event)}"),))
        else:
            self._recent = (*self._recent, labelled(event))[-LINES:]

    def _flush(self) -> None:
        """Prints the quick stages that share a line."""
        folded, self._folded = self._folded, ()
        if folded:
            self._put(_together(folded))

    def _put(self, row: Row) -> None:
        if self._open:
            self._console.print(self._words(row), soft_wrap=True)

    def _note(self, row: Row) -> None:
        """A row that belongs to the stage above it: indented, long ones keep the indent."""
        self._flush()
        if self._open:
            grid = Table.grid(padding=0)
            grid.add_row("  ", self._words(row[:1]).append(" "), self._words(row[1:]))
            self._console.print(grid)

    def _words(self, row: Row) -> Text:
        line = Text()
        for style, words in row:
            line.append(encodable(words, self._out), _STYLES.get(style, ""))
        line.rstrip()
        return line

    def _frame(self) -> RenderableType:
        """What is drawn below the finished lines, eight times a second."""
        rows: list[RenderableType] = []
        folded, current, notes = self._folded, self._stage, self._notes
        if folded:
            rows.append(self._one_line(_together(folded)))
        if current:
            grid = Table.grid(padding=(0, 1))
            elapsed = took(int((time.monotonic() - self._began) * 1000 // 100 * 100)) if self._began else ""
            waiting = ", ".join(text(s) for s in self._restarting)
            line = (("dim", f"{elapsed:>{TIMES}}  "), ("strong", joined([current])), ("dim", f"  {waiting}"))
            grid.add_row(self._spinner, self._one_line(line))
            rows.append(grid)
            rows += [self._one_line((("", "  "), *row)) for row in notes[-LINES:]]
            room = max(0, min(LINES, self._console.height - len(rows) - 2))
            recent = self._recent[-room:] if room else ()
            rows += [self._one_line((("dim", f"    {words}"),)) for words in recent]
        return Group(*rows)

    def _one_line(self, row: Row) -> Text:
        line = self._words(row)
        line.no_wrap, line.overflow = True, "ellipsis"
        return line


def _together(folded: tuple[tuple[str, int], ...]) -> Row:
    return stage(GOOD, [name for name, _ in folded], sum(ms for _, ms in folded))
