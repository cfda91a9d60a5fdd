"""The moments of a deploy at which a fault can come: what strace saw, and which of them are tried."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """Right before the runner's `nth` call of `syscall`; in which stage that is, and the call as strace shows it."""

    syscall: str
    nth: int
    stage: str
    shown: str
    within: int = 0
    """The number of the call within its stage; 0 when only `nth` is known."""

    def __str__(self) -> str:
        return f"{self.syscall} #{self.nth} in {self.stage}: {self.shown[:150]}"


@dataclass(frozen=True)
class Share:
    """The `number`-th of `among` equal shares of the moments that a soak tries."""

    number: int
    among: int
    tell: Callable[[str], None]
    """Says how many there were, and what went wrong."""
    wrong: list[str] = field(default_factory=list)

    def of(self, found: Sequence[Moment]) -> list[Moment]:
        return list(found[self.number - 1 :: self.among])


_CALL = re.compile(r"^(\w+)\(")
_STAGE = re.compile(r'\\"type\\":\\"deploy.stage\\".*?\\"stage\\":\\"([\w:-]+)\\",\\"state\\":\\"(\w+)\\"')
_TOLD = re.compile(_STAGE.pattern.replace("\\\\", ""))


def moments(lines: Sequence[str]) -> Iterator[Moment]:
    """Each traced call with its number and the stage that was going on when it began."""
    counts: Counter[str | tuple[str, str]] = Counter()
    stage = "start"
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue
        name = call.group(1)
        counts.update((name, (name, stage)))
        yield Moment(name, counts[name], stage, line, counts[name, stage])
        told = _STAGE.search(line) if name == "write" else None
        if told is not None:
            stage = stage_of(told.group(1), told.group(2))


def stage_of(name: str, state: str) -> str:
    return name if state == "start" else f"after {name}"


def last_of_each(all_of_them: Sequence[Moment], found: Sequence[Moment]) -> list[Moment]:
    """The last moment of every kind of call in every stage that these are of."""
    kinds = {(m.syscall, m.stage) for m in found}
    return list({(m.syscall, m.stage): m for m in all_of_them if (m.syscall, m.stage) in kinds}.values())


class Stage:
    """What a journal says of where its deploy is."""

    def __init__(self, journal: Path) -> None:
        self.journal, self._size, self._stage = journal, 0, "start"

    def __call__(self) -> str:
        try:
            size = os.stat(self.journal).st_size
        except FileNotFoundError:
            return "start"
        if size != self._size:
            told = _TOLD.findall(self.journal.read_text())
            self._size, self._stage = size, stage_of(*told[-1]) if told else "start"
        return self._stage


def spread(found: Sequence[Moment], most: int) -> list[Moment]:
    """So many of them, spread evenly, first and last among them; some twice when there are fewer."""
    step = (len(found) - 1) / max(1, most - 1)
    return [found[round(n * step)] for n in range(most)]
