"""Attempts to break law 3: nothing in the parent waits without a deadline or a wake-up, and no lane delays another."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import lines, meet_all, until, wait_lines

from resilient_exec import RetryPolicy, TaskTimeout

NOW = RetryPolicy(wait=lambda _: 0.0)  # tried again without a pause

# -- law 3: nothing in the parent waits for ever ----------------------------------------------------------------------


def test_law_3_a_blocked_callback_and_a_blocked_observer_delay_no_lane(make_pool):
    let_go, seen = threading.Event(), threading.Event()

    def observer(_):
        seen.set()
        let_go.wait()

    pool = make_pool(2, observers=[observer], retry=NOW)
    try:
        pool.submit(tasks.same, 0).add_done_callback(lambda _: let_go.wait())
        assert list(pool.map(tasks.double, range(50))) == [2 * number for number in range(50)]
        assert pool.submit(tasks.die_until, 2).result(60)[1] == 2
        assert isinstance(pool.options(timeout=0.2, retry=1).submit(tasks.hang).exception(60), TaskTimeout)
        assert seen.is_set()
    finally:
        let_go.set()


def test_law_3_an_observer_that_prints_to_a_pipe_that_nobody_reads_delays_nobody(start_script):
    read, write = os.pipe()
    try:
        script = start_script(
            """
            import os, sys
            from resilient_exec import ResilientPool
            from pool_tasks import note, same

            def observer(event):
                print("x" * 5000, event, flush=True)

            if __name__ == "__main__":
                with ResilientPool(2, observers=[observer]) as pool:
                    values = list(pool.map(same, range(200)))
                    note("told", values == list(range(200)))
                    os._exit(3)
            """,
            stdout=write,
        )
        assert script.wait_file("told") == "True\n"
        assert script.wait() == 3
    finally:
        os.close(read)
        os.close(write)


def test_law_3_an_observer_that_is_far_behind_loses_events_which_are_counted(make_pool, monkeypatch):
    monkeypatch.setattr("resilient_exec.supervisor.callbacks._BACKLOG", 5)
    let_go, told = threading.Event(), []

    def observer(event):
        let_go.wait()
        told.append(event)

    pool = make_pool(1, observers=[observer])
    try:
        list(pool.map(tasks.same, range(20)))
        until(lambda: pool.snapshot()["dropped_events"] >= 20)
    finally:
        let_go.set()
    pool.shutdown()
    assert [event.kind for event in told][:2] == ["queued", "lane_starting"], "what came first was kept"


def test_law_3_an_observer_that_raises_is_logged_and_told_nothing_more(make_pool, caplog):
    told, all_told = [], []

    def raising(event):
        told.append(event)
        raise SystemExit(3)

    with make_pool(1, observers=[raising, all_told.append]) as pool:
        assert list(pool.map(tasks.same, range(5))) == list(range(5))
    assert len(told) == 1
    assert "is told nothing more" in caplog.text
    assert [event.kind for event in all_told].count("settled") == 5


def test_law_3_a_result_that_hangs_as_it_is_unpickled_holds_only_who_asks_for_it(make_pool):
    """In the parent alone: in the worker it has proved itself."""
    odd.parent_may_go_on.clear()
    pool = make_pool(2, retry=1)
    stuck = pool.submit(odd.make, "HangsInParent")
    asking = threading.Thread(target=stuck.exception)
    asking.start()
    try:
        assert odd.parent_is_stuck.wait(60)
        assert list(pool.map(tasks.double, range(30))) == [2 * number for number in range(30)]
        pool.shutdown()
    finally:
        odd.parent_may_go_on.set()
        odd.parent_is_stuck.clear()
        asking.join()


def test_law_3_a_frozen_worker_delays_no_other_and_is_ended_by_its_timeout(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    here, go = str(tmp_path / "here"), str(tmp_path / "go")
    frozen = pool.options(timeout=1).submit(tasks.meet, here, go)
    (pid,) = map(int, wait_lines(here, 1))
    os.kill(pid, signal.SIGSTOP)
    assert list(pool.map(tasks.double, range(30))) == [2 * number for number in range(30)]
    assert isinstance(frozen.exception(60), TaskTimeout)
    assert not tasks.alive(pid)


@pytest.mark.parametrize("fn", [tasks.hang, tasks.hang_in_c, tasks.ignore_everything])
def test_law_3_a_timeout_holds_against_any_code_and_shows_its_stack(make_pool, fn):
    pool = make_pool(1, retry=1)
    error = pool.options(timeout=0.5).submit(fn).exception(60)
    assert isinstance(error, TaskTimeout)
    assert isinstance(error, TimeoutError)
    assert fn.__name__ in error.stacks
    assert "timeout of 0.5 s" in str(error)
    assert pool.submit(tasks.same, 1).result(60) == 1


def test_law_3_four_timeouts_at_once_are_not_waited_for_one_after_the_other(make_pool, tmp_path):
    pool = make_pool(4, retry=1)
    first, _ = meet_all(pool, tmp_path, 4)  # all four workers are up
    tasks.note(tmp_path / "go", "now")
    concurrent.futures.wait(first)
    limited = pool.options(timeout=0.5)
    futures = [limited.submit(tasks.ignore_everything) for _ in range(4)]
    others = [pool.submit(tasks.same, number) for number in range(4)]
    assert [type(future.exception(60)) for future in futures] == [TaskTimeout] * 4
    assert [future.result(60) for future in others] == [0, 1, 2, 3]
    # The four attempts overlapped: each was begun before the first was ended.
    begun = [event.at for future in futures for event in future.story if event.kind == "begun"]
    doomed = [event.at for future in futures for event in future.story if event.kind == "doomed"]
    assert max(begun) < min(doomed)


def test_law_3_a_large_argument_to_a_frozen_worker_delays_no_other(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    _, (first, second) = meet_all(pool, tmp_path, 2)
    tasks.note(tmp_path / "go", "now")
    os.kill(first, signal.SIGSTOP)
    try:
        large = [pool.options(timeout=30).submit(len, bytes(20_000_000)) for _ in range(2)]
        until(lambda: any(future.done() for future in large))
        assert list(pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
    finally:
        os.kill(first, signal.SIGCONT)
    assert [future.result(60) for future in large] == [20_000_000] * 2
    assert tasks.alive(second)


@pytest.mark.parametrize("stopped", ["parent", "group"])
def test_law_3_a_stopped_parent_kills_nobody_on_waking(start_script, stopped):
    """Stopped for 2 s with attempts under way that have 1 s: those that are quick afterwards are not killed."""
    script = start_script("""
        import os
        from resilient_exec import ResilientPool
        from pool_tasks import meet_attempt, note, same

        if __name__ == "__main__":
            with ResilientPool(2, timeout=1, retry=1) as pool:
                list(pool.map(same, range(4)))
                futures = [pool.submit(meet_attempt, f"here{n}", "go") for n in range(2)]
                note("ready", "yes")
                for future in futures:
                    error = future.exception()
                    note("told", error and type(error).__name__)
                print(list(pool.map(same, range(4))))
    """)
    for name in ("ready", "here0", "here1"):
        script.wait_file(name)
    stop = script.to_group if stopped == "group" else script.process.send_signal
    stop(signal.SIGSTOP)
    time.sleep(2)  # not hoping: this is how long the parent is stopped
    if stopped == "parent":
        tasks.note(script.folder / "go", "now")
    stop(signal.SIGCONT)
    if stopped == "group":
        tasks.note(script.folder / "go", "now")
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["None", "None"]
    assert script.out == "[0, 1, 2, 3]\n"
