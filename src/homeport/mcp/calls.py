"""One call of a tool: the command is run, what it says on the way is told on, and its answer is kept within bounds."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from homeport.model.remote import Talk

LONGEST_ANSWER = 256 * 1024
"""Characters of an answer that are given to an agent; the rest is cut, and that is said."""
TAIL = 8 * 1024
"""Characters of what a deploy's commands printed that go with its outcome, as in the API."""
DIFFERENCE = 3
"""The exit code that is an answer to `drift` and `diff`."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a call: `said` is the object that it answered with."""

    said: dict[str, Any]
    failed: bool

    def text(self) -> str:
        """The same for reading, cut where it would be too long for a reader."""
        text = json.dumps(self.said, ensure_ascii=False, indent=1)
        if len(text) <= LONGEST_ANSWER:
            return text
        return f"{text[:LONGEST_ANSWER]}\n[cut: {len(text) - LONGEST_ANSWER} characters more; ask for less]"


def carried_out(talk: Talk, tell: Callable[[str], None], *, differs: bool, plain: bool) -> Outcome:
    """Reads what a command says to its end; `tell` gets a line for each step of a deploy."""
    printed = _Tail(LONGEST_ANSWER if plain else TAIL)
    said: dict[str, Any] = {}
    for line in talk.lines():
        one = {} if plain else _read(line)
        if plain or one.get("type") == "deploy.log":
            printed.add(one["line"] if one else line.decode("utf-8", "replace").rstrip("\n"))
            continue
        said = one
        step = step_of(one)
        if step:
            tell(step)
    code, errors = talk.ended()
    if code != 0 and (plain or not said):
        said = {"type": "error", "what": errors or "the command said nothing"}
    elif plain:
        said = {"text": printed.text(), "cut": printed.cut}
    elif printed.kept and said.get("type") == "deploy.done":
        said["logTail"] = printed.text()
    failed = code != 0 and not (differs and code == DIFFERENCE and said.get("type") != "error")
    return Outcome(said={**said, "exitCode": code} if failed else said, failed=failed)


class _Tail:
    """The last lines of what is printed, within a number of characters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: deque[str] = deque()
        self.kept = 0
        self.cut = False

    def add(self, line: str) -> None:
        self._lines.append(line[-self._most :])
        self.kept += len(self._lines[-1]) + 1
        while self.kept > self._most + 1:
            self.kept -= len(self._lines.popleft()) + 1
            self.cut = True

    def text(self) -> str:
        return "\n".join(self._lines)


def step_of(said: dict[str, Any]) -> str:
    """An event of a deploy in words, empty for one that is no step."""
    kind, ms = said.get("type"), said.get("durationMs")
    took = f" after {ms} ms" if ms else ""
    if kind == "deploy.stage":
        detail = f": {said['detail']}" if said.get("detail") else ""
        return f"{said.get('stage')} {said.get('state')}{took}{detail}"
    if kind == "deploy.restart.done":
        return f"{said.get('service')} restarted{took}"
    if kind == "deploy.check":
        return f"{said.get('service') or 'check'}: {said.get('check')} {'passed' if said.get('ok') else 'failed'}"
    if kind == "deploy.notice":
        return str(said.get("message", ""))
    return f"deploy {said.get('deployId')}" if kind == "deploy.start" else ""


def _read(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {"text": line.decode("utf-8", "replace").rstrip("\n")}
    return said if isinstance(said, dict) else {"text": line.decode("utf-8", "replace").rstrip("\n")}
