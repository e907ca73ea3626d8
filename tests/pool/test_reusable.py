"""``get_reusable_pool``: one warm pool per process, as long as it is asked for in the same way."""

from __future__ import annotations

import math
import os
import threading

import pool_tasks as tasks
import pytest
from ids import stable
from pool_wait import lines, until, wait_lines

from resilient_exec import PoolBroken, PoolClosed, RetryPolicy, WorkerDied, get_reusable_pool
from resilient_exec.pool import reusable


@pytest.fixture(autouse=True)
def none_left():
    yield
    if reusable._kept is not None:
        reusable._kept.shutdown(kill=True, cancel_futures=True)
        reusable._kept = None


def test_the_same_call_gives_the_same_pool_with_its_workers():
    pool = get_reusable_pool(2, timeout=60, retry=RetryPolicy(deaths=1))
    pids = {pool.submit(tasks.pid).result(60) for _ in range(4)}
    again = get_reusable_pool(2, timeout=60, retry=RetryPolicy(deaths=1))
    assert again is pool
    assert {again.submit(tasks.pid).result(60) for _ in range(4)} <= pids


@pytest.mark.parametrize(
    "other",
    [{"max_workers": 2}, {"timeout": 5}, {"retry": 2}, {"idle_timeout": 50}, {"initializer": tasks.initialize}],
    ids=stable,
)
def test_other_arguments_make_another_pool_and_the_first_ends_behind_its_work(tmp_path, other):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    first = get_reusable_pool(1)
    future = first.submit(tasks.meet, here, go, 1)
    (pid,) = map(int, wait_lines(here, 1))
    second = get_reusable_pool(**{"max_workers": 1, **other})
    assert second is not first
    assert second.submit(tasks.same, 2).result(60) == 2
    with pytest.raises(PoolClosed):
        first.submit(tasks.same, 3)
    tasks.note(go, "now")
    assert future.result(60) == 1
    until(lambda: not tasks.alive(pid))


def test_a_pool_that_was_shut_down_is_not_given_again():
    first = get_reusable_pool(1)
    first.shutdown()
    second = get_reusable_pool(1)
    assert second is not first
    assert second.submit(tasks.same, 1).result(60) == 1


def test_a_pool_that_is_broken_is_not_given_again(tmp_path):
    path, ready = tmp_path / "starts", tmp_path / "ready"
    first = get_reusable_pool(1, initializer=tasks.fail_unless, initargs=(str(path), str(ready)))
    assert isinstance(first.submit(tasks.same, 1).exception(60), PoolBroken)
    assert len(lines(path)) == 3
    ready.touch()
    second = get_reusable_pool(1, initializer=tasks.fail_unless, initargs=(str(path), str(ready)))
    assert second is not first
    assert second.submit(tasks.same, 1).result(60) == 1


def test_a_crash_costs_the_warm_pool_a_worker_and_no_more():
    pool = get_reusable_pool(1, retry=1)
    assert isinstance(pool.submit(tasks.kill_self).exception(60), WorkerDied)
    assert get_reusable_pool(1, retry=1) is pool
    assert pool.submit(tasks.same, 1).result(60) == 1


def test_it_ends_when_it_has_idled_and_the_next_call_makes_another():
    first = get_reusable_pool(1, idle_timeout=0.3)
    pid = first.submit(tasks.pid).result(60)
    until(lambda: not tasks.alive(pid))
    with pytest.raises(PoolClosed):
        first.submit(tasks.same, 1)
    second = get_reusable_pool(1, idle_timeout=0.3)
    assert second is not first
    assert second.submit(tasks.same, 1).result(60) == 1


def test_a_task_that_takes_longer_than_the_idle_timeout_is_not_cut_short(tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    pool = get_reusable_pool(1, idle_timeout=0.1)
    future = pool.submit(tasks.meet, here, go, 1)
    wait_lines(here, 1)
    timers = pool._timer
    until(lambda: pool._timer is not timers)  # it has looked at least once, and found the pool at work
    assert get_reusable_pool(1, idle_timeout=0.1) is pool
    tasks.note(go, "now")
    assert future.result(60) == 1
    assert pool._supervisor.ended.wait(60)


def test_a_pool_that_idles_out_while_it_is_asked_for_is_never_handed_out_closed():
    """Asked for at the very moment, again and again: each pool that is given takes a task."""
    for _ in range(15):
        pool = get_reusable_pool(1, idle_timeout=0.02)
        try:
            future = pool.submit(tasks.same, 1)
        except PoolClosed:
            continue  # it ended between the call and the use, as any pool with such a timeout may
        assert future.result(60) == 1


def test_arguments_that_do_not_compare_make_another_pool():
    class Odd:
        def __eq__(self, other):
            raise ValueError("like an array")

        __hash__ = None

    first = get_reusable_pool(1, initializer=tasks.echo, initargs=(Odd(),))
    second = get_reusable_pool(1, initializer=tasks.echo, initargs=(Odd(),))
    assert second is not first
    assert second.submit(tasks.same, 1).result(60) == 1


def test_what_is_pickled_for_it_may_itself_submit_to_it():
    class Submits:
        def __reduce__(self):
            return int, (get_reusable_pool(1).submit(tasks.same, 5).result(60),)

    assert get_reusable_pool(1).submit(tasks.same, Submits()).result(60) == 5


def test_many_threads_get_one_pool():
    got = []
    threads = [threading.Thread(target=lambda: got.append(get_reusable_pool(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, got))) == 1
    assert got[0].submit(tasks.same, 1).result(60) == 1


def test_an_endless_idle_timeout_is_refused():
    with pytest.raises(ValueError, match="idle_timeout must be a finite number"):
        get_reusable_pool(1, idle_timeout=math.inf)


def test_a_forked_child_gets_a_pool_of_its_own_and_the_parents_goes_on(start_script):
    script = start_script("""
        import multiprocessing, os, warnings
        from resilient_exec import get_reusable_pool
        import pool_tasks as tasks
        warnings.simplefilter("ignore")  # that forking with threads is dangerous

        def child():
            pool = get_reusable_pool(1)
            print("child", pool.submit(tasks.same, 2).result(60), flush=True)

        if __name__ == "__main__":
            pool = get_reusable_pool(1)
            pid = pool.submit(tasks.pid).result(60)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join(60)
            print("exit", process.exitcode, flush=True)
            if process.exitcode is None:
                process.kill()
            print("parent", get_reusable_pool(1) is pool, pool.submit(tasks.pid).result(60) == pid)
    """)
    assert script.wait() == 0
    assert script.out.splitlines() == ["child 2", "exit 0", "parent True True"]
    assert script.err == ""


def test_it_ends_behind_its_work_at_the_exit_of_the_interpreter(start_script):
    script = start_script("""
        from resilient_exec import get_reusable_pool
        import pool_tasks as tasks

        if __name__ == "__main__":
            pool = get_reusable_pool(1)
            tasks.note("pid", pool.submit(tasks.pid).result(60))
            for number in range(3):
                pool.submit(tasks.note, "ran", number)
    """)
    assert script.wait() == 0
    assert lines(script.folder / "ran") == ["0", "1", "2"]
    until(lambda: not tasks.alive(int(lines(script.folder / "pid")[0])))
    assert script.err == ""


def test_what_is_changed_in_place_makes_another_pool():
    env, initargs = {"RESILIENT_EXEC_TEST": "1"}, ([1],)
    first = get_reusable_pool(1, env=env, initializer=tasks.same, initargs=initargs)
    assert first.submit(os.getenv, "RESILIENT_EXEC_TEST").result() == "1"
    assert get_reusable_pool(1, env=dict(env), initializer=tasks.same, initargs=([1],)) is first
    env["RESILIENT_EXEC_TEST"] = "2"
    second = get_reusable_pool(1, env=env, initializer=tasks.same, initargs=initargs)
    assert second.submit(os.getenv, "RESILIENT_EXEC_TEST").result() == "2"
    initargs[0].append(2)
    assert get_reusable_pool(1, env=env, initializer=tasks.same, initargs=initargs) is not second


def test_another_observer_makes_another_pool_however_equal_it_is():
    class Recorder(list):
        def __call__(self, event):
            self.append(event)

    first, second = Recorder(), Recorder()
    pool = get_reusable_pool(1, observers=[first.__call__])
    assert get_reusable_pool(1, observers=[first.__call__]) is pool
    assert get_reusable_pool(1, observers=[second.__call__]) is not pool


@pytest.mark.parametrize("wrong", [{"timout": 5}, {"timeout": -1}, {"idle_timeout": 0}, {"initargs": 5}, {"env": 7}])
def test_a_wrong_argument_leaves_the_kept_pool_alone(wrong):
    pool = get_reusable_pool(1)
    with pytest.raises((TypeError, ValueError)):
        get_reusable_pool(**{"max_workers": 1, **wrong})
    assert get_reusable_pool(1) is pool
    assert pool.submit(tasks.same, 1).result() == 1


FORKS = """
import os, sys, threading, warnings
from resilient_exec import ResilientPool, get_reusable_pool
warnings.simplefilter("ignore")  # fork in a process with threads
inside, go_on = threading.Event(), threading.Event()

class Slow:
    def __reduce__(self):
        inside.set()
        go_on.wait()
        return int, ()

if __name__ == "__main__":
    kept = get_reusable_pool(1)
    kept.submit(int).result()
    thread = threading.Thread(target=get_reusable_pool, args=(1,), kwargs={"initializer": print, "initargs": (Slow(),)})
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        print("child", get_reusable_pool(1).submit(int).result(), ResilientPool(1).submit(int).result(), flush=True)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    go_on.set()
    thread.join()
    print("ended", status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_another_thread_is_inside_hangs_nobody(start_script):
    script = start_script(FORKS)
    assert script.wait() == 0, script.err
    assert script.out == "child 0 0\nended 0\n"


SIGNALLED = """
import os, signal, sys
from resilient_exec import PoolBroken, PoolClosed, ResilientPool, get_reusable_pool

def use(*_):
    get_reusable_pool(1).submit(int)
    pool.shutdown(wait=False, kill=True)

if __name__ == "__main__":
    signal.signal(signal.SIGALRM, use)
    for step in range(40):
        pool = ResilientPool(1, preload=("json",))
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (step + 1))
        try:
            pool.preloaded()
            get_reusable_pool(1, timeout=1 + step).submit(int)
            pool.submit(int).result()
        except (PoolBroken, PoolClosed) as error:
            pass
        except BaseException as error:
            if type(error).__name__ not in ("TaskKilled", "CancelledError"):
                raise
        pool.shutdown()
    print("ended")
"""


def test_a_signal_handler_may_call_everything_in_any_moment(start_script):
    script = start_script(SIGNALLED)
    assert script.wait(100) == 0, script.err
    assert script.out == "ended\n"
