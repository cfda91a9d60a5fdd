"""Work done side by side, which gets done also where no thread can be started.

Whoever asks for it takes part itself. A machine without room for a thread (`EAGAIN`), or a thread that dies of missing
memory before its first line, costs time and nothing else: what no thread has begun is done by the one who waits.
`threading.Thread.start`, and with it every pool of the standard library, waits for ever for such a thread.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")
_T = TypeVar("_T")
PATIENCE = 1.0
"""Seconds in which a thread that was started begins, on a busy machine too."""
_stillborn: list[bool] = []
"""Not empty once one did not: from then on nobody waits for the beginning of another."""


class Turn(Generic[_T]):
    """One piece of work, done once, by whoever takes it first."""

    __slots__ = ("_answer", "_begun", "_fault", "_over", "_taken", "_work")

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._answer: list[_T] = []
        self._fault: BaseException | None = None
        self._taken, self._over = _thread.allocate_lock(), _thread.allocate_lock()
        self._begun = _thread.allocate_lock()
        self._over.acquire()
        self._begun.acquire()

    def do(self) -> None:
        """Does it, unless somebody has begun it. What the work raises is kept for `result`."""
        if not self._taken.acquire(blocking=False):
            return
        self._begun.release()
        try:
            self._answer.append(self._work())
        except BaseException as fault:
            self._fault = fault
        finally:
            self._over.release()

    def begins(self) -> None:
        """Waits until the thread that was started for it has begun, if threads begin on this machine."""
        if not _stillborn:
            if self._begun.acquire(timeout=PATIENCE):
                self._begun.release()
            else:
                _stillborn.append(True)

    def has_begun(self) -> bool:
        return self._taken.locked()

    def ended(self, within: float = -1) -> bool:
        """Whether it is done, or will be within so many seconds; without a limit it waits for whoever began it."""
        if self._over.acquire(timeout=within):
            self._over.release()
            return True
        return False

    def result(self) -> _T:
        """What the work answered; raises what it raised. Does it here and now when nobody has begun it."""
        self.do()
        self.ended()
        if self._fault is not None:
            raise self._fault
        return self._answer[0]


def begun(work: Callable[[], None]) -> bool:
    """Starts a thread for this; False when the machine has none. That it lives is not waited for."""
    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:
        return False
    return True


def side_by_side(works: Sequence[Callable[[], _T]], most: int) -> list[Turn[_T]]:
    """Does all of them, at most so many at a time; every one has ended when this returns."""
    turns = [Turn(work) for work in works]

    def all_of_them() -> None:
        for turn in turns:
            turn.do()

    for _ in range(min(most, len(turns)) - 1):
        if not begun(all_of_them):
            break
    all_of_them()
    for turn in turns:
        turn.ended()
    return turns


def together(first: Callable[[], _A], second: Callable[[], _B]) -> tuple[_A, _B]:
    """Both answers, worked out at the same time; what either raises is raised here."""
    beside = Turn(second)
    started = begun(beside.do)
    try:
        answer = first()
    finally:
        if started:
            beside.begins()
        beside.do()
        beside.ended()
    return answer, beside.result()
