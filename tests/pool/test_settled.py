"""``settled``: calls as they settle, failures as values, endless input, an early end."""

from __future__ import annotations

import itertools
import threading

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import lines, until, wait_lines

from resilient_exec import NotSendable, PoolClosed, TaskTimeout, WorkerDied


def test_each_call_is_given_once_with_its_place_in_the_input(pool):
    done = list(pool.settled(tasks.double, range(50)))
    assert sorted(one.index for one in done) == list(range(50))
    assert all(one.ok and one.error is None and one.value == 2 * one.index for one in done)
    assert all(one.attempts == 1 and one.elapsed >= 0 for one in done)
    assert len({one.key for one in done}) == 50


def test_calls_are_given_as_they_settle_and_not_in_the_order_of_the_input(pool, tmp_path):
    go = str(tmp_path / "go")
    done = pool.settled(tasks.wait_for, [go, str(tmp_path)])
    assert next(done).index == 1
    tasks.note(go, "now")
    assert next(done).index == 0
    assert list(done) == []


def test_a_failure_of_whatever_kind_is_a_value_and_is_never_raised(make_pool):
    pool = make_pool(2, retry=1, timeout=3)
    calls = [
        (tasks.same, 1),
        (tasks.raise_, ValueError("mine")),
        (tasks.leave, 3),
        (tasks.hang, 0),
        (tasks.same, odd.CannotBePickled()),
        (tasks.raise_, SystemExit(4)),
    ]
    done = {one.index: one for one in pool.settled(tasks.call, *zip(*calls, strict=True))}
    assert [done[number].ok for number in range(6)] == [True, False, False, False, False, False]
    kinds = [type(done[number].error) for number in range(1, 6)]
    assert kinds == [ValueError, WorkerDied, TaskTimeout, NotSendable, SystemExit]
    assert [done[number].attempts for number in range(6)] == [1, 1, 1, 1, 0, 1]
    assert all(done[number].value is None for number in range(1, 6))


def test_attempts_and_elapsed_span_all_attempts(make_pool):
    (done,) = make_pool(1).settled(tasks.die_until, [3])
    assert (done.ok, done.attempts, done.value[1]) == (True, 3, 3)
    assert done.elapsed > 0.1, "two pauses are in it"


def test_an_endless_input_is_read_only_a_little_ahead(pool):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    done = pool.settled(tasks.double, endless())
    for count in range(1, 101):
        assert next(done).ok
        assert len(taken) <= count + 2 * 2
    done.close()


def test_several_iterables_end_with_the_shortest_and_an_empty_one_gives_nothing(pool):
    done = list(pool.settled(pow, [2, 3, 4], itertools.count(1)))
    assert sorted(one.value for one in done) == [2, 9, 64]
    assert list(pool.settled(tasks.same, [])) == []


def test_what_waits_is_cancelled_when_the_iterator_is_closed(lone, tmp_path):
    go, path = str(tmp_path / "go"), str(tmp_path / "ran")
    done = lone.settled(tasks.plan_of_map, itertools.repeat(path), itertools.repeat(go), ["value", "wait", "late", "x"])
    assert next(done).index == 0
    wait_lines(path, 2)
    done.close()
    tasks.note(go, "now")
    lone.shutdown()
    assert lines(path) == ["value", "wait"]


def test_an_input_that_raises_ends_it_and_cancels_what_waits(lone):
    def numbers():
        yield 1
        yield 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(lone.settled(tasks.same, numbers()))
    assert lone.submit(tasks.same, 5).result(60) == 5


def test_a_cancelled_call_is_a_failure_with_a_cancelled_error(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    got = []
    thread = threading.Thread(target=lambda: got.extend(lone.settled(tasks.same, range(2))))
    thread.start()
    until(lambda: lone.snapshot()["pending"] == 2)
    lone.shutdown(wait=False, cancel_futures=True)
    thread.join(60)
    tasks.note(go, "now")
    blocker.result(60)
    assert sorted(one.index for one in got) == [0, 1]
    assert {type(one.error).__name__ for one in got} == {"CancelledError"}
    assert {one.attempts for one in got} == {0}


def test_a_pool_that_is_shut_down_meanwhile_ends_it_with_pool_closed(lone):
    done = lone.settled(tasks.same, itertools.count())
    assert next(done).ok
    lone.shutdown(wait=False)
    with pytest.raises(PoolClosed):
        list(done)


def test_two_iterators_over_one_pool_do_not_mix(pool):
    first, second = pool.settled(tasks.double, range(20)), pool.settled(tasks.same, range(20))
    pairs = list(zip(first, second, strict=True))
    assert sorted(one.value for one, _ in pairs) == [2 * number for number in range(20)]
    assert sorted(two.value for _, two in pairs) == list(range(20))


def test_a_consumer_may_use_the_pool_between_two_values(lone):
    assert [lone.submit(tasks.same, one.value).result(60) for one in lone.settled(tasks.double, range(5))] == [
        0,
        2,
        4,
        6,
        8,
    ]
