"""A deploy as plain lines, for pipes, logs and simple terminals: one line per thing that ended."""

from __future__ import annotations

from typing import TextIO

from homeport.cli.show.closing import Story, labelled
from homeport.cli.show.rows import BAD, GOOD, NONE, TIMES, Row, heading, note, stage, words_of
from homeport.cli.show.words import encodable, moment
from homeport.model.events import DeployStart, Event, LogLine, StageEvent


class PlainLines:
    def __init__(self, out: TextIO, *, verbose: bool) -> None:
        self._out = out
        self._verbose = verbose
        self._began: dict[str, str] = {}
        self._told_tail = False

    def show(self, event: Event, story: Story) -> None:
        if isinstance(event, DeployStart):
            self._put(heading(event))
        elif isinstance(event, StageEvent):
            self._stage(event, story)
        elif isinstance(event, LogLine):
            if self._verbose or event.stream == "homeport":
                self._line(f"    {labelled(event)}")
        elif (row := note(event)) is not None:
            self._put((("", " " * (TIMES + 4)), *row))

    def fail(self, story: Story) -> None:
        """The last lines of output of what failed, once; with all output shown already there is nothing to add."""
        if self._told_tail or self._verbose:
            return
        self._told_tail = True
        for event in story.tail:
            if event.stream != "homeport":
                self._line(f"    {labelled(event)}")

    def say(self, words: str) -> None:
        self._line(words)

    def end(self, row: Row) -> None:
        self._put(row[1:] if row and row[0][1].strip() in (GOOD, BAD, NONE) else row)

    def close(self) -> None:
        return

    def _stage(self, event: StageEvent, story: Story) -> None:
        if event.state == "start":
            self._began[event.stage] = event.at
            return
        mark = {"done": GOOD, "failed": BAD}.get(event.state, NONE)
        self._put(stage(mark, [event.stage], duration(event, self._began.get(event.stage)), event.detail))
        if event.state == "failed":
            self.fail(story)

    def _put(self, row: Row) -> None:
        self._line(words_of(row))

    def _line(self, words: str) -> None:
        self._out.write(encodable(words, self._out) + "\n")
        self._out.flush()


def duration(event: StageEvent, began: str | None) -> int | None:
    """Milliseconds the stage took, as told or between its two events."""
    if event.duration_ms is not None:
        return event.duration_ms
    start, end = moment(began), moment(event.at)
    return max(0, int((end - start).total_seconds() * 1000)) if start and end else None
