"""A pool's first task: what is imported before it, beside it, and what happens to who comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pool_limits as limits
import pool_tasks as tasks
import pytest

import resilient_exec.pool.engine
from resilient_exec import PoolClosed, ResilientPool
from resilient_exec.core.states import Limits

POOL = "from resilient_exec import ResilientPool; from resilient_exec.lane.forkserver_client import Forking"
FORKSERVER = "from resilient_exec.worker import forkserver, script"
# What these need of the standard library in any case.
POOLS_NEEDS = "import concurrent.futures, subprocess, socket, queue, heapq, weakref, numbers, pickle, mmap, zlib"
FORKSERVERS_NEEDS = "import multiprocessing.resource_tracker, ctypes, traceback, faulthandler, resource, mmap, zlib"
SAY = "import sys; print(*sys.modules)"


def imported_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {SAY}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "needs", "most"),
    [(POOL, POOLS_NEEDS, 31), (FORKSERVER, FORKSERVERS_NEEDS, 36)],
    ids=["the program", "the forkserver"],
)
def test_what_is_imported_on_the_way_of_every_first_result_is_little(code, needs, most):
    """Each module takes 0.1 to 3 ms of it: see docs/performance.md.  `typing` is under TYPE_CHECKING here."""
    found, needed = imported_by(code), imported_by(needs)
    ours = {name for name in found if name.startswith("resilient_exec")}
    assert len(ours) <= most
    dear = {"typing", "dataclasses", "inspect", "ast", "json", "hashlib", "random", "tempfile", "difflib", "asyncio"}
    dear |= {"logging", "concurrent.futures", "multiprocessing", "loky", "cloudpickle", "tenacity", "psutil"}
    assert not (found - needed) & dear
    assert len(found - needed - ours) <= 4


def test_until_there_is_a_task_a_pool_has_no_thread_no_process_and_no_supervisor():
    threads = set(threading.enumerate())
    with ResilientPool(2, timeout=60, retry=3, seed=7, logs="forward") as pool:
        view = pool.options(timeout=3, key="one")
        assert "0 pending, 0 running" in repr(pool)
        assert "timeout=3" in repr(view)
        snapshot = pool.snapshot()
        assert (snapshot["lanes"], snapshot["pending"], str(snapshot)) == ([], 0, "0 pending, 0 running")
        assert pool._engine is None
        assert set(threading.enumerate()) == threads
    assert "ended" in repr(pool)
    assert pool.snapshot()["done"] == 0
    with pytest.raises(PoolClosed):
        pool.submit(tasks.pid)


def test_the_options_of_a_pool_hold_for_its_first_task(make_pool):
    assert make_pool(1, timeout=60).submit(limits.time_left).result(60) <= 60
    error = make_pool(1, retry=1).submit(tasks.kill_self).exception(60)
    assert error.attempt == 1


def test_the_forkserver_imports_what_a_script_names_of_this_package_and_no_worker_does(start_script):
    script = start_script("""
        import sys

        before = {name for name in sys.modules if name.startswith("resilient_exec")}
        from resilient_exec import ResilientPool, RetryPolicy, Settled
        new = {name for name in sys.modules if name.startswith("resilient_exec")} - before

        def imported_here():
            return sorted(new)

        if __name__ == "__main__":
            with ResilientPool(1, retry=RetryPolicy(deaths=1)) as pool:
                print(pool.submit(imported_here).result(60))
    """)
    assert script.wait(100) == 0, script.err
    assert script.out.strip() == "[]"


@pytest.mark.parametrize("forkserver", [True, False])
def test_preloaded_takes_the_wait_from_the_first_submit(make_pool, forkserver):
    pool = make_pool(1, forkserver=forkserver)
    assert pool.preloaded() == (() if forkserver else None)
    assert pool._engine is not None
    assert pool.submit(tasks.same, 1).result(60) == 1


def test_threads_that_submit_the_first_tasks_at_the_same_time_share_one_supervisor(make_pool):
    pool, barrier, values = make_pool(2), threading.Barrier(6), []

    def submit(number):
        barrier.wait()
        values.append(pool.submit(tasks.same, number).result(60))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(6))
    assert len([one for one in threading.enumerate() if one.name == "resilient-supervisor"]) == 1


def test_a_signals_handler_that_submits_during_the_first_submit_gets_its_result(start_script):
    """It can neither wait for the thread that it has interrupted, nor import what that is just importing."""
    script = start_script("""
        import signal
        from resilient_exec import ResilientPool

        futures = []

        def handler(*_):
            futures.append(pool.submit(abs, -3))

        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                signal.signal(signal.SIGALRM, handler)
                signal.setitimer(signal.ITIMER_REAL, 0.002, 0.003)
                first = pool.submit(abs, -7)
                signal.setitimer(signal.ITIMER_REAL, 0)
                print(first.result(60), {future.result(60) for future in futures})
    """)
    assert script.wait(100) == 0, script.err
    assert script.out.split() == ["7", "{3}"]


def test_ctrl_c_during_the_first_submit_leaves_a_pool_that_works(make_pool, monkeypatch):
    pool, go_on = make_pool(1), threading.Event()
    make = ResilientPool._make

    def slowly(self, **how):
        go_on.wait(60)
        return make(self, **how)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResilientPool, "_make", slowly)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(tasks.pid)
    finally:
        signal.signal(signal.SIGALRM, before)
    go_on.set()
    assert pool.submit(tasks.same, 1).result(60) == 1
    assert pool.snapshot()["done"] == 1


def test_shutdown_during_the_first_submit_of_another_thread_leaves_nothing(monkeypatch):
    pool, go_on, is_inside, found = ResilientPool(1), threading.Event(), threading.Event(), []
    make = ResilientPool._make

    def slowly(self, **how):
        is_inside.set()
        engine = make(self, **how)
        go_on.wait(60)
        return engine

    def submit():
        try:
            found.append(pool.submit(tasks.same, 1))
        except PoolClosed as error:
            found.append(error)

    monkeypatch.setattr(ResilientPool, "_make", slowly)
    submitter = threading.Thread(target=submit)
    submitter.start()
    is_inside.wait(60)
    ender = threading.Thread(target=pool.shutdown)
    ender.start()
    while not pool._shut:
        time.sleep(0.001)
    go_on.set()
    for thread in (ender, submitter):
        thread.join(60)
        assert not thread.is_alive()
    assert [type(one) for one in found] == [PoolClosed]
    assert pool._engine.supervisor.ended.is_set()


def test_a_first_task_that_finds_no_descriptor_left_is_refused_and_the_next_one_runs(make_pool, monkeypatch):
    pool = make_pool(1)

    def refuse(**_):
        raise OSError("no descriptor left")

    with monkeypatch.context() as patch:
        patch.setattr(resilient_exec.pool.engine, "Limits", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="no descriptor left"):
                pool.submit(tasks.pid)
    assert resilient_exec.pool.engine.Limits is Limits
    assert pool.submit(tasks.same, 1).result(60) == 1


def test_a_pool_whose_first_task_was_refused_leaves_no_process(monkeypatch):
    def refuse(**_):
        raise OSError("no descriptor left")

    monkeypatch.setattr(resilient_exec.pool.engine, "Limits", refuse)
    pool = ResilientPool(1)
    with pytest.raises(OSError, match="no descriptor left"):
        pool.submit(tasks.pid)
    pool.shutdown()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads: that is tested here
def test_a_child_that_is_forked_behind_the_first_submit_may_import_whatever_it_likes(start_script):
    """What another thread was importing at the fork could never be imported in the child."""
    script = start_script("""
        import os, sys, warnings
        from resilient_exec import ResilientPool

        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            with ResilientPool(2) as pool:
                future = pool.submit(abs, -7)
                before = set(sys.modules)
                child = os.fork()
                if child == 0:
                    import dataclasses, tempfile, multiprocessing.util, resilient_exec.lane.lane
                    os._exit(0)
                print(os.waitpid(child, 0)[1], future.result(60))
                # All that the first task needs was there when submit returned.
                print(sorted(name for name in set(sys.modules) - before if name.startswith("resilient_exec")))
    """)
    assert script.wait(100) == 0, script.err
    assert script.out.splitlines() == ["0 7", "[]"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused_an_unused_pool_as_well(make_pool):
    pool = make_pool(1)
    child = os.fork() if threading.active_count() == 1 else None
    if child == 0:
        try:
            pool.submit(abs, -7)
        except PoolClosed:
            os._exit(0)
        os._exit(1)
    if child is not None:
        assert os.waitpid(child, 0)[1] == 0
    assert pool.submit(tasks.same, 1).result(60) == 1
