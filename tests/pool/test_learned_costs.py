"""``cost="learned"``: the label whose tasks took longest goes first."""

from __future__ import annotations

import time

import pytest
import speculation_tasks as tasks
from pool_wait import until


@pytest.fixture
def queued(lone, tmp_path):
    """Submits calls while the only worker is busy, and gives the times at which each began."""

    def begun(*calls):
        path = tmp_path / str(time.monotonic())
        busy = lone.submit(tasks.await_file, str(path))
        until(lambda: any(event.kind == "begun" for event in busy.story))
        time.sleep(0.05)  # it is known to be long: nothing is sent behind it
        futures = [view.submit(time.sleep, seconds) for view, seconds in calls]
        path.touch()
        for future in futures:
            future.result(60)
        return [next(event.at for event in future.story if event.kind == "begun") for future in futures]

    return begun


def _views(pool, **options):
    return [pool.options(cost="learned", label=label, **options) for label in ("short", "long")]


def _learn(*calls):
    for view, seconds in calls:
        view.submit(time.sleep, seconds).result(60)


def test_what_took_long_goes_first_the_next_time(lone, queued):
    short, long = _views(lone)
    _learn((short, 0.01), (long, 0.5))
    begun = queued(*[(short, 0.01)] * 5, (long, 0.01))
    assert begun[-1] == min(begun)
    assert begun[:-1] == sorted(begun[:-1])


def test_what_is_not_known_goes_second_the_first_time(lone, queued):
    short, long = _views(lone)
    begun = queued(*[(short, 0.05)] * 8, (long, 0.1))
    assert sorted(begun).index(begun[-1]) == 1, "it has waited for more than the first of the short ones"


def test_a_cost_that_is_given_counts(lone, queued):
    _, long = _views(lone)
    _learn((long, 0.5))
    begun = queued((long, 0.01), (lone.options(cost=1e6), 0.01))
    assert begun == sorted(begun, reverse=True)


@pytest.mark.parametrize("chunksize", [2, None])
def test_calls_of_a_map_are_learned_from(lone, queued, chunksize):
    short, long = _views(lone)
    assert list(long.map(time.sleep, [0.3] * 3, chunksize=chunksize)) == [None] * 3
    assert list(short.map(time.sleep, [0.001] * 3, chunksize=chunksize)) == [None] * 3
    begun = queued((short, 0.01), (long, 0.01))
    assert begun == sorted(begun, reverse=True)


@pytest.mark.parametrize("value", ["dear", None, [], "LEARNED"])
def test_a_cost_is_a_number_or_learned(lone, value):
    with pytest.raises(TypeError, match=r'cost must be a number, larger goes first, or "learned"; got'):
        lone.options(cost=value)


def test_a_view_shows_it(lone):
    assert "cost='learned'" in repr(lone.options(cost="learned"))
