"""Real clients of an Executor: asyncio, concurrent.futures' own functions, tqdm, joblib."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import threading

import pool_tasks as tasks
import pytest
from pool_wait import lines, wait_lines

from resilient_exec import ResilientPool, TaskTimeout, WorkerDied

# -- asyncio -------------------------------------------------------------------------------------------------------


def test_asyncio_runs_tasks_in_it(warm):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(warm, tasks.double, number) for number in range(20)))

    assert asyncio.run(main()) == [2 * number for number in range(20)]


def test_asyncio_gets_the_errors(make_pool):
    pool = make_pool(1, retry=1)

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(WorkerDied):
            await loop.run_in_executor(pool, tasks.kill_self)
        with pytest.raises(TaskTimeout):
            await asyncio.wrap_future(pool.options(timeout=0.2).submit(tasks.hang))
        with pytest.raises(ValueError):
            await asyncio.wrap_future(pool.submit(tasks.raise_, ValueError(1)))
        return await asyncio.wrap_future(pool.submit(tasks.same, 5))

    assert asyncio.run(main()) == 5


def test_asyncio_cancels_what_waits(lone, tmp_path):
    go, here, path = str(tmp_path / "go"), str(tmp_path / "here"), str(tmp_path / "ran")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)

    async def main():
        future = lone.submit(tasks.note, path, 1)
        waiter = asyncio.wrap_future(future)
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        return future

    future = asyncio.run(main())
    tasks.note(go, "now")
    blocker.result(60)
    lone.shutdown()
    assert future.cancelled()
    assert lines(path) == []


# -- concurrent.futures ----------------------------------------------------------------------------------------------


def test_wait_tells_the_first_the_failed_and_all(pool, tmp_path):
    go = str(tmp_path / "go")
    slow, quick = pool.submit(tasks.wait_for, go), pool.submit(tasks.same, 1)
    done, not_done = concurrent.futures.wait([slow, quick], 60, return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    failed = pool.submit(tasks.raise_, ValueError(1))
    done, not_done = concurrent.futures.wait([slow, failed], 60, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, not_done) == ({failed}, {slow})
    assert concurrent.futures.wait([slow], 0.05) == (set(), {slow})
    tasks.note(go, "now")
    assert concurrent.futures.wait([slow, quick, failed], 60) == ({slow, quick, failed}, set())


def test_as_completed_gives_each_as_it_is_done(pool, tmp_path):
    go = str(tmp_path / "go")
    slow, quick = pool.submit(tasks.wait_for, go), pool.submit(tasks.same, 1)
    completed = concurrent.futures.as_completed([slow, quick, quick], 60)
    assert next(completed) is quick
    tasks.note(go, "now")
    assert list(completed) == [slow]
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([pool.submit(tasks.wait_for, str(tmp_path / "never"), 1)], 0.05))


def test_a_result_may_be_waited_for_with_a_timeout_and_asked_for_again(lone, tmp_path):
    go = str(tmp_path / "go")
    future = lone.submit(tasks.wait_for, go)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    with pytest.raises(TimeoutError):
        future.exception(0.05)
    tasks.note(go, "now")
    assert future.result(60) is None
    assert future.exception() is None


def test_futures_of_several_pools_may_be_waited_for_together(make_pool):
    futures = [make_pool(1).submit(tasks.same, number) for number in range(3)]
    assert {future.result() for future in concurrent.futures.as_completed(futures, 60)} == {0, 1, 2}


def test_an_executor_in_a_thread_may_use_it(warm):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda number: warm.submit(tasks.double, number).result(60), range(20)))
    assert values == [2 * number for number in range(20)]


# -- tqdm ----------------------------------------------------------------------------------------------------------


def test_tqdms_own_map_over_executors_works(monkeypatch):
    """``process_map`` makes the executor itself and maps through it, with chunks."""
    tqdm = pytest.importorskip("tqdm.contrib.concurrent")
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", made_as_tqdm_does)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # no thread of tqdm's own
    values = tqdm.process_map(tasks.double, range(30), max_workers=2, chunksize=4, file=io.StringIO())
    assert values == [2 * number for number in range(30)]


def made_as_tqdm_does(max_workers=None, initializer=None, initargs=()):
    """tqdm gives its write lock, of the fork context, to an initializer of its own: it is for other start methods."""
    return ResilientPool(max_workers)


def test_a_progress_bar_that_replaces_submit_sees_every_task_of_a_map(pool):
    """As tqdm's users do it: ``submit`` is wrapped on the object, and ``map`` must go through it."""
    counted, submit, lock = [], pool.submit, threading.Lock()

    def submit_with_bar(fn, /, *args, **kwargs):
        future = submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: lock.__enter__() and (counted.append(1), lock.__exit__(None, None, None)))
        return future

    pool.submit = submit_with_bar
    assert list(pool.map(tasks.double, range(25))) == [2 * number for number in range(25)]
    pool.shutdown()
    assert len(counted) == 25


# -- joblib --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joblib():
    joblib = pytest.importorskip("joblib")
    from joblib.externals.loky.backend.resource_tracker import ensure_running

    ensure_running()  # its own tracker lives as long as this process: no test has left it
    return joblib


def test_joblib_may_run_over_it_through_a_backend_of_its_own(joblib, pool):
    """The few lines that joblib documents for a backend over an executor."""
    from joblib._parallel_backends import ParallelBackendBase

    class Backend(ParallelBackendBase):
        supports_retrieve_callback = True

        def effective_n_jobs(self, n_jobs):
            return pool._max_workers

        def submit(self, func, callback=None):
            future = pool.submit(func)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        apply_async = submit

        def retrieve_result_callback(self, out):
            return out.result()

        def get_exceptions(self):
            return ()

    joblib.register_parallel_backend("resilient-for-test", lambda **_: Backend())
    with joblib.parallel_config(backend="resilient-for-test", n_jobs=2):
        values = joblib.Parallel()(joblib.delayed(tasks.double)(number) for number in range(30))
    assert values == [2 * number for number in range(30)]
