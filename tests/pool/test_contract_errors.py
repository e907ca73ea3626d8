"""What it takes to be an Executor: errors and initializers (points 4 to 7 and 9 of the contract)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import pickle
import sys
import traceback

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import lines

from resilient_exec import (
    NotSendable,
    PoolBroken,
    PoolClosed,
    ResilientError,
    RetryPolicy,
    TaskTimeout,
    WorkerDied,
)

# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CannotBePickled", "ExitsWhenPickled"])
@pytest.mark.parametrize("where", ["positional", "keyword", "function"])
def test_a_call_that_cannot_be_pickled_is_an_error_in_the_future(warm, name, where):
    thing = odd.make(name)
    if where == "positional":
        future = warm.submit(tasks.echo, 1, thing)
    elif where == "keyword":
        future = warm.submit(tasks.echo, odd=thing)
    else:
        thing.__class__ = type(name, (type(thing),), {"__call__": lambda self: None})
        future = warm.submit(thing)
    error = future.exception(60)
    assert isinstance(error, NotSendable)
    assert {"positional": "argument 2", "keyword": "argument 'odd'", "function": "the function"}[where] in str(error)
    assert isinstance(error.__cause__, SystemExit if name == "ExitsWhenPickled" else ValueError)
    assert future.attempts == 0
    assert warm.submit(tasks.same, 5).result(60) == 5


@pytest.mark.parametrize(
    ("thing", "path", "remedy"),
    [
        (lambda pool: {"at": [pool]}, "value['at'][0] is a", "makes it, or calls"),
        (lambda pool: pool.options(timeout=9), "value._owner is a", "makes it, or calls"),
        (lambda pool: [pool.submit(tasks.same, 1)], "value[0] is a", "future.result()"),
    ],
    ids=["pool", "view", "future"],
)
def test_a_pool_and_a_future_say_what_to_do_instead_of_sending_them(warm, thing, path, remedy):
    error = warm.submit(tasks.same, thing(warm)).exception(60)
    assert isinstance(error, NotSendable)
    assert path in str(error)
    assert remedy in str(error)


def test_the_error_of_a_call_that_cannot_be_pickled_shows_the_callers_line(warm):
    future = warm.submit(tasks.echo, odd.CannotBePickled())  # this very line
    text = "".join(traceback.format_exception(future.exception(60)))
    assert "this very line" in text
    assert "__reduce__" in text


@pytest.mark.parametrize("name", ["CannotBeUnpickled", "ExitsWhenUnpickled"])
def test_a_call_that_cannot_be_unpickled_is_an_error_in_the_future(warm, name):
    before = warm.submit(tasks.pid).result(60)
    assert warm.submit(tasks.echo, odd.make(name)).exception(60) is not None
    assert warm.submit(tasks.pid).result(60) == before


def test_a_call_that_kills_the_worker_as_it_is_unpickled_is_charged(make_pool):
    pool = make_pool(1, retry=1)
    error = pool.submit(tasks.echo, odd.DiesWhenUnpickled()).exception(60)
    assert isinstance(error, WorkerDied)
    assert error.exitcode == 9
    assert pool.submit(tasks.same, 5).result(60) == 5


@pytest.mark.parametrize("name", ["CannotBePickled", "CannotBeUnpickled"])
def test_a_result_that_cannot_travel_is_an_error_that_names_its_type(warm, name):
    before = warm.submit(tasks.pid).result(60)
    error = warm.submit(odd.make, name).exception(60)
    assert isinstance(error, NotSendable)
    assert name in str(error)
    assert "not to be" in str(error)
    assert warm.submit(tasks.pid).result(60) == before


@pytest.mark.parametrize("name", ["ExitsWhenPickled", "ExitsWhenUnpickled", "RaisesInParent", "ExitsInParent"])
def test_a_result_that_raises_or_exits_on_its_way_harms_only_its_task(warm, name):
    before = warm.submit(tasks.pid).result(60)
    assert warm.submit(odd.make, name).exception(60) is not None
    assert warm.submit(tasks.pid).result(60) == before


@pytest.mark.parametrize("name", ["DiesWhenPickled", "DiesWhenUnpickled"])
def test_a_result_that_kills_on_its_way_kills_its_worker_and_not_the_parent(make_pool, name):
    pool = make_pool(1, retry=1)
    assert isinstance(pool.submit(odd.make, name).exception(60), WorkerDied)
    assert pool.submit(tasks.same, 5).result(60) == 5


def test_an_exception_that_needs_a_keyword_comes_back_whole(warm):
    error = warm.submit(odd.raise_needs_keyword).exception(60)
    assert type(error) is odd.NeedsKeyword
    assert (error.args, error.code, error.detail) == (("code 7",), 7, {"a": [1]})


def test_an_exception_that_is_a_frozen_dataclass_comes_back_whole(warm):
    error = warm.submit(odd.raise_frozen).exception(60)
    assert type(error) is odd.FrozenError
    assert (error.code, error.text) == (3, "frozen")
    assert "raise_frozen" in str(error.__cause__)
    with pytest.raises(odd.FrozenError):
        warm.submit(odd.raise_frozen).result(60)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (odd.raise_holds_a_lock, "HoldsALock"),
        (odd.raise_breaks, "BreaksWhenUnpickled"),
        (odd.raise_dies, "DiesAsItIsUnpickled"),
        (odd.raise_bad_text, "BadText"),
    ],
)
def test_an_exception_that_cannot_travel_arrives_as_an_error_and_breaks_nothing(lone, fn, said):
    before = lone.submit(tasks.pid).result(60)
    error = lone.submit(fn).exception(60)
    assert error is not None
    assert said in type(error).__name__ + str.__str__(error.args[0] if error.args else "")
    assert lone.submit(tasks.pid).result(60) == before


def test_an_exception_of_a_local_class_comes_back_with_its_args(warm):
    error = warm.submit(odd.raise_local).exception(60)
    assert type(error).__name__ == "Local"
    assert error.args == ("local", 1)


def test_args_stay_as_they_are_and_the_remote_traceback_is_the_cause(warm):
    error = warm.submit(odd.raise_from).exception(60)
    assert type(error) is ValueError
    assert error.args == ("outer", 2)
    remote = str(error.__cause__)
    assert "raise_from" in remote
    assert "KeyError: 'inner'" in remote
    assert "direct cause" in remote
    assert "resilient_exec" not in remote, "the traceback begins with the user's code"


def test_notes_and_groups_come_back(warm):
    assert warm.submit(odd.raise_with_note).exception(60).__notes__ == ["a note"]
    group = warm.submit(odd.raise_group).exception(60)
    assert type(group) is ExceptionGroup
    assert [repr(error) for error in group.exceptions] == ["ValueError(1)", "KeyError('k')"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        AssertionError("text", 1),
        MemoryError(),
        RecursionError("deep"),
    ],
)
def test_built_in_exceptions_come_back_equal(warm, error):
    back = warm.submit(tasks.raise_, error).exception(60)
    assert (type(back), back.args, str(back)) == (type(error), error.args, str(error))


OWN = [
    TimeoutError("mine", 1),
    concurrent.futures.CancelledError("mine"),
    asyncio.CancelledError("mine"),
    SystemExit(3),
    KeyboardInterrupt("mine"),
    GeneratorExit("mine"),
    concurrent.futures.BrokenExecutor("mine"),
    concurrent.futures.InvalidStateError("mine"),
    TaskTimeout("mine"),
    WorkerDied("mine"),
    PoolBroken("mine"),
    PoolClosed("mine"),
]


@pytest.mark.parametrize("error", OWN, ids=lambda error: f"{type(error).__module__}.{type(error).__name__}")
def test_a_tasks_own_exception_is_its_outcome_and_not_the_pools(warm, error):
    before = warm.submit(tasks.pid).result(60)
    future = warm.submit(tasks.raise_, error)
    back = future.exception(60)
    assert (type(back), back.args) == (type(error), error.args)
    assert future.done()
    assert not future.cancelled()
    assert future.attempts == 1
    assert [event.kind for event in future.story][-2:] == ["raised", "settled"]
    with pytest.raises(type(error)):
        future.result()
    assert warm.submit(tasks.pid).result(60) == before


def test_a_tasks_own_cancelled_error_does_not_look_cancelled_to_settled(warm):
    (done,) = warm.settled(tasks.raise_, [concurrent.futures.CancelledError("mine")])
    assert not done.ok
    assert done.error.args == ("mine",)
    assert done.attempts == 1


def test_every_error_of_the_pools_pickles(make_pool):
    pool = make_pool(1, retry=1)
    futures = [
        pool.submit(tasks.kill_self),
        pool.options(timeout=0.2).submit(tasks.hang),
        pool.submit(tasks.same, odd.CannotBePickled()),
    ]
    for future in futures:
        error = future.exception(60)
        copy = pickle.loads(pickle.dumps(error))
        assert isinstance(error, ResilientError)
        assert (type(copy), str(copy), copy.key, copy.attempt) == (type(error), str(error), error.key, error.attempt)
        assert [event.kind for event in copy.story] == [event.kind for event in error.story]


# -- the initializer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "args", "said"),
    [
        (tasks.fail_to_initialize, (ValueError("not today"),), "ValueError: not today"),
        (tasks.fail_to_initialize, (KeyboardInterrupt("stop"),), "KeyboardInterrupt"),
        (tasks.exit_in_initializer, (), "SystemExit"),
        (tasks.die_in_initializer, (), "its initializer did not return"),
    ],
)
def test_a_failing_initializer_breaks_the_pool_after_three_starts_and_in_its_own_words(
    make_pool, tmp_path, fn, args, said
):
    path = tmp_path / "starts"
    pool = make_pool(1, initializer=fn, initargs=(str(path), *args), start_patience=0)
    futures = [pool.submit(tasks.same, number) for number in range(4)]
    for future in futures:
        error = future.exception(60)
        assert isinstance(error, PoolBroken)
        assert isinstance(error, concurrent.futures.BrokenExecutor)
        assert said in str(error)
        assert future.attempts == 0
    with pytest.raises(PoolBroken, match="3 times in a row"):
        pool.submit(tasks.same, 1)
    pool.shutdown()
    assert len(lines(path)) == 3


def test_an_initializer_that_hangs_breaks_the_pool_and_shows_where(make_pool, tmp_path):
    path = tmp_path / "starts"
    # Not shorter: it holds for the forkserver, too, and a machine that is busy takes a second for that.
    pool = make_pool(1, initializer=tasks.hang_in_initializer, initargs=(str(path),), start_timeout=3, start_patience=0)
    error = pool.submit(tasks.same, 1).exception(60)
    assert isinstance(error, PoolBroken)
    assert "took too long" in str(error)
    pool.shutdown()


def test_an_initializer_that_does_not_unpickle_breaks_the_pool(make_pool):
    pool = make_pool(1, initializer=tasks.echo, initargs=(odd.CannotBeUnpickled(),), start_patience=0)
    error = pool.submit(tasks.same, 1).exception(60)
    assert isinstance(error, PoolBroken)
    assert "not to be unpickled" in str(error)


def test_an_initializer_that_does_not_pickle_is_refused(make_pool):
    with pytest.raises(NotSendable, match="not to be pickled"):
        make_pool(1, initializer=tasks.echo, initargs=(odd.CannotBePickled(),))


def test_an_initializer_that_fails_once_costs_nobody_anything(make_pool, tmp_path):
    pool = make_pool(1, initializer=tasks.fail_once, initargs=(str(tmp_path / "first"),))
    future = pool.submit(tasks.same, 5)
    assert future.result(60) == 5
    assert future.attempts == 1


def test_the_initializer_runs_once_in_each_worker_also_in_one_that_replaces_a_dead_one(make_pool, tmp_path):
    path = tmp_path / "pids"
    pool = make_pool(1, initializer=tasks.initialize, initargs=(str(path),), retry=1)
    first = pool.submit(tasks.pid).result(60)
    assert [pool.submit(tasks.initialized).result(60) for _ in range(3)] == [1, 1, 1]
    assert isinstance(pool.submit(tasks.kill_self).exception(60), WorkerDied)
    second = pool.submit(tasks.pid).result(60)
    assert pool.submit(tasks.initialized).result(60) == 1
    assert lines(path) == [str(first), str(second)]


# -- logging in silence --------------------------------------------------------------------------------------------


def test_ordinary_failures_of_tasks_log_nothing(make_pool, caplog):
    caplog.set_level(logging.WARNING)
    with make_pool(1, retry=1) as pool:
        pool.submit(tasks.kill_self).exception(60)
        pool.submit(tasks.raise_, ValueError(1)).exception(60)
        pool.options(timeout=0.2).submit(tasks.hang).exception(60)
        pool.submit(tasks.same, odd.CannotBePickled()).exception(60)
    assert [record.getMessage() for record in caplog.records] == []


def test_the_parents_path_and_directory_are_the_workers(warm):
    assert warm.submit(os.getcwd).result(60) == os.getcwd()
    assert set(sys.path) <= set(warm.submit(tasks.sys_path).result(60))


def test_a_function_of_main_a_lambda_and_a_closure_travel_by_value(warm):
    number = 5
    assert warm.submit(lambda: number + 1).result(60) == 6

    def closure(value):
        return value * number

    assert list(warm.map(closure, range(3))) == [0, 5, 10]


def test_retries_are_for_deaths_and_timeouts_and_not_for_exceptions_unless_asked(warm):
    assert warm.submit(tasks.plan_by_attempt, ["raise"]).exception(60).args == ("attempt 1",)
    asked = warm.options(retry=RetryPolicy(errors=1))
    assert asked.submit(tasks.plan_by_attempt, ["raise"]).result(60) == 2
