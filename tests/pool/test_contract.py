"""What it takes to be an Executor: signatures, arguments and ``map`` (points 1 to 3; the others: the files beside).

Collected by running CPython's, loky's and other pools' own tests, real clients and random programs against several
pools; each test is named after the fact that some pool gets wrong.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import multiprocessing

import pool_tasks as tasks
import pytest
from pool_wait import lines, wait_lines

from resilient_exec import (
    NotSendable,
    ResilientPool,
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


@pytest.mark.parametrize("chunksize", ["3", [1], 1.5, float("nan"), True])
def test_a_chunksize_that_is_no_number_is_refused_in_words(warm, chunksize):
    with pytest.raises(TypeError, match="chunksize must be a whole number of calls per task, 1 or more, or None"):
        warm.map(tasks.same, [1], chunksize=chunksize)


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


@pytest.mark.parametrize(
    ("method", "kind"),
    [("spawn", "Lock"), ("spawn", "Queue"), ("forkserver", "RLock"), ("forkserver", "Semaphore"), ("spawn", "Event")],
)
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
    tasks.note(go, "now")
    assert list(values) == []
    lone.shutdown()
    assert len(lines(path)) in (2, 3)  # the third may have begun before it was cancelled


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
