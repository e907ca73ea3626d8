"""What it takes to be an Executor: after shutdown, at exit, children, crashes (points 12, 13, 16, 17)."""

from __future__ import annotations

import os
import signal
import weakref

import pool_tasks as tasks
import pytest
from pool_wait import is_freed, lines, replaces_workers_at_exit, until, wait_lines

from resilient_exec import PoolClosed, ResilientPool, WorkerDied

# -- no more tasks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False])
def test_a_pool_that_was_shut_down_takes_no_more_tasks(make_pool, used):
    pool = make_pool(1)
    if used:
        assert pool.submit(tasks.same, 1).result(60) == 1
    pool.shutdown()
    for call in (
        lambda: pool.submit(tasks.same, 1),
        lambda: pool.options(timeout=5).submit(tasks.same, 1),
        lambda: pool.map(tasks.same, [1]),
        lambda: next(pool.settled(tasks.same, [1])),
    ):
        with pytest.raises(PoolClosed, match="cannot schedule new futures after shutdown") as caught:
            call()
        assert isinstance(caught.value, RuntimeError)


def test_a_task_that_comes_in_just_behind_the_end_settles_with_pool_closed(make_pool, monkeypatch):
    """A thread found the pool open, and was held up before it handed its task over."""
    pool = make_pool(1)
    pool.submit(tasks.same, 1).result(60)
    monkeypatch.setattr(pool, "_check_open", lambda: None)
    pool.shutdown()
    error = pool.submit(tasks.same, 2).exception(60)
    assert isinstance(error, PoolClosed)
    assert "bug" not in str(error)


def test_a_fork_of_this_process_cannot_use_the_pool_and_exits_undisturbed(start_script):
    script = start_script("""
        import multiprocessing, os, sys, warnings
        from resilient_exec import PoolClosed, ResilientPool
        warnings.simplefilter("ignore")  # that forking with threads is dangerous

        def child(pool):
            try:
                pool.submit(os.getpid)
            except PoolClosed as error:
                print("closed" if "fork" in str(error) else error, flush=True)
            pool.shutdown()
            with ResilientPool(1) as own:
                print("own", own.submit(abs, -3).result(60), flush=True)

        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                pool.submit(os.getpid).result()
                process = multiprocessing.get_context("fork").Process(target=child, args=(pool,))
                process.start()
                process.join(60)
                print("child", process.exitcode, flush=True)
                if process.exitcode is None:
                    process.kill()
                pid = os.fork()
                if pid == 0:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # CPython's own hooks complain in a forked child
                    sys.exit(4)
                print("fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                print("parent", pool.submit(abs, -5).result(60), flush=True)
    """)
    assert script.wait() == 0
    assert script.out.splitlines() == ["closed", "own 3", "child 0", "fork 4", "parent 5"]
    assert script.err == ""


# -- at exit -------------------------------------------------------------------------------------------------------

AT_EXIT = """
    import atexit, os
    {before}
    from resilient_exec import ResilientPool
    from pool_tasks import note, wait_for, same
    import time

    if __name__ == "__main__":
        pool = ResilientPool(2{arguments})
        {body}
"""


def at_exit(start_script, body, before="", arguments=""):
    text = AT_EXIT.format(body=body.replace("\n", "\n        "), before=before, arguments=arguments)
    return start_script(text)


@pytest.mark.parametrize(
    "ending",
    ["pass", "pool.shutdown(wait=False)", "del pool", "raise SystemExit(0)", "pool = None"],
)
def test_pending_work_ends_at_the_exit_of_the_interpreter(start_script, ending):
    """Also what no worker has been started for yet when the main thread ends."""
    script = at_exit(start_script, f"for number in range(6):\n    pool.submit(note, 'ran', number)\n{ending}")
    assert script.wait() == 0
    assert sorted(lines(script.folder / "ran")) == ["0", "1", "2", "3", "4", "5"]
    assert script.err == ""


@replaces_workers_at_exit
def test_deaths_retries_timeouts_and_callbacks_still_work_at_exit(start_script):
    """A worker has to be replaced, and threads to be started, when the interpreter is on its way out."""
    script = at_exit(
        start_script,
        "import pool_tasks as tasks\n"
        "def tell(what):\n"
        "    return lambda future: note('told', f'{what} {future.exception() or future.result()}')\n"
        "pool.submit(same, 1).result()\n"
        "pool.submit(tasks.plan_by_attempt, ['die']).add_done_callback(tell('died'))\n"
        "pool.options(timeout=0.3).submit(tasks.plan_by_attempt, ['hang']).add_done_callback(tell('hung'))\n"
        "pool.submit(tasks.raise_, ValueError(7)).add_done_callback(tell('raised'))\n",
    )
    assert script.wait() == 0
    assert sorted(lines(script.folder / "told")) == ["died 2", "hung 2", "raised 7"]
    assert script.err == ""


def test_an_exception_that_ends_the_main_thread_does_not_cost_pending_work(start_script):
    script = at_exit(start_script, "pool.submit(note, 'ran', 1)\nraise ValueError('mine')")
    assert script.wait() == 1
    assert lines(script.folder / "ran") == ["1"]
    assert script.err.rstrip().endswith("ValueError: mine")


@pytest.mark.parametrize("used", [True, False])
def test_submit_at_exit_raises_a_runtime_error_and_leaks_nothing(start_script, used):
    """From an ``atexit`` function, on a pool that has run something and on one that never has."""
    script = at_exit(
        start_script,
        f"{'pool.submit(same, 1).result()' if used else ''}\n"
        "def last():\n"
        "    try:\n"
        "        pool.submit(same, 2)\n"
        "    except RuntimeError as error:\n"
        "        print(type(error).__name__, error)\n"
        "atexit.register(last)\n",
    )
    assert script.wait() == 0
    assert script.out == "PoolClosed cannot schedule new futures after interpreter shutdown\n"
    assert script.err == ""


def test_a_pool_that_is_made_at_exit_takes_no_tasks_and_does_not_hang(start_script):
    script = at_exit(
        start_script,
        "def last():\n"
        "    try:\n"
        "        ResilientPool(1).submit(same, 2)\n"
        "    except RuntimeError as error:\n"
        "        print(type(error).__name__)\n"
        "atexit.register(last)\n",
    )
    assert script.wait() == 0
    assert script.out in ("PoolClosed\n", "RuntimeError\n")  # the latter by Python itself: no thread can be started
    assert script.err == ""


def test_a_callback_that_submits_at_exit_gets_a_runtime_error_and_nothing_hangs(start_script):
    script = at_exit(
        start_script,
        "def again(future):\n"
        "    try:\n"
        "        pool.submit(same, 2)\n"
        "    except RuntimeError as error:\n"
        "        note('told', type(error).__name__)\n"
        "pool.submit(wait_for, 'go').add_done_callback(again)\n"
        "import threading\n"
        "threading._register_atexit(lambda: note('go', 'now'))\n",
    )
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["PoolClosed"]
    assert script.err == ""


def test_several_pools_and_loky_itself_end_together_at_exit(start_script):
    """loky's own hook must not run before ours, whoever has used loky first."""
    script = at_exit(
        start_script,
        "import loky\n"
        "theirs = loky.get_reusable_executor(max_workers=1)\n"
        "theirs.submit(abs, -1).result()\n"
        "pools = [ResilientPool(1) for _ in range(3)]\n"
        "for number, each in enumerate(pools):\n"
        "    each.submit(note, 'ran', number)\n"
        "theirs.submit(note, 'theirs', 1)\n",
        before="import pool_tasks",
    )
    assert script.wait() == 0
    assert sorted(lines(script.folder / "ran")) == ["0", "1", "2"]
    assert lines(script.folder / "theirs") == ["1"]
    assert script.err == ""


def test_a_dropped_pool_finishes_its_work_and_its_futures_settle(tmp_path):
    go, here, path = str(tmp_path / "go"), str(tmp_path / "here"), str(tmp_path / "ran")
    pool = ResilientPool(1)
    first = pool.submit(tasks.meet, here, go, 1)
    rest = [pool.submit(tasks.note, path, number) for number in range(5)]
    wait_lines(here, 1)
    ref, supervisor = weakref.ref(pool), pool._supervisor
    del pool
    assert is_freed(ref)
    tasks.note(go, "now")
    assert first.result(60) == 1
    assert [future.result(60) for future in rest] == list(range(5))
    assert supervisor.ended.wait(60)


def test_after_shutdown_without_waiting_everything_ends_by_itself(make_pool, tmp_path):
    pool, path = make_pool(2), str(tmp_path / "ran")
    futures = [pool.submit(tasks.note, path, number) for number in range(10)]
    pool.shutdown(wait=False)
    assert sorted(future.result(60) for future in futures) == list(range(10))
    assert pool._supervisor.ended.wait(60)
    assert sorted(map(int, lines(path))) == list(range(10))


# -- children of tasks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_a_task_may_start_a_multiprocessing_process(make_pool, method):
    assert make_pool(1).submit(tasks.child_process, method, 4).result(60) == (8, 0)


def test_a_task_may_use_a_multiprocessing_pool(make_pool):
    assert make_pool(1).submit(tasks.child_pool, 4).result(60) == 8


def test_a_task_may_use_a_pool_of_this_package(make_pool):
    assert make_pool(1).submit(tasks.nested_pool, 4).result(60) == 8


# -- after a crash -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(tasks.CRASHES))
def test_after_a_crash_the_same_pool_goes_on_and_bystanders_lose_nothing(make_pool, tmp_path, how):
    pool = make_pool(2, retry=1)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    bystander = pool.submit(tasks.meet_attempt, here, go)
    wait_lines(here, 1)
    fn, arguments = tasks.CRASHES[how]
    doomed = pool.submit(fn, *arguments)
    waiting = [pool.submit(tasks.same, number) for number in range(5)]
    error = doomed.exception(60)
    assert isinstance(error, WorkerDied)
    assert error.attempt == doomed.attempts == 1
    assert [future.result(60) for future in waiting] == list(range(5))
    tasks.note(go, "now")
    assert bystander.result(60) == (1, int(lines(here)[0]))
    assert list(pool.map(tasks.double, range(5))) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("how", "exitcode", "name"),
    [
        ("sigkill", -signal.SIGKILL, "SIGKILL"),
        ("sigabrt", -signal.SIGABRT, "SIGABRT"),
        ("segfault", -signal.SIGSEGV, "SIGSEGV"),
        ("exit_0", 0, None),
        ("exit_1", 1, None),
    ],
)
def test_the_error_of_a_death_says_how_the_worker_ended(make_pool, how, exitcode, name):
    fn, arguments = tasks.CRASHES[how]
    error = make_pool(1, retry=1).submit(fn, *arguments).exception(60)
    assert (error.exitcode, error.signal) == (exitcode, name)
    assert name is None or name in str(error)


def test_a_worker_that_is_killed_while_it_idles_costs_nobody_anything(make_pool):
    pool = make_pool(1, retry=1)
    for _ in range(3):
        pid = pool.submit(tasks.pid).result(60)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not tasks.alive(pid))
        future = pool.submit(tasks.pid)
        assert future.result(60) != pid
        assert future.attempts == 1


def test_a_pool_survives_many_deaths(make_pool):
    pool = make_pool(2, retry=1)
    futures = [pool.submit(tasks.leave if number % 2 else tasks.same, number) for number in range(24)]
    for number, future in enumerate(futures):
        if number % 2:
            assert future.exception(60).exitcode == number
        else:
            assert future.result(60) == number
            assert future.attempts == 1
