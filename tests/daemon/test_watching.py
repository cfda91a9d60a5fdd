"""E6: how much of the time the daemon looks where something always moves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.daemon.watching import Allowance, Watcher
from tests.daemon.conftest import App


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=25)
@given(st.lists(st.floats(0.001, 0.3), min_size=50, max_size=300))
def test_who_looks_all_the_time_takes_a_tenth_of_it(costs: list[float]) -> None:
    clock = Clock()
    allowance = Allowance(0.1, 2.0, 3.0, clock)
    for cost in costs:
        clock.now += allowance.wait()
        clock.now += cost
        allowance.spend(cost)
    assert sum(costs) <= 2.0 + 0.1 * clock.now + max(costs)


def test_a_look_after_a_quiet_time_waits_for_nothing_and_none_waits_longer_than_it_may() -> None:
    clock = Clock()
    allowance = Allowance(0.1, 2.0, 3.0, clock)
    for _ in range(10):
        assert allowance.wait() == 0
        allowance.spend(1.5)
        clock.now += 20
    allowance.spend(60.0)
    assert abs(allowance.wait() - 3.0) < 1e-6
    clock.now += 3.1
    assert allowance.wait() == 0


def test_an_origin_that_is_silent_keeps_no_edit_waiting(app: App) -> None:
    """Who asks it holds what looks hold."""
    watcher = Watcher(app.app.state.served, app.environment)
    with app.environment.looking:
        watcher._pass({}, (), True)
    assert watcher._watches is not None and app.environment.looking.acquire(blocking=False)
    app.environment.looking.release()
    watcher._watches.close()
