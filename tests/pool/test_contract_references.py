"""What it takes to be an Executor: nobody holds on to arguments, results or futures (point 15 of the contract)."""

from __future__ import annotations

import gc
import threading
import weakref

import pool_tasks as tasks
import pytest
from pool_wait import is_freed, until


def test_an_argument_is_not_kept_while_its_task_waits_or_when_it_is_done(warm):
    thing = tasks.Referred()
    ref = weakref.ref(thing)
    future = warm.submit(tasks.remember, thing)
    del thing
    assert is_freed(ref), "the call is pickled at once: what it was made of is not needed any more"
    future.result(60)


def test_the_object_of_a_bound_method_is_not_kept_though_the_future_is_discarded(warm):
    thing = tasks.Referred()
    ref = weakref.ref(thing)
    warm.submit(thing.method)
    del thing
    assert is_freed(ref)


def test_a_result_is_not_kept_when_its_future_is_dropped(warm):
    future = warm.submit(tasks.make_referred)
    ref = weakref.ref(future.result(60))
    assert ref() is not None
    del future
    assert is_freed(ref)


def test_a_discarded_future_and_its_result_go_away_though_the_pool_idles(warm):
    refs, done = [], threading.Event()

    def look(future):
        refs.extend([weakref.ref(future), weakref.ref(future.result())])
        done.set()

    warm.submit(tasks.make_referred).add_done_callback(look)
    assert done.wait(60)
    assert all(is_freed(ref) for ref in refs)


def test_an_exception_is_not_kept_when_its_future_is_dropped(warm):
    future = warm.submit(tasks.remember, tasks.Referred(), fail=True)
    ref = weakref.ref(future.exception(60))
    thing = weakref.ref(future.exception().args[0])
    del future
    assert is_freed(ref)
    assert is_freed(thing)


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("buffersize", [None, 2])
def test_the_iterator_of_map_does_not_keep_the_value_that_it_has_given(warm, chunksize, buffersize):
    count = 0
    for thing in warm.map(tasks.make_referred, range(7), chunksize=chunksize, buffersize=buffersize):
        ref = weakref.ref(thing)
        del thing
        assert is_freed(ref)
        count += 1
    assert count == 7


def test_the_iterator_of_settled_does_not_keep_the_value_that_it_has_given(warm):
    count = 0
    for done in warm.settled(tasks.make_referred, range(7)):
        ref = weakref.ref(done.value)
        del done
        assert is_freed(ref)
        count += 1
    assert count == 7


def test_a_failed_result_of_map_leaves_no_cycle_behind(warm):
    """``result()`` raises through frames that hold the future: they must not keep it alive until a collection."""
    gc.collect()
    gc.disable()
    try:
        values = warm.map(tasks.raise_, [tasks.OwnError(1)])
        refs = []
        try:
            next(values)
        except tasks.OwnError as error:
            refs.append(weakref.ref(error))
        del values
        until(lambda: refs[0]() is None, 20, "the exception is in a cycle")
    finally:
        gc.enable()


def test_the_worker_keeps_neither_arguments_nor_results_nor_exceptions(warm):
    before = warm.submit(tasks.remembered).result(60)
    assert before == 0
    warm.submit(tasks.remember, tasks.Referred()).result(60)
    warm.submit(tasks.remember, tasks.Referred(), give_back=True).result(60)
    warm.submit(tasks.remember, tasks.Referred(), fail=True).exception(60)
    assert warm.submit(tasks.remembered).result(60) == 0


def test_nothing_is_kept_of_tasks_that_were_tried_again(make_pool):
    """A buffer for another attempt is needed only until the task has settled."""
    pool = make_pool(1)
    future = pool.submit(tasks.die_until_and_make, 2, tasks.Referred())
    ref = weakref.ref(future.result(60))
    assert future.attempts == 2
    del future
    assert is_freed(ref)
    assert pool._supervisor.core._records == {}


def test_a_dropped_pool_with_an_idle_worker_goes_away(make_pool):
    from resilient_exec import ResilientPool

    pool = ResilientPool(1)
    pid = pool.submit(tasks.pid).result(60)
    ref, supervisor = weakref.ref(pool), pool._supervisor
    del pool
    assert is_freed(ref)
    assert supervisor.ended.wait(60)
    assert not tasks.alive(pid)
