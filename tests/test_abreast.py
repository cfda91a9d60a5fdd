"""Work done side by side is done once, also where no thread starts, or one dies before its first line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from homeport.doors import probes
from homeport.model import abreast
from homeport.model.abreast import Turn, side_by_side, together


def refused(work: Callable[[], None], words: tuple[()]) -> int:
    raise RuntimeError("can't start new thread")


def stillborn(work: Callable[[], None], words: tuple[()]) -> int:
    return 0


@pytest.fixture(params=["a machine with threads", "no thread starts", "each dies as it starts", "no room for a stack"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "no thread starts":
        monkeypatch.setattr(abreast._thread, "start_new_thread", refused)
    elif request.param == "each dies as it starts":
        monkeypatch.setattr(abreast._thread, "start_new_thread", stillborn)
    before = threading.stack_size(1 << 50 if request.param == "no room for a stack" else 0)
    monkeypatch.setattr(abreast, "PATIENCE", 0.02)
    yield request.param
    abreast._stillborn.clear()
    threading.stack_size(before)


@pytest.mark.usefixtures("machine")
def test_every_work_is_done_once_and_answers_in_order() -> None:
    done: list[int] = []

    def work(number: int) -> Callable[[], int]:
        return lambda: done.append(number) or number

    assert [turn.result() for turn in side_by_side([work(n) for n in range(20)], 4)] == list(range(20))
    assert sorted(done) == list(range(20))
    assert together(lambda: "a", lambda: "b") == ("a", "b")


@pytest.mark.usefixtures("machine")
def test_what_a_work_raises_is_raised_where_its_answer_is_asked_for_after_all_have_ended() -> None:
    ended: list[str] = []

    def fails() -> None:
        raise KeyError("of mine")

    first, second = side_by_side([fails, lambda: ended.append("second")], 2)
    assert ended == ["second"]
    second.result()
    with pytest.raises(KeyError, match="of mine"):
        first.result()
    with pytest.raises(KeyError, match="of mine"):
        together(fails, lambda: ended.append("beside"))
    with pytest.raises(KeyError, match="of mine"):
        together(lambda: ended.append("first"), fails)
    assert ended == ["second", "beside", "first"]


def test_works_are_done_at_the_same_time_and_never_more_of_them_than_asked_for() -> None:
    meeting, guard, now, most = threading.Barrier(3, timeout=20), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        meeting.wait()
        with guard:
            now -= 1

    side_by_side([work] * 6, 3)
    assert most == 3


def test_a_turn_that_somebody_has_begun_is_waited_for_and_not_done_again() -> None:
    begun, go_on, times = threading.Event(), threading.Event(), []

    def slow() -> str:
        begun.set()
        go_on.wait(20)
        times.append(1)
        return "once"

    turn = Turn(slow)
    assert abreast.begun(turn.do)
    assert begun.wait(20)
    turn.do()
    assert not turn.ended(0.01)
    go_on.set()
    assert (turn.result(), times) == ("once", [1])


@pytest.mark.usefixtures("machine")
def test_a_probe_asks_also_where_it_gets_no_thread() -> None:
    answer = probes._within(lambda: probes._Answer(200, b"well"), lambda: None, 0.2)
    assert isinstance(answer, probes._Answer)
    assert answer.body == b"well"
