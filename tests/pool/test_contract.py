"""What it takes to be an Executor: signatures, arguments, errors.  (Life, order and references: the files beside.)

Collected by running CPython's, loky's and other pools' own tests, real clients and random programs against several
pools; each test is named after the fact that some pool gets wrong.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import logging
import multiprocessing
import os
import pickle
import sys
import threading
import traceback

import pool_tasks as tasks
import pytest
from pool_wait import lines, until, wait_lines

from resilient_exec import (
    NotSendable,
    PoolBroken,
    PoolClosed,
    ResilientError,
    ResilientPool,
    RetryPolicy,
    TaskTimeout,
    WorkerDied,
)

# -- signatures and arguments --------------------------------------------------------------------------------------

NAMES = ("self", "fn", "args", "kwargs", "timeout", "retry", "retries", "priority", "key", "label", "options", "pool")


@pytest.mark.parametrize("through", ["pool", "view"])
def test_every_keyword_of_submit_belongs_to_the_task(lone, through):
    submit = lone.submit if through == "pool" else lone.options(timeout=60).submit
    given = {name: number for number, name in enumerate(NAMES)}
    assert submit(tasks.echo, 1, **given).result(60) == ((1,), given)


def test_submit_takes_its_function_by_position_only(pool):
    with pytest.raises(TypeError):
        pool.submit(fn=tasks.echo, arg=1)
    with pytest.raises(TypeError):
        pool.submit(arg=1)


def test_the_signatures_are_the_standard_librarys():
    submit = list(inspect.signature(ResilientPool.submit).parameters.values())
    assert [(p.name, p.kind) for p in submit[1:]] == [
        ("fn", inspect.Parameter.POSITIONAL_ONLY),
        ("args", inspect.Parameter.VAR_POSITIONAL),
        ("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
    shutdown = inspect.signature(ResilientPool.shutdown).parameters
    assert (shutdown["wait"].default, shutdown["wait"].kind) == (True, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert (shutdown["cancel_futures"].default, shutdown["cancel_futures"].kind) == (
        False,
        inspect.Parameter.KEYWORD_ONLY,
    )
    mapped = inspect.signature(ResilientPool.map).parameters
    assert [mapped[name].default for name in ("timeout", "chunksize", "buffersize")] == [None, 1, None]
    assert mapped["timeout"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("workers", [0, -1])
def test_max_workers_below_one_is_refused_in_the_standard_librarys_words(workers):
    with pytest.raises(ValueError, match=f"max_workers must be greater than 0, got {workers}"):
        ResilientPool(max_workers=workers)


@pytest.mark.parametrize("chunksize", [0, -3])
def test_a_chunksize_below_one_is_refused_at_once(pool, chunksize):
    with pytest.raises(ValueError, match=f"chunksize must be >= 1, got {chunksize}"):
        pool.map(tasks.same, range(3), chunksize=chunksize)


def test_max_workers_is_kept_as_an_int_where_clients_look_for_it(make_pool):
    assert make_pool(3)._max_workers == 3
    assert type(make_pool()._max_workers) is int
    assert make_pool()._max_workers >= 1


def test_a_pool_and_a_future_take_attributes(lone):
    lone.note_of_mine = 1
    future = lone.submit(tasks.same, 1)
    future.note_of_mine = 2
    assert (lone.note_of_mine, future.note_of_mine, future.result(60)) == (1, 2, 1)


def test_a_pool_is_an_executor_and_its_futures_are_futures(warm):
    assert isinstance(warm, concurrent.futures.Executor)
    assert isinstance(warm.submit(tasks.same, 1), concurrent.futures.Future)


@pytest.mark.parametrize(("chunksize", "calls"), [(1, 6), (4, 2)])
def test_map_goes_through_the_submit_that_the_pool_has_now(pool, chunksize, calls):
    submit, seen = pool.submit, []

    def counting(fn, /, *args, **kwargs):
        seen.append(fn)
        return submit(fn, *args, **kwargs)

    pool.submit = counting
    assert list(pool.map(tasks.double, range(6), chunksize=chunksize)) == [0, 2, 4, 6, 8, 10]
    assert len(seen) == calls


def test_map_takes_several_iterables_and_ends_with_the_shortest(pool):
    assert list(pool.map(pow, [2, 3, 4], itertools.count(1))) == [2, 9, 64]
    assert list(pool.map(tasks.same, [])) == []
    assert list(pool.map(tasks.echo)) == []


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 50])
def test_map_gives_values_in_order_whatever_the_chunks(pool, chunksize):
    assert list(pool.map(divmod, range(20), itertools.repeat(7), chunksize=chunksize)) == [
        divmod(number, 7) for number in range(20)
    ]


def test_a_chunk_is_called_by_the_name_of_the_users_function(lone):
    with pytest.raises(TaskTimeout, match=r"\(hang\)"):
        list(lone.options(timeout=0.2, retry=1).map(tasks.hang, range(2), chunksize=2))


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "Event", "Queue"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_initargs_may_hold_what_multiprocessing_shares(make_pool, method, kind):
    shared = getattr(multiprocessing.get_context(method), kind)()
    pool = make_pool(1, initializer=tasks.initialize, initargs=(None, shared))
    if kind in ("Lock", "RLock", "Semaphore"):
        assert pool.submit(tasks.use_lock).result(60) == "held"
    else:
        assert pool.submit(tasks.initialized).result(60) == 1
    if kind == "Queue":
        shared.close()


def test_a_shared_lock_among_initargs_reaches_a_worker_that_replaces_a_dead_one(make_pool):
    lock = multiprocessing.get_context("spawn").Lock()
    pool = make_pool(1, initializer=tasks.initialize, initargs=(None, lock), retry=1)
    assert isinstance(pool.submit(tasks.kill_self).exception(60), WorkerDied)
    assert pool.submit(tasks.use_lock).result(60) == "held"


def test_a_lock_that_only_fork_can_share_is_refused_in_words(make_pool):
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(NotSendable, match="fork"):
        make_pool(1, initializer=tasks.initialize, initargs=(None, lock))


def test_a_lock_as_an_argument_of_a_task_cannot_travel(warm):
    lock = multiprocessing.get_context("spawn").Lock()
    error = warm.submit(tasks.same, lock).exception(60)
    assert isinstance(error, NotSendable)
    assert "argument 1" in str(error)


def test_initargs_may_be_any_iterable_also_one_that_is_read_only_once(make_pool, tmp_path):
    path = tmp_path / "begun"
    pool = make_pool(1, initializer=tasks.initialize, initargs=iter([str(path)]), max_tasks_per_worker=1)
    assert [pool.submit(tasks.initialized).result(60) for _ in range(3)] == [1, 1, 1]
    assert len(lines(path)) >= 3


# -- map -----------------------------------------------------------------------------------------------------------


def test_map_submits_all_before_the_first_value_is_asked_for(warm, tmp_path):
    path = tmp_path / "begun"
    values = warm.map(tasks.note, itertools.repeat(str(path)), range(5))
    wait_lines(path, 5)
    assert list(values) == [0, 1, 2, 3, 4]


def test_what_waits_is_cancelled_when_maps_timeout_strikes(lone, tmp_path):
    go, path = str(tmp_path / "go"), str(tmp_path / "begun")
    values = lone.map(tasks.meet, itertools.repeat(path), itertools.repeat(go), range(4), timeout=0.2)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(values)
    tasks.note(go, "now")
    lone.shutdown()
    assert len(lines(path)) <= 1


def test_maps_timeout_counts_from_the_call_and_spares_what_is_there(lone, tmp_path):
    values = lone.map(tasks.wait_for, [tmp_path, tmp_path, tmp_path / "never"], [60, 60, 2], timeout=60)
    assert [next(values), next(values)] == [None, None]
    values.close()
    late = lone.map(tasks.wait_for, [tmp_path / "never"], [3], timeout=0.05)
    with pytest.raises(TimeoutError):
        list(late)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_what_waits_is_cancelled_when_the_iterator_ends_early(lone, tmp_path, how):
    go, path = str(tmp_path / "go"), str(tmp_path / "begun")
    plan = ["value", "wait", "value", "value"]
    values = lone.map(tasks.plan_of_map, itertools.repeat(path), itertools.repeat(go), plan)
    assert next(values) == "value"
    wait_lines(path, 2)
    if how == "closed":
        values.close()
    else:
        del values
    tasks.note(go, "now")
    lone.shutdown()
    assert lines(path) == ["value", "wait"]


def test_a_map_whose_values_nobody_asks_for_runs_all_the_same(lone, tmp_path):
    """As in the standard library: ``with pool: pool.map(work, items)`` is a common way to use a pool."""
    path = str(tmp_path / "begun")
    lone.map(tasks.note, itertools.repeat(path), range(5))
    lone.shutdown()
    assert lines(path) == ["0", "1", "2", "3", "4"]


def test_an_error_of_one_call_ends_map_there_and_cancels_the_rest(lone, tmp_path):
    path, go = str(tmp_path / "begun"), str(tmp_path / "go")
    values = lone.map(
        tasks.plan_of_map, itertools.repeat(path), itertools.repeat(go), ["value", "raise", "wait", "value"]
    )
    assert next(values) == "value"
    with pytest.raises(ValueError, match="planned"):
        next(values)
    wait_lines(path, 3)
    tasks.note(go, "now")
    assert list(values) == []
    lone.shutdown()
    assert len(lines(path)) == 3


def test_map_reads_an_endless_input_only_as_far_ahead_as_buffersize(warm):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    values = warm.map(tasks.double, endless(), buffersize=3)
    assert len(taken) == 3
    assert [next(values) for _ in range(10)] == [2 * number for number in range(10)]
    assert len(taken) <= 10 + 3
    values.close()


@pytest.mark.parametrize("buffersize", [1, 2, 10])
def test_map_with_a_buffer_gives_all_values_in_order(pool, buffersize):
    assert list(pool.map(tasks.double, range(7), buffersize=buffersize)) == [0, 2, 4, 6, 8, 10, 12]
    assert list(pool.map(tasks.double, range(7), buffersize=buffersize, chunksize=2)) == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("buffersize", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_a_wrong_buffersize_is_refused_by_name(pool, buffersize, error):
    with pytest.raises(error, match=r"buffersize.*got"):
        pool.map(tasks.double, [1], buffersize=buffersize)


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CannotBePickled", "ExitsWhenPickled"])
@pytest.mark.parametrize("where", ["positional", "keyword", "function"])
def test_a_call_that_cannot_be_pickled_is_an_error_in_the_future(warm, name, where):
    odd = tasks.make(name)
    if where == "positional":
        future = warm.submit(tasks.echo, 1, odd)
    elif where == "keyword":
        future = warm.submit(tasks.echo, odd=odd)
    else:
        odd.__class__ = type(name, (type(odd),), {"__call__": lambda self: None})
        future = warm.submit(odd)
    error = future.exception(60)
    assert isinstance(error, NotSendable)
    assert {"positional": "argument 2", "keyword": "argument 'odd'", "function": "the function"}[where] in str(error)
    assert isinstance(error.__cause__, SystemExit if name == "ExitsWhenPickled" else ValueError)
    assert future.attempts == 0
    assert warm.submit(tasks.same, 5).result(60) == 5


def test_the_error_of_a_call_that_cannot_be_pickled_shows_the_callers_line(warm):
    future = warm.submit(tasks.echo, tasks.CannotBePickled())  # this very line
    text = "".join(traceback.format_exception(future.exception(60)))
    assert "this very line" in text
    assert "__reduce__" in text


@pytest.mark.parametrize("name", ["CannotBeUnpickled", "ExitsWhenUnpickled"])
def test_a_call_that_cannot_be_unpickled_is_an_error_in_the_future(warm, name):
    before = warm.submit(tasks.pid).result(60)
    assert warm.submit(tasks.echo, tasks.make(name)).exception(60) is not None
    assert warm.submit(tasks.pid).result(60) == before


def test_a_call_that_kills_the_worker_as_it_is_unpickled_is_charged(make_pool):
    pool = make_pool(1, retry=1)
    error = pool.submit(tasks.echo, tasks.DiesWhenUnpickled()).exception(60)
    assert isinstance(error, WorkerDied)
    assert error.exitcode == 9
    assert pool.submit(tasks.same, 5).result(60) == 5


@pytest.mark.parametrize("name", ["CannotBePickled", "CannotBeUnpickled"])
def test_a_result_that_cannot_travel_is_an_error_that_names_its_type(warm, name):
    before = warm.submit(tasks.pid).result(60)
    error = warm.submit(tasks.make, name).exception(60)
    assert isinstance(error, NotSendable)
    assert name in str(error)
    assert "not to be" in str(error)
    assert warm.submit(tasks.pid).result(60) == before


@pytest.mark.parametrize("name", ["ExitsWhenPickled", "ExitsWhenUnpickled", "RaisesInParent", "ExitsInParent"])
def test_a_result_that_raises_or_exits_on_its_way_harms_only_its_task(warm, name):
    before = warm.submit(tasks.pid).result(60)
    assert warm.submit(tasks.make, name).exception(60) is not None
    assert warm.submit(tasks.pid).result(60) == before


@pytest.mark.parametrize("name", ["DiesWhenPickled", "DiesWhenUnpickled"])
def test_a_result_that_kills_on_its_way_kills_its_worker_and_not_the_parent(make_pool, name):
    pool = make_pool(1, retry=1)
    assert isinstance(pool.submit(tasks.make, name).exception(60), WorkerDied)
    assert pool.submit(tasks.same, 5).result(60) == 5


def test_an_exception_that_needs_a_keyword_comes_back_whole(warm):
    error = warm.submit(tasks.raise_needs_keyword).exception(60)
    assert type(error) is tasks.NeedsKeyword
    assert (error.args, error.code, error.detail) == (("code 7",), 7, {"a": [1]})


def test_an_exception_that_is_a_frozen_dataclass_comes_back_whole(warm):
    error = warm.submit(tasks.raise_frozen).exception(60)
    assert type(error) is tasks.FrozenError
    assert (error.code, error.text) == (3, "frozen")
    assert "raise_frozen" in str(error.__cause__)
    with pytest.raises(tasks.FrozenError):
        warm.submit(tasks.raise_frozen).result(60)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (tasks.raise_holds_a_lock, "HoldsALock"),
        (tasks.raise_breaks, "BreaksWhenUnpickled"),
        (tasks.raise_dies, "DiesAsItIsUnpickled"),
        (tasks.raise_bad_text, "BadText"),
    ],
)
def test_an_exception_that_cannot_travel_arrives_as_an_error_and_breaks_nothing(lone, fn, said):
    before = lone.submit(tasks.pid).result(60)
    error = lone.submit(fn).exception(60)
    assert error is not None
    assert said in type(error).__name__ + str.__str__(error.args[0] if error.args else "")
    assert lone.submit(tasks.pid).result(60) == before


def test_an_exception_of_a_local_class_comes_back_with_its_args(warm):
    error = warm.submit(tasks.raise_local).exception(60)
    assert type(error).__name__ == "Local"
    assert error.args == ("local", 1)


def test_args_stay_as_they_are_and_the_remote_traceback_is_the_cause(warm):
    error = warm.submit(tasks.raise_from).exception(60)
    assert type(error) is ValueError
    assert error.args == ("outer", 2)
    remote = str(error.__cause__)
    assert "raise_from" in remote
    assert "KeyError: 'inner'" in remote
    assert "direct cause" in remote
    assert "resilient_exec" not in remote, "the traceback begins with the user's code"


def test_notes_and_groups_come_back(warm):
    assert warm.submit(tasks.raise_with_note).exception(60).__notes__ == ["a note"]
    group = warm.submit(tasks.raise_group).exception(60)
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
        pool.submit(tasks.same, tasks.CannotBePickled()),
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
        (tasks.fail_to_initialize, (SystemExit("enough"),), "SystemExit"),
        (tasks.fail_to_initialize, (KeyboardInterrupt("stop"),), "KeyboardInterrupt"),
        (tasks.exit_in_initializer, (), "SystemExit"),
        (tasks.die_in_initializer, (), "its initializer did not return"),
    ],
)
def test_a_failing_initializer_breaks_the_pool_after_three_starts_and_in_its_own_words(
    make_pool, tmp_path, fn, args, said
):
    path = tmp_path / "starts"
    pool = make_pool(1, initializer=fn, initargs=(str(path), *args))
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
    pool = make_pool(1, initializer=tasks.hang_in_initializer, initargs=(str(path),), start_timeout=2)
    error = pool.submit(tasks.same, 1).exception(60)
    assert isinstance(error, PoolBroken)
    assert "took too long" in str(error)
    pool.shutdown()


def test_an_initializer_that_does_not_unpickle_breaks_the_pool(make_pool):
    pool = make_pool(1, initializer=tasks.echo, initargs=(tasks.CannotBeUnpickled(),))
    error = pool.submit(tasks.same, 1).exception(60)
    assert isinstance(error, PoolBroken)
    assert "not to be unpickled" in str(error)


def test_an_initializer_that_does_not_pickle_is_refused(make_pool):
    with pytest.raises(NotSendable, match="not to be pickled"):
        make_pool(1, initializer=tasks.echo, initargs=(tasks.CannotBePickled(),))


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
        pool.submit(tasks.same, tasks.CannotBePickled()).exception(60)
    assert [record.getMessage() for record in caplog.records] == []


def test_the_parents_path_and_directory_are_the_workers(warm):
    assert warm.submit(os.getcwd).result(60) == os.getcwd()
    assert warm.submit(tasks.sys_path).result(60)[: len(sys.path)] == sys.path or until(
        lambda: set(sys.path) <= set(warm.submit(tasks.sys_path).result(60)), 1
    )


def test_a_function_of_main_a_lambda_and_a_closure_travel_by_value(warm):
    number = 5
    assert warm.submit(lambda: number + 1).result(60) == 6

    def closure(value):
        return value * number

    assert list(warm.map(closure, range(3))) == [0, 5, 10]
    assert threading.current_thread() is threading.main_thread()


def test_retries_are_for_deaths_and_timeouts_and_not_for_exceptions_unless_asked(warm):
    assert warm.submit(tasks.plan_by_attempt, ["raise"]).exception(60).args == ("attempt 1",)
    asked = warm.options(retry=RetryPolicy(errors=1))
    assert asked.submit(tasks.plan_by_attempt, ["raise"]).result(60) == 2
