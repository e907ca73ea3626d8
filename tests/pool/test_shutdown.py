"""How a pool ends: every form of shutdown, the ``with`` block, Ctrl-C, the exit of the interpreter."""

from __future__ import annotations

import functools
import os
import signal
import threading

import pool_tasks as tasks
import pytest
from pool_wait import lines, until, wait_lines

import resilient_exec.pool.engine
from resilient_exec import PoolClosed, ResilientPool, TaskKilled
from resilient_exec.core.states import Limits
from resilient_exec.supervisor import loop as supervisor


@pytest.fixture
def busy(lone, tmp_path):
    """A pool with one lane: one task runs, three wait; and a function that lets the first one go."""
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    running = lone.submit(tasks.meet, here, go, "ran")
    waiting = [lone.submit(tasks.same, number) for number in range(3)]
    wait_lines(here, 1)
    return lone, running, waiting, lambda: tasks.note(go, "now")


# -- every form ----------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_everything(busy):
    pool, running, waiting, let_go = busy
    threading.Timer(0.1, let_go).start()
    pool.shutdown()
    assert running.result(0) == "ran"
    assert [future.result(0) for future in waiting] == [0, 1, 2]
    assert pool.snapshot()["lanes"] == []


def test_shutdown_without_waiting_returns_at_once_and_everything_ends(busy):
    pool, running, waiting, let_go = busy
    pool.shutdown(wait=False)
    assert not running.done()
    let_go()
    assert running.result(60) == "ran"
    assert [future.result(60) for future in waiting] == [0, 1, 2]
    assert pool._supervisor.ended.wait(60)


def test_cancel_futures_cancels_what_waits_and_lets_what_runs_end(busy):
    pool, running, waiting, let_go = busy
    threading.Timer(0.1, let_go).start()
    pool.shutdown(cancel_futures=True)
    assert running.result(0) == "ran"
    assert all(future.cancelled() for future in waiting)


def test_cancel_futures_without_waiting(busy):
    pool, running, waiting, let_go = busy
    pool.shutdown(wait=False, cancel_futures=True)
    until(lambda: all(future.cancelled() for future in waiting))
    assert not running.done()
    let_go()
    assert running.result(60) == "ran"


def test_kill_ends_what_runs(busy, tmp_path):
    pool, running, waiting, _ = busy
    pool.shutdown(kill=True)
    error = running.exception(0)
    assert isinstance(error, TaskKilled)
    assert "shutdown(kill=True)" in str(error)
    assert not tasks.alive(int(lines(tmp_path / "here")[0]))
    assert all(future.done() for future in waiting)
    assert all(future.cancelled() or isinstance(future.exception(0), TaskKilled) for future in waiting)


def test_kill_without_waiting(busy):
    pool, running, _, _ = busy
    pool.shutdown(wait=False, kill=True)
    assert isinstance(running.exception(60), TaskKilled)
    assert pool._supervisor.ended.wait(60)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({}, {"wait": False, "kill": True}),
        ({"wait": False}, {"cancel_futures": True}),
        ({"kill": True}, {"kill": True}),
        ({"cancel_futures": True}, {}),
    ],
)
def test_shutdown_twice_is_fine(lone, first, second):
    assert lone.submit(tasks.same, 1).result(60) == 1
    lone.shutdown(**first)
    lone.shutdown(**second)
    with pytest.raises(PoolClosed):
        lone.submit(tasks.same, 2)


def test_a_pool_that_was_never_used_shuts_down(make_pool):
    make_pool(2).shutdown()
    make_pool(2).shutdown(kill=True, cancel_futures=True)
    with make_pool(2):
        pass


def test_a_later_shutdown_may_cancel_and_kill_what_an_earlier_one_left_to_finish(busy):
    pool, running, waiting, _ = busy
    pool.shutdown(wait=False)
    pool.shutdown(wait=False, cancel_futures=True)
    until(lambda: all(future.cancelled() for future in waiting))
    assert not running.done()
    pool.shutdown(kill=True)
    assert isinstance(running.exception(0), TaskKilled)


def test_several_threads_may_shut_down_at_once(busy):
    pool, running, _, let_go = busy
    threads = [threading.Thread(target=pool.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    let_go()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert running.result(0) == "ran"


def test_kill_ends_a_worker_that_is_still_starting(make_pool, tmp_path):
    path = tmp_path / "starts"
    pool = make_pool(1, initializer=tasks.hang_in_initializer, initargs=(str(path),))
    future = pool.submit(tasks.same, 1)
    (pid,) = map(int, wait_lines(path, 1))
    pool.shutdown(kill=True, cancel_futures=True)
    assert future.done()
    assert not tasks.alive(pid)


def test_a_task_that_leaves_a_thread_behind_does_not_keep_the_pool_from_ending(make_pool, monkeypatch):
    monkeypatch.setattr(resilient_exec.pool.engine, "Limits", functools.partial(Limits, stop_timeout=0.5))
    pool = make_pool(1)
    pid = pool.submit(tasks.leave_a_thread).result(60)
    pool.shutdown()
    assert not tasks.alive(pid)


def test_what_a_task_has_started_ends_with_the_pool(make_pool, tmp_path):
    pool, path = make_pool(1), tmp_path / "child"
    pool.submit(tasks.leave_a_child, str(path)).result(60)
    (child,) = map(int, lines(path))
    pool.shutdown()
    until(lambda: not tasks.alive(child))


# -- from inside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_a_callback_may_shut_its_own_pool_down(lone, wait):
    ended = threading.Event()
    future = lone.submit(tasks.same, 1)
    future.add_done_callback(lambda _: (lone.shutdown(wait=wait), ended.set()))
    assert ended.wait(60)
    assert lone._supervisor.ended.wait(60)


def test_an_observer_may_shut_its_own_pool_down(make_pool):
    ended, pools = threading.Event(), []

    def observer(event):
        if event.kind == "settled":
            pools[0].shutdown()
            ended.set()

    pools.append(make_pool(1, observers=[observer]))
    pools[0].submit(tasks.same, 1)
    assert ended.wait(60)


def test_a_blocked_callback_does_not_keep_shutdown_from_returning(make_pool, monkeypatch):
    """Its threads are waited for, but not for ever."""
    monkeypatch.setattr(supervisor, "_JOIN_TIMEOUT", 0.5)
    pool, let_go = make_pool(1), threading.Event()
    pool.submit(tasks.same, 1).add_done_callback(lambda _: let_go.wait())
    try:
        pool.shutdown()
        assert pool._supervisor.ended.is_set()
    finally:
        let_go.set()


def test_shutdown_returns_when_the_callbacks_have_run(make_pool):
    pool, called = make_pool(1), []
    futures = [pool.submit(tasks.same, number) for number in range(30)]
    for future in futures:
        future.add_done_callback(lambda future: called.append(future.result()))
    pool.shutdown()
    assert called == list(range(30))


# -- the with block ------------------------------------------------------------------------------------------------


def test_the_with_block_waits_also_when_it_is_left_by_an_exception(make_pool, tmp_path):
    path = str(tmp_path / "ran")
    with pytest.raises(ZeroDivisionError), make_pool(1) as pool:
        futures = [pool.submit(tasks.note, path, number) for number in range(3)]
        raise ZeroDivisionError
    assert [future.result(0) for future in futures] == [0, 1, 2]


def test_the_with_block_that_is_left_by_keyboard_interrupt_cancels_and_kills(make_pool, tmp_path):
    here = str(tmp_path / "here")
    with pytest.raises(KeyboardInterrupt), make_pool(1) as pool:
        running = pool.submit(tasks.meet, here, str(tmp_path / "never"))
        waiting = pool.submit(tasks.same, 1)
        wait_lines(here, 1)
        raise KeyboardInterrupt
    assert isinstance(running.exception(0), TaskKilled)
    assert waiting.cancelled()


# -- Ctrl-C --------------------------------------------------------------------------------------------------------

WITH = """
    import os, sys
    from resilient_exec import ResilientPool
    import pool_tasks as tasks

    if __name__ == "__main__":
        futures = []
        try:
            with ResilientPool(2) as pool:
                for number in range(2):
                    futures.append(pool.submit({task}, f"here{{number}}", "go"))
                futures.append(pool.submit(tasks.note, "waiting", "ran"))
                {inside}
        except KeyboardInterrupt:
            tasks.note("told", "KeyboardInterrupt")
        for future in futures:
            assert future.done()
            error = None if future.cancelled() else future.exception()
            tasks.note("told", "cancelled" if future.cancelled() else type(error).__name__)
"""


@pytest.mark.parametrize("inside", ["futures[0].result()", "pass"])
def test_ctrl_c_in_or_behind_the_with_block_cancels_what_waits_and_kills_what_runs(start_script, inside):
    script = start_script(WITH.format(task="tasks.meet", inside=inside))
    pids = [int(script.wait_file(f"here{number}")) for number in range(2)]
    script.to_group(signal.SIGINT)
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["KeyboardInterrupt", "TaskKilled", "TaskKilled", "cancelled"]
    assert not any(tasks.alive(pid) for pid in pids)
    assert not (script.folder / "waiting").exists()
    assert script.err == ""


def test_ctrl_c_does_not_reach_the_tasks_when_the_parent_handles_it(start_script):
    """The group gets it, the workers ignore it, the parent goes on."""
    script = start_script("""
        import signal
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, lambda *_: tasks.note("told", "parent"))
            with ResilientPool(2) as pool:
                futures = [pool.submit(tasks.meet, f"here{n}", "go", n) for n in range(2)]
                print([future.result() for future in futures], [future.attempts for future in futures])
    """)
    for number in range(2):
        script.wait_file(f"here{number}")
    script.to_group(signal.SIGINT)
    script.wait_file("told")
    tasks.note(script.folder / "go", "now")
    assert script.wait() == 0
    assert script.out == "[0, 1] [1, 1]\n"


def test_a_second_ctrl_c_ends_a_program_that_drains_after_the_first(start_script):
    """The first one leaves the loop, `shutdown()` waits; the second leaves the wait and kills."""
    script = start_script("""
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        if __name__ == "__main__":
            try:
                with ResilientPool(1) as pool:
                    future = pool.submit(tasks.meet, "here", "go")
                    try:
                        future.result()
                    except KeyboardInterrupt:
                        tasks.note("told", "first")
            except KeyboardInterrupt:
                tasks.note("told", "second")
            tasks.note("told", type(future.exception(0)).__name__)
    """)
    pid = int(script.wait_file("here"))
    script.to_group(signal.SIGINT)
    script.wait_file("told")
    assert tasks.alive(pid)
    script.to_group(signal.SIGINT)
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["first", "second", "TaskKilled"]
    assert not tasks.alive(pid)


@pytest.mark.parametrize("times", [2, 5])
def test_ctrl_c_again_and_again_leaves_no_worker(start_script, times):
    script = start_script(WITH.format(task="tasks.meet_deaf", inside="futures[0].result()"))
    pids = [int(script.wait_file(f"here{number}")) for number in range(2)]
    for _ in range(times):
        script.to_group(signal.SIGINT)
    script.wait()
    until(lambda: not any(tasks.alive(pid) for pid in pids), 20)


def test_ctrl_c_at_the_exit_of_the_interpreter_kills_what_hangs(start_script):
    script = start_script("""
        import threading
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        if __name__ == "__main__":
            pool = ResilientPool(1)
            future = pool.submit(tasks.meet, "here", "never")
            future.add_done_callback(lambda f: tasks.note("told", type(f.exception()).__name__))
            tasks.wait_for("here")
            threading._register_atexit(lambda: tasks.note("exiting", "now"))
    """)
    pid = int(script.wait_file("here"))
    script.wait_file("exiting")
    script.to_group(signal.SIGINT)
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["TaskKilled"]
    assert not tasks.alive(pid)


def test_an_interrupt_that_skips_the_exit_hooks_still_ends_what_hangs(start_script):
    """It came in the wrong moment: before our hook, or between its first lines."""
    script = start_script("""
        import threading
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def interrupt():
            raise KeyboardInterrupt

        if __name__ == "__main__":
            pool = ResilientPool(1)
            future = pool.submit(tasks.meet, "here", "never")
            future.add_done_callback(lambda f: tasks.note("told", type(f.exception()).__name__))
            tasks.wait_for("here")
            threading._register_atexit(interrupt)
    """)
    script.wait()
    assert lines(script.folder / "told") == ["TaskKilled"]


def test_a_hanging_task_holds_the_exit_until_its_timeout_ends_it(start_script):
    script = start_script("""
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        if __name__ == "__main__":
            pool = ResilientPool(1, timeout=1, retry=1)
            pool.submit(tasks.same, 1).result()
            pool.submit(tasks.hang).add_done_callback(lambda f: tasks.note("told", type(f.exception()).__name__))
    """)
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["TaskTimeout"]
    assert script.err == ""


def test_sigterm_of_the_parent_takes_the_workers_along(start_script):
    script = start_script("""
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                pool.submit(tasks.meet, "here", "never").result()
    """)
    pid = int(script.wait_file("here"))
    script.process.terminate()
    assert script.wait() == -signal.SIGTERM
    until(lambda: not tasks.alive(pid), 20)


def test_a_worker_that_is_told_to_end_at_shutdown_ends_by_itself(make_pool):
    """In peace: its own exit functions run, and it is not killed."""
    told = []
    pool = make_pool(1, observers=[told.append])
    pid = pool.submit(tasks.pid).result(60)
    pool.shutdown()
    assert not tasks.alive(pid)
    kinds = [event.kind for event in told]
    assert kinds[-1] == "lane_closed"
    assert "lane_abandoned" not in kinds
    assert os.getpid() != pid
    assert isinstance(pool, ResilientPool)
